//! `tastemaker score`: scores of images.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde_json::{Map, Value, json};
use tastemaker_data::set::{decode, prompt_of, read_encoded};
use tastemaker_math::intervals::{mean, median};
use tastemaker_store::dtype::DType;
use tastemaker_store::tree::{CAPTION_EXTENSIONS, FileKind, IMAGE_EXTENSIONS, LocalTree, Tree, unread};
use tastemaker_store::{atomic, json as json_files};

use crate::commands::sample::{GRID, OLD_GRID};
use crate::commands::{DeviceFlag, some, word};
use crate::exit::DataFault;
use crate::place::{OverwriteFlag, Place, Written, first_line};
use crate::progress::Work;
use crate::prompts;
use crate::scorers;
use crate::scoring::{Loaded, score_each};

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
    let mut used = Vec::with_capacity(images.len());
    let load = |i: usize| {
        let path = &images[i];
        let bytes = read_encoded(path)?;
        let prompt = prompts.of(i, path, &bytes, panel.needs_prompts())?;
        used.push(prompt.clone());
        let image =
            decode(&bytes).map_err(|error| DataFault(format!("{} is no image: {error}", path.display())))?;
        Ok(Loaded { image, prompt, place: path.display().to_string() })
    };
    score_each(&panel, images.len(), load, |range, more| {
        scores.iter_mut().zip(more).for_each(|(scores, more)| scores.extend(more));
        work.at(range.end as u64, images.len() as u64);
        Ok(())
    })?;
    work.end();
    let rows = Rows { images: &images, prompts: &used, names: &names, scores: &scores };
    if let Some(out) = &args.out {
        let is_table = out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("csv"));
        let text = if is_table { rows.csv()? } else { rows.json_lines() };
        atomic::write_bytes(out, text.as_bytes())?;
    }
    print!("{}", rows.summary());
    if args.out.is_none() {
        eprintln!("next: the same with --out scores.csv, for the score of each image");
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
    listed: Option<Vec<String>>,
    /// By folder, the prompts of its `metadata.jsonl` by file name.
    folders: BTreeMap<PathBuf, BTreeMap<String, String>>,
}

impl Prompts {
    fn new(args: &ScoreArgs, images: &[PathBuf]) -> Result<Self> {
        let listed = args.prompts.as_deref().map(|list| listed(list, images)).transpose()?;
        Ok(Self { for_all: args.prompt.clone(), listed, folders: BTreeMap::new() })
    }

    /// The prompt of the `i`-th image; an empty one where there is none and nobody asks.
    fn of(&mut self, i: usize, path: &Path, bytes: &[u8], is_needed: bool) -> Result<String> {
        if let Some(prompt) = self.for_all.clone().or_else(|| self.listed.as_ref()?.get(i).cloned()) {
            return Ok(prompt);
        }
        let mut beside = CAPTION_EXTENSIONS.iter().map(|extension| path.with_extension(extension));
        if let Some(caption) = beside.find(|path| path.is_file()) {
            return Ok(json_files::read_text(caption)?.trim().to_owned());
        }
        let named = path.file_name().and_then(|name| name.to_str());
        let row = named.map_or(Ok(None), |name| self.row(path, name))?;
        if let Some(prompt) = row.or_else(|| Some(prompt_of(Cursor::new(bytes))?.text)) {
            return Ok(prompt);
        }
        if is_needed {
            let name = path.display();
            return Err(DataFault(format!(
                "{name} has no prompt: give --prompt or --prompts, or write it beside the image as .txt or .caption, or in metadata.jsonl"
            ))
            .into());
        }
        Ok(String::new())
    }

    /// What `metadata.jsonl` in the image's folder says.
    fn row(&mut self, path: &Path, name: &str) -> Result<Option<String>> {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        if !self.folders.contains_key(&folder) {
            let file = folder.join("metadata.jsonl");
            let rows = if file.is_file() { metadata(&file)? } else { BTreeMap::new() };
            self.folders.insert(folder.clone(), rows);
        }
        Ok(self.folders.get(&folder).and_then(|rows| rows.get(name)).cloned())
    }
}

