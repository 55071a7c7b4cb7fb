//! `tastemaker data relabel`: labels of a set by scorers.

use std::path::{Path, PathBuf};
use tastemaker_store::version;

use anyhow::Result;
use clap::Args;
use serde_json::{Value as Json, json};
use tastemaker_data::formats::OpenSettings;
use tastemaker_data::set::PairSet;
use tastemaker_data::write::{ExtraColumn, Kind, Row, Shards, Value};
use tastemaker_data::{DataError, PairSource, Reason, Side, Skipped, skipped};
use tastemaker_eval::pairing::{Choice, Standard};
use tastemaker_math::intervals::WinCount;
use tastemaker_store::atomic::{self, NewFolder};
use tastemaker_store::checksum::hex;
use tastemaker_store::json;

use super::doubts;
use super::scoring::{Scored, ScoringFlags, score};
use crate::exit::UsageError;
use crate::next;
use crate::pairs::{self, Part, ReadingFlags};
use crate::place::{OverwriteFlag, Place};
use crate::progress::counted;
use crate::scoring::{Loaded, Unscored, about_image};

/// Measures how often scorers agree with the labels of a set, and writes it with theirs in their place.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct RelabelArgs {
    /// Pairs: a folder or file in any layout of docs/guide/data.md, its URL, or the name of a fetched dataset
    set: String,
    #[command(flatten)]
    reading: ReadingFlags,
    #[command(flatten)]
    scoring: ScoringFlags,
    /// Output folder: shards in the layout of Pick-a-Pic, relabel.json about them, and check.jsonl about pairs on which scorers
    /// disagree [default: none; only the agreement is printed]
    #[arg(long, value_name = "DIR", alias = "output_dir")]
    out: Option<PathBuf>,
    #[command(flatten)]
    overwrite: OverwriteFlag,
}

/// What the command writes into its folder.
const OURS: &[&str] = &["relabel.json", "check.jsonl", "data/*.parquet"];

/// Runs the command.
pub fn relabel(args: &RelabelArgs) -> Result<()> {
    let place = args.out.as_deref().map(|out| Place::folder(out, "--out", OURS).marked(&["relabel.json"]));
    let _claim = place.map(|place| place.claim(args.overwrite)).transpose()?;
    let scorers = args.scoring.open()?;
    let scorers = scorers.ok_or_else(|| UsageError("no scorer: give --scorer".into()))?;
    let settings = OpenSettings { ties: true, ..args.reading.settings()? };
    let set = pairs::open(&args.set, Part::default(), &settings)?;
    pairs::report_skipped(&set);
    let load = |position: usize| {
        let loaded = |side: &Side| {
            let image = set.image(position, *side)?;
            let place = set.file(position, *side).display().to_string();
            Ok(Loaded { image, prompt: set.caption(position).to_owned(), place })
        };
        Ok(about_image(Side::BOTH.iter().map(loaded).collect())?)
    };
    let (scored, unscored) = score(&scorers, (set.len(), "pairs"), load)?;
    let readable = readable(&set, &unscored)?;
    let agreements = agreements(&set, &readable, &scored);
    for (name, count) in &agreements {
        println!("{name}: {}", in_words(*count));
    }
    let Some(out) = &args.out else {
        next::again(&[], &["--out", "relabeled"]);
        return Ok(());
    };
    let doubts = doubts::Doubts::of(&set, &readable, &scored, fingerprint(args, &set));
    let (n_pairs, n_ties) = write(&set, &readable, &scored, args, out, &agreements, &doubts)?;
    let ties = match (n_ties, args.scoring.keep_ties) {
        (0, _) => String::new(),
        (n, true) => format!(", {n} of them ties"),
        (n, false) => format!(", {} skipped", counted(n as u64, "tie")),
    };
    println!("wrote {}: {}{ties}", out.display(), counted(n_pairs as u64, "pair"));
    if doubts.n() > 0 {
        println!(
            "scorers disagree with each other or with the label on {}",
            counted(doubts.n() as u64, "pair")
        );
        next::say(&["tastemaker", "curate", &args.set, "--check", &next::word(out)]);
    }
    next::say_train(&next::word(out), "diffusion-dpo", &[]);
    Ok(())
}

