//! Transformer blocks over the positions of a feature map, with cross-attention to the text.
//!
//! Shapes: b batch, c channels, h w map, n = h w positions, m text tokens, H heads, e = c / H.
//!
//! Source: `huggingface/diffusers:src/diffusers/models/{attention.py,attention_processor.py,transformers/transformer_2d.py}`.

use tch::Tensor;

use super::config::UNetConfig;
use crate::nn::{Conv2d, ConvShape, GroupNorm, LayerNorm, Linear, Scope, attend};

#[derive(Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: i64,
    upcast: bool,
}

impl Attention {
    fn new(scope: Scope<'_>, width: i64, context: i64, heads: i64, upcast: bool) -> Self {
        Self {
            to_q: Linear::without_bias(scope.sub("to_q"), width, width),
            to_k: Linear::without_bias(scope.sub("to_k"), context, width),
            to_v: Linear::without_bias(scope.sub("to_v"), context, width),
            to_out: Linear::closing(scope.sub("to_out.0"), width, width),
            heads,
            upcast,
        }
    }

    fn forward(&self, x: &Tensor, context: &Tensor) -> Tensor {
        let split = |y: Tensor| {
            let (b, n, c) = y.size3().expect("projections are three-dimensional");
            y.view([b, n, self.heads, c / self.heads]).transpose(1, 2) // [b, H, n, e]
        };
        let (q, k, v) = (self.to_q.forward(x), self.to_k.forward(context), self.to_v.forward(context));
        let y = attend(&split(q), &split(k), &split(v), self.upcast); // [b, H, n, e]
        let (b, heads, n, e) = y.size4().expect("attention keeps its four dimensions");
        self.to_out.forward(&y.transpose(1, 2).reshape([b, n, heads * e]))
    }
}

/// `ff.net.0.proj` to twice four times the width, gate by GELU, `ff.net.2` back.
#[derive(Debug)]
struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    fn new(scope: Scope<'_>, width: i64) -> Self {
        Self {
            proj: Linear::new(scope.sub("net.0.proj"), width, width * 8),
            out: Linear::closing(scope.sub("net.2"), width * 4, width),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let parts = self.proj.forward(x).chunk(2, -1);
        self.out.forward(&(&parts[0] * parts[1].gelu("none")))
    }
}

#[derive(Debug)]
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl TransformerBlock {
    fn new(scope: Scope<'_>, config: &UNetConfig, width: i64, heads: i64) -> Self {
        let norm = |name: &str| LayerNorm::new(scope.sub(name), width, 1e-5);
        let attention = |name: &str, context: i64| {
            Attention::new(scope.sub(name), width, context, heads, config.upcast_attention)
        };
        Self {
            norm1: norm("norm1"),
            attn1: attention("attn1", width),
            norm2: norm("norm2"),
            attn2: attention("attn2", config.cross_attention_dim),
            norm3: norm("norm3"),
            ff: FeedForward::new(scope.sub("ff"), width),
        }
    }

    fn forward(&self, x: &Tensor, context: &Tensor) -> Tensor {
        let y = self.norm1.forward(x);
        let x = x + self.attn1.forward(&y, &y);
        let x = &x + self.attn2.forward(&self.norm2.forward(&x), context);
        &x + self.ff.forward(&self.norm3.forward(&x))
    }
}

#[derive(Debug)]
enum Projection {
    Conv(Conv2d),
    Linear(Linear),
}

impl Projection {
    fn opening(scope: Scope<'_>, width: i64, linear: bool) -> Self {
        if linear {
            Self::Linear(Linear::new(scope, width, width))
        } else {
            Self::Conv(Conv2d::new(scope, ConvShape::pointwise(width, width)))
        }
    }

    fn closing(scope: Scope<'_>, width: i64, linear: bool) -> Self {
        if linear {
            Self::Linear(Linear::closing(scope, width, width))
        } else {
            Self::Conv(Conv2d::closing(scope, ConvShape::pointwise(width, width)))
        }
    }
}

/// One `attentions.{j}` of a level: normalize, project in, transformer blocks, project out, add.
#[derive(Debug)]
pub(super) struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Projection,
    blocks: Vec<TransformerBlock>,
    proj_out: Projection,
}

impl SpatialTransformer {
    pub(super) fn new(scope: Scope<'_>, config: &UNetConfig, level: usize) -> Self {
        let width = config.block_out_channels[level];
        let linear = config.use_linear_projection;
        let block = |k: i64| {
            TransformerBlock::new(scope.sub("transformer_blocks").sub(k), config, width, config.heads[level])
        };
        Self {
            norm: GroupNorm::new(scope.sub("norm"), config.norm_num_groups, width, 1e-6),
            proj_in: Projection::opening(scope.sub("proj_in"), width, linear),
            blocks: (0..config.transformer_layers[level]).map(block).collect(),
            proj_out: Projection::closing(scope.sub("proj_out"), width, linear),
        }
    }

    /// # Shapes
    /// `x` `[b, c, h, w]`, `context` `[b, m, d]`, result as `x`.
    pub(super) fn forward(&self, x: &Tensor, context: &Tensor) -> Tensor {
        let (b, c, h, w) = x.size4().expect("feature maps are four-dimensional");
        let to_sequence = |map: Tensor| map.permute([0, 2, 3, 1]).reshape([b, h * w, c]); // [b, n, c]
        let to_map = |sequence: Tensor| sequence.reshape([b, h, w, c]).permute([0, 3, 1, 2]); // [b, c, h, w]
        let y = self.norm.forward(x);
        let mut y = match &self.proj_in {
            Projection::Conv(conv) => to_sequence(conv.forward(&y)),
            Projection::Linear(linear) => linear.forward(&to_sequence(y)),
        };
        for block in &self.blocks {
            y = block.forward(&y, context);
        }
        let y = match &self.proj_out {
            Projection::Conv(conv) => conv.forward(&to_map(y)),
            Projection::Linear(linear) => to_map(linear.forward(&y)),
        };
        x + y
    }
}
