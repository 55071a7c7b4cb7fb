//! The transformer layers that CLIP's two towers share: normalize, attend, add; normalize, feed forward, add.
//!
//! Shapes: b batch, n positions, c width, H heads, e = c / H.
//!
//! Source: `huggingface/transformers:src/transformers/models/clip/modeling_clip.py`, `CLIPEncoder`.

use tch::Tensor;

use super::config::{Activation, EncoderShape};
use crate::nn::{LayerNorm, Linear, Scope, attend, attend_causally};

#[derive(Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    n_heads: i64,
    causal: bool,
}

impl Attention {
    fn new(scope: Scope<'_>, shape: &EncoderShape, causal: bool) -> Self {
        let linear = |name: &str| Linear::new(scope.sub(name), shape.width, shape.width);
        Self {
            q_proj: linear("q_proj"),
            k_proj: linear("k_proj"),
            v_proj: linear("v_proj"),
            out_proj: Linear::closing(scope.sub("out_proj"), shape.width, shape.width),
            n_heads: shape.n_heads,
            causal,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let (b, n, c) = x.size3().expect("hidden states are three-dimensional");
        let split = |y: Tensor| y.view([b, n, self.n_heads, c / self.n_heads]).transpose(1, 2); // [b, H, n, e]
        let (q, k, v) = (self.q_proj.forward(x), self.k_proj.forward(x), self.v_proj.forward(x));
        let (q, k, v) = (split(q), split(k), split(v));
        let y = if self.causal { attend_causally(&q, &k, &v) } else { attend(&q, &k, &v, false) };
        self.out_proj.forward(&y.transpose(1, 2).reshape([b, n, c]))
    }
}

#[derive(Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

impl Mlp {
    fn new(scope: Scope<'_>, shape: &EncoderShape) -> Self {
        Self {
            fc1: Linear::new(scope.sub("fc1"), shape.width, shape.intermediate),
            fc2: Linear::closing(scope.sub("fc2"), shape.intermediate, shape.width),
            activation: shape.activation,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.fc1.forward(x);
        self.fc2.forward(&match self.activation {
            Activation::QuickGelu => &x * (&x * 1.702).sigmoid(),
            Activation::Gelu => x.gelu("none"),
        })
    }
}

#[derive(Debug)]
struct Layer {
    layer_norm1: LayerNorm,
    self_attn: Attention,
    layer_norm2: LayerNorm,
    mlp: Mlp,
}

impl Layer {
    fn new(scope: Scope<'_>, shape: &EncoderShape, causal: bool) -> Self {
        Self {
            layer_norm1: LayerNorm::new(scope.sub("layer_norm1"), shape.width, shape.eps),
            self_attn: Attention::new(scope.sub("self_attn"), shape, causal),
            layer_norm2: LayerNorm::new(scope.sub("layer_norm2"), shape.width, shape.eps),
            mlp: Mlp::new(scope.sub("mlp"), shape),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.self_attn.forward(&self.layer_norm1.forward(x));
        &x + self.mlp.forward(&self.layer_norm2.forward(&x))
    }
}

/// `encoder.layers`.
#[derive(Debug)]
pub(crate) struct Encoder {
    layers: Vec<Layer>,
}

impl Encoder {
    /// `causal`: every position sees only itself and the ones before it.
    pub(crate) fn new(scope: Scope<'_>, shape: &EncoderShape, causal: bool) -> Self {
        let layer = |i: i64| Layer::new(scope.sub("layers").sub(i), shape, causal);
        Self { layers: (0..shape.n_layers).map(layer).collect() }
    }

    /// What enters the first layer and what leaves each layer: one more than there are layers.
    ///
    /// # Shapes
    /// `[b, n, c]` to a list of the same.
    pub(crate) fn forward(&self, x: Tensor) -> Vec<Tensor> {
        let mut states = vec![x];
        for (i, layer) in self.layers.iter().enumerate() {
            states.push(layer.forward(&states[i]));
        }
        states
    }
}
