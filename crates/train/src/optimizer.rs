//! AdamW, and clipping of the whole gradient.

use tastemaker_models::nn::Trainable;
use tastemaker_torch::tensors::Named;
use tch::{Kind, Tensor};

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

/// AdamW over f32 masters.
///
/// Source: arXiv 1711.05101, algorithm 2; same order of operations as `torch.optim.AdamW`.
#[derive(Debug)]
pub struct AdamW {
    settings: AdamWSettings,
    parameters: Vec<Tensor>,
    rates: Vec<f64>,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
    n_steps: i32,
}

impl AdamW {
    /// An optimiser over these parameters, its moments at zero.
    pub fn new(parameters: Vec<Tensor>, settings: AdamWSettings) -> Self {
        let zeros = || parameters.iter().map(|p| p.detach().zeros_like()).collect();
        let rates = vec![1.0; parameters.len()];
        Self { settings, rates, first: zeros(), second: zeros(), parameters, n_steps: 0 }
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
        let AdamWSettings { adam_beta1: b1, adam_beta2: b2, adam_weight_decay, adam_epsilon } = self.settings;
        let correction_1 = 1.0 - b1.powi(self.n_steps);
        let correction_2 = (1.0 - b2.powi(self.n_steps)).sqrt();
        tch::no_grad(|| {
            let moments = self.first.iter_mut().zip(&mut self.second);
            let parameters = self.parameters.iter_mut().zip(&self.rates);
            for ((parameter, rate), (first, second)) in parameters.zip(moments) {
                let learning_rate = learning_rate * rate;
                let mut gradient = parameter.grad();
                if !gradient.defined() {
                    continue;
                }
                if gradient_scale != 1.0 {
                    let _ = gradient.g_mul_scalar_(gradient_scale);
                }
                let _ = parameter.g_mul_scalar_(1.0 - learning_rate * adam_weight_decay);
                let _ = first.lerp_(&gradient, 1.0 - b1);
                let _ = second.g_mul_scalar_(b2);
                let _ = second.addcmul_(&gradient, &(&gradient * (1.0 - b2)));
                let mut denominator = second.sqrt();
                let _ = denominator.g_div_scalar_(correction_2);
                let _ = denominator.g_add_scalar_(adam_epsilon);
                let _ = parameter.addcdiv_(&(&*first * (-learning_rate / correction_1)), &denominator);
            }
        });
        self.clear_gradients();
    }

    /// Masters, moments and step count, by the parameters' names.
    pub fn state(&self, names: &[Trainable]) -> Named {
        let mut state = Named::new();
        for (i, Trainable { name, .. }) in names.iter().enumerate() {
            state.insert(format!("master.{name}"), self.parameters[i].detach());
            state.insert(format!("first.{name}"), self.first[i].shallow_clone());
            state.insert(format!("second.{name}"), self.second[i].shallow_clone());
        }
        state.insert("n_steps".into(), Tensor::from(i64::from(self.n_steps)));
        state
    }

    /// Takes over a state saved by [`AdamW::state`] and returns the steps it had done; `None`, and nothing changed, if
    /// it does not fit.
    pub fn restore(&mut self, names: &[Trainable], state: &Named) -> Option<u64> {
        let part = |kind: &str, i: usize| {
            state
                .get(&format!("{kind}.{}", names[i].name))
                .filter(|tensor| tensor.size() == self.parameters[i].size())
                .map(Tensor::shallow_clone)
        };
        let all: Option<Vec<[Tensor; 3]>> = (0..names.len())
            .map(|i| Some([part("master", i)?, part("first", i)?, part("second", i)?]))
            .collect();
        let (all, n_steps) = (all?, state.get("n_steps")?);
        tch::no_grad(|| {
            for (i, [master, first, second]) in all.iter().enumerate() {
                self.parameters[i].copy_(master);
                self.first[i].copy_(first);
                self.second[i].copy_(second);
            }
        });
        self.n_steps = n_steps.int64_value(&[]) as i32;
        Some(self.n_steps as u64)
    }

    /// Forgets the accumulated gradients.
    pub fn clear_gradients(&mut self) {
        for parameter in &mut self.parameters {
            parameter.zero_grad();
        }
    }

    /// Euclidean norm of all accumulated gradients together, in f64.
    pub fn gradient_norm(&self) -> f64 {
        let squares: Vec<Tensor> = self
            .parameters
            .iter()
            .map(Tensor::grad)
            .filter(Tensor::defined)
            .map(|gradient| gradient.square().sum(Kind::Double))
            .collect();
        if squares.is_empty() {
            0.0
        } else {
            Tensor::stack(&squares, 0).sum(Kind::Double).sqrt().double_value(&[])
        }
    }
}

/// The factor that brings a gradient of this norm down to `max_norm`.
///
/// Source: `torch.nn.utils.clip_grad_norm_`.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    (max_norm / (norm + 1e-6)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn the_first_step_moves_every_weight_by_the_learning_rate() {
        let x = Tensor::from_slice(&[1.0f32, -2.0]).set_requires_grad(true);
        let settings = AdamWSettings { adam_weight_decay: 0.0, ..AdamWSettings::default() };
        let mut optimizer = AdamW::new(vec![x.shallow_clone()], settings);
        (x.square().sum(Kind::Float)).backward();
        assert!((optimizer.gradient_norm() - 20f64.sqrt()).abs() < 1e-6);
        optimizer.step(0.1, 1.0);
        let moved = Vec::<f32>::try_from(x.to_device(Device::Cpu).detach()).expect("two values");
        assert!((moved[0] - 0.9).abs() < 1e-6 && (moved[1] + 1.9).abs() < 1e-6, "{moved:?}");
    }

    #[test]
    fn clipping_only_ever_shrinks() {
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert!((clip_factor(4.0, 1.0) - 0.25).abs() < 1e-6);
    }
}
