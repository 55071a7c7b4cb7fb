//! Levels of the network: ResNet blocks, attention, and the way between resolutions.
//!
//! Source: `huggingface/diffusers:src/diffusers/models/{resnet.py,unets/unet_2d_blocks.py}`.

use std::rc::Rc;

use tastemaker_torch::recompute::segment;
use tch::Tensor;

use super::attention::SpatialTransformer;
use super::config::{BlockKind, UNetConfig};
use crate::nn::{Conv2d, ConvShape, GroupNorm, Linear, Scope};

/// Sizes of a ResNet block; without `time_width` it takes no timestep (VAE).
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResnetShape {
    pub(crate) n_in: i64,
    pub(crate) n_out: i64,
    pub(crate) time_width: Option<i64>,
    pub(crate) n_groups: i64,
    pub(crate) eps: f64,
}

/// x + conv(silu(norm(conv(silu(norm(x))) + time))), the shortcut projected where the width changes.
#[derive(Debug)]
pub(crate) struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

impl Resnet {
    pub(crate) fn new(scope: Scope<'_>, shape: ResnetShape) -> Self {
        let ResnetShape { n_in, n_out, time_width, n_groups, eps } = shape;
        Self {
            norm1: GroupNorm::new(scope.sub("norm1"), n_groups, n_in, eps),
            conv1: Conv2d::new(scope.sub("conv1"), ConvShape::same(n_in, n_out)),
            time_emb_proj: time_width.map(|width| Linear::new(scope.sub("time_emb_proj"), width, n_out)),
            norm2: GroupNorm::new(scope.sub("norm2"), n_groups, n_out, eps),
            conv2: Conv2d::closing(scope.sub("conv2"), ConvShape::same(n_out, n_out)),
            conv_shortcut: (n_in != n_out)
                .then(|| Conv2d::new(scope.sub("conv_shortcut"), ConvShape::pointwise(n_in, n_out))),
        }
    }

    /// # Shapes
    /// `x` `[b, n_in, h, w]`; `time` `[b, time_width]`, already through SiLU; result `[b, n_out, h, w]`.
    pub(crate) fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Tensor {
        let activated = |norm: &GroupNorm, x: &Tensor| {
            let mut y = norm.forward(x);
            if y.requires_grad() { y.silu() } else { y.silu_() }
        };
        let mut y = self.conv1.forward(&activated(&self.norm1, x));
        if let (Some(proj), Some(time)) = (&self.time_emb_proj, time) {
            y += proj.forward(time).unsqueeze(-1).unsqueeze(-1);
        }
        // Maps of a VAE are as large as images: none lives longer than it is needed.
        let inner = activated(&self.norm2, &y);
        drop(y);
        let y = self.conv2.forward(&inner);
        drop(inner);
        match &self.conv_shortcut {
            Some(shortcut) => shortcut.forward(x) + y,
            None => x + y,
        }
    }
}

/// What every block of a forward pass sees.
pub(super) struct Context<'a> {
    /// SiLU of the timestep embedding, `[b, time_width]`.
    pub(super) time: &'a Tensor,
    /// Text hidden states, `[b, m, d]`.
    pub(super) text: &'a Tensor,
    /// Whether layers are computed again in the backward pass.
    pub(super) recompute: bool,
}

/// A ResNet block and the attention behind it: what is computed again as one.
#[derive(Debug)]
struct Layer {
    resnet: Resnet,
    attention: Option<SpatialTransformer>,
}

impl Layer {
    /// # Shapes
    /// The joined `maps` `[b, n_in, h, w]`, `time` `[b, time_width]`, `text` `[b, m, d]`; result `[b, n_out, h, w]`.
    fn forward(&self, maps: &[Tensor], time: &Tensor, text: &Tensor) -> Tensor {
        let y = match maps {
            [map] => self.resnet.forward(map, Some(time)),
            _ => self.resnet.forward(&Tensor::cat(maps, 1), Some(time)),
        };
        match &self.attention {
            Some(attention) => attention.forward(&y, text),
            None => y,
        }
    }
}

/// Maps through a layer. The aliases have gradients added up within the layer first, recomputed or not, so that both ways give
/// the same bits.
fn through<const N: usize>(layer: &Rc<Layer>, maps: [&Tensor; N], context: &Context<'_>) -> Tensor {
    let inputs: Vec<Tensor> =
        [context.time, context.text].into_iter().chain(maps).map(Tensor::alias).collect();
    if context.recompute {
        let layer = Rc::clone(layer);
        segment(&inputs, move |inputs| layer.forward(&inputs[2..], &inputs[0], &inputs[1]))
    } else {
        layer.forward(&inputs[2..], &inputs[0], &inputs[1])
    }
}

