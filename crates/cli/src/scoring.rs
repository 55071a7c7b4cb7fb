//! Scoring images, some of them in memory at a time.

use std::path::Path;

use anyhow::Result;
use image::RgbImage;
use tastemaker_data::DataError;
use tastemaker_data::formats::{ImageList, read_image_list};
use tastemaker_eval::EvalError;
use tastemaker_eval::scorers::{Item as Judged, Panel};
use tastemaker_torch::error::guard;

use crate::progress::counted;

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

/// The images of an item, scored together or not at all, or why they cannot be.
pub type Item = Result<Vec<Loaded>, String>;

/// Scores of items, as they come.
pub struct Scores<'a> {
    /// The items, each as often as it has images.
    pub items: &'a [usize],
    /// `[scorers][images]`.
    pub scores: Vec<Vec<f64>>,
    /// How many items are behind, scored or not.
    pub n_done: usize,
}

/// An item that was not scored, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unscored {
    /// Its number.
    pub item: usize,
    /// With the place of the image.
    pub why: String,
}

/// Scores `n` items: `load` gives the images of each by its number, `each` takes scores as they come. Items of which an image cannot be
/// read or judged are returned.
///
/// # Errors
/// Those of `load`, of `each` and of the scorers, with the place of the image.
pub fn score_each(
    panel: &Panel,
    n: usize,
    mut load: impl FnMut(usize) -> Result<Item>,
    mut each: impl FnMut(Scores<'_>) -> Result<()>,
) -> Result<Vec<Unscored>> {
    let at_once = AT_ONCE.next_multiple_of(panel.batch_size());
    let mut unscored = Vec::new();
    let mut next = 0;
    while next < n {
        let (mut loaded, mut bytes) = (Vec::new(), 0);
        while loaded.len() < at_once && next < n && bytes < BYTES_AT_ONCE {
            match load(next)? {
                Ok(images) => {
                    bytes += images.iter().map(|one| one.image.as_raw().len()).sum::<usize>();
                    loaded.extend(images.into_iter().map(|one| (next, one)));
                }
                Err(why) => unscored.push(Unscored { item: next, why }),
            }
            next += 1;
        }
        let scores = score_all(panel, &mut loaded, &mut unscored)?;
        let items: Vec<usize> = loaded.iter().map(|(item, _)| *item).collect();
        each(Scores { items: &items, scores, n_done: next })?;
    }
    unscored.sort_by_key(|one| one.item);
    Ok(unscored)
}

/// Scores what was loaded; an item with an image that no scorer takes goes to `unscored`.
fn score_all(
    panel: &Panel,
    loaded: &mut Vec<(usize, Loaded)>,
    unscored: &mut Vec<Unscored>,
) -> Result<Vec<Vec<f64>>> {
    while !loaded.is_empty() {
        let items: Vec<Judged<'_>> =
            loaded.iter().map(|(_, one)| Judged { image: &one.image, prompt: &one.prompt }).collect();
        let doing = format!("scoring {} images at once", panel.batch_size().min(items.len()));
        let scores =
            guard(&doing, "a smaller batch size needs less", || tch::no_grad(|| panel.score(&items)))?;
        let error = match scores {
            Ok(scores) => return Ok(scores),
            Err(error) => error,
        };
        let Some((item, one)) = error.item().and_then(|at| loaded.get(at)) else { return Err(error.into()) };
        let EvalError::ImageShape { width, height, longest, .. } = error else {
            return Err(anyhow::Error::new(error).context(one.place.clone()));
        };
        let (item, place) = (*item, &one.place);
        let why = format!(
            "{place} is {width} x {height} pixels; wanted sides that differ by a factor of {longest} at most"
        );
        unscored.push(Unscored { item, why });
        loaded.retain(|(other, _)| *other != item);
    }
    Ok(vec![Vec::new(); panel.names().len()])
}

/// Why an image is skipped, if an error is about that image alone.
///
/// # Errors
/// An error that is about more.
pub fn about_image<T>(read: Result<T, DataError>) -> Result<Result<T, String>, DataError> {
    match read {
        Ok(image) => Ok(Ok(image)),
        Err(error) => error.skips().map(Err).ok_or(error),
    }
}

/// Prints how many of `n` things are skipped, and the first of them.
pub fn report_unscored(unscored: &[Unscored], (n, thing): (usize, &str)) {
    let named = unscored.iter().map(|one| one.why.clone()).collect::<Vec<_>>();
    report(&format!("{} of {}", unscored.len(), counted(n as u64, thing)), &named);
}

/// The list of a folder's images; lines that are skipped are printed.
///
/// # Errors
/// Those of [`read_image_list`].
pub fn image_list(path: &Path) -> Result<ImageList> {
    let list = read_image_list(path)?;
    let lines = counted(list.skipped.len() as u64, "malformed line");
    report(&format!("{lines} of {}", path.display()), &list.skipped);
    Ok(list)
}

/// Prints what is skipped, if anything is, and the first of it by name.
pub fn report(what: &str, named: &[String]) {
    const NAMED: usize = 5;
    if named.is_empty() {
        return;
    }
    eprintln!("note: skipped {what}");
    named.iter().take(NAMED).for_each(|one| eprintln!("note: {one}"));
    if named.len() > NAMED {
        eprintln!("note: and {} more", named.len() - NAMED);
    }
}
