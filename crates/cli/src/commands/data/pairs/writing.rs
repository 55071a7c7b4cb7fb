//! The set on disk.

use std::io::Cursor;

use anyhow::{Context, Result};
use image::codecs::jpeg::JpegEncoder;
use tastemaker_data::write::{ExtraColumn, Kind, Row, Shards, Value};
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_store::atomic::NewFolder;

use super::Scored;
use super::generating::{Image, SetFolder};

/// How images are written.
#[derive(Debug, Clone, Copy)]
pub enum Encoding {
    /// As they were generated.
    Png,
    /// Smaller, of this quality.
    Jpeg(u8),
}

/// Who won a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its first image.
    First,
    /// Neither.
    Tie,
    /// Nobody has said so far.
    Unjudged,
    /// Its scores do not bear out that the winning side won.
    Filtered,
}

/// Two images, by their numbers, the winner first if there is one.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// The one.
    pub first: usize,
    /// The other.
    pub second: usize,
    /// Who won.
    pub verdict: Verdict,
}

/// Writes the pairs below the folder. Which of the two images comes first is drawn, so that nothing can be learned from
/// the order.
///
/// # Errors
/// If an image cannot be read or the folder not be written.
pub fn write(
    folder: &SetFolder<'_>,
    images: &[Image],
    pairs: &[Pair],
    scored: Option<&Scored>,
    encoding: Encoding,
    seed: u64,
) -> Result<()> {
    let target = NewFolder::begin(folder.out().join("data"))?;
    let mut shards = Shards::begin(target, "", columns(scored));
    for (number, &Pair { first, second, verdict }) in pairs.iter().enumerate() {
        // Keyed by the images and not by their numbers, so that others do not matter.
        let draw = word(&images[first].uid) ^ word(&images[second].uid).rotate_left(1);
        let is_swapped = Keyed::new(seed, Stream::Data, images[first].prompt as u64, draw).bernoulli(0.5);
        let both = if is_swapped { [second, first] } else { [first, second] };
        let labels = match verdict {
            Verdict::First => both.map(|image| if image == first { 1.0 } else { 0.0 }),
            Verdict::Tie | Verdict::Unjudged | Verdict::Filtered => [0.5, 0.5],
        };
        let best = if verdict == Verdict::First { images[first].uid.as_str() } else { "tie" };
        let text = |text: &str| Value::Text(text.to_owned());
        let mut extra =
            vec![Value::Integer(number as i64), Value::Integer(images[first].prompt as i64), text(best)];
        extra.extend(both.map(|image| text(&images[image].uid)));
        extra.extend(both.map(|image| text(&folder.model_name(&images[image]))));
        extra.extend(both.map(|image| text(folder.unet_hash(images[image].side))));
        extra.extend(both.map(|image| text(&images[image].text)));
        extra.extend(both.map(|image| Value::Integer(images[image].seed as i64)));
        extra.extend(scored.iter().flat_map(|scored| scored.cells(both)));
        shards.push(Row {
            images: [
                encoded(folder, &images[both[0]], encoding)?,
                encoded(folder, &images[both[1]], encoding)?,
            ],
            labels,
            caption: images[first].caption.clone(),
            has_label: verdict != Verdict::Unjudged,
            extra,
        })?;
    }
    Ok(shards.finish()?)
}

/// The first half of an image's uid as a number.
fn word(uid: &str) -> u64 {
    u64::from_str_radix(&uid[..16], 16).unwrap_or_default()
}

/// The columns after those of every set.
fn columns(scored: Option<&Scored>) -> Vec<ExtraColumn> {
    let mut columns = vec![
        ExtraColumn::new("ranking_id", Kind::Integer),
        ExtraColumn::new("prompt_id", Kind::Integer),
        ExtraColumn::new("best_image_uid", Kind::Text),
    ];
    let mut both = |stem: &str, kind| {
        columns.extend([0, 1].map(|side| ExtraColumn::new(stem.replace('#', &side.to_string()), kind)));
    };
    both("image_#_uid", Kind::Text);
    both("model_#", Kind::Text);
    both("unet_sha256_#", Kind::Text);
    both("prompt_#", Kind::Text);
    both("seed_#", Kind::Integer);
    columns.extend(scored.iter().flat_map(|scored| scored.columns()));
    columns
}

fn encoded(folder: &SetFolder<'_>, image: &Image, encoding: Encoding) -> Result<Vec<u8>> {
    let path = folder.path(image);
    let png = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let Encoding::Jpeg(quality) = encoding else { return Ok(png) };
    let image = image::load_from_memory(&png).with_context(|| format!("reading {}", path.display()))?;
    let mut jpeg = Cursor::new(Vec::new());
    JpegEncoder::new_with_quality(&mut jpeg, quality)
        .encode_image(&image.into_rgb8())
        .context("encoding an image as JPEG")?;
    Ok(jpeg.into_inner())
}
