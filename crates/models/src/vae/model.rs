//! The network.
//!
//! Source: `huggingface/diffusers:src/diffusers/models/autoencoders/{autoencoder_kl.py,vae.py}`.

use tastemaker_diffusion::{Posterior, Vae};
use tastemaker_store::dtype::DType;
use tastemaker_torch::kind_of;
use tch::{Kind, Tensor};

use super::config::VaeConfig;
use crate::nn::{Conv2d, ConvShape, GroupNorm, Linear, Scope, attend};
use crate::unet::{Resnet, ResnetShape, preferred_layout};

const EPS: f64 = 1e-6;

fn resnet(scope: Scope<'_>, config: &VaeConfig, n_in: i64, n_out: i64) -> Resnet {
    Resnet::new(
        scope,
        ResnetShape { n_in, n_out, time_width: None, n_groups: config.norm_num_groups, eps: EPS },
    )
}

/// Self-attention over all positions, one head as wide as the map.
#[derive(Debug)]
struct MidAttention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl MidAttention {
    fn new(scope: Scope<'_>, config: &VaeConfig, width: i64) -> Self {
        let linear = |name: &str| Linear::new(scope.sub(name), width, width);
        Self {
            group_norm: GroupNorm::new(scope.sub("group_norm"), config.norm_num_groups, width, EPS),
            to_q: linear("to_q"),
            to_k: linear("to_k"),
            to_v: linear("to_v"),
            to_out: Linear::closing(scope.sub("to_out.0"), width, width),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let (b, c, h, w) = x.size4().expect("feature maps are four-dimensional");
        let y = self.group_norm.forward(x).permute([0, 2, 3, 1]).reshape([b, 1, h * w, c]); // [b, 1, n, c]
        let y = attend(&self.to_q.forward(&y), &self.to_k.forward(&y), &self.to_v.forward(&y), false);
        x + self.to_out.forward(&y).reshape([b, h, w, c]).permute([0, 3, 1, 2])
    }
}

/// `mid_block`: ResNet, attention, ResNet.
#[derive(Debug)]
struct Mid {
    first: Resnet,
    attention: Option<MidAttention>,
    second: Resnet,
}

impl Mid {
    fn new(scope: Scope<'_>, config: &VaeConfig, width: i64) -> Self {
        Self {
            first: resnet(scope.sub("resnets.0"), config, width, width),
            attention: config
                .mid_block_add_attention
                .then(|| MidAttention::new(scope.sub("attentions.0"), config, width)),
            second: resnet(scope.sub("resnets.1"), config, width, width),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.first.forward(x, None);
        let x = match &self.attention {
            Some(attention) => attention.forward(&x),
            None => x,
        };
        self.second.forward(&x, None)
    }
}

#[derive(Debug)]
struct Encoder {
    conv_in: Conv2d,
    levels: Vec<(Vec<Resnet>, Option<Conv2d>)>,
    mid: Mid,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    fn new(scope: Scope<'_>, config: &VaeConfig) -> Self {
        let channels = &config.block_out_channels;
        let last = channels[channels.len() - 1];
        let level = |i: usize| {
            let scope = scope.sub("down_blocks").sub(i);
            let width = channels[i];
            let block = |j: i64| {
                let n_in = if j > 0 { width } else { channels[i.saturating_sub(1)] };
                resnet(scope.sub("resnets").sub(j), config, n_in, width)
            };
            let blocks = (0..config.layers_per_block).map(block).collect();
            let shape = ConvShape { stride: 2, padding: 0, ..ConvShape::same(width, width) };
            let down = (i + 1 < channels.len()).then(|| Conv2d::new(scope.sub("downsamplers.0.conv"), shape));
            (blocks, down)
        };
        Self {
            conv_in: Conv2d::new(scope.sub("conv_in"), ConvShape::same(config.in_channels, channels[0])),
            levels: (0..channels.len()).map(level).collect(),
            mid: Mid::new(scope.sub("mid_block"), config, last),
            conv_norm_out: GroupNorm::new(scope.sub("conv_norm_out"), config.norm_num_groups, last, EPS),
            conv_out: Conv2d::new(scope.sub("conv_out"), ConvShape::same(last, 2 * config.latent_channels)),
        }
    }

