//! `tastemaker score`: scores of images.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde_json::{Map, Value, json};
use tastemaker_data::DataError;
use tastemaker_data::set::{prompt_of, read_encoded};
use tastemaker_generate::decode_file;
use tastemaker_math::intervals::{mean, median};
use tastemaker_store::dtype::DType;
use tastemaker_store::tree::{CAPTION_EXTENSIONS, FileKind, IMAGE_EXTENSIONS, LocalTree, Tree, unread};
use tastemaker_store::{atomic, json as json_files};

use crate::commands::sample::{GRID, OLD_GRID};
use crate::commands::{DeviceFlag, some, word};
use crate::exit::DataFault;
use crate::next;
use crate::place::{OverwriteFlag, Place, Written, first_line};
use crate::progress::Work;
use crate::prompts;
use crate::scorers;
use crate::scoring::{Loaded, about_image, image_list, report_unscored, score_each};

/// Scores images for their prompts.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct ScoreArgs {
    /// Images and folders of images; the image grid of `sample` is skipped
    #[arg(value_name = "FILE|DIR", required = true)]
    images: Vec<PathBuf>,
    /// Scorer: pick-score, hps-v2, hps-v2.1, clip-score, aesthetic, image-reward, nearest-art; repeat for several.
    /// NAME=PATH takes other weights: a file, a folder or the name of a fetched model
    #[arg(long, value_name = "NAME[=WEIGHTS]", required = true)]
    scorer: Vec<String>,
    /// Prompt for all images
    #[arg(long, value_name = "TEXT", conflicts_with = "prompts")]
    prompt: Option<String>,
    /// List of prompts as `sample` takes it, matched by number to images named as those of `sample`, else in order [default: the
    /// text file next to an image, its row in metadata.jsonl, or the prompt in its metadata]
    #[arg(long, value_name = "NAME|FILE|DIR|ORG/NAME")]
    prompts: Option<String>,
    /// Output file, a row per image; .csv for CSV, else JSON lines [default: not written]
    #[arg(long, value_name = "FILE", alias = "output_file")]
    out: Option<PathBuf>,
    #[command(flatten)]
    overwrite: OverwriteFlag,
    /// Images per forward pass
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = some)]
    batch_size: usize,
    /// Precision of weights and activations: no (fp32), bf16 or fp16
    #[arg(long, value_name = "TYPE", value_parser = word::<DType>, default_value = "no")]
    mixed_precision: DType,
    #[command(flatten)]
    device: DeviceFlag,
}

/// The file of scores.
const SCORES: Written =
    Written { what: "scores of images", is: |path| first_line(path, &["image", "prompt"]) };

/// Runs the command.
pub fn score(args: &ScoreArgs) -> Result<()> {
    let place = args.out.as_deref().map(|out| Place::file(out, "--out", SCORES));
    let _claim = place.map(|place| place.claim(args.overwrite)).transpose()?;
    let images = images(&args.images)?;
    let mut prompts = Prompts::new(args, &images)?;
    let panel = scorers::open(&args.scorer, args.mixed_precision, args.device.open()?)?
        .with_batch_size(args.batch_size);
    let names = panel.names();
    let mut work = Work::new("scoring", "images");
    let mut scores: Vec<Vec<f64>> = vec![Vec::new(); names.len()];
    let mut used = vec![String::new(); images.len()];
    let mut scored = Vec::new();
    let load = |i: usize| {
        let path = &images[i];
        let read = read_encoded(path).and_then(|bytes| Ok((decode_file(path, &bytes)?, bytes)));
        let (image, bytes) = match about_image(read.map_err(DataError::from))? {
            Ok(read) => read,
            Err(why) => return Ok(Err(why)),
        };
        let prompt = match prompts.of(i, path, &bytes, panel.needs_prompts())? {
            Ok(prompt) => prompt,
            Err(why) => return Ok(Err(why)),
        };
        used[i].clone_from(&prompt);
        Ok(Ok(vec![Loaded { image, prompt, place: path.display().to_string() }]))
    };
    let unscored = score_each(&panel, images.len(), load, |found| {
        scores.iter_mut().zip(found.scores).for_each(|(scores, more)| scores.extend(more));
        scored.extend_from_slice(found.items);
        work.at(found.n_done as u64, images.len() as u64);
        Ok(())
    })?;
    work.end();
    report_unscored(&unscored, (images.len(), "image"));
    if scored.is_empty() {
        return Err(DataFault("none of the images can be scored".into()).into());
    }
    let rows: Vec<(&Path, &str)> = scored.iter().map(|&i| (images[i].as_path(), used[i].as_str())).collect();
    let rows = Rows { images: &rows, names: &names, scores: &scores };
    if let Some(out) = &args.out {
        let is_table = out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("csv"));
        let text = if is_table { rows.csv()? } else { rows.json_lines() };
        atomic::write_bytes(out, text.as_bytes())?;
    }
    print!("{}", rows.summary());
    if args.out.is_none() {
        next::again(&[], &["--out", "scores.csv"]);
    }
    Ok(())
}

