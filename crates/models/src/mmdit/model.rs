//! The network.

use std::cell::Cell;
use std::rc::Rc;

use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_store::dtype::DType;
use tastemaker_torch::kind_of;
use tastemaker_torch::recompute::segment;
use tch::{Kind, Tensor};

use super::blocks::{Block, Modulation, modulated};
use super::config::MmditConfig;
use super::positions;
use crate::nn::{Conv2d, ConvShape, Linear, Param, Scope, TimestepEmbedding, sinusoids};

/// Width of the sinusoids of a timestep.
const WAVES: i64 = 256;

/// `SD3Transformer2DModel`.
#[derive(Debug)]
pub struct Mmdit {
    config: MmditConfig,
    compute: Kind,
    proj: Conv2d,
    positions: Param,
    timestep_embedder: TimestepEmbedding,
    text_embedder: TimestepEmbedding,
    context_embedder: Linear,
    blocks: Vec<Rc<Block>>,
    norm_out: Modulation,
    proj_out: Linear,
    recompute: Cell<bool>,
}

impl Mmdit {
    /// Builds the network from the parameters of `scope`.
    pub fn new(scope: Scope<'_>, config: MmditConfig, precision: DType) -> Self {
        let (width, side) = (config.width(), config.pos_embed_max_size);
        let patch = config.patch_size;
        let patches =
            ConvShape { n_in: config.in_channels, n_out: width, kernel: patch, stride: patch, padding: 0 };
        let embedding = scope.sub("pos_embed");
        let conditioning = scope.sub("time_text_embed");
        let blocks = scope.sub("transformer_blocks");
        Self {
            compute: kind_of(precision),
            proj: Conv2d::new(embedding.sub("proj"), patches),
            positions: embedding.buffer("pos_embed", &[1, side * side, width], || positions::table(&config)),
            timestep_embedder: TimestepEmbedding::new(conditioning.sub("timestep_embedder"), WAVES, width),
            text_embedder: TimestepEmbedding::new(
                conditioning.sub("text_embedder"),
                config.pooled_projection_dim,
                width,
            ),
            context_embedder: Linear::new(scope.sub("context_embedder"), config.joint_attention_dim, width),
            blocks: (0..config.num_layers).map(|i| Rc::new(Block::new(blocks.sub(i), &config, i))).collect(),
            norm_out: Modulation::new(scope.sub("norm_out"), width, 2),
            proj_out: Linear::closing(scope.sub("proj_out"), width, patch * patch * config.out_channels),
            config,
            recompute: Cell::new(false),
        }
    }

    /// Whether blocks keep only their inputs between the passes and are computed again in the backward pass; off at first.
    ///
    /// Gradients are the same to the last bit, at the price of one more forward pass. Adapters must stay as they are, on or
    /// off, until the backward pass is over.
    pub fn set_recompute(&self, recompute: bool) {
        self.recompute.set(recompute);
    }

    /// The network's configuration.
    pub fn config(&self) -> &MmditConfig {
        &self.config
    }

    /// Embedding of timestep and pooled text, through SiLU: `[b, c]`.
    fn embed(&self, timestep: &Tensor, conditioning: &Conditioning) -> Tensor {
        let waves = sinusoids(timestep, WAVES, true, 0.0).to_kind(self.compute);
        let pooled = conditioning.pooled.as_ref().expect("SD3's conditioning carries a pooled embedding");
        let text = self.text_embedder.forward(&pooled.to_kind(self.compute));
        (self.timestep_embedder.forward(&waves) + text).silu()
    }

    /// A block, computed again in the backward pass if that was asked for. The aliases have gradients added up within the block
    /// first, recomputed or not, so that both ways give the same bits.
    fn through(&self, block: &Rc<Block>, joined: &Tensor, conditioning: &Tensor, n: i64) -> Tensor {
        let inputs = [joined.alias(), conditioning.alias()];
        if self.recompute.get() {
            let block = Rc::clone(block);
            segment(&inputs, move |inputs| block.forward(&inputs[0], &inputs[1], n))
        } else {
            block.forward(&inputs[0], &inputs[1], n)
        }
    }
}

impl Denoiser for Mmdit {
    fn predict(&self, x: &Tensor, timestep: &Tensor, conditioning: &Conditioning) -> Tensor {
        let MmditConfig { patch_size: p, out_channels, pos_embed_max_size: side, .. } = self.config;
        let embedded = self.embed(timestep, conditioning);
        let text = self.context_embedder.forward(&conditioning.hidden.to_kind(self.compute));
        let patches = self.proj.forward(&x.to_kind(self.compute)); // [b, c, h, w]
        let (b, _, h, w) = patches.size4().expect("feature maps are four-dimensional");
        let patches = patches.flatten(2, 3).transpose(1, 2); // [b, n, c]
        let patches = patches + positions::cropped(&self.positions.value(), side, h, w);
        let mut joined = Tensor::cat(&[patches, text], 1);
        for block in &self.blocks {
            joined = self.through(block, &joined, &embedded, h * w);
        }
        let parts = self.norm_out.forward(&embedded);
        let y = self.proj_out.forward(&modulated(&joined, &parts[1], &parts[0]));
        let y = y.view([b, h, w, p, p, out_channels]).permute([0, 5, 1, 3, 2, 4]);
        y.reshape([b, out_channels, h * p, w * p]).to_kind(Kind::Float).contiguous()
    }
}
