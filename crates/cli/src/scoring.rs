//! Scoring images, some of them in memory at a time.

use std::ops::Range;

use anyhow::Result;
use image::RgbImage;
use tastemaker_eval::scorers::{Item, Panel};
use tastemaker_torch::error::guard;

/// Images that are read before they are scored, if one forward pass does not take more.
const AT_ONCE: usize = 32;

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
    for start in (0..n).step_by(at_once) {
        let range = start..n.min(start + at_once);
        let loaded = range.clone().map(&mut load).collect::<Result<Vec<Loaded>>>()?;
        let items: Vec<Item<'_>> =
            loaded.iter().map(|one| Item { image: &one.image, prompt: &one.prompt }).collect();
        let scores =
            guard(&doing, "a smaller batch size needs less", || tch::no_grad(|| panel.score(&items)))?;
        let scores = scores.map_err(|error| match error.item().and_then(|item| loaded.get(item)) {
            Some(one) => anyhow::Error::new(error).context(one.place.clone()),
            None => error.into(),
        })?;
        each(range, scores)?;
    }
    Ok(())
}
