//! The exponential moving average of the trainable parameters.

use tastemaker_models::nn::Trainable;
use tastemaker_torch::tensors::Named;
use tch::Tensor;

/// An exponential moving average of f32 masters.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    means: Vec<Tensor>,
}

impl Ema {
    /// An average that starts at the masters as they are.
    pub fn new(trainable: &[Trainable], decay: f64) -> Self {
        Self { decay, means: trainable.iter().map(|t| t.tensor.detach().copy()).collect() }
    }

    /// Follows the masters after step `step`, counted from 0. Early averages follow closely, so that a short run is not an
    /// average of its start.
    ///
    /// Source: `EMAModel.get_decay` of diffusers' training_utils.py, `(1 + step) / (10 + step)`.
    pub fn update(&mut self, trainable: &[Trainable], step: u64) {
        let decay = self.decay.min((1 + step) as f64 / (10 + step) as f64);
        tch::no_grad(|| {
            for (mean, master) in self.means.iter_mut().zip(trainable) {
                let _ = mean.lerp_(&master.tensor, 1.0 - decay);
            }
        });
    }

    /// The averages under `average.<name>`; they share their memory.
    pub fn state(&self, trainable: &[Trainable]) -> Named {
        let named = trainable.iter().zip(&self.means);
        named.map(|(t, mean)| (format!("average.{}", t.name), mean.shallow_clone())).collect()
    }

    /// The averages by the names of the parameters.
    pub fn into_named(self, trainable: &[Trainable]) -> Named {
        trainable.iter().zip(self.means).map(|(t, mean)| (t.name.clone(), mean)).collect()
    }

    /// Takes over what [`Ema::state`] saved; `None` if it does not fit.
    pub fn restore(&mut self, trainable: &[Trainable], read: &dyn Fn(&str) -> Option<Tensor>) -> Option<()> {
        for (mean, master) in self.means.iter_mut().zip(trainable) {
            let stored = read(&format!("average.{}", master.name))?;
            if stored.size() != mean.size() || stored.kind() != mean.kind() {
                return None;
            }
            mean.copy_(&stored);
        }
        Some(())
    }

    /// Puts the averages in the place of the masters.
    pub fn copy_to(&self, trainable: &[Trainable]) {
        tch::no_grad(|| {
            for (mean, master) in self.means.iter().zip(trainable) {
                master.tensor.shallow_clone().copy_(mean);
            }
        });
    }
}
