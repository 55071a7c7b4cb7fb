//! What the VAE holds in memory beside its weights, counted from its configuration: it keeps nothing for a backward pass, so this is
//! what one ResNet block needs where maps are largest.

use super::config::VaeConfig;

impl VaeConfig {
    /// Numbers that encoding an image of this height and width holds at once.
    pub fn held_to_encode(&self, (height, width): (u64, u64)) -> u64 {
        let largest = (0..self.block_out_channels.len()).map(|level| {
            let wide = self.channels(level);
            resnet(self.channels(level.saturating_sub(1)), wide) * (height >> level) * (width >> level)
        });
        largest.max().unwrap_or(0) + self.in_channels as u64 * height * width
    }

    /// Numbers that decoding an image of this height and width holds at once.
    pub fn held_to_decode(&self, (height, width): (u64, u64)) -> u64 {
        let lowest = self.block_out_channels.len() - 1;
        let largest = (0..=lowest).map(|level| {
            let below = self.channels((level + 1).min(lowest));
            resnet(below, self.channels(level)) * (height >> level) * (width >> level)
        });
        largest.max().unwrap_or(0)
    }

    fn channels(&self, level: usize) -> u64 {
        self.block_out_channels[level] as u64
    }
}

/// Maps of a block: what enters, its normalization, and what a convolution makes of that; then what enters, what comes of it on both
/// ways, and their sum.
fn resnet(n_in: u64, n_out: u64) -> u64 {
    let projected = if n_in == n_out { 0 } else { n_out };
    (n_in + n_in.max(n_out) + n_out).max(n_in + 2 * n_out + projected)
}
