//! Scoring images, some of them in memory at a time.

use std::ops::Range;

use anyhow::Result;
use image::RgbImage;
use tastemaker_eval::scorers::{Item, Panel};
use tastemaker_torch::error::guard;

/// Images that are read before they are scored, if one forward pass does not take more.
const AT_ONCE: usize = 32;

/// And what they may take, in bytes, before they are scored.
const BYTES_AT_ONCE: usize = 256 << 20;

/// An image to score.
pub struct Loaded {
    /// The image.
    pub image: RgbImage,
    /// Its prompt.
    pub prompt: String,
    /// What to call it when it cannot be scored.
    pub place: String,
}

/// Scores `n` images: `load` gives each by its number, `each` takes the scores of a range of them, `[scorers][images]`.
///
/// # Errors
/// Those of `load`, of `each` and of the scorers, with the place of the image.
pub fn score_each(
    panel: &Panel,
    n: usize,
    mut load: impl FnMut(usize) -> Result<Loaded>,
    mut each: impl FnMut(Range<usize>, Vec<Vec<f64>>) -> Result<()>,
) -> Result<()> {
    let at_once = AT_ONCE.next_multiple_of(panel.batch_size());
    let in_pass = panel.batch_size().min(n);
    let doing = format!("scoring {in_pass} images at once");
    let mut start = 0;
    while start < n {
        let (mut loaded, mut bytes) = (Vec::new(), 0);
        while loaded.len() < at_once && start + loaded.len() < n && bytes < BYTES_AT_ONCE {
            let one = load(start + loaded.len())?;
            bytes += one.image.as_raw().len();
            loaded.push(one);
        }
        let range = start..start + loaded.len();
        let items: Vec<Item<'_>> =
            loaded.iter().map(|one| Item { image: &one.image, prompt: &one.prompt }).collect();
        let scores =
            guard(&doing, "a smaller batch size needs less", || tch::no_grad(|| panel.score(&items)))?;
        let scores = scores.map_err(|error| match error.item().and_then(|item| loaded.get(item)) {
            Some(one) => anyhow::Error::new(error).context(one.place.clone()),
            None => error.into(),
        })?;
        start = range.end;
        each(range, scores)?;
    }
    Ok(())
}