/// File names and prompts of rows as Hugging Face's image folders have them.
fn metadata(file: &Path) -> Result<BTreeMap<String, String>> {
    let text = json_files::read_text(file)?;
    let mut rows = BTreeMap::new();
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row: Map<String, Value> = serde_json::from_str(line)
            .map_err(|error| DataFault(format!("{} line {}: {error}", file.display(), n + 1)))?;
        let text = |keys: &[&str]| keys.iter().find_map(|key| row.get(*key)?.as_str().map(str::to_owned));
        if let (Some(name), Some(prompt)) =
            (text(&["file_name", "image"]), text(&["prompt", "caption", "text"]))
        {
            rows.insert(name, prompt);
        }
    }
    Ok(rows)
}

/// The prompt of each image out of a list.
fn listed(list: &str, images: &[PathBuf]) -> Result<Vec<String>> {
    let lines = prompts::texts(list)?;
    let numbers: Option<Vec<usize>> = images.iter().map(|path| number(path)).collect();
    if let Some(numbers) = numbers.filter(|numbers| numbers.iter().all(|&number| number < lines.len())) {
        return Ok(numbers.into_iter().map(|number| lines[number].clone()).collect());
    }
    if lines.len() != images.len() {
        let (found, wanted) = (lines.len(), images.len());
        return Err(DataFault(format!(
            "{list} has {found} prompts for {wanted} images; wanted as many of both, or images named as `sample` names them"
        ))
        .into());
    }
    Ok(lines)
}

/// The number of the prompt in the name of a generated image, `<number>-<seed>`.
fn number(path: &Path) -> Option<usize> {
    let (number, seed) = path.file_stem()?.to_str()?.split_once('-')?;
    seed.parse::<u64>().ok()?;
    number.parse().ok()
}

/// Everything that was found.
struct Rows<'a> {
    images: &'a [PathBuf],
    prompts: &'a [String],
    names: &'a [String],
    /// `[scorers][images]`.
    scores: &'a [Vec<f64>],
}

impl Rows<'_> {
    fn json_lines(&self) -> String {
        let row = |(i, (image, prompt)): (usize, (&PathBuf, &String))| {
            let mut row = Map::new();
            row.insert("image".into(), json!(image.display().to_string()));
            row.insert("prompt".into(), json!(prompt));
            row.extend(
                self.names.iter().zip(self.scores).map(|(name, scores)| (name.clone(), json!(scores[i]))),
            );
            Value::Object(row).to_string() + "\n"
        };
        self.images.iter().zip(self.prompts).enumerate().map(row).collect()
    }

    fn csv(&self) -> Result<String> {
        let mut table = csv::Writer::from_writer(Vec::new());
        let names = self.names.iter().map(String::as_str);
        table.write_record(["image", "prompt"].into_iter().chain(names))?;
        for (i, (image, prompt)) in self.images.iter().zip(self.prompts).enumerate() {
            let scores = self.scores.iter().map(|scores| scores[i].to_string());
            table.write_record([image.display().to_string(), prompt.clone()].into_iter().chain(scores))?;
        }
        Ok(String::from_utf8(table.into_inner()?)?)
    }

    /// Mean and median of each scorer.
    fn summary(&self) -> String {
        let width = self.names.iter().map(String::len).max().unwrap_or_default().max("scorer".len());
        let mut text = format!("{:width$}  {:>6}  {:>9}  {:>9}  unit\n", "scorer", "n", "mean", "median");
        for (name, scores) in self.names.iter().zip(self.scores) {
            let (mean, median) = (mean(scores).unwrap_or(f64::NAN), median(scores).unwrap_or(f64::NAN));
            let unit = scorers::unit(name);
            text +=
                format!("{name:width$}  {:>6}  {mean:>9.4}  {median:>9.4}  {unit}", scores.len()).trim_end();
            text.push('\n');
        }
        text
    }
}