/// Of the set as others open it, without ties.
fn fingerprint(args: &RelabelArgs, set: &PairSet) -> [u8; 32] {
    let without = || pairs::open(&args.set, Part::default(), &args.reading.settings().ok()?).ok();
    let has_ties = (0..set.len()).any(|position| set.is_tie(position));
    has_ties.then(without).flatten().map_or(set.opened_fingerprint(), |set| set.opened_fingerprint())
}

/// Positions of the pairs that were scored; the others are named.
///
/// # Errors
/// [`DataError::Empty`] if there are none.
fn readable(set: &PairSet, unscored: &[Unscored]) -> Result<Vec<usize>, DataError> {
    let skipped = unscored.iter().map(|Unscored { item, why }| Skipped {
        id: set.id(*item),
        reason: Reason::BadImage,
        detail: why.as_str().into(),
    });
    let skipped: Vec<Skipped> = skipped.collect();
    pairs::report_rows(set, &skipped);
    let is_scored =
        |position: &usize| unscored.binary_search_by_key(position, |unscored| unscored.item).is_err();
    match unscored.first() {
        Some(first) if unscored.len() == set.len() => {
            let reason =
                format!("all its pairs are skipped: {} ({})", skipped::in_words(&skipped), first.why);
            Err(DataError::Empty { path: set.path().to_owned(), reason })
        }
        _ => Ok((0..set.len()).filter(is_scored).collect()),
    }
}

/// How often each scorer, and all together, agree with the labels that are there.
fn agreements(set: &PairSet, readable: &[usize], scored: &Scored) -> Vec<(String, WinCount)> {
    let labeled: Vec<usize> = (0..readable.len()).filter(|&i| !set.is_tie(readable[i])).collect();
    let count = |scores: &[f64]| {
        let of = |side: usize| labeled.iter().map(|i| scores[2 * i + side]).collect::<Vec<f64>>();
        WinCount::of_scores(&of(0), &of(1))
    };
    let weighed = |(standard, scores): (&Standard, &Vec<f64>)| {
        let sign = standard.weight.signum();
        (standard.name.clone(), count(&scores.iter().map(|score| sign * score).collect::<Vec<f64>>()))
    };
    let mut all: Vec<(String, WinCount)> =
        scored.mixed.standards.iter().zip(&scored.scores).map(weighed).collect();
    if all.len() > 1 {
        all.push(("together".to_owned(), count(&scored.mixed.scores)));
    }
    all
}

fn in_words(count: WinCount) -> String {
    let Some(interval) = count.wilson_95() else { return "no pair has a label to agree with".to_owned() };
    let [estimate, low, high] =
        [interval.estimate, interval.low, interval.high].map(|fraction| 100.0 * fraction);
    let ties =
        if count.ties > 0 { format!(", {} of them ties at one half", count.ties) } else { String::new() };
    format!(
        "agrees with {estimate:.1}% ({low:.1}-{high:.1}) of the labels of {}{ties}",
        counted(count.n(), "pair")
    )
}

