//! Linear layer.

use tastemaker_torch::products::{add_linear, linear};
use tastemaker_torch::quantized::Quantized;
use tch::{Kind, Tensor};

use super::lora::Lora;
use super::param::Param;
use super::weights::{Init, Scope};

/// `y = x W^T + b`, plus the adapter's update where there is one.
#[derive(Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Param>,
    lora: Option<Lora>,
}

/// The weight of a linear layer, `[n_out, n_in]`.
#[derive(Debug)]
pub(super) enum Weight {
    /// In the compute type, or an f32 master.
    Whole(Param),
    /// Frozen, in few bits; unpacked to the compute type.
    Quantized(Quantized, Kind),
}

impl Weight {
    /// In the compute type.
    pub(super) fn value(&self) -> Tensor {
        match self {
            Self::Whole(param) => param.value(),
            Self::Quantized(packed, compute) => packed.value(*compute),
        }
    }

    fn multiply(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        match self {
            Self::Whole(param) => linear(x, &param.value(), bias),
            Self::Quantized(packed, _) => packed.linear(x, bias),
        }
    }
}

impl Linear {
    /// A layer with bias. # Shapes: weight `[n_out, n_in]`.
    pub fn new(scope: Scope<'_>, n_in: i64, n_out: i64) -> Self {
        let bias = Some(scope.param("bias", &[n_out], Init::Zeros));
        Self { bias, ..Self::without_bias(scope, n_in, n_out) }
    }

    /// As [`Linear::new`], for the last layer of a residual branch: it differs in how it starts.
    pub fn closing(scope: Scope<'_>, n_in: i64, n_out: i64) -> Self {
        let bias = Some(scope.param("bias", &[n_out], Init::Zeros));
        Self { bias, ..Self::starting(scope, n_in, n_out, Init::Closing(n_in)) }
    }

    /// A layer without bias. # Shapes: weight `[n_out, n_in]`.
    pub fn without_bias(scope: Scope<'_>, n_in: i64, n_out: i64) -> Self {
        Self::starting(scope, n_in, n_out, Init::FanIn(n_in))
    }

    fn starting(scope: Scope<'_>, n_in: i64, n_out: i64, init: Init) -> Self {
        let weight = scope.matrix(n_in, n_out, init);
        let lora = scope.lora(&|| weight.value(), |rank| vec![rank, n_in], |rank| vec![n_out, rank]);
        Self { weight, bias: None, lora }
    }

    /// # Shapes
    /// `[.., n_in]` to `[.., n_out]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.weight.multiply(x, self.bias.as_ref().map(Param::value).as_ref());
        let Some(lora) = &self.lora else { return y };
        let Some(factors) = lora.acting() else { return y };
        let (low, up) = (linear(x, &factors.down.value(), None), factors.up.value());
        let Some(magnitude) = &factors.magnitude else { return add_linear(&y, &low, &up, lora.scale) };
        let layer = (&(|| self.weight.value()) as _, self.bias.as_ref());
        lora.stretched(&y, layer, factors, magnitude, linear(&low, &up, None))
    }
}
