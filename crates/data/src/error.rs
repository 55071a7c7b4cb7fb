//! The one error type of this crate.

use std::io::ErrorKind;
use std::path::PathBuf;

use image::ImageError;
use tastemaker_math::nearest::did_you_mean;
use tastemaker_store::StoreError;

use crate::Side;

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
    #[error("{} holds no pairs we can read{}", .path.display(), match .found {
        Some(found) => format!(": {found}"),
        None => format!("; wanted {}", .wanted),
    })]
    UnknownFormat {
        /// The path that was opened.
        path: PathBuf,
        /// What is almost a layout there, and the one change that makes it one.
        found: Option<String>,
        /// The layouts we read, in words.
        wanted: String,
    },
    /// No layout has the name that was asked for.
    #[error("no format {name:?}{}; wanted one of {known}", did_you_mean(.nearest.as_deref()))]
    NoSuchFormat {
        /// What was asked for.
        name: String,
        /// The layout that is called almost so.
        nearest: Option<String>,
        /// The layouts there are.
        known: String,
    },
    /// The columns of a table do not say what is what.
    #[error("{} has the columns {found}: {problem}", .path.display())]
    Columns {
        /// The table.
        path: PathBuf,
        /// Its columns.
        found: String,
        /// What is missing.
        problem: String,
    },
    /// Images with captions, of which nothing says which people like better.
    #[error(
        "{} looks like single images with captions; pairs need two images of each caption, as in docs/guide/data.md, or give --method sft \
         or kto", .path.display()
    )]
    SingleImages {
        /// The table or folder.
        path: PathBuf,
    },
    /// Files of several splits lie together, and mixing them would train on what is for testing.
    #[error("{} holds the splits {splits}; name the files of one, such as {example}", .path.display())]
    Splits {
        /// The folder.
        path: PathBuf,
        /// Names of the splits.
        splits: String,
        /// How to name the files of one.
        example: String,
    },
    /// There is not one pair left to use.
    #[error("{} holds no usable pair: {reason}", .path.display())]
    Empty {
        /// The list or folder.
        path: PathBuf,
        /// Why, in words.
        reason: String,
    },
    /// A cache was made from something else.
    #[error(
        "the cache {} was made from something else: {}; name another folder, or remove this one", .path.display(),
        .differences.join(", ")
    )]
    StaleCache {
        /// Its folder.
        path: PathBuf,
        /// What differs, in words.
        differences: Vec<String>,
    },
    /// What a cache is of cannot be read.
    #[error(
        "{} is damaged: {what}; remove the folder {} to have the cache rebuilt, or choose another --cache_to",
        .path.display(), .path.parent().unwrap_or(.path).display()
    )]
    DamagedKey {
        /// The file.
        path: PathBuf,
        /// What of it.
        what: String,
    },
    /// A file of a cache is not what was written.
    #[error("{} is damaged: {what}; remove the file, and the cache's index.json, to have it rebuilt", .path.display())]
    DamagedCache {
        /// The file or folder.
        path: PathBuf,
        /// What of it.
        what: String,
    },
    /// An image does not decode, or is unreasonably large.
    #[error("the {} of {place} does not decode: {}", .side.name(), .path.display())]
    Image {
        /// Which of the two.
        side: Side,
        /// The pair, as its source counts: `row 7`, or `pair cat`.
        place: String,
        /// The image file.
        path: PathBuf,
        /// The decoder's reason.
        source: Box<ImageError>,
    },
    /// A list of exclusions does not parse.
    #[error("line {line} of {} is {problem}; wanted {wanted}", .path.display())]
    Exclusions {
        /// The list.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
        /// What it should say.
        wanted: &'static str,
    },
    /// A list of exclusions names rows of another set.
    #[error(
        "{} was made for a set with fingerprint {listed}, and {} has {found}; write it again with \
         `tastemaker data check --fix`",
        .path.display(), .set.display()
    )]
    OtherSet {
        /// The list.
        path: PathBuf,
        /// The set.
        set: PathBuf,
        /// The fingerprint that the list states.
        listed: String,
        /// That of the set.
        found: String,
    },
    /// A folder that holds something else than a cache.
    #[error("{} holds other things, such as `{found}`; wanted an empty folder, or a cache with its key.json; choose another cache_to", .path.display())]
    NoCache {
        /// The folder.
        path: PathBuf,
        /// A name in it.
        found: String,
    },
    /// A folder that results cannot go to.
    #[error("{} {problem}; name another folder for the results", .path.display())]
    Output {
        /// The folder.
        path: PathBuf,
        /// What stands against it.
        problem: String,
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

impl DataError {
    /// Why a row is skipped, if this is about an image of it, and not about the way there: a connection that failed says
    /// nothing about a row.
    pub fn skips(&self) -> Option<String> {
        match self {
            Self::Image { side, path, source, .. } => {
                Some(format!("its {} does not decode ({source}): {}", side.name(), path.display()))
            }
            Self::Store(
                error @ (StoreError::Missing { .. }
                | StoreError::Malformed { .. }
                | StoreError::NotUtf8 { .. }),
            ) => Some(error.to_string()),
            Self::Store(StoreError::Io { action: "read", path, source }) => {
                let of_the_file =
                    [ErrorKind::NotFound, ErrorKind::UnexpectedEof, ErrorKind::PermissionDenied];
                let gone = of_the_file.contains(&source.kind());
                gone.then(|| format!("{} cannot be read: {source}", path.display()))
            }
            _ => None,
        }
    }
}