    fn forward(&self, images: &Tensor) -> Tensor {
        let mut x = self.conv_in.forward(&preferred_layout(images));
        for (blocks, down) in &self.levels {
            x = blocks.iter().fold(x, |x, block| block.forward(&x, None));
            if let Some(down) = down {
                // Diffusers pads one row below and one column to the right only.
                x = down.forward(&x.constant_pad_nd([0, 1, 0, 1]));
            }
        }
        let x = self.mid.forward(&x);
        self.conv_out.forward(&self.conv_norm_out.forward(&x).silu())
    }
}

#[derive(Debug)]
struct Decoder {
    conv_in: Conv2d,
    mid: Mid,
    levels: Vec<(Vec<Resnet>, Option<Conv2d>)>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn new(scope: Scope<'_>, config: &VaeConfig) -> Self {
        let channels = &config.block_out_channels;
        let n = channels.len();
        let last = channels[n - 1];
        let level = |i: usize| {
            let scope = scope.sub("up_blocks").sub(i);
            let width = channels[n - 1 - i];
            let before = channels[(n - i).min(n - 1)];
            let block = |j: i64| {
                let n_in = if j > 0 { width } else { before };
                resnet(scope.sub("resnets").sub(j), config, n_in, width)
            };
            let blocks = (0..=config.layers_per_block).map(block).collect();
            let up = (i + 1 < n)
                .then(|| Conv2d::new(scope.sub("upsamplers.0.conv"), ConvShape::same(width, width)));
            (blocks, up)
        };
        Self {
            conv_in: Conv2d::new(scope.sub("conv_in"), ConvShape::same(config.latent_channels, last)),
            mid: Mid::new(scope.sub("mid_block"), config, last),
            levels: (0..n).map(level).collect(),
            conv_norm_out: GroupNorm::new(
                scope.sub("conv_norm_out"),
                config.norm_num_groups,
                channels[0],
                EPS,
            ),
            conv_out: Conv2d::new(scope.sub("conv_out"), ConvShape::same(channels[0], config.out_channels)),
        }
    }

    fn forward(&self, latents: &Tensor) -> Tensor {
        let mut x = self.mid.forward(&self.conv_in.forward(&preferred_layout(latents)));
        for (blocks, up) in &self.levels {
            x = blocks.iter().fold(x, |x, block| block.forward(&x, None));
            if let Some(up) = up {
                let (_, _, h, w) = x.size4().expect("feature maps are four-dimensional");
                x = up.forward(&x.upsample_nearest2d([2 * h, 2 * w], None, None));
            }
        }
        self.conv_out.forward(&self.conv_norm_out.forward(&x).silu())
    }
}

/// `AutoencoderKL`.
#[derive(Debug)]
pub struct AutoencoderKl {
    config: VaeConfig,
    compute: Kind,
    encoder: Encoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    decoder: Decoder,
}

impl AutoencoderKl {
    /// Builds the VAE from the parameters of `scope`.
    pub fn new(scope: Scope<'_>, config: VaeConfig, precision: DType) -> Self {
        let (c, twice) = (config.latent_channels, 2 * config.latent_channels);
        Self {
            compute: kind_of(precision),
            encoder: Encoder::new(scope.sub("encoder"), &config),
            quant_conv: config
                .use_quant_conv
                .then(|| Conv2d::new(scope.sub("quant_conv"), ConvShape::pointwise(twice, twice))),
            post_quant_conv: config
                .use_post_quant_conv
                .then(|| Conv2d::new(scope.sub("post_quant_conv"), ConvShape::pointwise(c, c))),
            decoder: Decoder::new(scope.sub("decoder"), &config),
            config,
        }
    }

    /// The VAE's configuration.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// Mean and log-variance (clamped to -30..20) before shift and scale, `[b, c, h, w]` f32 each.
    pub fn moments(&self, images: &Tensor) -> (Tensor, Tensor) {
        let x = self.encoder.forward(&images.to_kind(self.compute));
        let x = match &self.quant_conv {
            Some(conv) => conv.forward(&x),
            None => x,
        };
        let parts = x.to_kind(Kind::Float).contiguous().chunk(2, 1);
        (parts[0].shallow_clone(), parts[1].clamp(-30.0, 20.0))
    }

    /// Images of latents that carry neither shift nor scale, `[b, 3, H, W]` f32.
    pub fn decode_raw(&self, latents: &Tensor) -> Tensor {
        let z = latents.to_kind(self.compute);
        let z = match &self.post_quant_conv {
            Some(conv) => conv.forward(&z),
            None => z,
        };
        self.decoder.forward(&z).to_kind(Kind::Float).contiguous()
    }
}

impl Vae for AutoencoderKl {
    fn encode(&self, images: &Tensor) -> Posterior {
        let (mean, log_variance) = self.moments(images);
        let scale = self.config.scaling_factor;
        Posterior { mean: (mean - self.config.shift_factor) * scale, std: (log_variance * 0.5).exp() * scale }
    }

    fn decode(&self, latents: &Tensor) -> Tensor {
        self.decode_raw(&(latents / self.config.scaling_factor + self.config.shift_factor))
    }
}