/// Images as typed, those of folders in the order of their names.
fn images(typed: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in typed {
        if !path.is_dir() {
            if !path.is_file() {
                return Err(DataFault(format!("there is no image {}", path.display())).into());
            }
            found.push(path.clone());
            continue;
        }
        let mut entries = LocalTree::new(path).entries()?;
        entries.retain(|entry| !entry.path.contains('/'));
        let is_scored =
            |name: &str| FileKind::of_path(name) == FileKind::Image && name != GRID && name != OLD_GRID;
        let inside = entries.iter().filter(|entry| is_scored(&entry.path));
        let n_before = found.len();
        found.extend(inside.map(|entry| path.join(&entry.path)));
        let unread = unread(&entries);
        if found.len() == n_before {
            let wanted = IMAGE_EXTENSIONS.join(", .");
            let others = unread.map_or(String::new(), |unread| format!("; {unread} are not read"));
            return Err(DataFault(format!("{} holds no images (.{wanted}){others}", path.display())).into());
        }
        if let Some(unread) = unread {
            eprintln!("note: {} has images of formats that are not read: {unread}", path.display());
        }
    }
    Ok(found)
}

/// Where prompts come from.
struct Prompts {
    for_all: Option<String>,
    /// Or why the image is skipped.
    listed: Option<Vec<Result<String, String>>>,
    folders: BTreeMap<PathBuf, Listed>,
}

/// What the `metadata.jsonl` of a folder says.
#[derive(Default)]
struct Listed {
    /// By file name.
    prompts: BTreeMap<String, String>,
    /// The first line that is skipped.
    skipped: Option<String>,
}

impl Prompts {
    fn new(args: &ScoreArgs, images: &[PathBuf]) -> Result<Self> {
        let listed = args.prompts.as_deref().map(|list| listed(list, images)).transpose()?;
        Ok(Self { for_all: args.prompt.clone(), listed, folders: BTreeMap::new() })
    }

    /// The prompt of the `i`-th image, or why the image is skipped; an empty one where there is none and nobody asks.
    fn of(&mut self, i: usize, path: &Path, bytes: &[u8], is_needed: bool) -> Result<Result<String, String>> {
        let typed = self.for_all.clone().map(Ok);
        if let Some(prompt) = typed.or_else(|| self.listed.as_ref()?.get(i).cloned()) {
            return Ok(prompt);
        }
        let mut beside = CAPTION_EXTENSIONS.iter().map(|extension| path.with_extension(extension));
        if let Some(caption) = beside.find(|path| path.is_file()) {
            let text = json_files::read_text(caption).map_err(DataError::from);
            return Ok(about_image(text)?.map(|text| text.trim().to_owned()));
        }
        let list = self.list(path.parent().unwrap_or(Path::new("")))?;
        let row = path.file_name().and_then(|name| list.prompts.get(name.to_str()?).cloned());
        if let Some(prompt) = row.or_else(|| Some(prompt_of(Cursor::new(bytes))?.text)) {
            return Ok(Ok(prompt));
        }
        let name = path.display();
        match (is_needed, &list.skipped) {
            (false, _) => Ok(Ok(String::new())),
            (true, Some(line)) => Ok(Err(format!("{name} has no prompt, and its row may be one that is skipped: {line}"))),
            (true, None) => Err(DataFault(format!(
                "{name} has no prompt: give --prompt or --prompts, or write it beside the image as .txt or .caption, or in metadata.jsonl"
            ))
            .into()),
        }
    }

