//! What a command reads, as far as it was typed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::{ArgMatches, Command};

/// Names of arguments that are places of results.
const OUTPUTS: [&str; 11] = [
    "logging_dir",
    "out",
    "to",
    "output_dir",
    "export",
    "man",
    "cache_to",
    "reference_dir",
    "state",
    "cache_dir",
    "list",
];

static TYPED: OnceLock<Vec<PathBuf>> = OnceLock::new();

/// Keeps what was typed for arguments that name files and folders, but for places of results.
pub fn keep(command: &Command, matches: &ArgMatches) {
    let _ = TYPED.set(found(command, matches));
}

fn found(command: &Command, matches: &ArgMatches) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let (mut command, mut matches) = (command, matches);
    while let Some((name, inner)) = matches.subcommand() {
        let Some(inner_command) = command.find_subcommand(name) else { break };
        (command, matches) = (inner_command, inner);
    }
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let kinds: String =
            arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).collect();
        let is_place = ["DIR", "FILE", "SET", "WEIGHTS"].iter().any(|kind| kinds.contains(kind));
        if OUTPUTS.contains(&id) || !(is_place || arg.is_positional()) {
            continue;
        }
        for value in matches.get_raw(id).into_iter().flatten() {
            found.push(PathBuf::from(value));
            // `NAME=PATH`, and a LoRA with its weight.
            let text = value.to_string_lossy();
            found.extend(text.split_once('=').map(|(_, path)| PathBuf::from(path)));
            found.extend(text.rsplit_once(':').map(|(path, _)| PathBuf::from(path)));
        }
    }
    found
}

/// What was kept.
pub fn typed() -> &'static [PathBuf] {
    TYPED.get().map_or(&[], Vec::as_slice)
}

/// A path without links, and as it is written.
pub fn ways(path: &Path) -> Vec<PathBuf> {
    let written = std::path::absolute(path).ok().filter(|_| path.exists());
    path.canonicalize().ok().into_iter().chain(written).collect()
}

/// Where an input lies, itself and what links in it lead to; empty if it is nowhere.
pub fn reached(input: &Path) -> Vec<PathBuf> {
    // What lies deeper, or in folders of very many files, are images and not models.
    const DEPTH: usize = 3;
    const MOST: usize = 100_000;
    let mut found = ways(input);
    let (mut open, mut n) = (vec![(input.to_owned(), 0)], 0);
    while let Some((folder, depth)) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            n += 1;
            match entry.file_type() {
                _ if n > MOST => return found,
                Ok(kind) if kind.is_symlink() => found.extend(entry.path().canonicalize()),
                Ok(kind) if kind.is_dir() && depth < DEPTH => open.push((entry.path(), depth + 1)),
                _ => {}
            }
        }
    }
    found
}

/// Whether what lies at `inner` below a folder is a part of the model or the run that the folder is.
pub fn is_part(folder: &Path, inner: &Path) -> bool {
    let is_such =
        ["model_index.json", "plan.json", "config.json"].iter().any(|mark| folder.join(mark).is_file());
    let first = inner.iter().next().and_then(|name| name.to_str()).unwrap_or_default();
    let beginnings = ["text_encoder", "tokenizer", "checkpoint-", "pytorch_lora_weights"];
    let names = ["model", "unet", "transformer", "vae", "scheduler", "model.safetensors"];
    is_such && (names.contains(&first) || beginnings.iter().any(|start| first.starts_with(start)))
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn inputs_are_what_was_typed_for_files_and_folders_but_for_results() {
        let merge = Command::new("merge").args([
            Arg::new("model").value_name("MODEL"),
            Arg::new("lora").long("lora").value_name("FILE|DIR|ORG/NAME[:WEIGHT]"),
            Arg::new("scorer").long("scorer").value_name("NAME[=WEIGHTS]"),
            Arg::new("method").long("method").value_name("NAME"),
            Arg::new("output_dir").long("output_dir").value_name("DIR"),
            Arg::new("to").value_name("TO"),
        ]);
        let command = Command::new("x").subcommand(Command::new("model").subcommand(merge));
        let line = "x model merge a --lora b:0.8 --scorer pick-score=c --method sft --output_dir sft d";
        let matches = command.clone().try_get_matches_from(line.split(' ')).unwrap();
        let found = found(&command, &matches);
        for input in ["a", "b", "c"] {
            assert!(found.contains(&PathBuf::from(input)), "{input}");
        }
        assert!(!found.contains(&PathBuf::from("sft")) && !found.contains(&PathBuf::from("d")), "{found:?}");
    }
}
