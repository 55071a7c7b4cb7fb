//! Group, layer and root-mean-square normalization.

use tastemaker_torch::norm::group_norm;
use tch::{Kind, Tensor};

use super::param::Param;
use super::weights::{Init, Scope};

/// Normalizes groups of channels of `[b, c, ..]`.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Param,
    bias: Param,
    n_groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// `n_groups` must divide `n_channels`; configurations are checked before networks are built.
    pub fn new(scope: Scope<'_>, n_groups: i64, n_channels: i64, eps: f64) -> Self {
        Self {
            weight: scope.param("weight", &[n_channels], Init::Ones),
            bias: scope.param("bias", &[n_channels], Init::Zeros),
            n_groups,
            eps,
        }
    }

    /// # Shapes
    /// `[b, c, ..]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        group_norm(x, self.n_groups, &self.weight.value(), &self.bias.value(), self.eps)
    }
}

/// Normalizes the last dimension.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Param,
    bias: Param,
    width: i64,
    eps: f64,
}

impl LayerNorm {
    /// A layer over vectors of `width`.
    pub fn new(scope: Scope<'_>, width: i64, eps: f64) -> Self {
        Self {
            weight: scope.param("weight", &[width], Init::Ones),
            bias: scope.param("bias", &[width], Init::Zeros),
            width,
            eps,
        }
    }

    /// # Shapes
    /// `[.., width]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm([self.width], Some(self.weight.value()), Some(self.bias.value()), self.eps, false)
    }
}

/// Normalizes the last dimension, without weight or bias.
///
/// # Shapes
/// `[.., c]` to the same.
pub(crate) fn layer_norm(x: &Tensor, eps: f64) -> Tensor {
    let width = x.size().last().copied().unwrap_or_default();
    x.layer_norm([width], None::<Tensor>, None::<Tensor>, eps, false)
}

/// Divides the last dimension by its root mean square, computed in f32.
///
/// Source: `RMSNorm` of diffusers, `T5LayerNorm` and `Qwen3RMSNorm` of transformers.
#[derive(Debug)]
pub struct RmsNorm {
    weight: Param,
    eps: f64,
}

impl RmsNorm {
    /// A layer over vectors of `width`.
    pub fn new(scope: Scope<'_>, width: i64, eps: f64) -> Self {
        Self { weight: scope.param("weight", &[width], Init::Ones), eps }
    }

    /// # Shapes
    /// `[.., width]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let wide = x.to_kind(Kind::Float);
        let mean = (&wide * &wide).mean_dim([-1i64].as_slice(), true, Kind::Float);
        let normalized: Tensor = wide * (mean + self.eps).rsqrt();
        normalized.to_kind(x.kind()) * self.weight.value()
    }
}
