//! What will be done: complete, checked, printable, and the same however it was typed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tastemaker_math::Prediction;
use tastemaker_math::objectives::{Objective, SettingsError, objective};

use crate::Warning;
use crate::recipe::AdapterSection;
use crate::schedule::{LrScheduler, Schedule};

/// A run in full. Fields have the meaning of the recipe's keys, see [`Recipe`](crate::Recipe).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Version of this structure on disk.
    pub format: u32,
    /// What is aligned.
    pub model: ModelPlan,
    /// What it is aligned to.
    pub data: DataPlan,
    /// By which method.
    pub method: MethodPlan,
    /// Which weights learn.
    pub adapter: Adapter,
    /// AdamW and its learning rate.
    pub optimizer: OptimizerPlan,
    /// How long, how many at once, in which precision.
    pub train: TrainPlan,
    /// Looking at held-out pairs on the way.
    pub validation: ValidationPlan,
    /// Where results go.
    pub output_dir: PathBuf,
    /// Pairs to train on, once the data has been opened.
    pub n_pairs: Option<u64>,
    /// What is allowed but suspicious; not part of the plan on disk.
    #[serde(skip)]
    pub warnings: Vec<Warning>,
}

/// See [`ModelSection`](crate::ModelSection).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPlan {
    /// A folder in diffusers layout.
    pub pretrained_model_name_or_path: String,
    /// Overrides what the model's scheduler config says.
    pub prediction_type: Option<Prediction>,
}

/// See [`DataSection`](crate::DataSection).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPlan {
    /// A set of pairs.
    pub train_data_dir: PathBuf,
    /// Side of the square images in pixels.
    pub resolution: u32,
    /// Share of captions never trained on.
    pub held_out_fraction: f64,
    /// Whether random mirroring is off.
    pub no_hflip: bool,
    /// Share of pairs trained with the empty caption.
    pub proportion_empty_prompts: f64,
}

/// The preference method, its settings complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodPlan {
    /// Its name.
    pub name: String,
    /// All its settings.
    pub settings: Value,
}

impl MethodPlan {
    /// The method itself.
    ///
    /// # Errors
    /// [`SettingsError`]; never after [`resolve`](crate::resolve), but a plan read from disk may have been
    /// edited.
    pub fn objective(&self) -> Result<Box<dyn Objective>, SettingsError> {
        objective(&self.name, &self.settings)
    }
}

/// Which weights learn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Adapter {
    /// Low-rank additions to named layers.
    Lora(LoraPlan),
    /// A LoRA that is there already, before its file has been read.
    Continued {
        /// The file.
        network_weights: PathBuf,
        /// What was typed beside it. The file says the same, or the run is refused.
        asked: AdapterSection,
    },
    /// Every weight of the network.
    Full {},
}

/// Low-rank additions to named layers. What a plan of an earlier version does not say is empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraPlan {
    /// Rank of the matrices.
    pub rank: u32,
    /// The scale is alpha / rank.
    pub alpha: f64,
    /// Name endings of the layers that get one.
    pub target_modules: Vec<String>,
    /// Other ranks, by name endings.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rank_pattern: BTreeMap<String, u32>,
    /// Other alphas, by name endings.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Whether lengths of rows are learnt apart from directions (DoRA).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_dora: bool,
    /// The LoRA that training starts from and compares with, which says all of the above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_weights: Option<PathBuf>,
}

/// See [`OptimizerSection`](crate::OptimizerSection).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerPlan {
    /// As typed; what is used is [`Plan::effective_learning_rate`].
    pub learning_rate: f64,
    /// Whether the learning rate is multiplied by the pairs per step.
    pub scale_lr: bool,
    /// Decay of the first moment.
    pub adam_beta1: f64,
    /// Decay of the second moment.
    pub adam_beta2: f64,
    /// Decoupled weight decay.
    pub adam_weight_decay: f64,
    /// Added to the root of the second moment.
    pub adam_epsilon: f64,
    /// Longest gradient.
    pub max_grad_norm: f64,
    /// Shape of the learning rate.
    pub lr_scheduler: LrScheduler,
    /// Optimiser steps of warm-up.
    pub lr_warmup_steps: u64,
    /// Cosines of `cosine_with_restarts`.
    pub lr_num_cycles: u32,
}

/// See [`TrainSection`](crate::TrainSection).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainPlan {
    /// Optimiser steps.
    pub max_train_steps: u64,
    /// Pairs per forward.
    pub train_batch_size: u32,
    /// Forwards per optimiser step.
    pub gradient_accumulation_steps: u32,
    /// Type of frozen weights and activations.
    pub mixed_precision: MixedPrecision,
    /// Seed of all randomness.
    pub seed: u64,
}

/// See [`ValidationSection`](crate::ValidationSection).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationPlan {
    /// Optimiser steps between looks; 0 is never.
    pub every: u64,
    /// Held-out pairs looked at.
    pub n_pairs: u32,
}

/// The type of frozen weights and activations, named as in accelerate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MixedPrecision {
    /// Everything in f32.
    #[default]
    No,
    /// bfloat16; what learns stays f32.
    Bf16,
}

impl Plan {
    /// Version of the plan on disk that this code writes and reads.
    pub const FORMAT: u32 = 1;

    /// The plan, knowing how many pairs there are to train on.
    #[must_use]
    pub fn with_data(self, n_pairs: u64) -> Self {
        Self { n_pairs: Some(n_pairs), ..self }
    }

    /// Pairs per optimiser step.
    pub fn effective_batch(&self) -> u64 {
        u64::from(self.train.train_batch_size) * u64::from(self.train.gradient_accumulation_steps)
    }

    /// The highest learning rate that is used.
    pub fn effective_learning_rate(&self) -> f64 {
        let scale = if self.optimizer.scale_lr { self.effective_batch() as f64 } else { 1.0 };
        self.optimizer.learning_rate * scale
    }

    /// Optimiser steps that use every pair once on average, once the data is known.
    pub fn steps_per_epoch(&self) -> Option<f64> {
        self.n_pairs.map(|n_pairs| n_pairs as f64 / self.effective_batch() as f64)
    }

    /// The learning rate over the run.
    pub fn schedule(&self) -> Schedule {
        Schedule {
            kind: self.optimizer.lr_scheduler,
            learning_rate: self.effective_learning_rate(),
            warmup_steps: self.optimizer.lr_warmup_steps,
            max_steps: self.train.max_train_steps,
            num_cycles: self.optimizer.lr_num_cycles,
        }
    }
}
