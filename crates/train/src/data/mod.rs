//! Where a run gets its batches from: memory, a cache on disk, or pixels.

mod batch;
pub mod cache;
mod cached;
pub mod encode;
mod feed;
pub(crate) mod labels;
mod live;
mod memory;
mod pixels;
mod prefetch;
mod settings;
mod unreadable;

pub(crate) use batch::BatchParts;
pub use batch::{Augmentation, Batch, Use, to_host};
pub use cached::{CacheConditioning, CachedPairs, EncodedShapes};
pub(crate) use feed::chunks;
pub use feed::{FIRST_DRAW, Feed, FeedItem, Order, feed};
pub use live::LivePairs;
pub use memory::{EncodedPair, EncodedPairs};
pub(crate) use pixels::{CropFlip, DecodedPair, decode_pair};
pub use prefetch::prefetch;
pub use settings::EncodeSettings;
pub(crate) use unreadable::unreadable;

use tastemaker_data::transform::Size;
use tastemaker_data::{PairId, Side};
use tch::Device;

use crate::TrainError;

/// What batches are made by.
#[derive(Debug, Clone, Copy)]
pub struct BatchOptions {
    /// Random flips and crops.
    pub augmentation: Augmentation,
    /// Whether losers are wanted.
    pub with_losers: bool,
    /// Where batches go.
    pub device: Device,
}

impl BatchOptions {
    /// The sides that are wanted.
    pub fn sides(&self) -> &'static [Side] {
        if self.with_losers { &Side::BOTH } else { &Side::BOTH[..1] }
    }
}

/// Which of the processes of a run this one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// Its number, from 0.
    pub rank: usize,
    /// How many there are.
    pub world_size: usize,
}

impl Rank {
    /// A process alone.
    pub const ONLY: Self = Self { rank: 0, world_size: 1 };
}

/// A pair that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedPair {
    /// Which.
    pub id: PairId,
    /// What its source calls it.
    pub place: String,
    /// What was found.
    pub detail: String,
}

/// A batch, and what was skipped of it; no batch if nothing remains.
#[derive(Debug)]
pub struct LoadedBatch {
    /// The batch.
    pub batch: Option<Batch>,
    /// Pairs that turned out not to be usable.
    pub skipped: Vec<SkippedPair>,
}

/// Gives batches of pairs by their index in the source. What a batch holds depends on seed, pairs and repetitions alone.
pub trait Pairs {
    /// Stable identity of a pair; random draws are keyed by it.
    fn id(&self, index: usize) -> u64;

    /// The bucket resolution of a pair's images. Only pairs of one resolution go into one batch.
    fn resolution(&self, index: usize) -> Size;

    /// Is called a while before [`batch`](Self::batch) is with the same, so that what is on disk can be on its way.
    fn read_ahead(&self, _uses: &[Use], _options: &BatchOptions) {}

    /// The batch of pairs that share their resolution.
    ///
    /// # Errors
    /// [`TrainError`] if what should be there cannot be read or is damaged.
    fn batch(&self, uses: &[Use], options: &BatchOptions) -> Result<LoadedBatch, TrainError>;
}
