//! A folder of images with a list.
//!
//! Source: `invoke-ai/invoke-training`'s `metadata.jsonl`.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

use image::ImageFormat;
use serde_json::json;
use tastemaker_store::StoreError;
use tastemaker_store::atomic::NewFolder;

use super::shards::create;
use crate::set::PairSet;
use crate::{DataError, PairSource, Side};

/// Images to a folder, so that none holds too many for a file browser.
const IMAGES: usize = 10_000;

/// Writes `metadata.jsonl`, and images byte for byte under numbered names below `images/`. `image_0` wins in every row.
/// Soft labels go along, and prompts as they were typed.
///
/// # Errors
/// [`DataError::Store`] if an image cannot be read, is of no format we read, or the folder cannot be written; nothing is
/// then left of it.
pub fn jsonl(set: &PairSet, folder: &Path, on_pair: &mut dyn FnMut()) -> Result<(), DataError> {
    let target = NewFolder::begin(folder)?;
    let list = target.file("metadata.jsonl")?;
    let fail = |e| StoreError::io("write", &list, e);
    let mut out = BufWriter::new(create(&list)?);
    for position in 0..set.len() {
        let mut names = Vec::new();
        for side in Side::BOTH {
            let bytes = set.encoded(position, side)?;
            let name = format!(
                "images/{:04}/{position:08}-{}.{}",
                position / IMAGES,
                side.name(),
                extension(set, position, side, &bytes)?
            );
            let path = target.file(&name)?;
            fs::write(&path, bytes).map_err(|e| StoreError::io("write", &path, e))?;
            names.push(name);
        }
        let mut row = json!({
            "image_0": names[0], "image_1": names[1], "prompt": set.caption(position),
            "prefer_0": true, "prefer_1": false,
        });
        if let Some(soft_label) = set.soft_label(position) {
            row["soft_label"] = soft_label.into();
        }
        if let Some(prompts) = set.original_prompts(position) {
            row["original_prompt_0"] = prompts[0].into();
            row["original_prompt_1"] = prompts[1].into();
        }
        writeln!(out, "{row}").map_err(fail)?;
        on_pair();
    }
    let file = out.into_inner().map_err(|e| fail(e.into_error()))?;
    file.sync_all().map_err(fail)?;
    Ok(target.finish()?)
}

fn extension(set: &PairSet, position: usize, side: Side, bytes: &[u8]) -> Result<&'static str, DataError> {
    match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => Ok("png"),
        Ok(ImageFormat::Jpeg) => Ok("jpg"),
        Ok(ImageFormat::WebP) => Ok("webp"),
        _ => {
            Err(StoreError::malformed(&set.file(position, side), "no image we read", "PNG, JPEG or WebP")
                .into())
        }
    }
}
