//! What a pair is, and where pairs come from.

use std::fmt;
use std::ops::Deref;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::budget::Lease;
use crate::transform::Size;
use crate::{DataError, Reason, Skipped};

/// The name of a pair within its source, and the key of its random numbers.
///
/// It does not change when pairs are held out or rows are skipped: it counts rows of the source as given,
/// not of what is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PairId(pub u64);

impl fmt::Display for PairId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which of the two images of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The image people like better.
    Winner,
    /// The other one.
    Loser,
}

impl Side {
    /// Both, the winner first.
    pub const BOTH: [Self; 2] = [Self::Winner, Self::Loser];

    /// `winner` or `loser`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Winner => "winner",
            Self::Loser => "loser",
        }
    }
}

/// The label of a single image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// People like it.
    Liked,
    /// They do not.
    Disliked,
}

/// Decoded images, which count against the memory that all threads share as long as they are held.
#[derive(Debug)]
pub struct Images {
    images: Vec<RgbImage>,
    #[expect(dead_code, reason = "it is held, not read")]
    lease: Option<Lease<'static>>,
}

impl Images {
    pub(crate) fn leased(images: Vec<RgbImage>, lease: Lease<'static>) -> Self {
        Self { images, lease: Some(lease) }
    }

    /// Of winner and loser only one.
    pub fn keep(&mut self, side: Side) {
        let mut at = 0..;
        self.images.retain(|_| at.next() == Some(side as usize));
    }
}

impl Deref for Images {
    type Target = [RgbImage];

    fn deref(&self) -> &[RgbImage] {
        &self.images
    }
}

/// A ranked set of pairs with random access, or a set of single labeled images: then both sides of each entry are its image.
///
/// Positions run over `0..len()`. Opening a source checks everything short of decoding the images; decoding
/// may still fail in [`image`](Self::image).
pub trait PairSource: Send + Sync {
    /// How many pairs there are, without the rows that are skipped. Never 0.
    fn len(&self) -> usize;

    /// Whether there are none; a source that opened never is.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Decodes one image of the pair at a position.
    ///
    /// # Errors
    /// [`DataError::Image`] naming the pair, the side and its file.
    ///
    /// # Panics
    /// If `position` is not below [`len`](Self::len).
    fn image(&self, position: usize, side: Side) -> Result<RgbImage, DataError>;

    /// Decodes images of the pair at a position, which count against [`DECODED`](crate::budget::DECODED) as long as they are
    /// held. Nobody may ask for others meanwhile.
    ///
    /// # Errors
    /// As [`image`](Self::image).
    fn images(&self, position: usize, sides: &[Side]) -> Result<Images, DataError> {
        let decoded = sides.iter().map(|&side| self.image(position, side));
        Ok(Images { images: decoded.collect::<Result<_, _>>()?, lease: None })
    }

    /// Width and height of one image, in pixels; `None` if it cannot be read.
    fn size(&self, position: usize, side: Side) -> Option<Size> {
        Some(self.image(position, side).ok()?.dimensions())
    }

    /// The caption at a position, without decoding.
    fn caption(&self, position: usize) -> &str;

    /// The id at a position, without decoding.
    fn id(&self, position: usize) -> PairId;

    /// How the source itself would name a pair: `row 7`, or `pair cat`.
    fn place(&self, id: PairId) -> String {
        format!("pair {id}")
    }

    /// Probability that the winner at a position is really the better one, from scores; `None` without them.
    fn soft_label(&self, _position: usize) -> Option<f64> {
        None
    }

    /// The label of the single image at a position; `None` where it is a pair. A source has labels at all positions or
    /// at none.
    fn label(&self, _position: usize) -> Option<Label> {
        None
    }

    /// SHA-256 over what the pairs are: whatever was computed from a source with another fingerprint is
    /// stale.
    ///
    /// For sources on disk it covers captions, rankings, labels of single images, file names and file sizes but not file
    /// contents, which may be hundreds of gigabytes: an image edited in place to exactly its old size goes unnoticed. Soft
    /// labels are not in it, since nothing that is encoded depends on them.
    fn fingerprint(&self) -> [u8; 32];

    /// Revision of the code that makes pixels of images, beside their contents; `None` where there are pixels from the start.
    fn decoder(&self) -> Option<u32> {
        None
    }

    /// Whether earlier revisions of it are known to have made the same pixels, all images looked at.
    fn decodes_as_ever(&self) -> bool {
        self.decoder().is_none()
    }

    /// Rows that are not pairs, in order of their ids.
    fn skipped(&self) -> &[Skipped] {
        &[]
    }

    /// Whether the source lists the winner before the loser, `None` where it lists them in no order.
    fn winner_is_listed_first(&self, _position: usize) -> Option<bool> {
        None
    }

    /// How many rows were skipped because neither image won.
    fn n_ties(&self) -> usize {
        self.skipped().iter().filter(|row| row.reason == Reason::Tie).count()
    }
}
