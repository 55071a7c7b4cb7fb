//! Reading sets of prompts in the layouts that benchmarks publish.
//!
//! Sources: `PartiPrompts.tsv` of `google-research/parti`, whose cells are not quoted; the benchmark of `tgxs002/HPSv2`, a list
//! of texts per style; `prompts/*.json` of `AIDC-AI/Diffusion-SDPO`; `yuvalkirstain/pickapic_v2`, whose captions repeat.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use csv::{ReaderBuilder, StringRecord};
use serde_json::Value;
use tastemaker_data::formats::read_texts as read_parquet;
use tastemaker_store::tree::{LocalTree, Tree};
use tastemaker_store::{StoreError, json};

use super::columns::{CATEGORY, TEXT, position};
use super::{Prompt, PromptSet};
use crate::GenerateError;

/// The styles of HPSv2's benchmark, 800 prompts each.
pub const HPS_STYLES: [&str; 4] = ["anime", "concept-art", "paintings", "photo"];

/// A prompt with its category, or why the row is skipped.
type Row = Result<(String, Option<String>), String>;

/// A text, of which parts may not be UTF-8.
struct Text {
    text: String,
    is_damaged: bool,
}

impl Text {
    fn read(path: &Path) -> Result<Self, StoreError> {
        let (text, is_damaged) = json::read_text_damaged(path)?;
        Ok(Self { text, is_damaged })
    }

    /// A row of it, unless a part of that is not UTF-8.
    fn whole(&self, row: Row, place: impl Fn() -> String) -> Row {
        match row {
            Ok((text, _)) if self.is_damaged && text.contains('\u{fffd}') => {
                Err(format!("{} is not UTF-8; save it as UTF-8", place()))
            }
            row => row,
        }
    }
}

/// Reads a set of prompts from a file or a folder.
///
/// - `.txt`: a prompt a line, blank lines skipped;
/// - `.tsv` (cells as they are), `.csv` (cells may be quoted): a table with a column `prompt`, `caption` or `text`, and perhaps
///   `category` or `style`;
/// - `.json`: a list of texts or of objects with such fields, or an object with a list per category;
/// - `.jsonl`: such an object or a text a line;
/// - `.parquet`: a table with such a column; captions that repeat are taken once;
/// - a folder: HPSv2's four lists, each a category; or one file of the above; or shards of a parquet table.
///
/// Lists keep prompts that repeat, because the counts that papers report have them. A row that is malformed or not UTF-8 is skipped by
/// name, and keeps its number.
///
/// # Errors
/// [`GenerateError::Prompts`] for what holds no prompts; [`GenerateError::Store`] and [`GenerateError::Data`] for what cannot be read.
pub fn read(path: impl AsRef<Path>) -> Result<PromptSet, GenerateError> {
    let path = path.as_ref();
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let set = if path.is_dir() {
        of_folder(path)?
    } else if extension(path) == "parquet" {
        of_parquet(stem, path)?
    } else if !path.exists() {
        let wanted = "a file or a folder of prompts, or one of the names small, demo, demo:train, demo:held-out and demo:TASK";
        return Err(StoreError::Missing { path: path.to_owned(), wanted: wanted.into() }.into());
    } else {
        match extension(path).to_ascii_lowercase().as_str() {
            // A pipe has no name of its own.
            "txt" | "" => of_lines(stem, &Text::read(path)?),
            "tsv" => of_table(stem, path, &Text::read(path)?, b'\t')?,
            "csv" => of_table(stem, path, &Text::read(path)?, b',')?,
            "json" => of_json(stem, path)?,
            "jsonl" => of_jsonl(stem, path)?,
            _ => {
                return Err(refusal(
                    path,
                    "its name does not end in .txt, .tsv, .csv, .json, .jsonl or .parquet",
                ));
            }
        }
    };
    if set.used().next().is_some() {
        return Ok(set);
    }
    let why = set.skipped.values().next().map_or_else(String::new, |first| format!("; {first}"));
    Err(refusal(path, format!("there is no prompt in it{why}")))
}

/// The built-in table.
pub(super) fn built_in(name: &str, text: &str) -> Result<PromptSet, GenerateError> {
    let text = Text { text: text.to_owned(), is_damaged: false };
    of_table(name, "the built-in prompts".as_ref(), &text, b'\t')
}

