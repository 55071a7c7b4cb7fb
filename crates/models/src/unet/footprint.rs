//! What the network holds in memory beside its weights while it is trained, counted from its configuration.
//!
//! Kept are the operands of the backward pass: inputs of normalizations, activations and attention, and, where weights are trained,
//! inputs of their products. Tensors that two layers keep are counted once. Beside that the backward pass needs room for gradients of
//! activations, most where most is still kept: in the layers that come last in the forward pass.

use tastemaker_store::dtype::DType;

use super::config::{BlockKind, UNetConfig};
use crate::nn::keeps_scores;

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

/// What goes through the network, and how.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    /// Height and width of latents.
    pub size: (u64, u64),
    /// Tokens of a text.
    pub n_tokens: u64,
    /// What is trained.
    pub trained: TrainedPart,
    /// Whether adapters are DoRA's, which keep what they stretch.
    pub use_dora: bool,
    /// What is kept.
    pub activations: Activations,
    /// Type of activations.
    pub dtype: DType,
}

/// Bytes for each sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Kept from forward to backward.
    pub kept: u64,
    /// What the backward pass holds beside it where it holds most.
    pub backward: u64,
    /// What a forward pass that keeps nothing holds where it holds most.
    pub forward: u64,
}

/// A ResNet block, and the attention after it.
struct Layer {
    level: usize,
    /// Channels of the map that enters, and of the skip that joins it.
    n_in: u64,
    skip: u64,
    attends: bool,
    /// Whether anything before it is trained.
    needs_gradient: bool,
}

impl UNetConfig {
    /// What a pass holds for each sample.
    pub fn footprint(&self, pass: &Pass) -> Footprint {
        let count = Count { config: self, pass };
        let layers = self.layers(pass.trained);
        // The last normalization and its activation.
        let last = count.bytes(2 * self.block_out_channels[0] as u64 * count.positions(0));
        let (mut kept, mut fullest, mut total) = (0, 0, 0);
        let (mut skips, mut forward) = (0, 0);
        for layer in &layers {
            let inside = count.kept(layer);
            let input = count.bytes(layer.n_in * count.positions(layer.level));
            match pass.activations {
                Activations::All => {
                    kept += inside;
                    fullest = fullest.max(kept + count.backward(layer));
                    total = kept;
                }
                Activations::LayerInputs => {
                    kept += input;
                    fullest = fullest.max(kept + inside + count.backward(layer));
                    total = total.max(kept + inside);
                }
            }
            if layer.skip == 0 {
                skips += input;
            }
            forward = forward.max(skips + count.forward(layer));
        }
        let kept = total + last;
        Footprint { kept, backward: (fullest + last).saturating_sub(kept), forward }
    }

    /// Its layers, in the order of the forward pass.
    fn layers(&self, trained: TrainedPart) -> Vec<Layer> {
        let n_levels = self.block_out_channels.len();
        let channels = |level: usize| self.block_out_channels[level] as u64;
        let n_layers = |level: usize| self.layers_per_block[level] as u64;
        let mut needs_gradient = trained == TrainedPart::Everything;
        let mut layers = Vec::new();
        for level in 0..n_levels {
            let attends = self.down_blocks[level] == BlockKind::CrossAttention;
            for j in 0..n_layers(level) {
                let n_in = if j > 0 { channels(level) } else { channels(level.saturating_sub(1)) };
                layers.push(Layer { level, n_in, skip: 0, attends, needs_gradient });
                needs_gradient |= attends;
            }
        }
        let lowest = n_levels - 1;
        let n_in = channels(lowest);
        layers.push(Layer { level: lowest, n_in, skip: 0, attends: true, needs_gradient });
        layers.push(Layer { level: lowest, n_in, skip: 0, attends: false, needs_gradient: true });
        for level in (0..n_levels).rev() {
            let attends = self.up_blocks[lowest - level] == BlockKind::CrossAttention;
            let (below, above) = (channels((level + 1).min(lowest)), channels(level.saturating_sub(1)));
            for j in 0..=n_layers(level) {
                let n_in = if j == 0 { below } else { channels(level) };
                let skip = if j == n_layers(level) { above } else { channels(level) };
                layers.push(Layer { level, n_in, skip, attends, needs_gradient: true });
            }
        }
        layers
    }
}

struct Count<'a> {
    config: &'a UNetConfig,
    pass: &'a Pass,
}

