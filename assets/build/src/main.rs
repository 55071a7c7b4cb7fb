//! `tastemaker-assets`: writes the built part of `assets/demo`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use serde::Serialize;
use tastemaker_assets::art::{self, COLUMNS, IconSet, STYLES};
use tastemaker_assets::captions;
use tastemaker_assets::sources::EMOJIBASE;

/// Remakes the art, captions, safety list and tokenizer of the embedded default.
#[derive(Parser)]
struct Args {
    /// Folder of downloaded packages; what it lacks is fetched with `npm pack`.
    #[arg(long)]
    cache: PathBuf,
    /// Folder to write.
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
    write_json(&args.out.join("captions.json"), &captions)?;
    for set in &sets {
        let cells = captions.iter().map(|caption| set.cell(&caption.code)).collect::<Result<Vec<_>>>()?;
        let bytes = art::png(&art::atlas(&cells, COLUMNS)?)?;
        let path = args.out.join("art").join(format!("{}.png", set.style.name));
        println!("{} {}", path.display(), bytes.len());
        write(&path, &bytes)?;
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).context("encoding JSON")?;
    text.push('\n');
    write(path, text.as_bytes())
}
