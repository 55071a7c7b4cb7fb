//! Blocks: attention and a feed-forward layer behind a gate of SiLU, normalized before and after.
//!
//! Shapes: b batch, n tokens, c width, H heads, e = c / H.

use tch::Tensor;

use super::config::ZImageConfig;
use super::rope::Rotation;
use crate::nn::{Linear, RmsNorm, Scope, attend};

/// Epsilon of the normalization of queries and keys.
const QK_EPS: f64 = 1e-5;

/// The widest embedding of the time.
const TIME: i64 = 256;

/// Width of the embedding of the time.
pub(super) fn time_width(config: &ZImageConfig) -> i64 {
    config.dim.min(TIME)
}

#[derive(Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    norms: Option<(RmsNorm, RmsNorm)>,
    heads: i64,
}

impl Attention {
    fn new(scope: Scope<'_>, config: &ZImageConfig) -> Self {
        let linear = |name: &str| Linear::without_bias(scope.sub(name), config.dim, config.dim);
        let norm = |name: &str| RmsNorm::new(scope.sub(name), config.dim / config.n_heads, QK_EPS);
        Self {
            to_q: linear("to_q"),
            to_k: linear("to_k"),
            to_v: linear("to_v"),
            to_out: linear("to_out.0"),
            norms: config.qk_norm.then(|| (norm("norm_q"), norm("norm_k"))),
            heads: config.n_heads,
        }
    }

    fn forward(&self, x: &Tensor, rotation: &Rotation) -> Tensor {
        let split = |y: Tensor| y.unflatten(-1, [self.heads, -1]); // [b, n, H, e]
        let [mut q, mut k, v] = [&self.to_q, &self.to_k, &self.to_v].map(|layer| split(layer.forward(x)));
        if let Some((norm_q, norm_k)) = &self.norms {
            (q, k) = (norm_q.forward(&q), norm_k.forward(&k));
        }
        let [q, k, v] = [rotation.apply(&q), rotation.apply(&k), v].map(|y| y.transpose(1, 2));
        self.to_out.forward(&attend(&q, &k, &v, false).transpose(1, 2).flatten(2, 3))
    }
}

#[derive(Debug)]
struct FeedForward {
    w1: Linear,
    w2: Linear,
    w3: Linear,
}

impl FeedForward {
    fn new(scope: Scope<'_>, config: &ZImageConfig) -> Self {
        let (dim, hidden) = (config.dim, config.hidden());
        Self {
            w1: Linear::without_bias(scope.sub("w1"), dim, hidden),
            w2: Linear::without_bias(scope.sub("w2"), hidden, dim),
            w3: Linear::without_bias(scope.sub("w3"), dim, hidden),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.w2.forward(&(self.w1.forward(x).silu() * self.w3.forward(x)))
    }
}

/// One of `layers`, `noise_refiner` or `context_refiner`.
#[derive(Debug)]
pub(super) struct Block {
    attention: Attention,
    feed_forward: FeedForward,
    /// Before and after attention, before and after the feed-forward layer.
    norms: [RmsNorm; 4],
    /// Two scales and two gates from the time; those of the caption have none.
    modulation: Option<Linear>,
}

impl Block {
    pub(super) fn new(scope: Scope<'_>, config: &ZImageConfig, is_modulated: bool) -> Self {
        let norm = |name: &str| RmsNorm::new(scope.sub(name), config.dim, config.norm_eps);
        Self {
            attention: Attention::new(scope.sub("attention"), config),
            feed_forward: FeedForward::new(scope.sub("feed_forward"), config),
            norms: ["attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2"].map(norm),
            modulation: is_modulated.then(|| {
                Linear::closing(scope.sub("adaLN_modulation.0"), time_width(config), 4 * config.dim)
            }),
        }
    }

    /// # Shapes
    /// `x` `[b, n, c]`, `time` `[b, t]`; result `[b, n, c]`.
    pub(super) fn forward(&self, x: &Tensor, rotation: &Rotation, time: Option<&Tensor>) -> Tensor {
        let [before, after, before_ff, after_ff] = &self.norms;
        let parts = self.modulation.as_ref().zip(time).map(|(linear, time)| {
            let parts = linear.forward(time).unsqueeze(1).chunk(4, 2); // [b, 1, c] each
            [&parts[0] + 1.0, parts[1].tanh(), &parts[2] + 1.0, parts[3].tanh()]
        });
        let times = |y: Tensor, part: usize| match &parts {
            Some(parts) => y * &parts[part],
            None => y,
        };
        let y = self.attention.forward(&times(before.forward(x), 0), rotation);
        let x = x + times(after.forward(&y), 1);
        let y = self.feed_forward.forward(&times(before_ff.forward(&x), 2));
        &x + times(after_ff.forward(&y), 3)
    }
}
