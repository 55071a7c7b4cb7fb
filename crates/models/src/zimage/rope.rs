//! Rotary embedding along three axes: caption, row and column.

use tch::{Device, Kind, Tensor};

use super::config::ZImageConfig;

/// Cosines and sines of a sequence's positions.
///
/// # Shapes
/// `[n, 1, e / 2]` f32 each, for heads of width e.
#[derive(Debug)]
pub(super) struct Rotation {
    cosines: Tensor,
    sines: Tensor,
}

impl Rotation {
    /// Of positions `[n, 3]` int64.
    pub(super) fn new(config: &ZImageConfig, positions: &Tensor, device: Device) -> Self {
        let of_axis = |(axis, width): (i64, &i64)| {
            let k = Tensor::arange(width / 2, (Kind::Double, Device::Cpu));
            let frequencies = (k * (-2.0 * config.rope_theta.ln() / *width as f64)).exp();
            positions.select(1, axis).to_kind(Kind::Double).unsqueeze(1) * frequencies.unsqueeze(0)
        };
        let angles: Vec<Tensor> = (0..).zip(&config.axes_dims).map(of_axis).collect();
        // Angles are rounded before cosine and sine are taken, as published.
        let angles = Tensor::cat(&angles, 1).to_kind(Kind::Float).unsqueeze(1).to_device(device);
        Self { cosines: angles.cos(), sines: angles.sin() }
    }

    /// Those of `self`, then those of `other`.
    pub(super) fn followed_by(&self, other: &Self) -> Self {
        Self {
            cosines: Tensor::cat(&[&self.cosines, &other.cosines], 0),
            sines: Tensor::cat(&[&self.sines, &other.sines], 0),
        }
    }

    /// Turns neighboring pairs, in f32.
    ///
    /// # Shapes
    /// `[b, n, H, e]` to the same.
    pub(super) fn apply(&self, x: &Tensor) -> Tensor {
        let pairs = x.to_kind(Kind::Float).unflatten(-1, [-1, 2]);
        let (a, b) = (pairs.select(-1, 0), pairs.select(-1, 1)); // [b, n, H, e / 2]
        let turned = [&a * &self.cosines - &b * &self.sines, &a * &self.sines + &b * &self.cosines];
        Tensor::stack(&turned, -1).flatten(-2, -1).to_kind(x.kind())
    }
}

/// Positions of a caption's tokens, padding included: 1, 2, ... along the first axis.
///
/// # Shapes
/// `[n, 3]` int64.
pub(super) fn of_caption(n: i64) -> Tensor {
    let zeros = Tensor::zeros([n, 2], (Kind::Int64, Device::Cpu));
    Tensor::cat(&[Tensor::arange(n, (Kind::Int64, Device::Cpu)).unsqueeze(1) + 1, zeros], 1)
}

/// Positions of the patches of an image after a caption of so many tokens, then of its padding.
///
/// # Shapes
/// `[padded, 3]` int64.
pub(super) fn of_image((h, w): (i64, i64), n_caption: i64, padded: i64) -> Tensor {
    let options = (Kind::Int64, Device::Cpu);
    let rows = Tensor::arange(h, options).unsqueeze(1).expand([h, w], false).reshape([-1]);
    let columns = Tensor::arange(w, options).unsqueeze(0).expand([h, w], false).reshape([-1]);
    let start = Tensor::full([h * w], n_caption + 1, options);
    let patches = Tensor::stack(&[start, rows, columns], 1);
    Tensor::cat(&[patches, Tensor::zeros([padded - h * w, 3], options)], 0)
}
