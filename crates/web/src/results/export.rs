//! Votes in the layouts of others: pairs to train on, rankings, scores, and the votes themselves.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

use image::ImageFormat;
use serde_json::{Value as Json, json};
use tastemaker_data::write::{ExtraColumn, Kind, Row, Shards, Value};
use tastemaker_math::agreement::{Decision, Votes};
use tastemaker_store::StoreError;
use tastemaker_store::atomic::{self, NewFolder};

use super::{Counted, counted};
use crate::WebError;
use crate::study::{ImageSource, Item};
use crate::vote::{Answer, Record};

/// Writes to a place: the votes about one question, with the images of its pairs.
type WriteVotes = fn(&Record, u32, &dyn ImageSource, &Path) -> Result<usize, WebError>;

/// A layout that votes are written in.
pub struct Export {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it makes, in a few words.
    pub makes: &'static str,
    write: WriteVotes,
}

/// Every layout.
pub static EXPORTS: &[Export] = &[
    Export {
        name: "pick-a-pic",
        makes: "data/train-*.parquet with jpg_0, jpg_1, label_0, label_1, caption, soft_label, and votes",
        write: parquet,
    },
    Export { name: "jsonl", makes: "metadata.jsonl with the same columns, and images/", write: list },
    Export {
        name: "hpd",
        makes: "metadata.json with image_path and rank by prompt, as HPDv2's test set",
        write: rankings,
    },
    Export {
        name: "scores",
        makes: "scores.jsonl with the fraction of votes each image won, as ImageReward's",
        write: scores,
    },
    Export { name: "votes", makes: "a JSONL file of every vote that stands, for --import", write: votes },
];

/// Writes votes about a question (by its number) in a layout; how many rows that made. `place` is a folder, of `votes` a file.
///
/// # Errors
/// [`WebError::Study`] if there is no vote; [`WebError::Store`] and [`WebError::Data`] for what cannot be read or written.
pub fn export(
    layout: &Export,
    record: &Record,
    question: u32,
    images: &dyn ImageSource,
    place: &Path,
) -> Result<usize, WebError> {
    let n = (layout.write)(record, question, images, place)?;
    if n == 0 {
        return Err(WebError::Study("there is no vote to write yet".into()));
    }
    Ok(n)
}

/// A pair with its votes, the image that people prefer first.
struct Labeled<'a> {
    item: &'a Item,
    number: u32,
    /// 0 if A comes first, 1 if B does.
    first: usize,
    votes: Votes,
    decision: Decision,
    soft_label: f64,
}

impl Labeled<'_> {
    /// Votes for the first image, ties, votes for the second.
    fn counts(&self) -> [u64; 3] {
        let Votes { first, tie, second } = self.votes;
        if self.first == 0 { [first, tie, second] } else { [second, tie, first] }
    }

    fn labels(&self) -> [f64; 2] {
        if self.decision == Decision::Tie { [0.5, 0.5] } else { [1.0, 0.0] }
    }

    fn sides(&self) -> [usize; 2] {
        [self.first, 1 - self.first]
    }
}

fn labeled<'a>(record: &'a Record, counted: &Counted, question: u32) -> Vec<Labeled<'a>> {
    let items = record.items.iter().zip(0..).filter(|(item, _)| item.known.is_none());
    let labeled = items.filter_map(|(item, number)| {
        let (votes, _) = counted.get(&(number, question))?;
        let fraction = votes.fraction()?;
        let first = usize::from(fraction < 0.5);
        let decision = votes.decision()?;
        Some(Labeled {
            item,
            number,
            first,
            votes: *votes,
            decision,
            soft_label: fraction.max(1.0 - fraction),
        })
    });
    labeled.collect()
}