    fn list(&mut self, folder: &Path) -> Result<&Listed> {
        Ok(match self.folders.entry(folder.to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Listed::of(&folder.join("metadata.jsonl"))?),
        })
    }
}

impl Listed {
    fn of(file: &Path) -> Result<Self> {
        if !file.is_file() {
            return Ok(Self::default());
        }
        let list = image_list(file)?;
        let prompts = list.images.into_iter().map(|image| (image.file, image.prompt)).collect();
        Ok(Self { prompts, skipped: list.skipped.into_iter().next() })
    }
}

/// The prompt of each image out of a list, or why the image is skipped.
fn listed(list: &str, images: &[PathBuf]) -> Result<Vec<Result<String, String>>> {
    let set = prompts::find(list)?;
    let of = |(path, number): (&PathBuf, usize)| match set.skipped.get(&number) {
        None => Ok(set.prompts[number].text.clone()),
        Some(why) => Err(format!("{}: its prompt in {list} is skipped: {why}", path.display())),
    };
    let numbers: Option<Vec<usize>> = images.iter().map(|path| number(path)).collect();
    if let Some(numbers) = numbers.filter(|numbers| numbers.iter().all(|&number| number < set.prompts.len()))
    {
        return Ok(images.iter().zip(numbers).map(of).collect());
    }
    if set.prompts.len() != images.len() {
        let (found, wanted) = (set.prompts.len(), images.len());
        return Err(DataFault(format!(
            "{list} has {found} prompts for {wanted} images; wanted as many of both, or images named as `sample` names them"
        ))
        .into());
    }
    Ok(images.iter().zip(0..).map(of).collect())
}

/// The number of the prompt in the name of a generated image, `<number>-<seed>`.
fn number(path: &Path) -> Option<usize> {
    let (number, seed) = path.file_stem()?.to_str()?.split_once('-')?;
    seed.parse::<u64>().ok()?;
    number.parse().ok()
}

/// Everything that was found.
struct Rows<'a> {
    /// Images and their prompts.
    images: &'a [(&'a Path, &'a str)],
    names: &'a [String],
    /// `[scorers][images]`.
    scores: &'a [Vec<f64>],
}

impl Rows<'_> {
    fn json_lines(&self) -> String {
        let row = |(i, (image, prompt)): (usize, &(&Path, &str))| {
            let mut row = Map::new();
            row.insert("image".into(), json!(image.display().to_string()));
            row.insert("prompt".into(), json!(prompt));
            row.extend(
                self.names.iter().zip(self.scores).map(|(name, scores)| (name.clone(), json!(scores[i]))),
            );
            Value::Object(row).to_string() + "\n"
        };
        self.images.iter().enumerate().map(row).collect()
    }

    fn csv(&self) -> Result<String> {
        let mut table = csv::Writer::from_writer(Vec::new());
        let names = self.names.iter().map(String::as_str);
        table.write_record(["image", "prompt"].into_iter().chain(names))?;
        for (i, (image, prompt)) in self.images.iter().enumerate() {
            let scores = self.scores.iter().map(|scores| scores[i].to_string());
            table.write_record(
                [image.display().to_string(), (*prompt).to_owned()].into_iter().chain(scores),
            )?;
        }
        Ok(String::from_utf8(table.into_inner()?)?)
    }

    /// Mean and median of each scorer.
    fn summary(&self) -> String {
        let width = self.names.iter().map(String::len).max().unwrap_or_default().max("scorer".len());
        let mut text = format!("{:width$}  {:>6}  {:>9}  {:>9}  unit\n", "scorer", "n", "mean", "median");
        for (name, scores) in self.names.iter().zip(self.scores) {
            let (mean, median) = (mean(scores).unwrap_or(f64::NAN), median(scores).unwrap_or(f64::NAN));
            let [unit, _] = scorers::introduced(name);
            text +=
                format!("{name:width$}  {:>6}  {mean:>9.4}  {median:>9.4}  {unit}", scores.len()).trim_end();
            text.push('\n');
        }
        text
    }
}
