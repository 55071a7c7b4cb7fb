//! What will be done: complete, checked, printable, and the same however it was typed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tastemaker_math::flow::Density;
use tastemaker_math::objectives::{Objective, SettingsError, objective};
use tastemaker_store::dtype::DType;

use crate::Warning;
use crate::schedule::Schedule;
use crate::settings::{
    AdapterSection, CheckpointPlan, DataPlan, LoggingPlan, LoraPlan, ModelPlan, OptimizerPlan, OutputPlan,
    TimestepDensity, TrainPlan, ValidationPlan, keys,
};

impl TrainPlan {
    /// How a flow model's training noise levels are drawn.
    pub fn density(&self) -> Density {
        let Self { logit_mean: mean, logit_std: std, .. } = *self;
        match self.timestep_density {
            TimestepDensity::Uniform => Density::Uniform,
            TimestepDensity::LogitNormal => Density::LogitNormal { mean, std },
            TimestepDensity::Mode => Density::Mode { scale: self.mode_scale },
            TimestepDensity::Sigmoid => {
                Density::Sigmoid { scale: self.sigmoid_scale, shift: self.discrete_flow_shift }
            }
            TimestepDensity::Logsnr => Density::Logsnr { mean, std },
        }
    }
}

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
    /// Which weights are trained.
    pub adapter: Adapter,
    /// Which optimizer, and its learning rate.
    pub optimizer: OptimizerPlan,
    /// How long, how many pairs at once, in which precision.
    pub train: TrainPlan,
    /// Validation during training.
    pub validation: ValidationPlan,
    /// States to resume from.
    #[serde(default)]
    pub checkpoint: CheckpointPlan,
    /// Where metrics go.
    #[serde(default)]
    pub logging: LoggingPlan,
    /// What a full fine-tune writes.
    #[serde(default)]
    pub output: OutputPlan,
    /// Where results go.
    pub output_dir: PathBuf,
    /// Processes that train together.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub n_processes: u32,
    /// Pairs to train on, once the data has been opened.
    pub n_pairs: Option<u64>,
    /// Numbers in the latent of an image, once the model has been opened; not part of the plan on disk.
    #[serde(skip)]
    pub n_elements: Option<u64>,
    /// Where caches go that are given no place of their own; not part of the plan on disk.
    #[serde(skip)]
    pub cache_root: Option<PathBuf>,
    /// What training will take, once the model has been looked at; not part of the plan on disk.
    #[serde(skip)]
    pub memory: Option<MemoryEstimate>,
    /// What is known of the model and the machine, in words; not part of the plan on disk.
    #[serde(skip)]
    pub facts: Vec<(&'static str, String)>,
    /// What is probably mistaken; not part of the plan on disk.
    #[serde(skip)]
    pub warnings: Vec<Warning>,
}

fn one() -> u32 {
    1
}

fn is_one(n: &u32) -> bool {
    *n == 1
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
    pub fn objective(&self) -> Result<Objective, SettingsError> {
        objective(&self.name, &self.settings)
    }
}

/// Which weights are trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "adapter_type", rename_all = "lowercase", deny_unknown_fields)]
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

/// Resolutions of buckets, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketPlan {
    /// Sides are multiples of this.
    pub step: u32,
    /// The shortest side.
    pub min: u32,
    /// The longest side.
    pub max: u32,
}

impl DataPlan {
    /// The buckets beside the square, where there are any.
    pub fn buckets(&self) -> Option<BucketPlan> {
        self.enable_bucket.then(|| BucketPlan {
            step: self.bucket_reso_steps.unwrap_or(64),
            min: self.min_bucket_reso.unwrap_or(self.resolution / 2),
            max: self.max_bucket_reso.unwrap_or(self.resolution.saturating_mul(2)),
        })
    }
}

/// Pairs above which latents are cached in half the bytes unless the plan says otherwise: a set of 851,000 takes 446 GB in fp32 at 512
/// pixels with flipped images, and 1.8 TB at 1024.
pub const MANY_PAIRS: u64 = 100_000;

impl CheckpointPlan {
    /// Whether a checkpoint is written when this many steps are made.
    pub fn is_due(&self, steps: u64) -> bool {
        self.checkpointing_steps > 0 && steps > 0 && steps.is_multiple_of(self.checkpointing_steps)
    }
}

/// What a run will hold in memory, and on disk, in bytes, counted from shapes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// What is done one after the other.
    pub phases: Vec<Phase>,
    /// Latents and text of all pairs, which are on disk.
    pub cache: u64,
    /// What a precomputed reference of the whole run takes on disk.
    pub reference: u64,
    /// What is free where networks live, if that is known.
    pub free: Option<u64>,
    /// Where that is not enough: changes with which it would be.
    pub relief: Vec<Relief>,
}

/// What is held at once in one part of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// What is done.
    pub doing: &'static str,
    /// What is held, and in how many bytes.
    pub parts: Vec<(&'static str, u64)>,
}

