//! Weights of recorded networks, drawn again as `redraw` of `golden/common.py` drew them.
//!
//! That function asks PyTorch's CPU generator for normal numbers in f64; here are the same generator and the same
//! arithmetic, so weights are bit for bit those the outputs were recorded with and need no files.
//! Sources: PyTorch 2.11, `ATen/core/MT19937RNGEngine.h`, `ATen/core/DistributionsHelper.h`,
//! `ATen/native/cpu/DistributionTemplates.h` (`normal_fill`).

use std::collections::BTreeMap;
use std::f64::consts::PI;

use crate::{Array, Arrays};

/// Every parameter of these names and shapes, from `seed`: weights of norms around 1, vectors small, matrices by their
/// number of inputs.
pub(crate) fn redraw(shapes: BTreeMap<String, Vec<usize>>, seed: u32) -> Arrays {
    let mut generator = Generator::new(seed);
    let draw = |(name, shape): (String, Vec<usize>)| {
        let n = shape.iter().product();
        let inputs: usize = shape.iter().skip(1).product();
        let scale = (inputs as f64).sqrt();
        let drawn = generator.normals(n).into_iter().map(|x| match shape.len() {
            _ if is_weight_of_norm(&name, &shape) => 1.0 + 0.2 * x,
            0 | 1 => 0.2 * x,
            _ => x / scale,
        });
        let values = drawn.map(|x| x as f32).collect();
        (name, Array { shape, values })
    };
    // In the order of names, as Python sorts them.
    shapes.into_iter().map(draw).collect()
}

/// Whether a parameter is the weight of a normalization: `conv_norm_out.weight`, `cap_embedder.0.weight`. Others have two dimensions.
fn is_weight_of_norm(name: &str, shape: &[usize]) -> bool {
    name.ends_with(".weight") && shape.len() == 1
}

const STATE: usize = 624;

/// The Mersenne twister, MT19937, and PyTorch's normal numbers.
struct Generator {
    state: [u32; STATE],
    next: usize,
    /// The second number of a pair that was drawn one by one.
    kept: Option<f64>,
}

impl Generator {
    fn new(seed: u32) -> Self {
        let mut state = [seed; STATE];
        for i in 1..STATE {
            let before = state[i - 1];
            state[i] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: STATE, kept: None }
    }

    fn u32(&mut self) -> u32 {
        if self.next == STATE {
            for i in 0..STATE {
                let joined = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % STATE] & 0x7fff_ffff);
                let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % STATE] ^ (joined >> 1) ^ odd;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// In `[0, 1)`, of 53 bits.
    fn uniform(&mut self) -> f64 {
        let (high, low) = (u64::from(self.u32()), u64::from(self.u32()));
        let bits = ((high << 32) | low) & ((1 << 53) - 1);
        bits as f64 * (0.5_f64).powi(53)
    }

    fn normals(&mut self, n: usize) -> Vec<f64> {
        if n < 16 {
            return (0..n).map(|_| self.normal()).collect();
        }
        let mut values: Vec<f64> = (0..n).map(|_| self.uniform()).collect();
        values.chunks_exact_mut(16).for_each(normal_16);
        if !n.is_multiple_of(16) {
            let last = &mut values[n - 16..];
            last.fill_with(|| self.uniform());
            normal_16(last);
        }
        values
    }

    fn normal(&mut self) -> f64 {
        if let Some(kept) = self.kept.take() {
            return kept;
        }
        let (angle, radius) = (2.0 * PI * self.uniform(), (-2.0 * (-self.uniform()).ln_1p()).sqrt());
        self.kept = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

/// Eight pairs of uniform numbers to eight pairs of normal ones (Box and Muller).
fn normal_16(values: &mut [f64]) {
    for j in 0..8 {
        let (radius, angle) = ((-2.0 * (1.0 - values[j]).ln()).sqrt(), 2.0 * PI * values[j + 8]);
        values[j] = radius * angle.cos();
        values[j + 8] = radius * angle.sin();
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_twister_is_the_published_one() {
        // The first and the 10,000th output for seed 5489: ISO C++, [rand.predef].
        let mut generator = Generator::new(5489);
        assert_eq!(generator.u32(), 3_499_211_612);
        assert_eq!((1..10_000).map(|_| generator.u32()).last(), Some(4_123_659_995));
    }

    #[test]
    fn weights_are_those_that_pytorch_drew() {
        // SHA-256 of all values in the order of names, of files that PyTorch 2.11 wrote.
        for (case, recorded) in RECORDED {
            let mut hash = Sha256::new();
            for array in crate::golden_weights("models", case).values() {
                array.values.iter().for_each(|value| hash.update(value.to_le_bytes()));
            }
            let found: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, *recorded, "{case}");
        }
    }

    const RECORDED: [(&str, &str); 10] = [
        ("clip-text", "822a1d78b9ed1a64"),
        ("clip-text-legacy", "709d0888d42f5aa3"),
        ("clip-text-projection", "612c7941b264fa6a"),
        ("clip-vision", "f5861058c2c571b6"),
        ("unet-demo", "01a0f86b8a878351"),
        ("unet-sd1", "867f4ffff72feaa8"),
        ("unet-sd2v", "0a238128e00c1677"),
        ("unet-sdxl", "869cc9e509632fa2"),
        ("vae", "fa391e76bd75c0d4"),
        ("vae-demo", "483f0c782bfd15ab"),
    ];
}