fn parquet(
    record: &Record,
    question: u32,
    images: &dyn ImageSource,
    folder: &Path,
) -> Result<usize, WebError> {
    let rows = labeled(record, &counted(record), question);
    if rows.is_empty() {
        return Ok(0);
    }
    let mut columns = vec![ExtraColumn::new("soft_label", Kind::Number)];
    columns.extend(["votes_0", "votes_tie", "votes_1"].map(|name| ExtraColumn::new(name, Kind::Integer)));
    columns.extend(["model_0", "model_1", "question"].map(|name| ExtraColumn::new(name, Kind::Text)));
    columns.push(ExtraColumn::new("ranking_id", Kind::Integer));
    let mut shards = Shards::begin(NewFolder::begin(folder)?, "data/", columns);
    for row in &rows {
        let [first, second] = row.sides();
        let mut extra = vec![Value::Number(row.soft_label)];
        extra.extend(row.counts().map(|count| Value::Integer(count as i64)));
        extra.extend([first, second].map(|side| Value::Text(model(record, row.item, side).to_owned())));
        extra.push(Value::Text(record.settings.questions[question as usize].key.clone()));
        extra.push(Value::Integer(i64::from(row.number)));
        shards.push(Row {
            images: [images.read(row.item.images[first])?, images.read(row.item.images[second])?],
            labels: row.labels(),
            caption: prompt(record, row.item).to_owned(),
            has_label: true,
            extra,
        })?;
    }
    shards.finish()?;
    Ok(rows.len())
}

fn list(record: &Record, question: u32, images: &dyn ImageSource, folder: &Path) -> Result<usize, WebError> {
    let rows = labeled(record, &counted(record), question);
    if rows.is_empty() {
        return Ok(0);
    }
    let target = NewFolder::begin(folder)?;
    let mut out = Lines::create(&target, "metadata.jsonl")?;
    for row in &rows {
        let mut names = Vec::new();
        for (side, stem) in row.sides().into_iter().zip(["winner", "loser"]) {
            names.push(put(&target, images, row.item.images[side], &format!("{:08}-{stem}", row.number))?);
        }
        let [votes_0, votes_tie, votes_1] = row.counts();
        let [label_0, label_1] = row.labels();
        let models = row.sides().map(|side| model(record, row.item, side));
        out.line(&json!({
            "image_0": names[0], "image_1": names[1], "caption": prompt(record, row.item),
            "label_0": label_0, "label_1": label_1, "soft_label": row.soft_label,
            "votes_0": votes_0, "votes_tie": votes_tie, "votes_1": votes_1,
            "model_0": models[0], "model_1": models[1], "seed": row.item.seed,
            "question": record.settings.questions[question as usize].key,
        }))?;
    }
    out.finish()?;
    target.finish()?;
    Ok(rows.len())
}

/// How an image of a prompt and seed fared: of each model its image, and the fractions of votes it won.
type ByModel = BTreeMap<u32, (u32, Vec<(f64, u64)>)>;

fn by_image(record: &Record, question: u32) -> BTreeMap<(u32, u64), ByModel> {
    let mut all: BTreeMap<(u32, u64), ByModel> = BTreeMap::new();
    for row in labeled(record, &counted(record), question) {
        let of_prompt = all.entry((row.item.prompt, row.item.seed)).or_default();
        let fraction = row.votes.fraction().unwrap_or(0.5);
        for (side, fraction) in [(0, fraction), (1, 1.0 - fraction)] {
            let of_model =
                of_prompt.entry(row.item.models[side]).or_insert((row.item.images[side], Vec::new()));
            of_model.1.push((fraction, row.votes.n()));
        }
    }
    all
}

fn score(fractions: &[(f64, u64)]) -> f64 {
    fractions.iter().map(|(fraction, _)| fraction).sum::<f64>() / fractions.len().max(1) as f64
}

fn rankings(
    record: &Record,
    question: u32,
    images: &dyn ImageSource,
    folder: &Path,
) -> Result<usize, WebError> {
    let all = by_image(record, question);
    let target = NewFolder::begin(folder)?;
    let mut rows = Vec::new();
    for ((prompt, seed), models) in &all {
        let scores: Vec<f64> = models.values().map(|(_, fractions)| score(fractions)).collect();
        let mut paths = Vec::new();
        for (model, (image, _)) in models {
            paths.push(put(&target, images, *image, &format!("{prompt:06}-{seed}-{model}"))?);
        }
        // 1 is best; equal scores share a rank.
        let rank = |score: &f64| 1 + scores.iter().filter(|other| *other > score).count();
        rows.push(json!({
            "prompt": record.prompts[*prompt as usize].text, "image_path": paths,
            "rank": scores.iter().map(rank).collect::<Vec<_>>(),
            "models": models.keys().map(|model| &record.models[*model as usize]).collect::<Vec<_>>(),
        }));
    }
    let path = target.file("metadata.json")?;
    atomic::write_bytes(&path, format!("{:#}\n", Json::Array(rows)).as_bytes())?;
    target.finish()?;
    Ok(all.len())
}