fn resnet(scope: &Scope<'_>, config: &UNetConfig, j: usize, n_in: i64, n_out: i64) -> Resnet {
    let shape = ResnetShape {
        n_in,
        n_out,
        time_width: Some(config.time_embed_dim()),
        n_groups: config.norm_num_groups,
        eps: config.norm_eps,
    };
    Resnet::new(scope.sub("resnets").sub(j), shape)
}

fn transformer(scope: &Scope<'_>, config: &UNetConfig, j: usize, level: usize) -> SpatialTransformer {
    SpatialTransformer::new(scope.sub("attentions").sub(j), config, level)
}

/// `down_blocks.{level}`.
#[derive(Debug)]
pub(super) struct Down {
    layers: Vec<Rc<Layer>>,
    downsample: Option<Conv2d>,
}

impl Down {
    pub(super) fn new(scope: Scope<'_>, config: &UNetConfig, level: usize) -> Self {
        let channels = &config.block_out_channels;
        let width = channels[level];
        let attends = config.down_blocks[level] == BlockKind::CrossAttention;
        let layer = |j: usize| {
            let n_in = if j > 0 { width } else { channels[level.saturating_sub(1)] };
            let attention = attends.then(|| transformer(&scope, config, j, level));
            Rc::new(Layer { resnet: resnet(&scope, config, j, n_in, width), attention })
        };
        let is_last = level + 1 == channels.len();
        Self {
            layers: (0..config.layers_per_block[level] as usize).map(layer).collect(),
            downsample: (!is_last).then(|| {
                Conv2d::new(
                    scope.sub("downsamplers.0.conv"),
                    ConvShape { stride: 2, ..ConvShape::same(width, width) },
                )
            }),
        }
    }

    /// Pushes every intermediate map onto `skips` and returns the last.
    pub(super) fn forward(&self, x: Tensor, context: &Context<'_>, skips: &mut Vec<Tensor>) -> Tensor {
        let mut x = x;
        for layer in &self.layers {
            x = through(layer, [&x], context);
            skips.push(x.shallow_clone());
        }
        if let Some(downsample) = &self.downsample {
            x = downsample.forward(&x);
            skips.push(x.shallow_clone());
        }
        x
    }
}

/// `mid_block`.
#[derive(Debug)]
pub(super) struct Mid {
    first: Rc<Layer>,
    second: Rc<Layer>,
}

impl Mid {
    pub(super) fn new(scope: Scope<'_>, config: &UNetConfig) -> Self {
        let level = config.block_out_channels.len() - 1;
        let width = config.block_out_channels[level];
        let attention = Some(transformer(&scope, config, 0, level));
        Self {
            first: Rc::new(Layer { resnet: resnet(&scope, config, 0, width, width), attention }),
            second: Rc::new(Layer { resnet: resnet(&scope, config, 1, width, width), attention: None }),
        }
    }

    pub(super) fn forward(&self, x: &Tensor, context: &Context<'_>) -> Tensor {
        through(&self.second, [&through(&self.first, [x], context)], context)
    }
}

/// `up_blocks.{index}`, counted from the lowest resolution.
#[derive(Debug)]
pub(super) struct Up {
    layers: Vec<Rc<Layer>>,
    upsample: Option<Conv2d>,
}

impl Up {
    pub(super) fn new(scope: Scope<'_>, config: &UNetConfig, index: usize) -> Self {
        let channels = &config.block_out_channels;
        let level = channels.len() - 1 - index;
        let width = channels[level];
        let below = channels[(level + 1).min(channels.len() - 1)];
        let n_layers = config.layers_per_block[level] as usize + 1;
        let attends = config.up_blocks[index] == BlockKind::CrossAttention;
        let layer = |j: usize| {
            // The map from below or from the layer before, joined with the skip of the way down.
            let n_in = if j == 0 { below } else { width };
            let skip = if j + 1 == n_layers { channels[level.saturating_sub(1)] } else { width };
            let attention = attends.then(|| transformer(&scope, config, j, level));
            Rc::new(Layer { resnet: resnet(&scope, config, j, n_in + skip, width), attention })
        };
        Self {
            layers: (0..n_layers).map(layer).collect(),
            upsample: (level > 0)
                .then(|| Conv2d::new(scope.sub("upsamplers.0.conv"), ConvShape::same(width, width))),
        }
    }

    /// Takes its skips off the end of `skips`.
    pub(super) fn forward(&self, x: Tensor, context: &Context<'_>, skips: &mut Vec<Tensor>) -> Tensor {
        let mut x = x;
        for layer in &self.layers {
            let skip = skips.pop().expect("the way up has one layer per skip of the way down");
            x = through(layer, [&x, &skip], context);
        }
        match (&self.upsample, skips.last()) {
            // To the size of the next skip: twice the size, or one less where the way down rounded up.
            (Some(conv), Some(next)) => {
                let (_, _, h, w) = next.size4().expect("feature maps are four-dimensional");
                conv.forward(&x.upsample_nearest2d([h, w], None, None))
            }
            _ => x,
        }
    }
}
