//! Reading sets of prompts in the layouts that benchmarks publish.
//!
//! Sources: `PartiPrompts.tsv` of `google-research/parti`, whose cells are not quoted; the benchmark of `tgxs002/HPSv2`, a list
//! of texts per style; `prompts/*.json` of `AIDC-AI/Diffusion-SDPO`; `yuvalkirstain/pickapic_v2`, whose captions repeat.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use csv::ReaderBuilder;
use serde_json::Value;
use tastemaker_data::formats::read_texts as read_parquet;
use tastemaker_store::tree::{LocalTree, Tree};
use tastemaker_store::{StoreError, json};

use super::columns::{CATEGORY, TEXT, position};
use super::{Prompt, PromptSet};
use crate::GenerateError;

/// The styles of HPSv2's benchmark, 800 prompts each.
pub const HPS_STYLES: [&str; 4] = ["anime", "concept-art", "paintings", "photo"];

type Row = (String, Option<String>);

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
/// Lists keep prompts that repeat, because the counts that papers report have them.
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
            "txt" | "" => PromptSet::new(stem, read_lines(path)?.into_iter().map(|line| (line, None))),
            "tsv" => of_table(stem, path, &json::read_text(path)?, b'\t')?,
            "csv" => of_table(stem, path, &json::read_text(path)?, b',')?,
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
    if set.prompts.is_empty() {
        return Err(refusal(path, "there is no prompt in it"));
    }
    Ok(set)
}

fn refusal(path: &Path, what: impl Into<String>) -> GenerateError {
    GenerateError::Prompts { path: path.to_owned(), what: what.into() }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

/// Rows without a prompt are skipped.
fn of_rows(name: &str, rows: Vec<Row>) -> PromptSet {
    let n_rows = rows.len();
    let said = |category: Option<String>| category.filter(|category| !category.trim().is_empty());
    let kept = rows.into_iter().filter(|(text, _)| !text.trim().is_empty());
    PromptSet { n_rows, ..PromptSet::new(name, kept.map(|(text, category)| (text, said(category)))) }
}

/// The lines of a file without the white space around them, blank ones skipped.
fn read_lines(path: &Path) -> Result<Vec<String>, StoreError> {
    let text = json::read_text(path)?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// A table whose first line names the columns.
pub(super) fn of_table(
    name: &str,
    path: &Path,
    text: &str,
    delimiter: u8,
) -> Result<PromptSet, GenerateError> {
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .quoting(delimiter != b'\t')
        .flexible(true)
        .from_reader(text.as_bytes());
    let broken = |error: csv::Error| refusal(path, error.to_string());
    let columns = reader.headers().map_err(broken)?.clone();
    let Some(text_at) = position(columns.iter(), &TEXT) else {
        let found: Vec<&str> = columns.iter().collect();
        return Err(refusal(
            path,
            format!("its columns are {}; wanted one called {}", found.join(", "), TEXT.join(", ")),
        ));
    };
    let category_at = position(columns.iter(), &CATEGORY);
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let cell = |at: usize| record.get(at).map(str::to_owned);
        rows.push((cell(text_at).unwrap_or_default(), category_at.and_then(cell)));
    }
    Ok(of_rows(name, rows))
}

fn of_json(stem: &str, path: &Path) -> Result<PromptSet, GenerateError> {
    match json::read(path)? {
        Value::Array(items) => {
            let rows = items.iter().enumerate().map(|(i, item)| row(path, i, item));
            let mut set = of_rows(stem, rows.collect::<Result<_, _>>()?);
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
                for (i, item) in items.iter().enumerate() {
                    rows.push((row(path, i, item)?.0, Some(category.clone())));
                }
            }
            Ok(of_rows(stem, rows))
        }
        _ => Err(refusal(path, "it holds neither a list nor an object of lists")),
    }
}

fn of_jsonl(stem: &str, path: &Path) -> Result<PromptSet, GenerateError> {
    let text = json::read_text(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let rows = lines.map(|(i, line)| {
        let item = serde_json::from_str(line).map_err(|error| {
            let reason = error.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default();
            refusal(path, format!("line {} is not valid JSON: {reason} at column {}", i + 1, error.column()))
        })?;
        row(path, i, &item)
    });
    Ok(of_rows(stem, rows.collect::<Result<_, _>>()?))
}

/// A text, or the fields of an object.
fn row(path: &Path, number: usize, item: &Value) -> Result<Row, GenerateError> {
    let found = |what: &str| refusal(path, format!("item {number} (counted from 0) {what}"));
    let object = match item {
        Value::String(text) => return Ok((text.clone(), None)),
        Value::Object(object) => object,
        _ => return Err(found("is neither a text nor an object")),
    };
    let field = |names: &[&str]| {
        let at = position(object.keys().map(String::as_str), names)?;
        object.values().nth(at)?.as_str().map(str::to_owned)
    };
    let text = field(&TEXT).ok_or_else(|| found(&format!("has no text called {}", TEXT.join(", "))))?;
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