impl Count<'_> {
    fn positions(&self, level: usize) -> u64 {
        let (height, width) = self.pass.size;
        height.div_ceil(1 << level) * width.div_ceil(1 << level)
    }

    fn bytes(&self, numbers: u64) -> u64 {
        numbers * self.pass.dtype.bytes() as u64
    }

    fn width(&self, layer: &Layer) -> u64 {
        self.config.block_out_channels[layer.level] as u64
    }

    /// Bytes that a layer keeps.
    fn kept(&self, layer: &Layer) -> u64 {
        let resnet = if layer.needs_gradient { self.bytes(self.resnet(layer)) } else { 0 };
        let attention = if layer.attends {
            self.bytes(self.transformer(layer)) + self.scores(layer, KEPT_SCORES)
        } else {
            0
        };
        resnet + attention
    }

    /// Bytes that gradients of a layer's activations take at once.
    fn backward(&self, layer: &Layer) -> u64 {
        let (width, positions) = (self.width(layer), self.positions(layer.level));
        let n_in = layer.n_in + layer.skip;
        // What comes in, what a convolution makes of it, and what the normalization before that does.
        let resnet = width + 3 * n_in.max(width);
        // The same map beside both gates of the feed-forward layer, apart and joined again.
        let feed_forward = width * (1 + 8 + 8);
        let maps = if layer.attends { feed_forward.max(resnet) } else { resnet };
        self.bytes(maps * positions).max(self.scores(layer, SCORES_BACKWARD))
    }

    /// Bytes of a layer's activations at once where none is kept.
    fn forward(&self, layer: &Layer) -> u64 {
        let (width, positions) = (self.width(layer), self.positions(layer.level));
        let n_in = layer.n_in + layer.skip;
        let resnet = 2 * n_in + 2 * width;
        // The map, its normalization, both gates, one of them activated, and their product.
        let feed_forward = width * (1 + 1 + 8 + 4 + 4);
        let maps = if layer.attends { feed_forward.max(resnet) } else { resnet };
        self.bytes(maps * positions).max(self.scores(layer, SCORES_FORWARD))
    }

    /// Two normalizations and two activations; the inputs of two convolutions where they are trained.
    fn resnet(&self, layer: &Layer) -> u64 {
        let maps = if self.pass.trained == TrainedPart::Everything { 3 } else { 2 };
        maps * (layer.n_in + layer.skip + self.width(layer)) * self.positions(layer.level)
    }

    /// One attention layer of a level.
    fn transformer(&self, layer: &Layer) -> u64 {
        let width = self.width(layer);
        let map = width * self.positions(layer.level);
        // Self-attention: input and output of its normalization, queries, keys, values, result, the result again in the
        // order of `to_out`. Cross-attention the same with keys and values of the text. Feed-forward: input of its
        // normalization, both gates (8), the activation (4); where everything is trained, the other two inputs (1 + 4).
        let everything = self.pass.trained == TrainedPart::Everything;
        let maps = 7 + 5 + 1 + 8 + 4 + if everything { 1 + 4 } else { 0 };
        // The outputs and updates of six layers that are as large as the map.
        let maps = maps + if self.pass.use_dora { 2 * 6 } else { 0 };
        let text = 2 * width * self.pass.n_tokens;
        let blocks = self.config.transformer_layers[layer.level] as u64 * (maps * map + text);
        // The normalization before the blocks, and the projections' inputs where they are trained.
        blocks + map * if everything { 3 } else { 1 }
    }

    /// Bytes of the scores of a layer's attention where they are in memory, at so many for each.
    fn scores(&self, layer: &Layer, each: u64) -> u64 {
        let heads = self.config.heads[layer.level];
        let width = self.config.block_out_channels[layer.level] / heads;
        if !layer.attends || !keeps_scores(self.pass.dtype, width, self.config.upcast_attention) {
            return 0;
        }
        let positions = self.positions(layer.level);
        let blocks = if each == KEPT_SCORES { self.config.transformer_layers[layer.level] as u64 } else { 1 };
        let seen = if each == KEPT_SCORES { positions + self.pass.n_tokens } else { positions };
        each * blocks * heads as u64 * positions * seen
    }
}

/// Bytes of a score: kept, in f32 and rounded; while it is computed, and while its gradient is.
const KEPT_SCORES: u64 = 4 + 2;
const SCORES_FORWARD: u64 = 2 + 2 + 4 + 4;
const SCORES_BACKWARD: u64 = 2 + 4 + 4 + 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::BackboneConfig;
    use crate::original::Layout;

    #[test]
    fn what_is_kept_grows_with_the_image_and_with_what_is_trained() {
        for layout in [Layout::Sd1, Layout::Sd2, Layout::Sdxl] {
            let BackboneConfig::UNet(config) = layout.published_backbone() else { panic!("{layout:?}") };
            let of = |side, trained, activations| {
                let (size, dtype) = ((side, side), DType::F32);
                let pass = Pass { size, n_tokens: 77, trained, use_dora: false, activations, dtype };
                config.footprint(&pass)
            };
            let kept = |side, trained| of(side, trained, Activations::All).kept;
            let (adapters, everything) = (kept(64, TrainedPart::Adapters), kept(64, TrainedPart::Everything));
            assert!(adapters < everything && everything < 2 * adapters, "{adapters} {everything}");
            let larger = kept(128, TrainedPart::Adapters);
            assert!(larger > 3 * adapters && larger <= 4 * adapters, "{adapters} {larger}");
            let again = of(64, TrainedPart::Everything, Activations::LayerInputs);
            assert!(3 * again.kept < everything && 20 * again.kept > everything, "{again:?} {everything}");
            assert!(again.forward < again.kept && again.backward < again.kept, "{again:?}");
        }
    }
}
