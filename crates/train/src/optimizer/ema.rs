//! Exponential moving averages of the trainable parameters: the one that is the result, and the one that is the reference.

use tastemaker_models::nn::Trainable;
use tastemaker_torch::tensors::Named;
use tch::Tensor;

/// An exponential moving average of f32 masters.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    /// Whether early averages follow closely.
    warms_up: bool,
    /// What its tensors are called before the parameter's name.
    prefix: &'static str,
    means: Vec<Tensor>,
}

impl Ema {
    /// An average that starts at the masters as they are.
    pub fn new(trainable: &[Trainable], decay: f64) -> Self {
        let means = trainable.iter().map(|t| t.tensor.detach().copy()).collect();
        Self { decay, warms_up: true, prefix: "average", means }
    }

    /// The average that a policy is compared with: `reference <- decay reference + (1 - decay) policy`, from the first step on.
    ///
    /// Source: `--use_ema_ref` of Whynot0101/Linear-DPO `train/train_sd3_dpo.py`.
    pub fn of_reference(trainable: &[Trainable], decay: f64) -> Self {
        Self { warms_up: false, prefix: "reference", ..Self::new(trainable, decay) }
    }

    /// Follows the masters after step `step`, counted from 0. Early averages follow closely, so that a short run is not an
    /// average of its start.
    ///
    /// Source: `EMAModel.get_decay` of diffusers' training_utils.py: 0 after the first step, then `(1 + step) / (10 + step)`.
    pub fn update(&mut self, trainable: &[Trainable], step: u64) {
        let decay = match step {
            _ if !self.warms_up => self.decay,
            0 => 0.0,
            _ => self.decay.min((1 + step) as f64 / (10 + step) as f64),
        };
        tch::no_grad(|| {
            for (mean, master) in self.means.iter_mut().zip(trainable) {
                let _ = mean.lerp_(&master.tensor, 1.0 - decay);
            }
        });
    }

    /// The averages under `average.<name>` or `reference.<name>`; they share their memory.
    pub fn state(&self, trainable: &[Trainable]) -> Named {
        let named = trainable.iter().zip(&self.means);
        named.map(|(t, mean)| (format!("{}.{}", self.prefix, t.name), mean.shallow_clone())).collect()
    }

    /// The averages, each with its parameter's name.
    pub(crate) fn averages<'a>(
        &'a self,
        trainable: &'a [Trainable],
    ) -> impl Iterator<Item = (&'a String, &'a Tensor)> {
        trainable.iter().map(|t| &t.name).zip(&self.means)
    }

    /// The averages by the names of the parameters.
    pub fn into_named(self, trainable: &[Trainable]) -> Named {
        trainable.iter().zip(self.means).map(|(t, mean)| (t.name.clone(), mean)).collect()
    }

    /// Takes over what [`Ema::state`] saved; `None` if it does not fit.
    pub fn restore(&mut self, trainable: &[Trainable], read: &dyn Fn(&str) -> Option<Tensor>) -> Option<()> {
        for (mean, master) in self.means.iter_mut().zip(trainable) {
            let stored = read(&format!("{}.{}", self.prefix, master.name))?;
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

/// Handles on masters and averages that exchange the two.
#[derive(Debug)]
pub struct Exchange(Vec<[Tensor; 2]>);

impl Exchange {
    /// Of these masters and their averages, which go on to follow them.
    pub fn of(ema: &Ema, trainable: &[Trainable]) -> Self {
        let both = trainable.iter().zip(&ema.means);
        Self(both.map(|(t, mean)| [t.tensor.shallow_clone(), mean.shallow_clone()]).collect())
    }

    /// Exchanges them bit for bit.
    pub(crate) fn exchange(&self) {
        tch::no_grad(|| {
            for [master, mean] in &self.0 {
                let before = master.detach().copy();
                master.shallow_clone().copy_(mean);
                mean.shallow_clone().copy_(&before);
            }
        });
    }
}

/// The averages in the place of the masters while this lives: validation, images and files are of what the result will be.
pub(crate) struct Averaged<'a>(Option<Swap<'a>>);

/// Which average, and how it is put there and taken back.
enum Swap<'a> {
    Own(Exchange),
    Lent(&'a Exchange),
}

impl<'a> Averaged<'a> {
    /// Puts the averages there, if there are any.
    pub(crate) fn of(ema: Option<&Ema>, trainable: &[Trainable]) -> Self {
        Self::swapped(ema.map(|ema| Swap::Own(Exchange::of(ema, trainable))))
    }

    /// Puts those there that these handles are of.
    pub(crate) fn by(exchange: &'a Exchange) -> Self {
        Self::swapped(Some(Swap::Lent(exchange)))
    }

    fn swapped(swap: Option<Swap<'a>>) -> Self {
        let averaged = Self(swap);
        averaged.exchange();
        averaged
    }

    fn exchange(&self) {
        match &self.0 {
            Some(Swap::Own(exchange)) => exchange.exchange(),
            Some(Swap::Lent(exchange)) => exchange.exchange(),
            None => {}
        }
    }
}

impl Drop for Averaged<'_> {
    fn drop(&mut self) {
        self.exchange();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(values: &[f32]) -> [Trainable; 1] {
        [Trainable { name: "weight".into(), tensor: Tensor::from_slice(values).set_requires_grad(true) }]
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.detach()).expect("a vector")
    }

    /// Of the values 1, 2, 3 after a start at 0, with the decays 0, 2/11 and 1/4.
    #[test]
    fn averages_follow_as_those_of_diffusers_do() {
        let master = parameter(&[0.0]);
        let mut ema = Ema::new(&master, 0.9999);
        for (step, wanted) in [(0, 1.0), (1, 1.0 + 9.0 / 11.0), (2, 0.0)] {
            let _ = tch::no_grad(|| master[0].tensor.shallow_clone().fill_(step as f64 + 1.0));
            ema.update(&master, step);
            let wanted = if step == 2 { 0.25 * (1.0 + 9.0 / 11.0) + 0.75 * 3.0 } else { wanted };
            assert!((f64::from(values(&ema.means[0])[0]) - wanted).abs() < 1e-6, "step {step}");
        }
    }

    #[test]
    fn a_reference_follows_with_the_same_decay_from_the_first_step_on() {
        let master = parameter(&[0.0]);
        let mut ema = Ema::of_reference(&master, 0.75);
        for (step, wanted) in [(0, 0.25), (1, 0.6875), (2, 1.265_625)] {
            let _ = tch::no_grad(|| master[0].tensor.shallow_clone().fill_(step as f64 + 1.0));
            ema.update(&master, step);
            assert_eq!(values(&ema.means[0]), [wanted as f32], "step {step}");
        }
    }

    #[test]
    fn masters_come_back_bit_for_bit_from_behind_their_averages() {
        let master = parameter(&[0.1, -0.3]);
        let mut ema = Ema::new(&master, 0.5);
        tch::no_grad(|| master[0].tensor.shallow_clone().copy_(&Tensor::from_slice(&[0.7f32, 1e-30])));
        ema.update(&master, 5);
        let (raw, mean) = (values(&master[0].tensor), values(&ema.means[0]));
        {
            let _averaged = Averaged::of(Some(&ema), &master);
            assert_eq!(values(&master[0].tensor), mean);
        }
        assert_eq!((values(&master[0].tensor), values(&ema.means[0])), (raw, mean));
    }
}