impl Phase {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// Settings that take less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relief {
    /// As flags.
    pub settings: String,
    /// Bytes of a run with them.
    pub bytes: u64,
}

impl MemoryEstimate {
    /// The phase that holds most.
    pub fn fullest(&self) -> Option<&Phase> {
        self.phases.iter().max_by_key(|phase| phase.total())
    }

    /// What the whole run takes.
    pub fn total(&self) -> u64 {
        self.fullest().map_or(0, Phase::total)
    }

    /// Whether less is free than is needed.
    pub fn is_too_much(&self) -> bool {
        self.free.is_some_and(|free| self.total() > free)
    }
}

impl Plan {
    /// Version of the plan on disk that this code writes; it reads the one before, too.
    pub const FORMAT: u32 = 2;

    /// A plan on disk, of this version or the one before, in the names of this version.
    pub(crate) fn upgraded(mut plan: Value) -> Value {
        if plan.get("format").and_then(Value::as_u64) != Some(1) {
            return plan;
        }
        let Some(sections) = plan.as_object_mut() else { return plan };
        for (key, old) in keys().filter_map(|key| Some((key, key.old_key?))) {
            let section = sections.get_mut(key.section()).and_then(Value::as_object_mut);
            if let Some(section) = section
                && let Some(value) = section.remove(old)
            {
                section.insert(key.name().to_owned(), value);
            }
        }
        let mut take = |section: &str, key: &str| sections.get_mut(section)?.as_object_mut()?.remove(key);
        let (buckets, n_processes) = (take("data", "buckets"), take("train", "n_processes"));
        if let (Some(Value::Object(buckets)), Some(Value::Object(data))) = (buckets, sections.get_mut("data"))
        {
            data.extend(
                buckets.into_iter().chain([("enable_bucket".to_owned(), true.into())]).collect::<Map<_, _>>(),
            );
        }
        sections.extend(n_processes.map(|n| ("n_processes".to_owned(), n)));
        sections.insert("format".to_owned(), Self::FORMAT.into());
        plan
    }

    /// The plan, knowing how many pairs there are to train on, and so how many steps its epochs have, and those between checkpoints.
    #[must_use]
    pub fn with_data(self, n_pairs: u64) -> Self {
        let mut plan = Self { n_pairs: Some(n_pairs), ..self };
        let steps_each = n_pairs.div_ceil(plan.effective_batch()).max(1);
        if let Some(epochs) = plan.train.num_train_epochs {
            plan.train.max_train_steps = u64::from(epochs) * steps_each;
        }
        if let Some(epochs) = plan.checkpoint.save_every_n_epochs {
            plan.checkpoint.checkpointing_steps = u64::from(epochs) * steps_each;
        }
        plan
    }

    /// The plan, knowing how many pairs a cache of its set holds, and so in which precision.
    #[must_use]
    pub fn with_cache_of(mut self, n_pairs: u64) -> Self {
        let dtype = if n_pairs > MANY_PAIRS { DType::F16 } else { DType::F32 };
        self.data.cache_dtype.get_or_insert(dtype);
        self
    }

    /// The plan, knowing what it will take.
    #[must_use]
    pub fn with_memory(self, memory: MemoryEstimate) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// Pairs per optimizer step.
    pub fn effective_batch(&self) -> u64 {
        let of_one =
            u64::from(self.train.train_batch_size) * u64::from(self.train.gradient_accumulation_steps);
        of_one * u64::from(self.n_processes)
    }

    /// The highest learning rate that is used.
    pub fn effective_learning_rate(&self) -> f64 {
        let scale = if self.optimizer.scale_lr { self.effective_batch() as f64 } else { 1.0 };
        self.optimizer.learning_rate * scale
    }

    /// The learning rate of text encoders over that of the UNet.
    pub fn text_rate(&self) -> f64 {
        self.optimizer.text_encoder_lr.map_or(1.0, |rate| rate / self.optimizer.learning_rate)
    }

    /// Optimizer steps that use every pair once on average, once the data is known.
    pub fn steps_per_epoch(&self) -> Option<f64> {
        self.n_pairs.map(|n_pairs| n_pairs as f64 / self.effective_batch() as f64)
    }

    /// Whether the text encoder layers of the LoRA that training starts from stay as they are.
    pub fn keeps_text(&self) -> bool {
        self.optimizer.text_encoder_lr == Some(0.0)
    }

    /// The learning rate over the run.
    pub fn schedule(&self) -> Schedule {
        Schedule {
            kind: self.optimizer.lr_scheduler,
            learning_rate: self.effective_learning_rate(),
            warmup_steps: self.optimizer.lr_warmup_steps,
            max_steps: self.train.max_train_steps,
            num_cycles: self.optimizer.lr_num_cycles,
            power: self.optimizer.lr_power,
        }
    }
}
