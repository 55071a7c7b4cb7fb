//! Optimizers over f32 masters, and clipping of the whole gradient.

mod adafactor;
mod adamw;
mod ema;
mod grad_scaler;

use tastemaker_models::nn::Trainable;
use tastemaker_torch::optimizers::{squared_length, take_away_gradient};
use tastemaker_torch::streams::Event;
use tastemaker_torch::tensors::{Named, upload};
use tch::{Device, Kind, Tensor};

pub use adafactor::{Adafactor, AdafactorSettings};
pub use adamw::{AdamW, AdamW8bit, AdamWSettings};
pub(crate) use ema::Averaged;
pub use ema::{Ema, Exchange};
pub use grad_scaler::GradScaler;

/// When a parameter is updated, and how far.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// Its learning rate.
    pub learning_rate: f64,
    /// The step, from 1.
    pub step: i32,
}

/// A parameter that is moved.
#[derive(Debug)]
pub struct Move {
    /// Its place in the list.
    pub i: usize,
    /// The parameter.
    pub parameter: Tensor,
    /// Its gradient, which may be overwritten.
    pub gradient: Tensor,
}

/// How parameters follow their gradients. State is kept per parameter, by its place in the list.
pub trait Update: std::fmt::Debug {
    /// Moves parameters along their gradients, times `gradient_scale`.
    fn update(&mut self, moves: &mut [Move], gradient_scale: f64, at: At);

    /// The state of a parameter, by names that are its own.
    fn state(&self, i: usize) -> Vec<(&'static str, Tensor)>;
}

/// An update rule over a list of parameters.
#[derive(Debug)]
pub struct Optimizer {
    parameters: Vec<Tensor>,
    rates: Vec<f64>,
    rule: Box<dyn Update>,
    owned: Vec<bool>,
    on_host: bool,
    n_steps: i32,
}

impl Optimizer {
    /// An optimizer over these parameters, its state as at the start. It moves those it owns and keeps state for no
    /// others; `rule` is given nothing in the place of the others. `on_host` keeps state and arithmetic on the host, wherever
    /// the parameters are.
    pub fn sharded(
        parameters: Vec<Tensor>,
        owned: Vec<bool>,
        on_host: bool,
        rule: impl FnOnce(&[Tensor]) -> Box<dyn Update>,
    ) -> Self {
        let kept = |p: &Tensor| if on_host { to_host(&p.detach().empty_like()) } else { p.shallow_clone() };
        let kept: Vec<Tensor> = parameters
            .iter()
            .zip(&owned)
            .map(|(p, &owned)| if owned { kept(p) } else { Tensor::zeros([0], (p.kind(), p.device())) })
            .collect();
        Self { rates: vec![1.0; parameters.len()], rule: rule(&kept), parameters, owned, on_host, n_steps: 0 }
    }

    /// AdamW over these parameters, all of them its own.
    pub fn adamw(parameters: Vec<Tensor>, settings: AdamWSettings) -> Self {
        let owned = vec![true; parameters.len()];
        Self::sharded(parameters, owned, false, |kept| Box::new(AdamW::new(kept, settings)))
    }

    /// With a factor on the learning rate of each parameter.
    #[must_use]
    pub fn with_rates(self, rates: Vec<f64>) -> Self {
        debug_assert_eq!(rates.len(), self.parameters.len());
        Self { rates, ..self }
    }

    /// Applies the accumulated gradients, times `gradient_scale`, at this learning rate, and clears them.
    pub fn step(&mut self, learning_rate: f64, gradient_scale: f64) {
        self.n_steps += 1;
        let parameters = self.parameters.iter().enumerate().filter(|(i, _)| self.owned[*i]);
        let moves = parameters.map(|(i, parameter)| Move {
            i,
            parameter: parameter.shallow_clone(),
            gradient: parameter.grad(),
        });
        let mut moves: Vec<Move> = moves.filter(|one| one.gradient.defined()).collect();
        let rate = |one: &Move| self.rates[one.i];
        let groups = moves.chunk_by_mut(|one, next| rate(one) == rate(next));
        tch::no_grad(|| {
            for group in groups {
                let at = At { learning_rate: learning_rate * self.rates[group[0].i], step: self.n_steps };
                if !self.on_host {
                    self.rule.update(group, gradient_scale, at);
                    continue;
                }
                update_on_host(self.rule.as_mut(), group, ON_THE_WAY, gradient_scale, at);
            }
        });
        self.clear_gradients();
    }

