//! AdamW, with moments in f32 or in 8 bits.

use tastemaker_torch::optimizers::{AdamWStep, Codes, Moments8bit, adamw_8bit, fused_adamw};
use tch::{Device, Tensor};

use super::{At, Move, Update};

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
    fn step(&self, At { learning_rate, step }: At, gradient_scale: f64) -> AdamWStep {
        AdamWStep {
            learning_rate,
            beta1: self.adam_beta1,
            beta2: self.adam_beta2,
            weight_decay: self.adam_weight_decay,
            epsilon: self.adam_epsilon,
            gradient_scale,
            number: i64::from(step),
        }
    }
}

/// AdamW, its moments in f32, by libtorch's fused kernel: one call for all parameters of a learning rate.
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

    fn state(&self) -> Vec<(&'static str, Tensor)> {
        vec![("first", self.first.shallow_clone()), ("second", self.second.shallow_clone())]
    }
}

/// A step of parameters and the moments of each.
fn fused<'a>(moves: impl Iterator<Item = (&'a Move, &'a Wide)>, step: &AdamWStep) {
    let [mut parameters, mut gradients, mut first, mut second] = [const { Vec::new() }; 4];
    for (one, moments) in moves {
        parameters.push(one.parameter.shallow_clone());
        gradients.push(one.gradient.shallow_clone());
        first.push(moments.first.shallow_clone());
        second.push(moments.second.shallow_clone());
    }
    if !parameters.is_empty() {
        fused_adamw(&mut parameters, &gradients, (&mut first, &mut second), step);
    }
}

impl AdamW {
    /// For these parameters, moments at zero.
    pub fn new(parameters: &[Tensor], settings: AdamWSettings) -> Self {
        Self { settings, moments: parameters.iter().map(Wide::zeros).collect() }
    }
}

impl Update for AdamW {
    fn update(&mut self, moves: &mut [Move], gradient_scale: f64, at: At) {
        let step = self.settings.step(at, gradient_scale);
        fused(moves.iter().map(|one| (one, &self.moments[one.i])), &step);
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
            n => Narrow::Codes(Box::new(Moments8bit::zeros(n as i64, parameter.device()))),
        };
        let device = parameters.first().map_or(Device::Cpu, Tensor::device);
        let codes = Codes::dynamic().to_device(device);
        Self { settings, codes, moments: parameters.iter().map(zeros).collect() }
    }
}

impl Update for AdamW8bit {
    fn update(&mut self, moves: &mut [Move], gradient_scale: f64, at: At) {
        let step = self.settings.step(at, gradient_scale);
        for Move { i, parameter, gradient } in &mut *moves {
            if let Narrow::Codes(moments) = &mut self.moments[*i] {
                adamw_8bit(parameter, gradient, moments, &self.codes, &step);
            }
        }
        let moments = |one: &Move| match &self.moments[one.i] {
            Narrow::Codes(_) => None,
            Narrow::Wide(moments) => Some(moments),
        };
        fused(moves.iter().filter_map(|one| Some((one, moments(one)?))), &step);
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
