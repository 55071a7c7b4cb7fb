//! A resumable optimization loop with an exponential moving average of the weights.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tastemaker_models::nn::Trainable;
use tastemaker_torch::tensors::{self, Named};
use tastemaker_train::TrainError;
use tastemaker_train::optimizer::{AdamWSettings, Ema, Optimizer, clip_factor};
use tch::Tensor;

use crate::DemoError;

/// Settings of a pre-training loop.
#[derive(Debug, Clone)]
pub struct LoopSettings {
    /// Optimizer steps in all.
    pub n_steps: u64,
    /// Peak learning rate: linear warm-up, then cosine to zero.
    pub learning_rate: f64,
    /// Steps of warm-up.
    pub n_warmup: u64,
    /// Largest gradient norm.
    pub max_grad_norm: f64,
    /// Decay of the moving average; 0 keeps the last weights.
    pub ema_decay: f64,
    /// Where state is kept, and resumed from if it is there.
    pub state: PathBuf,
    /// Steps between saves.
    pub save_every: u64,
}

/// Metrics of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Loss of this step.
    pub loss: f64,
    /// Norm of its gradient before clipping.
    pub gradient_norm: f64,
    /// Its learning rate.
    pub learning_rate: f64,
}

/// Runs the loop: `backward(step)` accumulates the gradient of one step and returns its loss.
///
/// Returns the averaged weights by name. A run that was stopped resumes from its last save and ends with the same
/// weights as one that was not.
///
/// # Errors
/// [`TrainError::NonFinite`]; [`TrainError::OtherState`], or a state file that cannot be read or written.
pub fn run(
    trainable: &[Trainable],
    settings: &LoopSettings,
    mut backward: impl FnMut(u64) -> f64,
    mut report: impl FnMut(Progress),
) -> Result<Named, DemoError> {
    let masters: Vec<Tensor> = trainable.iter().map(|t| t.tensor.shallow_clone()).collect();
    let mut ema = Ema::new(trainable, settings.ema_decay);
    let mut optimizer =
        Optimizer::adamw(masters, AdamWSettings { adam_weight_decay: 1e-4, ..AdamWSettings::default() });
    let mut first_step = 0;
    if settings.state.exists() {
        let state = tensors::read(&settings.state)?;
        let read = |name: &str| state.get(name).map(Tensor::shallow_clone);
        let restored = ema.restore(trainable, &read).and_then(|()| optimizer.restore(trainable, &read));
        first_step = restored.ok_or_else(|| TrainError::OtherState { path: settings.state.clone() })?;
    }
    for step in first_step..settings.n_steps {
        let loss = backward(step);
        let gradient_norm = optimizer.gradient_norm();
        if !loss.is_finite() || !gradient_norm.is_finite() {
            return Err(TrainError::NonFinite { step, pairs: Vec::new() }.into());
        }
        let learning_rate = learning_rate(settings, step);
        optimizer.step(learning_rate, clip_factor(gradient_norm, settings.max_grad_norm));
        ema.update(trainable, step);
        report(Progress { step: step + 1, loss, gradient_norm, learning_rate });
        if (step + 1) % settings.save_every == 0 || step + 1 == settings.n_steps {
            let mut state = optimizer.state(trainable);
            state.extend(ema.state(trainable));
            tensors::write(&settings.state, &state, &BTreeMap::new())?;
        }
    }
    Ok(ema.into_named(trainable))
}

fn learning_rate(settings: &LoopSettings, step: u64) -> f64 {
    let warmup = ((step + 1) as f64 / settings.n_warmup.max(1) as f64).min(1.0);
    let position = step as f64 / settings.n_steps as f64;
    settings.learning_rate * warmup * 0.5 * (1.0 + (std::f64::consts::PI * position).cos())
}
