//! Everything about a run that changes from step to step. Randomness is keyed and order is computed, so nothing about
//! them is here.

use tastemaker_models::nn::Trainable;
use tastemaker_run::{OptimizerKind, Plan};
use tastemaker_store::dtype::DType;
use tastemaker_torch::tensors::Named;
use tch::{Kind, Tensor};

use crate::TrainError;
use crate::optimizer::{
    Adafactor, AdafactorSettings, AdamW, AdamW8bit, AdamWSettings, Ema, GradScaler, Optimizer, whole_number,
};
use crate::validation::HeldOutErrors;

/// The state of a run between two steps.
#[derive(Debug)]
pub struct State {
    /// Optimizer steps made.
    pub step: u64,
    /// The optimizer over the trainable parameters.
    pub optimizer: Optimizer,
    /// The moving average, where one is asked for.
    pub ema: Option<Ema>,
    /// The factor on the loss, in half precision.
    pub grad_scaler: Option<GradScaler>,
    /// Errors of the first validation.
    pub before: Option<HeldOutErrors>,
    /// Mean over images of reference minus policy error in the step before, at least 0.
    pub mean_gain: f64,
    /// Running mean of margins, which beta follows where the plan says so; `None` before there was one.
    pub margin_scale: Option<f64>,
    /// The moving average that is the reference, where one is asked for.
    pub reference: Option<Ema>,
}

impl State {
    /// The state before the first step. `n_text` parameters at the end of `trainable` belong to text encoders; `owned` says
    /// which parameters this process keeps the optimizer's state of.
    pub fn new(trainable: &[Trainable], n_text: usize, owned: Vec<bool>, plan: &Plan) -> Self {
        let masters: Vec<Tensor> = trainable.iter().map(|t| t.tensor.shallow_clone()).collect();
        let (n_unet, text_rate) = (masters.len() - n_text, plan.text_rate());
        let rates = (0..masters.len()).map(|i| if i < n_unet { 1.0 } else { text_rate }).collect();
        Self {
            step: 0,
            optimizer: optimizer(masters, owned, plan).with_rates(rates),
            ema: plan.train.ema_decay.map(|decay| Ema::new(trainable, decay)),
            reference: plan.train.reference_ema_decay.map(|decay| Ema::of_reference(trainable, decay)),
            grad_scaler: (plan.train.mixed_precision == DType::F16).then(GradScaler::default),
            before: None,
            mean_gain: 0.0,
            margin_scale: None,
        }
    }

    /// Checks that weights and their averages are numbers. No loss follows the last update that would show it.
    ///
    /// # Errors
    /// [`TrainError::NonFiniteState`] naming the first tensor that is not finite.
    pub fn check_finite(&self, trainable: &[Trainable]) -> Result<(), TrainError> {
        let masters = trainable.iter().map(|t| (&t.name, &t.tensor));
        let averages = self.ema.iter().chain(&self.reference).flat_map(|ema| ema.averages(trainable));
        match masters.chain(averages).find(|(_, tensor)| !is_finite(tensor)) {
            Some((name, _)) => Err(TrainError::NonFiniteState { step: self.step, tensor: name.to_owned() }),
            None => Ok(()),
        }
    }

    /// All of it as tensors. Large ones share their memory.
    pub fn tensors(&self, trainable: &[Trainable]) -> Named {
        let mut state = self.optimizer.state(trainable);
        state.insert("step".to_owned(), Tensor::from(self.step as i64));
        state.insert("mean_gain".to_owned(), Tensor::from(self.mean_gain));
        state.extend(self.margin_scale.map(|scale| ("margin_scale".to_owned(), Tensor::from(scale))));
        state.extend(self.ema.iter().chain(&self.reference).flat_map(|ema| ema.state(trainable)));
        state.extend(self.grad_scaler.iter().map(GradScaler::state));
        if let Some(before) = &self.before {
            let ids: Vec<i64> = before.keys().map(|&id| id as i64).collect();
            let errors: Vec<f64> = before.values().flat_map(|&(winner, loser)| [winner, loser]).collect();
            state.insert("before.ids".to_owned(), Tensor::from_slice(&ids));
            state.insert("before.errors".to_owned(), Tensor::from_slice(&errors));
        }
        state
    }

    /// Takes over what [`State::tensors`] gave; `None` if it is of another network or another kind of run.
    pub fn restore(&mut self, trainable: &[Trainable], read: &dyn Fn(&str) -> Option<Tensor>) -> Option<()> {
        self.step = u64::try_from(whole_number(&read("step")?)?).ok()?;
        let number = |name: &str| {
            let stored =
                read(name).filter(|number| number.kind() == Kind::Double && number.size().is_empty());
            stored.map(|number| number.double_value(&[])).filter(|number| number.is_finite())
        };
        self.mean_gain = number("mean_gain")?;
        self.margin_scale = number("margin_scale");
        self.optimizer.restore(trainable, read)?;
        for ema in self.ema.iter_mut().chain(&mut self.reference) {
            ema.restore(trainable, read)?;
        }
        if self.grad_scaler.is_some() {
            self.grad_scaler = Some(GradScaler::restored(read("loss_scale"))?);
        }
        self.before = match (read("before.ids"), read("before.errors")) {
            (Some(ids), Some(errors)) if (ids.kind(), errors.kind()) == (Kind::Int64, Kind::Double) => {
                let (ids, errors) = (Vec::<i64>::try_from(&ids).ok()?, Vec::<f64>::try_from(&errors).ok()?);
                let pairs = errors.chunks_exact(2).map(|pair| (pair[0], pair[1]));
                if errors.len() != 2 * ids.len() || errors.iter().any(|error| !error.is_finite()) {
                    return None;
                }
                Some(ids.into_iter().map(|id| id as u64).zip(pairs).collect())
            }
            (None, None) => None,
            _ => return None,
        };
        Some(())
    }
}

/// The name of the first tensor of a state, or of a part of it, that is not finite. What was measured before is no part of
/// what a run goes on with.
pub(crate) fn not_finite(state: &Named) -> Option<&str> {
    let measured = "before.errors";
    let found = state.iter().find(|(name, tensor)| name.as_str() != measured && !is_finite(tensor));
    found.map(|(name, _)| name.as_str())
}

/// Whether every number of a tensor is one.
pub(crate) fn is_finite(tensor: &Tensor) -> bool {
    !tensor.is_floating_point() || tch::no_grad(|| tensor.isfinite().all().int64_value(&[])) != 0
}

/// The optimizer of a plan over what this process owns.
fn optimizer(masters: Vec<Tensor>, owned: Vec<bool>, plan: &Plan) -> Optimizer {
    let settings = AdamWSettings {
        adam_beta1: plan.optimizer.adam_beta1,
        adam_beta2: plan.optimizer.adam_beta2,
        adam_weight_decay: plan.optimizer.adam_weight_decay,
        adam_epsilon: plan.optimizer.adam_epsilon,
    };
    let weight_decay = plan.optimizer.adam_weight_decay;
    Optimizer::sharded(masters, owned, plan.optimizer.offload_optimizer, |kept| {
        match plan.optimizer.optimizer_type {
            OptimizerKind::AdamW => Box::new(AdamW::new(kept, settings)),
            OptimizerKind::AdamW8bit => Box::new(AdamW8bit::new(kept, settings)),
            OptimizerKind::Adafactor => Box::new(Adafactor::new(
                kept,
                AdafactorSettings { weight_decay, ..AdafactorSettings::default() },
            )),
        }
    })
}
