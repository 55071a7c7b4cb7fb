//! Gaussian noise as a pure function of its key.

use tastemaker_math::keyed::{Keyed, Stream};
use tch::Tensor;

/// Names the noise of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoiseKey {
    /// Seed of the run.
    pub seed: u64,
    /// What the noise is for.
    pub stream: Stream,
    /// Which pair or prompt.
    pub index: u64,
    /// Which repetition.
    pub draw: u64,
}

impl NoiseKey {
    /// The generator of this key, at its start.
    pub fn generator(&self) -> Keyed {
        Keyed::new(self.seed, self.stream, self.index, self.draw)
    }
}

/// Unit gaussians, one key per sample, on the host.
///
/// # Shapes
/// `sample_shape` is `[c, h, w]`; result `[keys.len(), c, h, w]` f32.
pub fn gaussian(keys: &[NoiseKey], sample_shape: &[i64]) -> Tensor {
    gaussians(keys, sample_shape)()
}

/// A source of unit gaussians on the host: every call gives the next ones of each key.
///
/// # Shapes
/// As [`gaussian`].
pub fn gaussians(keys: &[NoiseKey], sample_shape: &[i64]) -> impl FnMut() -> Tensor + use<> {
    let mut generators: Vec<Keyed> = keys.iter().map(NoiseKey::generator).collect();
    let sample_shape = sample_shape.to_vec();
    move || next_gaussian(generators.iter_mut(), &sample_shape)
}

/// The next unit gaussians of each generator, on the host.
///
/// # Shapes
/// As [`gaussian`].
pub fn next_gaussian<'a>(generators: impl Iterator<Item = &'a mut Keyed>, sample_shape: &[i64]) -> Tensor {
    let n_elements = sample_shape.iter().product::<i64>() as usize;
    let mut values = Vec::new();
    let mut n_samples = 0;
    for generator in generators {
        let start = values.len();
        values.resize(start + n_elements, 0f32);
        generator.fill_normal(&mut values[start..]);
        n_samples += 1;
    }
    let shape: Vec<i64> = std::iter::once(n_samples).chain(sample_shape.iter().copied()).collect();
    Tensor::from_slice(&values).reshape(shape)
}
