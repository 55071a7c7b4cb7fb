//! The network.

use std::cell::Cell;

use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_store::dtype::DType;
use tastemaker_torch::kind_of;
use tch::{Kind, Tensor};

use super::blocks::{Context, Down, Mid, Up};
use super::config::{TextTime, UNetConfig};
use crate::nn::{Conv2d, ConvShape, GroupNorm, Scope, TimestepEmbedding, sinusoids};

/// `UNet2DConditionModel`.
#[derive(Debug)]
pub struct UNet {
    config: UNetConfig,
    compute: Kind,
    conv_in: Conv2d,
    time_embedding: TimestepEmbedding,
    add_embedding: Option<(TextTime, TimestepEmbedding)>,
    down_blocks: Vec<Down>,
    mid_block: Mid,
    up_blocks: Vec<Up>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    recompute: Cell<bool>,
}

impl UNet {
    /// Builds the network from the parameters of `scope`.
    pub fn new(scope: Scope<'_>, config: UNetConfig, precision: DType) -> Self {
        let n_levels = config.block_out_channels.len();
        let first = config.block_out_channels[0];
        let time_width = config.time_embed_dim();
        Self {
            compute: kind_of(precision),
            conv_in: Conv2d::new(scope.sub("conv_in"), ConvShape::same(config.in_channels, first)),
            time_embedding: TimestepEmbedding::new(scope.sub("time_embedding"), first, time_width),
            add_embedding: config.text_time.map(|text_time| {
                (
                    text_time,
                    TimestepEmbedding::new(scope.sub("add_embedding"), text_time.input_dim, time_width),
                )
            }),
            down_blocks: (0..n_levels)
                .map(|i| Down::new(scope.sub("down_blocks").sub(i), &config, i))
                .collect(),
            mid_block: Mid::new(scope.sub("mid_block"), &config),
            up_blocks: (0..n_levels).map(|i| Up::new(scope.sub("up_blocks").sub(i), &config, i)).collect(),
            conv_norm_out: GroupNorm::new(
                scope.sub("conv_norm_out"),
                config.norm_num_groups,
                first,
                config.norm_eps,
            ),
            conv_out: Conv2d::closing(scope.sub("conv_out"), ConvShape::same(first, config.out_channels)),
            config,
            recompute: Cell::new(false),
        }
    }

    /// Whether layers keep only their inputs between the passes and are computed again in the backward pass; off at first.
    ///
    /// Gradients are the same to the last bit, at the price of one more forward pass. Adapters must stay as they are, on or
    /// off, until the backward pass is over.
    pub fn set_recompute(&self, recompute: bool) {
        self.recompute.set(recompute);
    }

    /// The network's configuration.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Timestep embedding, plus SDXL's text and size embedding: `[b, time_width]`.
    fn embed(&self, timestep: &Tensor, conditioning: &Conditioning) -> Tensor {
        let config = &self.config;
        let waves = |values: &Tensor, width: i64| {
            sinusoids(values, width, config.flip_sin_to_cos, config.freq_shift).to_kind(self.compute)
        };
        let time = self.time_embedding.forward(&waves(timestep, config.block_out_channels[0]));
        let Some((shape, add_embedding)) = &self.add_embedding else { return time };
        let pooled = conditioning.pooled.as_ref().expect("SDXL conditioning carries a pooled embedding");
        let ids = conditioning.time_ids.as_ref().expect("SDXL conditioning carries time ids");
        let sizes = waves(&ids.flatten(0, -1), shape.time_embed_dim).reshape([ids.size()[0], -1]); // [b, 6 d]
        time + add_embedding.forward(&Tensor::cat(&[pooled.to_kind(self.compute), sizes], -1))
    }
}

impl Denoiser for UNet {
    fn predict(&self, x: &Tensor, timestep: &Tensor, conditioning: &Conditioning) -> Tensor {
        let time = self.embed(timestep, conditioning).silu();
        let text = conditioning.hidden.to_kind(self.compute);
        let context = Context { time: &time, text: &text, recompute: self.recompute.get() };

        let mut x = self.conv_in.forward(&preferred_layout(&x.to_kind(self.compute)));
        let mut skips = vec![x.shallow_clone()];
        for block in &self.down_blocks {
            x = block.forward(x, &context, &mut skips);
        }
        x = self.mid_block.forward(&x, &context);
        for block in &self.up_blocks {
            x = block.forward(x, &context, &mut skips);
        }
        self.conv_out.forward(&self.conv_norm_out.forward(&x).silu()).to_kind(Kind::Float).contiguous()
    }
}

/// Half-precision maps with channels innermost in memory, which is what matrix units want; f32 maps as they are, which
/// the CPU's f32 convolutions prefer.
///
/// # Shapes
/// `[b, c, h, w]` to the same.
pub(crate) fn preferred_layout(x: &Tensor) -> Tensor {
    if x.kind() == Kind::Float {
        x.shallow_clone()
    } else {
        x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
    }
}