/// Writes the set with new labels; says how many pairs, and how many ties there were.
fn write(
    set: &PairSet,
    readable: &[usize],
    scored: &Scored,
    args: &RelabelArgs,
    out: &Path,
    agreements: &[(String, WinCount)],
    doubts: &doubts::Doubts,
) -> Result<(usize, usize)> {
    let RelabelArgs { set: typed, scoring, .. } = args;
    let target = NewFolder::begin(out)?;
    let about_path = target.file("relabel.json")?;
    atomic::write_bytes(target.file("check.jsonl")?, doubts.text(typed).as_bytes())?;
    let typed_prompts = readable.iter().any(|&position| set.original_prompts(position).is_some());
    let mut columns = columns(scored);
    if typed_prompts {
        columns.extend([0, 1].map(|side| ExtraColumn::new(format!("original_prompt_{side}"), Kind::Text)));
    }
    let mut shards = Shards::begin(target, "data/", columns);
    let (mut n_pairs, mut n_ties) = (0, 0);
    for (i, &position) in readable.iter().enumerate() {
        let of = |side: usize| scored.mixed.scores[2 * i + side];
        let (winner, loser) = if of(0) >= of(1) { (0, 1) } else { (1, 0) };
        let is_tie =
            Choice { winner, loser, gap: of(winner) - of(loser) }.is_tie(scoring.min_gap.unwrap_or_default());
        n_ties += usize::from(is_tie);
        if is_tie && !scoring.keep_ties {
            continue;
        }
        n_pairs += 1;
        shards.push(row(set, position, scored, i, (!is_tie).then_some(winner))?)?;
    }
    if n_pairs == 0 {
        let reason = format!("all {n_ties} pairs are ties by these scorers; lower --min_gap");
        return Err(DataError::Empty { path: typed.into(), reason }.into());
    }
    let agreement = |(name, count): &(String, WinCount)| {
        let interval = count.wilson_95();
        json!({
            "scorer": name, "n_pairs": count.n(), "agree": count.wins, "ties": count.ties, "disagree": count.losses,
            "fraction": interval.map(|i| i.estimate), "low": interval.map(|i| i.low), "high": interval.map(|i| i.high),
        })
    };
    let about = json!({
        "format": 2,
        "made_by": format!("tastemaker {} data relabel", version()),
        "from": typed,
        "fingerprint": hex(&set.fingerprint()),
        "scoring": scored.provenance(),
        "min_gap": scoring.min_gap,
        "keep_ties": scoring.keep_ties,
        "agreement_with_old_labels": agreements.iter().map(agreement).collect::<Vec<Json>>(),
        "n_pairs": n_pairs,
        "n_ties": n_ties,
        "n_not_readable": set.len() - readable.len(),
    });
    json::write(&about_path, &about)?;
    shards.finish()?;
    Ok((n_pairs, n_ties))
}

/// A pair as it was listed, with its new labels and its old ones.
fn row(
    set: &PairSet,
    position: usize,
    scored: &Scored,
    number: usize,
    winner: Option<usize>,
) -> Result<Row, DataError> {
    // Sides in the order of the columns: that of the list, where it has one.
    let sides = if set.winner_is_listed_first(position) == Some(false) { [1, 0] } else { [0, 1] };
    let label = |side: usize| winner.map_or(0.5, |winner| if winner == side { 1.0 } else { 0.0 });
    let old = |side: usize| match set.is_tie(position) {
        true => 0.5,
        false => 1.0 - side as f64,
    };
    let mut extra = vec![Value::Integer(set.id(position).0 as i64)];
    extra.extend(sides.map(|side| Value::Number(old(side))));
    extra.push(set.soft_label(position).map_or(Value::Missing, Value::Number));
    extra.extend(scored.cells(sides.map(|side| 2 * number + side)));
    // Missing where the set has no such columns, which are the last.
    let prompts = set.original_prompts(position);
    extra.extend(sides.map(|side| prompts.map_or(Value::Missing, |both| Value::Text(both[side].to_owned()))));
    let [first, second] = sides.map(|side| set.encoded(position, Side::BOTH[side]));
    Ok(Row {
        images: [first?, second?],
        labels: sides.map(label),
        caption: set.caption(position).to_owned(),
        has_label: true,
        extra,
    })
}

fn columns(scored: &Scored) -> Vec<ExtraColumn> {
    let mut columns = vec![
        ExtraColumn::new("row_id", Kind::Integer),
        ExtraColumn::new("old_label_0", Kind::Number),
        ExtraColumn::new("old_label_1", Kind::Number),
        ExtraColumn::new("old_soft_label", Kind::Number),
    ];
    columns.extend(scored.columns());
    columns
}
