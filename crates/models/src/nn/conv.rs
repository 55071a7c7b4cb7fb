//! Two-dimensional convolution.

use tastemaker_torch::products::conv2d;
use tch::Tensor;

use super::lora::Lora;
use super::param::Param;
use super::weights::{Init, Scope};

/// Sizes of a convolution.
#[derive(Debug, Clone, Copy)]
pub struct ConvShape {
    /// Input channels.
    pub n_in: i64,
    /// Output channels.
    pub n_out: i64,
    /// Kernel side.
    pub kernel: i64,
    /// Stride.
    pub stride: i64,
    /// Zero padding on each side.
    pub padding: i64,
}

impl ConvShape {
    /// Kernel 3, stride 1, padding 1.
    pub fn same(n_in: i64, n_out: i64) -> Self {
        Self { n_in, n_out, kernel: 3, stride: 1, padding: 1 }
    }

    /// Kernel 1, stride 1, no padding.
    pub fn pointwise(n_in: i64, n_out: i64) -> Self {
        Self { n_in, n_out, kernel: 1, stride: 1, padding: 0 }
    }

    fn fan_in(self) -> i64 {
        self.n_in * self.kernel * self.kernel
    }
}

/// A convolution with bias, plus the adapter's update where there is one.
#[derive(Debug)]
pub struct Conv2d {
    weight: Param,
    bias: Option<Param>,
    lora: Option<Lora>,
    shape: ConvShape,
}

impl Conv2d {
    /// # Shapes
    /// Weight `[n_out, n_in, kernel, kernel]`, bias `[n_out]`.
    pub fn new(scope: Scope<'_>, shape: ConvShape) -> Self {
        let bias = Some(scope.param("bias", &[shape.n_out], Init::Zeros));
        Self { bias, ..Self::without_bias(scope, shape) }
    }

    /// As [`Conv2d::new`], for the last layer of a residual branch: it differs in how it starts.
    pub fn closing(scope: Scope<'_>, shape: ConvShape) -> Self {
        let bias = Some(scope.param("bias", &[shape.n_out], Init::Zeros));
        Self { bias, ..Self::starting(scope, shape, Init::Closing(shape.fan_in())) }
    }

    /// # Shapes
    /// Weight `[n_out, n_in, kernel, kernel]`.
    pub fn without_bias(scope: Scope<'_>, shape: ConvShape) -> Self {
        Self::starting(scope, shape, Init::FanIn(shape.fan_in()))
    }

    fn starting(scope: Scope<'_>, shape: ConvShape, init: Init) -> Self {
        let ConvShape { n_in, n_out, kernel, .. } = shape;
        let weight = scope.param("weight", &[n_out, n_in, kernel, kernel], init);
        let down = |rank| vec![rank, n_in, kernel, kernel];
        let lora = scope.lora(&|| weight.value(), down, |rank| vec![n_out, rank, 1, 1]);
        Self { weight, bias: None, lora, shape }
    }

    /// # Shapes
    /// `[b, n_in, h, w]` to `[b, n_out, h', w']`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let ConvShape { stride, padding, .. } = self.shape;
        let bias = self.bias.as_ref().map(Param::value);
        let y = conv2d(x, &self.weight.value(), bias.as_ref(), stride, padding);
        let Some(lora) = &self.lora else { return y };
        let Some(factors) = lora.acting() else { return y };
        let low = conv2d(x, &factors.down.value(), None, stride, padding);
        let update = conv2d(&low, &factors.up.value(), None, 1, 0);
        let Some(magnitude) = &factors.magnitude else { return y + update * lora.scale };
        let layer = (&(|| self.weight.value()) as _, self.bias.as_ref());
        lora.stretched(&y, layer, factors, magnitude, update)
    }
}
