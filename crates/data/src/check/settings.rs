//! What a check is asked.

use super::checks::Kind;

/// What a check needs to know about the training it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Side of the square images in pixels.
    pub resolution: u32,
    /// Fraction of captions that training holds out.
    pub held_out_fraction: f64,
    /// Seed of the training.
    pub seed: u64,
    /// Threads.
    pub workers: usize,
    /// Whose rows shall be listed in [`Summary::excluded`](super::Summary::excluded).
    pub exclude: Vec<Kind>,
}
