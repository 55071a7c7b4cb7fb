//! Timestep embeddings.

use tch::{Kind, Tensor};

use super::linear::Linear;
use super::weights::Scope;

/// Sinusoids of `values` `[n]`, `[n, width]` f32.
///
/// With h = width / 2 and f_k = exp(-ln(10000) k / (h - shift)): sines of v f_k, then cosines; the other way round
/// when `cosines_first`.
///
/// Source: `get_timestep_embedding`, `huggingface/diffusers:src/diffusers/models/embeddings.py`.
pub(crate) fn sinusoids(values: &Tensor, width: i64, cosines_first: bool, shift: f64) -> Tensor {
    let half = width / 2;
    let k = Tensor::arange(half, (Kind::Float, values.device()));
    let frequencies = (k * (-(10_000f64.ln()) / (half as f64 - shift))).exp();
    let angles = values.to_kind(Kind::Float).unsqueeze(-1) * frequencies.unsqueeze(0);
    let (sines, cosines) = (angles.sin(), angles.cos());
    if cosines_first { Tensor::cat(&[cosines, sines], -1) } else { Tensor::cat(&[sines, cosines], -1) }
}

/// Two linear layers with SiLU between.
#[derive(Debug)]
pub(crate) struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    pub(crate) fn new(scope: Scope<'_>, n_in: i64, n_out: i64) -> Self {
        Self {
            linear_1: Linear::new(scope.sub("linear_1"), n_in, n_out),
            linear_2: Linear::new(scope.sub("linear_2"), n_out, n_out),
        }
    }

    /// # Shapes
    /// `[n, n_in]` to `[n, n_out]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        self.linear_2.forward(&self.linear_1.forward(x).silu())
    }
}