fn refusal(path: &Path, what: impl Into<String>) -> GenerateError {
    GenerateError::Prompts { path: path.to_owned(), what: what.into() }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

/// Rows without a prompt are none.
fn of_rows(name: &str, rows: Vec<Row>) -> PromptSet {
    let n_rows = rows.len();
    let said = |category: Option<String>| category.filter(|category| !category.trim().is_empty());
    let is_blank = |row: &Row| row.as_ref().is_ok_and(|(text, _)| text.trim().is_empty());
    let (mut kept, mut skipped) = (Vec::new(), BTreeMap::new());
    for row in rows.into_iter().filter(|row| !is_blank(row)) {
        kept.push(match row {
            Ok((text, category)) => (text, said(category)),
            Err(why) => {
                skipped.insert(kept.len(), why);
                Default::default()
            }
        });
    }
    PromptSet { n_rows, skipped, ..PromptSet::new(name, kept) }
}

/// The lines of a text without the white space around them, blank ones skipped.
fn of_lines(name: &str, text: &Text) -> PromptSet {
    let lines = text.text.lines().map(str::trim).zip(1..).filter(|(line, _)| !line.is_empty());
    let row =
        |(line, number): (&str, usize)| text.whole(Ok((line.to_owned(), None)), || format!("line {number}"));
    of_rows(name, lines.map(row).collect())
}

/// A table whose first line names the columns. Cells of one that is separated by commas may be quoted.
fn of_table(name: &str, path: &Path, text: &Text, delimiter: u8) -> Result<PromptSet, GenerateError> {
    let mut builder = ReaderBuilder::new();
    builder.delimiter(delimiter).quoting(delimiter != b'\t').flexible(true).has_headers(false);
    let broken = |error: csv::Error| refusal(path, error.to_string());
    let (mut columns, mut record) = (StringRecord::new(), StringRecord::new());
    let (mut at, mut line, mut rows, mut category_at) = (0, 1, Vec::new(), None);
    let mut text_at = None;
    while at < text.text.len() {
        let mut reader = builder.from_reader(&text.text.as_bytes()[at..]);
        let (mut end, from) = (text.text.len(), at);
        while reader.read_record(&mut record).map_err(broken)? {
            let begin = from + record.position().map_or(0, |position| position.byte()) as usize;
            let number = line + record.position().map_or(0, |position| position.line()) as usize - 1;
            // Blank lines before it are none of it.
            let whole = &text.text[begin..from + reader.position().byte() as usize];
            let raw = whole.trim_start();
            let (begin, blank) = (begin + whole.len() - raw.len(), &whole[..whole.len() - raw.len()]);
            let number = number + blank.matches('\n').count();
            let place = || format!("line {number}");
            let Some(text_at) = text_at else {
                let Some(found) = position(record.iter(), &TEXT) else {
                    let found: Vec<&str> = record.iter().collect();
                    return Err(refusal(
                        path,
                        format!(
                            "its columns are {}; wanted one called {}",
                            found.join(", "),
                            TEXT.join(", ")
                        ),
                    ));
                };
                (text_at, category_at) = (Some(found), position(record.iter(), &CATEGORY));
                columns = record.clone();
                continue;
            };
            if delimiter == b',' && is_open(raw) {
                // It swallowed the lines after it.
                rows.push(Err(format!("{} opens a quote that is not closed", place())));
                let first = raw.find('\n').map_or(raw.len(), |at| at + 1);
                (end, line) = (begin + first, number + 1);
                break;
            }
            let more = record.iter().skip(columns.len()).filter(|cell| !cell.trim().is_empty()).count();
            if delimiter == b',' && more > 0 {
                let (found, wanted) = (record.len(), columns.len());
                let problem = "cells; put a prompt with commas in quotes; wanted";
                rows.push(Err(format!("{} has {found} {problem} {wanted}, as in the first line", place())));
                continue;
            }
            let cell = |at: usize| record.get(at).map(str::to_owned);
            let row = Ok((cell(text_at).unwrap_or_default(), category_at.and_then(cell)));
            rows.push(text.whole(row, place));
        }
        at = end;
    }
    if text_at.is_none() {
        return Err(refusal(path, format!("it is empty; wanted a column called {}", TEXT.join(", "))));
    }
    Ok(of_rows(name, rows))
}

/// Whether a record of several lines begins a quote that it does not end.
fn is_open(raw: &str) -> bool {
    raw.trim_end().contains('\n') && raw.matches('"').count() % 2 == 1
}

fn of_json(stem: &str, path: &Path) -> Result<PromptSet, GenerateError> {
    let text = Text::read(path)?;
    let value = serde_json::from_str(&text.text)
        .map_err(|source| StoreError::Json { path: path.to_owned(), source })?;
    let item = |(number, item): (usize, &Value)| {
        let place = || format!("item {number} (counted from 0)");
        text.whole(row(item).map_err(|problem| format!("{} {problem}", place())), place)
    };
    match value {
        Value::Array(items) => {
            let mut set = of_rows(stem, items.iter().enumerate().map(item).collect());
            if HPS_STYLES.contains(&stem) {
                set.prompts.iter_mut().enumerate().for_each(|(i, prompt)| name_style(prompt, stem, i));
            }
            Ok(set)
        }
        Value::Object(lists) => {
            let mut rows = Vec::new();
            for (category, list) in &lists {
                let Value::Array(items) = list else {
                    return Err(refusal(path, format!("`{category}` holds no list of prompts")));
                };
                let of_category = |row: Row| match row {
                    Ok((text, _)) => Ok((text, Some(category.clone()))),
                    Err(problem) => Err(format!("`{category}`: {problem}")),
                };
                rows.extend(items.iter().enumerate().map(item).map(of_category));
            }
            Ok(of_rows(stem, rows))
        }
        _ => Err(refusal(path, "it holds neither a list nor an object of lists")),
    }
}

fn of_jsonl(stem: &str, path: &Path) -> Result<PromptSet, GenerateError> {
    let text = Text::read(path)?;
    let lines = text.text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let rows = lines.map(|(line, number)| {
        let place = || format!("line {number}");
        let item = serde_json::from_str(line).map_err(|error| {
            let reason = error.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default();
            format!("{} is not valid JSON: {reason} at column {}", place(), error.column())
        });
        let read = |item: Value| row(&item).map_err(|problem| format!("{} {problem}", place()));
        text.whole(item.and_then(read), place)
    });
    Ok(of_rows(stem, rows.collect()))
}

/// A text, or the fields of an object.
fn row(item: &Value) -> Row {
    let object = match item {
        Value::String(text) => return Ok((text.clone(), None)),
        Value::Object(object) => object,
        _ => return Err("is neither a text nor an object".into()),
    };
    let field = |names: &[&str]| {
        let at = position(object.keys().map(String::as_str), names)?;
        object.values().nth(at)?.as_str().map(str::to_owned)
    };
    let text = field(&TEXT).ok_or_else(|| format!("has no text called {}", TEXT.join(", ")))?;
    Ok((text, field(&CATEGORY)))
}

fn of_parquet(stem: &str, path: &Path) -> Result<PromptSet, GenerateError> {
    let names = ["caption", "prompt", "text", "Prompt"];
    let rows = read_parquet(path, &names)?;
    let n_rows = rows.len();
    let mut seen = HashSet::new();
    let once = rows.into_iter().flatten().filter(|text| !text.trim().is_empty() && seen.insert(text.clone()));
    Ok(PromptSet { n_rows, ..PromptSet::new(stem, once.map(|text| (text, None)).collect::<Vec<_>>()) })
}

fn of_folder(folder: &Path) -> Result<PromptSet, GenerateError> {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or("prompts");
    let lists = HPS_STYLES.map(|style| (style, folder.join(format!("{style}.json"))));
    let there: Vec<_> = lists.into_iter().filter(|(_, list)| list.is_file()).collect();
    if there.is_empty() {
        return of_only_file(folder, name);
    }
    let mut whole = PromptSet::new("hpsv2", []);
    for (style, list) in there {
        let set = of_json(style, &list)?;
        whole.n_rows += set.n_rows;
        let n_before = whole.prompts.len();
        let named = |(number, why)| (n_before + number, format!("{style}.json: {why}"));
        whole.skipped.extend(set.skipped.into_iter().map(named));
        whole.prompts.extend(set.prompts);
    }
    Ok(whole)
}

/// A folder without HPSv2's lists holds one file of prompts, or shards of one table.
fn of_only_file(folder: &Path, name: &str) -> Result<PromptSet, GenerateError> {
    let is_list = |path: &str| ["txt", "tsv", "csv", "json", "jsonl"].contains(&extension(Path::new(path)));
    let entries = LocalTree::new(folder).entries()?;
    let at_top = entries.iter().filter(|entry| !entry.path.contains('/') && is_list(&entry.path));
    let files: Vec<PathBuf> = at_top.map(|entry| folder.join(&entry.path)).collect();
    match files.as_slice() {
        [file] => read(file),
        [] => of_parquet(name, folder),
        _ => Err(refusal(folder, format!("it holds {} lists; name one of them", files.len()))),
    }
}

fn name_style(prompt: &mut Prompt, style: &str, number: usize) {
    prompt.id = format!("{style}/{number:05}");
    prompt.category = Some(style.to_owned());
}
