//! `tastemaker-assets`: writes the built part of `assets/demo`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use serde_json::json;
use tastemaker_assets::art::{self, COLUMNS, IconSet, STYLES};
use tastemaker_assets::captions::{self, Caption};
use tastemaker_assets::manifest::{self, FileEntry};
use tastemaker_assets::sources::EMOJIBASE;
use tastemaker_assets::{bpe, safety};

/// How often a label counts for each time a tag does, so that labels become short sequences.
const LABEL_WEIGHT: u64 = 4;
/// Length of every token sequence, special tokens included.
const MAX_TOKENS: usize = 16;
/// License of what is derived from emojibase alone.
const TEXT_LICENSE: &str = EMOJIBASE.license;

/// Remakes the art, captions, safety list and tokenizer of the embedded default.
#[derive(Parser)]
struct Args {
    /// Folder of downloaded packages; what it lacks is fetched with `npm pack`.
    #[arg(long)]
    cache: PathBuf,
    /// Folder to write. Its `LICENSES` must exist: the manifest lists them.
    #[arg(long, default_value = "assets/demo")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let emojibase = EMOJIBASE.open(&args.cache)?;
    let (data, groups) = (emojibase.json("en/data.json")?, emojibase.json("meta/groups.json")?);
    let mut sets = Vec::new();
    for style in STYLES {
        let tarball = style.source.open(&args.cache)?;
        sets.push(IconSet::new(*style, tarball.json("icons.json")?, &tarball.json("chars.json")?)?);
    }
    let captions = captions::list(&data, &groups, &sets)?;
    let labels: BTreeSet<&str> = captions.iter().map(|caption| caption.label.as_str()).collect();
    ensure!(labels.len() == captions.len(), "two captions share a label");
    let sign = captions::find(&data, &groups, safety::SIGN)?;

    let mut files = write_texts(&args.out, &captions, &sign)?;
    for set in &sets {
        let codes = captions.iter().map(|caption| caption.code.as_str());
        files.push(write_atlas(&args.out, set, set.style.name, codes, COLUMNS)?);
        files.push(write_atlas(&args.out, set, &format!("{}-extra", set.style.name), [safety::SIGN], 1)?);
    }
    files.extend(licenses(&args.out)?);
    for file in &files {
        println!("{:>9}  {}", file.bytes, file.path);
    }
    write_json(&args.out, "manifest.json", &manifest::of(files))
}

/// Writes the captions, the safety list and the tokenizer folder.
fn write_texts(out: &Path, captions: &[Caption], sign: &Caption) -> Result<Vec<FileEntry>> {
    write_json(out, "captions.json", &captions)?;
    write_json(out, "safety.json", &safety::list(captions, sign)?)?;

    let weighted = captions.iter().chain([sign]).flat_map(|caption| {
        let tags = caption.tags.iter().map(|tag| (tag.as_str(), 1));
        tags.chain([(caption.label.as_str(), LABEL_WEIGHT)])
    });
    let bpe = bpe::learn(weighted)?;
    write(out, "tokenizer/vocab.json", bpe.vocab_json()?.as_bytes())?;
    write(out, "tokenizer/merges.txt", bpe.merges_txt().as_bytes())?;
    let config = json!({
        "add_prefix_space": false,
        "bos_token": bpe::START,
        "do_lower_case": true,
        "eos_token": bpe::END,
        "errors": "replace",
        "model_max_length": MAX_TOKENS,
        "pad_token": bpe::END,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": bpe::END,
    });
    write_json(out, "tokenizer/tokenizer_config.json", &config)?;
    let special = json!({
        "bos_token": bpe::START,
        "eos_token": bpe::END,
        "pad_token": bpe::END,
        "unk_token": bpe::END,
    });
    write_json(out, "tokenizer/special_tokens_map.json", &special)?;

    let names = ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"];
    ["captions.json".to_owned(), "safety.json".to_owned()]
        .into_iter()
        .chain(names.map(|name| format!("tokenizer/{name}")))
        .map(|path| manifest::measure(out, &path, &[EMOJIBASE.package], TEXT_LICENSE))
        .collect()
}

fn write_atlas<'a>(
    out: &Path,
    set: &IconSet,
    stem: &str,
    codes: impl IntoIterator<Item = &'a str>,
    columns: u32,
) -> Result<FileEntry> {
    let cells = codes.into_iter().map(|code| set.cell(code)).collect::<Result<Vec<_>>>()?;
    let path = format!("art/{stem}.png");
    write(out, &path, &art::png(&art::atlas(&cells, columns)?)?)?;
    manifest::measure(out, &path, &[set.style.source.package], set.style.source.license)
}

/// Lists the upstream license texts, which are kept by hand.
fn licenses(out: &Path) -> Result<Vec<FileEntry>> {
    let folder = out.join("LICENSES");
    let mut names = fs::read_dir(&folder)
        .with_context(|| format!("listing {}", folder.display()))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    names
        .iter()
        .map(|name| manifest::measure(out, &format!("LICENSES/{name}"), &[], "LicenseRef-verbatim-text"))
        .collect()
}

fn write(out: &Path, path: &str, bytes: &[u8]) -> Result<()> {
    let path = out.join(path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
}

fn write_json<T: Serialize>(out: &Path, path: &str, value: &T) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).with_context(|| format!("encoding {path}"))?;
    text.push('\n');
    write(out, path, text.as_bytes())
}
