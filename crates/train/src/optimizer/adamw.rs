//! AdamW, with moments in f32 or in 8 bits.

use tastemaker_torch::optimizers::{AdamWStep, Codes, Moments8bit, adamw_8bit, fused_adamw};
use tch::Tensor;

use super::{At, Update};

/// Settings of AdamW, under their diffusers names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWSettings {
    /// Decay of the first moment.
    pub adam_beta1: f64,
    /// Decay of the second moment.
    pub adam_beta2: f64,
    /// Decoupled weight decay.
    pub adam_weight_decay: f64,
    /// Added to the root of the second moment.
    pub adam_epsilon: f64,
}

impl Default for AdamWSettings {
    fn default() -> Self {
        Self { adam_beta1: 0.9, adam_beta2: 0.999, adam_weight_decay: 1e-2, adam_epsilon: 1e-8 }
    }
}

impl AdamWSettings {
    fn step(&self, At { learning_rate, step }: At) -> AdamWStep {
        AdamWStep {
            learning_rate,
            beta1: self.adam_beta1,
            beta2: self.adam_beta2,
            weight_decay: self.adam_weight_decay,
            epsilon: self.adam_epsilon,
            gradient_scale: 1.0,
            number: i64::from(step),
        }
    }
}

/// AdamW, its moments in f32, by libtorch's fused kernel.
///
/// Source: arXiv 1711.05101, algorithm 2; `torch.optim.AdamW(fused=True)`.
#[derive(Debug)]
pub struct AdamW {
    settings: AdamWSettings,
    moments: Vec<Wide>,
}

/// Both moments of a parameter.
#[derive(Debug)]
struct Wide {
    first: Tensor,
    second: Tensor,
}

impl Wide {
    fn zeros(parameter: &Tensor) -> Self {
        let zeros = || parameter.detach().zeros_like();
        Self { first: zeros(), second: zeros() }
    }

    fn update(&mut self, parameter: &mut Tensor, gradient: &Tensor, step: &AdamWStep) {
        let (first, second) = (&mut self.first, &mut self.second);
        let one = std::slice::from_mut;
        fused_adamw(one(parameter), std::slice::from_ref(gradient), (one(first), one(second)), step);
    }

    fn state(&self) -> Vec<(&'static str, Tensor)> {
        vec![("first", self.first.shallow_clone()), ("second", self.second.shallow_clone())]
    }
}

impl AdamW {
    /// For these parameters, moments at zero.
    pub fn new(parameters: &[Tensor], settings: AdamWSettings) -> Self {
        Self { settings, moments: parameters.iter().map(Wide::zeros).collect() }
    }
}

impl Update for AdamW {
    fn update(&mut self, i: usize, parameter: &mut Tensor, gradient: &mut Tensor, at: At) {
        self.moments[i].update(parameter, gradient, &self.settings.step(at));
    }

    fn state(&self, i: usize) -> Vec<(&'static str, Tensor)> {
        self.moments[i].state()
    }
}

/// Parameters with fewer numbers keep their moments in f32.
///
/// Source: `min_8bit_size` of bitsandbytes.
const FEWEST_NUMBERS: usize = 4096;

/// AdamW, its moments in blocks of 8-bit codes.
///
/// Source: arXiv 2110.02861; `bitsandbytes.optim.AdamW8bit`.
#[derive(Debug)]
pub struct AdamW8bit {
    settings: AdamWSettings,
    codes: Codes,
    moments: Vec<Narrow>,
}

#[derive(Debug)]
enum Narrow {
    Codes(Box<Moments8bit>),
    Wide(Wide),
}

impl AdamW8bit {
    /// For these parameters, moments at zero.
    pub fn new(parameters: &[Tensor], settings: AdamWSettings) -> Self {
        let zeros = |parameter: &Tensor| match parameter.numel() {
            n if n < FEWEST_NUMBERS => Narrow::Wide(Wide::zeros(parameter)),
            n => Narrow::Codes(Box::new(Moments8bit::zeros(n as i64))),
        };
        Self { settings, codes: Codes::dynamic(), moments: parameters.iter().map(zeros).collect() }
    }
}

impl Update for AdamW8bit {
    fn update(&mut self, i: usize, parameter: &mut Tensor, gradient: &mut Tensor, at: At) {
        let step = self.settings.step(at);
        match &mut self.moments[i] {
            Narrow::Codes(moments) => adamw_8bit(parameter, gradient, moments, &self.codes, &step),
            Narrow::Wide(moments) => moments.update(parameter, gradient, &step),
        }
    }

    fn state(&self, i: usize) -> Vec<(&'static str, Tensor)> {
        match &self.moments[i] {
            Narrow::Codes(moments) => vec![
                ("first_codes", moments.first.codes.shallow_clone()),
                ("first_absmax", moments.first.absmax.shallow_clone()),
                ("second_codes", moments.second.codes.shallow_clone()),
                ("second_absmax", moments.second.absmax.shallow_clone()),
            ],
            Narrow::Wide(moments) => moments.state(),
        }
    }
}