fn scores(
    record: &Record,
    question: u32,
    images: &dyn ImageSource,
    folder: &Path,
) -> Result<usize, WebError> {
    let all = by_image(record, question);
    let target = NewFolder::begin(folder)?;
    let mut out = Lines::create(&target, "scores.jsonl")?;
    let n = all.values().map(BTreeMap::len).sum();
    for ((prompt, seed), models) in &all {
        for (model, (image, fractions)) in models {
            out.line(&json!({
                "prompt": record.prompts[*prompt as usize].text,
                "image_path": put(&target, images, *image, &format!("{prompt:06}-{seed}-{model}"))?,
                "model": record.models[*model as usize], "seed": seed, "score": score(fractions),
                "n_votes": fractions.iter().map(|(_, n)| n).sum::<u64>(),
                "question": record.settings.questions[question as usize].key,
            }))?;
        }
    }
    out.finish()?;
    target.finish()?;
    Ok(n)
}

fn votes(record: &Record, _: u32, _: &dyn ImageSource, path: &Path) -> Result<usize, WebError> {
    let mut lines = String::new();
    for ballot in &record.ballots {
        let item = &record.items[ballot.task.item as usize];
        let row = json!({
            "voter": record.voters[ballot.voter as usize], "prompt": prompt(record, item),
            "model_a": model(record, item, 0), "model_b": model(record, item, 1), "seed": item.seed,
            "question": record.settings.questions[ballot.task.question as usize].key, "round": ballot.task.round,
            "answer": ballot.answer.map(Answer::name), "a_is_left": ballot.a_is_left, "position": ballot.position,
            "seconds": ballot.seconds, "at": ballot.at,
        });
        lines += &row.to_string();
        lines.push('\n');
    }
    atomic::write_bytes(path, lines.as_bytes())?;
    Ok(record.ballots.len())
}

fn prompt<'a>(record: &'a Record, item: &Item) -> &'a str {
    &record.prompts[item.prompt as usize].text
}

fn model<'a>(record: &'a Record, item: &Item, side: usize) -> &'a str {
    &record.models[item.models[side] as usize]
}

/// Copies an image below `images/`; its name from there.
fn put(target: &NewFolder, images: &dyn ImageSource, image: u32, stem: &str) -> Result<String, WebError> {
    let bytes = images.read(image)?;
    let ending = match image::guess_format(&bytes) {
        Ok(ImageFormat::Jpeg) => "jpg",
        Ok(ImageFormat::WebP) => "webp",
        _ => "png",
    };
    let name = format!("images/{stem}.{ending}");
    let path = target.file(&name)?;
    fs::write(&path, bytes).map_err(|error| StoreError::io("write", &path, error))?;
    Ok(name)
}

/// A list being written, on disk when it is finished.
struct Lines {
    path: std::path::PathBuf,
    out: BufWriter<fs::File>,
}

impl Lines {
    fn create(target: &NewFolder, name: &str) -> Result<Self, StoreError> {
        let path = target.file(name)?;
        let file = fs::File::create(&path).map_err(|error| StoreError::io("write", &path, error))?;
        Ok(Self { path, out: BufWriter::new(file) })
    }

    fn line(&mut self, row: &Json) -> Result<(), StoreError> {
        writeln!(self.out, "{row}").map_err(|error| StoreError::io("write", &self.path, error))
    }

    fn finish(self) -> Result<(), StoreError> {
        let Self { path, out } = self;
        let file = out.into_inner().map_err(|error| error.into_error());
        file.and_then(|file| file.sync_all()).map_err(|error| StoreError::io("write", &path, error))
    }
}
