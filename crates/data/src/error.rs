//! The one error type of this crate.

use std::path::PathBuf;

use image::ImageError;
use tastemaker_store::StoreError;

/// What is wrong with a set of pairs, and where.
///
/// Underlying reasons are in [`source`](std::error::Error::source), so print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file could not be read, or is not UTF-8.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The path holds no layout we know.
    #[error("{} holds no pairs we can read; wanted {wanted}", .path.display())]
    UnknownFormat {
        /// The path that was opened.
        path: PathBuf,
        /// The layouts we read, in words.
        wanted: String,
    },
    /// A row of a list of pairs does not say what it must.
    #[error("{}, row {row}: found {found}; wanted {wanted}", .path.display())]
    Row {
        /// The list.
        path: PathBuf,
        /// The line, counted from 1.
        row: usize,
        /// What it says.
        found: String,
        /// What it should say.
        wanted: String,
    },
    /// Images that the pairs name are not there.
    #[error("{} of the images that {} names are missing: {}", .missing.len(), .path.display(), first(.missing))]
    MissingImages {
        /// The list or folder that names them.
        path: PathBuf,
        /// Where each is named, and the file.
        missing: Vec<(String, PathBuf)>,
    },
    /// A folder pair is incomplete or contradicts itself.
    #[error("{} has {} unusable pairs: {}", .path.display(), .problems.len(), .problems.join("; "))]
    Unpaired {
        /// The folder.
        path: PathBuf,
        /// Each problem, naming its pair.
        problems: Vec<String>,
    },
    /// There is not one pair left to use.
    #[error("{} holds no usable pair: {reason}", .path.display())]
    Empty {
        /// The list or folder.
        path: PathBuf,
        /// Why, in words.
        reason: String,
    },
    /// An image does not decode, or is unreasonably large.
    #[error("the {role} of {place} does not decode: {}", .path.display())]
    Image {
        /// `winner` or `loser`.
        role: &'static str,
        /// The pair, as its source counts: `row 7`, or `pair cat`.
        place: String,
        /// The image file.
        path: PathBuf,
        /// The decoder's reason.
        source: Box<ImageError>,
    },
    /// A ranking of an in-memory set points beyond its images.
    #[error("pair {pair} names image {index} of {n_images}")]
    ImageIndex {
        /// The position of the pair.
        pair: usize,
        /// The index it names.
        index: usize,
        /// How many images there are.
        n_images: usize,
    },
    /// Pixels handed to [`to_rgb`](crate::transform::to_rgb) do not make the stated image.
    #[error("{found} values for an image of {width} x {height}; wanted {}", 3 * *width as usize * *height as usize)]
    PixelCount {
        /// How many values there are.
        found: usize,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A pixel is not a number.
    #[error("pixel value {index} is {value}; wanted a finite number")]
    NonFinitePixel {
        /// Its position in the values.
        index: usize,
        /// What it is.
        value: f32,
    },
}

/// The first few, so that a set with its images elsewhere does not fill the screen.
fn first(missing: &[(String, PathBuf)]) -> String {
    const SHOWN: usize = 5;
    let mut words: Vec<String> =
        missing.iter().take(SHOWN).map(|(place, path)| format!("{place}: {}", path.display())).collect();
    if missing.len() > SHOWN {
        words.push(format!("and {} more", missing.len() - SHOWN));
    }
    words.join("; ")
}