    /// Masters and the rule's state of what it owns, and the number of steps, by the parameters' names. Tensors share their memory
    /// with the optimizer's.
    pub fn state(&self, names: &[Trainable]) -> Named {
        let mut state = Named::new();
        for (i, Trainable { name, .. }) in names.iter().enumerate().filter(|(i, _)| self.owned[*i]) {
            state.insert(format!("master.{name}"), self.parameters[i].detach());
            for (kind, tensor) in self.rule.state(i) {
                state.insert(format!("{kind}.{name}"), tensor);
            }
        }
        state.insert("n_steps".into(), Tensor::from(i64::from(self.n_steps)));
        state
    }

    /// Takes over a state saved by [`Optimizer::state`], one tensor after the other, and returns the steps it had done;
    /// `None` if it does not fit, and then what it holds is of no use.
    pub fn restore(&mut self, names: &[Trainable], read: &dyn Fn(&str) -> Option<Tensor>) -> Option<u64> {
        let others = names.iter().zip(&self.parameters).zip(&self.owned).filter(|(_, owned)| !**owned);
        let others = others.map(|((t, parameter), _)| (format!("master.{}", t.name), parameter.detach()));
        for (name, mut own) in self.state(names).into_iter().chain(others) {
            let stored = read(&name)?;
            if stored.size() != own.size() || stored.kind() != own.kind() {
                return None;
            }
            tch::no_grad(|| own.copy_(&stored));
        }
        self.n_steps = i32::try_from(whole_number(&read("n_steps")?)?).ok().filter(|n| *n >= 0)?;
        Some(self.n_steps as u64)
    }

    /// Forgets the accumulated gradients, and gives their memory back.
    pub fn clear_gradients(&mut self) {
        self.parameters.iter().for_each(take_away_gradient);
    }

    /// The accumulated gradients; parameters without one are skipped.
    pub fn gradients(&self) -> impl Iterator<Item = Tensor> + '_ {
        self.parameters.iter().map(Tensor::grad).filter(Tensor::defined)
    }

    /// Euclidean norm of all accumulated gradients together, in f64.
    pub fn gradient_norm(&self) -> f64 {
        let gradients: Vec<Tensor> = self.gradients().collect();
        if gradients.is_empty() { 0.0 } else { squared_length(&gradients).sqrt().double_value(&[]) }
    }
}

/// A copy on the host, laid out in memory as the tensor is, in memory that the kernel keeps in its place: from another device it is
/// on its way, and there when an event that is recorded after it is over.
fn to_host(tensor: &Tensor) -> Tensor {
    tensor.to_device_(Device::Cpu, tensor.kind(), true, true)
}

/// Numbers that are brought to the host at once: 64 MiB of gradients, and as much of parameters.
const ON_THE_WAY: usize = 1 << 24;

/// Parameters, and copies of them and their gradients that are on their way to the host.
struct Arriving<'a> {
    parameters: &'a mut [Move],
    copies: Vec<Move>,
    arrived: Event,
}

impl<'a> Arriving<'a> {
    fn of(parameters: &'a mut [Move]) -> Self {
        let copy = |one: &Move| Move {
            i: one.i,
            parameter: to_host(&one.parameter),
            gradient: to_host(&one.gradient),
        };
        let copies = parameters.iter().map(copy).collect();
        let arrived =
            Event::record(parameters[0].parameter.device()).expect("a device that holds parameters");
        Self { parameters, copies, arrived }
    }
}

