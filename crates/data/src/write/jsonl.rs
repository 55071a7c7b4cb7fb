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
use super::{Written, each_pair};
use crate::set::PairSet;
use crate::{DataError, PairSource, Side};

/// Images to a folder, so that none holds too many for a file browser.
const IMAGES: usize = 10_000;

/// Writes `metadata.jsonl`, and images byte for byte under numbered names below `images/`. `image_0` wins in every row.
/// Soft labels go along, and prompts as they were typed.
///
/// # Errors
/// [`DataError::Store`] if images cannot be had or the folder cannot be written, [`DataError::Empty`] if not one pair can be read;
/// nothing is then left of the folder.
pub fn jsonl(set: &PairSet, folder: &Path, on_pair: &mut dyn FnMut()) -> Result<Written, DataError> {
    let target = NewFolder::begin(folder)?;
    let list = target.file("metadata.jsonl")?;
    let fail = |e| StoreError::io("write", &list, e);
    let mut out = BufWriter::new(create(&list)?);
    let written = each_pair(set, on_pair, |number, position, images| {
        let mut names = Vec::new();
        for (side, bytes) in Side::BOTH.into_iter().zip(images) {
            let name = format!(
                "images/{:04}/{number:08}-{}.{}",
                number / IMAGES,
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
        Ok(writeln!(out, "{row}").map_err(fail)?)
    })?;
    let file = out.into_inner().map_err(|e| fail(e.into_error()))?;
    file.sync_all().map_err(fail)?;
    target.finish()?;
    Ok(written)
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
