//! Optimizers over f32 masters, and clipping of the whole gradient.

mod adafactor;
mod adamw;
mod ema;
mod grad_scaler;

use tastemaker_models::nn::Trainable;
use tastemaker_torch::optimizers::{squared_length, take_away_gradient};
use tastemaker_torch::tensors::Named;
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
                for Move { i, parameter, gradient } in group {
                    let (moved, along) = (to_host(parameter), to_host(gradient));
                    let mut moves = [Move { i: *i, parameter: moved, gradient: along }];
                    self.rule.update(&mut moves, gradient_scale, at);
                    parameter.copy_(&moves[0].parameter);
                }
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

/// A copy on the host, laid out in memory as the tensor is.
fn to_host(tensor: &Tensor) -> Tensor {
    tensor.to_device_(Device::Cpu, tensor.kind(), false, true)
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
    fn clipping_only_ever_shrinks_and_a_norm_of_0_clips_nothing() {
        assert_eq!(clip_factor(4.0, 0.0), 1.0);
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert!((clip_factor(4.0, 1.0) - 0.25).abs() < 1e-6);
    }
}