/// Moves parameters on the host, in parts of about so many numbers: while one is computed, the next comes down and the one before
/// goes back.
fn update_on_host(rule: &mut dyn Update, moves: &mut [Move], at_once: usize, gradient_scale: f64, at: At) {
    let mut n_before = 0;
    let mut part = |one: &Move| {
        n_before += one.parameter.numel();
        (n_before - one.parameter.numel()) / at_once
    };
    let numbers: Vec<usize> = moves.iter().map(&mut part).collect();
    let mut rest = moves;
    let mut parts = numbers.chunk_by(|one, next| one == next).map(|part| {
        let (parameters, later) = std::mem::take(&mut rest).split_at_mut(part.len());
        rest = later;
        Arriving::of(parameters)
    });
    let mut next = parts.next();
    while let Some(Arriving { parameters, mut copies, arrived }) = next {
        next = parts.next();
        arrived.wait().expect("a device that computes");
        rule.update(&mut copies, gradient_scale, at);
        for (one, moved) in parameters.iter_mut().zip(&copies) {
            one.parameter.copy_(&upload(&moved.parameter, one.parameter.device()));
        }
    }
}

/// The factor that brings a gradient of this norm down to `max_norm`; a norm of 0 clips nothing, as in kohya's scripts.
///
/// Source: `torch.nn.utils.clip_grad_norm_`.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    if max_norm == 0.0 { 1.0 } else { (max_norm / (norm + 1e-6)).min(1.0) }
}

/// A whole number that was saved alone; `None` for a tensor that is something else.
pub(crate) fn whole_number(stored: &Tensor) -> Option<i64> {
    (stored.kind() == Kind::Int64 && stored.size().is_empty()).then(|| stored.int64_value(&[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_moves_every_weight_by_the_learning_rate() {
        let x = Tensor::from_slice(&[1.0f32, -2.0]).set_requires_grad(true);
        let settings = AdamWSettings { adam_weight_decay: 0.0, ..AdamWSettings::default() };
        let mut optimizer = Optimizer::adamw(vec![x.shallow_clone()], settings);
        (x.square().sum(Kind::Float)).backward();
        assert!((optimizer.gradient_norm() - 20f64.sqrt()).abs() < 1e-6);
        optimizer.step(0.1, 1.0);
        let moved = Vec::<f32>::try_from(x.to_device(Device::Cpu).detach()).expect("two values");
        assert!((moved[0] - 0.9).abs() < 1e-6 && (moved[1] + 1.9).abs() < 1e-6, "{moved:?}");
    }

    #[test]
    fn on_the_host_parameters_are_moved_in_parts_as_they_are_all_at_once() {
        let settings = AdamWSettings::default();
        let values =
            |phase: f64, n: i64| (Tensor::arange(n, (Kind::Float, Device::Cpu)) * 12.9 + phase).sin();
        let moved = |at_once: usize, is_8bit: bool| {
            let parameters: Vec<Tensor> =
                [7, 5000, 3, 4096, 1, 9000].iter().map(|&n| values(1.0, n)).collect();
            let mut rule: Box<dyn Update> = match is_8bit {
                true => Box::new(AdamW8bit::new(&parameters, settings)),
                false => Box::new(AdamW::new(&parameters, settings)),
            };
            for step in 1..=3 {
                let gradient = |one: &Tensor| values(f64::from(step), one.numel() as i64);
                let moves = parameters.iter().enumerate();
                let mut moves: Vec<Move> = moves
                    .map(|(i, one)| Move { i, parameter: one.shallow_clone(), gradient: gradient(one) })
                    .collect();
                update_on_host(rule.as_mut(), &mut moves, at_once, 0.5, At { learning_rate: 0.1, step });
            }
            parameters
        };
        for is_8bit in [false, true] {
            let whole = moved(usize::MAX, is_8bit);
            assert!(!whole[0].equal(&values(1.0, 7)));
            for at_once in [1, 4100, 5010] {
                let parts = moved(at_once, is_8bit);
                assert!(whole.iter().zip(&parts).all(|(one, other)| one.equal(other)), "{at_once}");
            }
        }
    }

    #[test]
    fn clipping_only_ever_shrinks_and_a_norm_of_0_clips_nothing() {
        assert_eq!(clip_factor(4.0, 0.0), 1.0);
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert!((clip_factor(4.0, 1.0) - 0.25).abs() < 1e-6);
    }
}
