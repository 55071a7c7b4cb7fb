//! Group and layer normalization.

use tastemaker_torch::norm::group_norm;
use tch::Tensor;

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
