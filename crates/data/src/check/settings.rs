//! What a check is asked.

use super::checks::Kind;

/// What a check needs to know about the training it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Side of the square images in pixels.
    pub resolution: u32,
    /// Fraction of captions that training holds out.
    pub held_out_fraction: f64,
    /// Whether each is held out with that probability by itself, as runs of the first version chose.
    pub is_drawn: bool,
    /// Seed of the training.
    pub seed: u64,
    /// What of captions the text encoder sees; `None` if that is not asked.
    pub caption_tokens: Option<CaptionTokens>,
    /// Threads.
    pub workers: usize,
    /// Whose rows shall be listed in [`Summary::excluded`](super::Summary::excluded).
    pub exclude: Vec<Kind>,
}

/// How long captions are to a text encoder.
#[derive(Debug, Clone, Copy)]
pub struct CaptionTokens {
    /// Tokens of a caption.
    pub count: fn(&str) -> usize,
    /// Tokens that the text encoder reads.
    pub limit: usize,
}

impl PartialEq for CaptionTokens {
    fn eq(&self, other: &Self) -> bool {
        self.limit == other.limit
    }
}

impl CaptionTokens {
    /// Tokens of a caption, if more than that.
    pub fn more(&self, caption: &str) -> Option<usize> {
        // A token is a byte at least.
        let n = if caption.len() > self.limit { (self.count)(caption) } else { 0 };
        (n > self.limit).then_some(n)
    }
}
