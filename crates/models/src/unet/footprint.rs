//! How many numbers the network keeps between forward and backward, counted from its configuration.
//!
//! Counted are the operands that libtorch keeps for the backward pass: inputs of normalizations, activations and attention,
//! and, where weights are trained, inputs of their products. Tensors that two layers keep are counted once.

use super::config::{BlockKind, UNetConfig};

/// Which parameters are trained, as far as it decides what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainedPart {
    /// Adapters of attention layers: whatever comes before the first of them keeps nothing.
    Adapters,
    /// Every weight.
    Everything,
}

/// Which activations are kept: all, or with gradient checkpointing the inputs of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activations {
    /// Everything the backward pass needs.
    All,
    /// What enters each layer, and the inside of one layer at a time.
    LayerInputs,
}

impl UNetConfig {
    /// Numbers kept per sample, for latents of `height` x `width` and a text of `n_tokens`.
    pub fn kept_for_backward(
        &self,
        (height, width): (u64, u64),
        n_tokens: u64,
        trained: TrainedPart,
        activations: Activations,
    ) -> u64 {
        let n_levels = self.block_out_channels.len();
        let count = Count { config: self, height, width, n_tokens, trained };
        let channels = |level: usize| self.block_out_channels[level] as u64;
        let layers = |level: usize| self.layers_per_block[level] as u64;
        let (mut inside, mut largest, mut inputs) = (0, 0, 0);
        let mut layer = |kept: u64, level: usize, n_in: u64| {
            inside += kept;
            largest = kept.max(largest);
            inputs += n_in * count.positions(level);
        };
        let mut needs_gradient = trained == TrainedPart::Everything;
        for level in 0..n_levels {
            let attends = self.down_blocks[level] == BlockKind::CrossAttention;
            for j in 0..layers(level) {
                let n_in = if j > 0 { channels(level) } else { channels(level.saturating_sub(1)) };
                let resnet = if needs_gradient { count.resnet(level, n_in) } else { 0 };
                needs_gradient |= attends;
                let attention = if attends { count.transformer(level) } else { 0 };
                layer(resnet + attention, level, n_in);
            }
        }
        let lowest = n_levels - 1;
        let resnet = count.resnet(lowest, channels(lowest));
        layer(resnet + count.transformer(lowest), lowest, channels(lowest));
        layer(resnet, lowest, channels(lowest));
        for level in (0..n_levels).rev() {
            let attends = self.up_blocks[lowest - level] == BlockKind::CrossAttention;
            let (below, above) = (channels((level + 1).min(lowest)), channels(level.saturating_sub(1)));
            for j in 0..=layers(level) {
                let n_in = if j == 0 { below } else { channels(level) };
                let skip = if j == layers(level) { above } else { channels(level) };
                let attention = if attends { count.transformer(level) } else { 0 };
                // The skip is an input of the way down, or its last output: counted there.
                layer(count.resnet(level, n_in + skip) + attention, level, n_in);
            }
        }
        // The last normalization and its activation.
        let last = 2 * channels(0) * count.positions(0);
        match activations {
            Activations::All => inside + last,
            Activations::LayerInputs => inputs + largest + last,
        }
    }
}

struct Count<'a> {
    config: &'a UNetConfig,
    height: u64,
    width: u64,
    n_tokens: u64,
    trained: TrainedPart,
}

impl Count<'_> {
    fn positions(&self, level: usize) -> u64 {
        self.height.div_ceil(1 << level) * self.width.div_ceil(1 << level)
    }

    /// Two normalizations and two activations; the inputs of two convolutions where they are trained.
    fn resnet(&self, level: usize, n_in: u64) -> u64 {
        let maps = if self.trained == TrainedPart::Everything { 3 } else { 2 };
        maps * (n_in + self.config.block_out_channels[level] as u64) * self.positions(level)
    }

    /// One attention layer of a level.
    fn transformer(&self, level: usize) -> u64 {
        let width = self.config.block_out_channels[level] as u64;
        let map = width * self.positions(level);
        // Self-attention: input and output of its normalization, queries, keys, values, result, the result again in the
        // order of `to_out`. Cross-attention the same with keys and values of the text. Feed-forward: input of its
        // normalization, both gates (8), the activation (4); where everything is trained, the other two inputs (1 + 4).
        let everything = self.trained == TrainedPart::Everything;
        let maps = 7 + 5 + 1 + 8 + 4 + if everything { 1 + 4 } else { 0 };
        let text = 2 * width * self.n_tokens;
        let blocks = self.config.transformer_layers[level] as u64 * (maps * map + text);
        // The normalization before the blocks, and the projections' inputs where they are trained.
        blocks + map * if everything { 3 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::original::Layout;

    #[test]
    fn what_is_kept_grows_with_the_image_and_with_what_is_trained() {
        for layout in [Layout::Sd1, Layout::Sd2, Layout::Sdxl] {
            let config = layout.published_unet();
            let kept = |side, trained| config.kept_for_backward((side, side), 77, trained, Activations::All);
            let (adapters, everything) = (kept(64, TrainedPart::Adapters), kept(64, TrainedPart::Everything));
            assert!(adapters < everything && everything < 2 * adapters, "{adapters} {everything}");
            let larger = kept(128, TrainedPart::Adapters);
            assert!(larger > 3 * adapters && larger <= 4 * adapters, "{adapters} {larger}");
            let again =
                config.kept_for_backward((64, 64), 77, TrainedPart::Everything, Activations::LayerInputs);
            assert!(3 * again < everything && 20 * again > everything, "{again} {everything}");
        }
    }
}
