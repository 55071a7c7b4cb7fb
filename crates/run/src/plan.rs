//! What will be done: complete, checked, printable, and the same however it was typed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tastemaker_math::Prediction;
use tastemaker_math::objectives::{Objective, SettingsError, objective};

use crate::Warning;
use crate::keeping::{CheckpointPlan, LoggingPlan};
use crate::recipe::{AdapterSection, OutputLayout, OutputType};
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
    /// Which optimizer, and its learning rate.
    pub optimizer: OptimizerPlan,
    /// How long, how many at once, in which precision.
    pub train: TrainPlan,
    /// Looking at held-out pairs on the way.
    pub validation: ValidationPlan,
    /// From where it can go on.
    #[serde(default)]
    pub checkpoint: CheckpointPlan,
    /// Who is told.
    #[serde(default)]
    pub logging: LoggingPlan,
    /// What a full fine-tune writes.
    #[serde(default)]
    pub output: OutputPlan,
    /// Where results go.
    pub output_dir: PathBuf,
    /// Pairs to train on, once the data has been opened.
    pub n_pairs: Option<u64>,
    /// Where caches go that are given no place of their own; not part of the plan on disk.
    #[serde(skip)]
    pub cache_root: Option<PathBuf>,
    /// What it will take, once the model is known; not part of the plan on disk.
    #[serde(skip)]
    pub memory: Option<MemoryEstimate>,
    /// What is allowed but suspicious; not part of the plan on disk.
    #[serde(skip)]
    pub warnings: Vec<Warning>,
}

/// See [`ModelSection`](crate::ModelSection).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPlan {
    /// A folder in diffusers layout, or a single-file checkpoint.
    pub pretrained_model_name_or_path: String,
    /// Another VAE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained_vae_model_name_or_path: Option<String>,
    /// Another UNet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unet_init: Option<String>,
    /// What describes a single-file checkpoint, if not the published configurations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_config: Option<String>,
    /// Which weights to take where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Branch, tag or commit of a fetched model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Overrides what the model's scheduler config says.
    pub prediction_type: Option<Prediction>,
    /// Whether the schedule is stretched so that its last timestep is pure noise.
    #[serde(default)]
    pub rescale_betas_zero_snr: bool,
}

/// See [`DataSection`](crate::DataSection).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPlan {
    /// A set of pairs: a folder, a file or an address.
    pub train_data_dir: String,
    /// Which configuration of the dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_config_name: Option<String>,
    /// Which split of the dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_split_name: Option<String>,
    /// Their layout, where it does not show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// What columns hold, where their names do not show it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// A list of rows to skip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<PathBuf>,
    /// Side of the square images in pixels; other frames have no more pixels.
    pub resolution: u32,
    /// Frames of other aspect ratios, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets: Option<BucketPlan>,
    /// Share of captions never trained on.
    pub held_out_fraction: f64,
    /// Whether random horizontal flips is off.
    pub no_hflip: bool,
    /// Whether the part of an image that is kept is drawn.
    #[serde(default)]
    pub random_crop: bool,
    /// Whether winner and loser share flips and crops.
    #[serde(default)]
    pub augment: Augment,
    /// Share of pairs trained with the empty caption.
    pub proportion_empty_prompts: f64,
    /// What SDXL is told about sizes.
    #[serde(default)]
    pub time_ids: TimeIds,
    /// Where encoded pairs are kept; `None` leaves it to the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_to: Option<PathBuf>,
    /// Element type of cached latents.
    #[serde(default)]
    pub cache_dtype: OutputType,
    /// Whether pairs are encoded whenever they are used.
    #[serde(default)]
    pub no_cache: bool,
    /// Threads that decode; 0 is one for each processor.
    #[serde(default)]
    pub dataloader_num_workers: u32,
}

/// Frames of other aspect ratios. All sides in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketPlan {
    /// Sides are multiples of this.
    pub bucket_reso_steps: u32,
    /// The shortest side.
    pub min_bucket_reso: u32,
    /// The longest side.
    pub max_bucket_reso: u32,
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
    /// Whether lengths of rows are learned apart from directions (DoRA).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_dora: bool,
    /// Name endings of the text encoders' layers that get one too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub text_encoder_target_modules: Vec<String>,
    /// The LoRA that training starts from and compares with, which says all of the above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_weights: Option<PathBuf>,
}

/// See [`OptimizerSection`](crate::OptimizerSection).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerPlan {
    /// Which.
    #[serde(default)]
    pub kind: OptimizerKind,
    /// Whether its state is dealt out to all processes.
    #[serde(default)]
    pub shard_optimizer: bool,
    /// Whether the optimizer's state is kept on the host, wherever training is.
    #[serde(default)]
    pub offload_optimizer: bool,
    /// As typed; what is used is [`Plan::effective_learning_rate`].
    pub learning_rate: f64,
    /// That of text encoders, as typed; `None` is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_encoder_lr: Option<f64>,
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
    /// Optimizer steps of warm-up.
    pub lr_warmup_steps: u64,
    /// Cosines of `cosine_with_restarts`.
    pub lr_num_cycles: u32,
}

/// See [`TrainSection`](crate::TrainSection).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainPlan {
    /// Optimizer steps.
    pub max_train_steps: u64,
    /// Pairs per forward.
    pub train_batch_size: u32,
    /// Forwards per optimizer step, on each process.
    pub gradient_accumulation_steps: u32,
    /// Processes that train together.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub n_processes: u32,
    /// Type of frozen weights and activations.
    pub mixed_precision: MixedPrecision,
    /// Whether activations are computed again in the backward pass.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// Where the reference's errors come from.
    #[serde(default)]
    pub reference: ReferenceKind,
    /// Where a reference bank is kept; `None` leaves it to the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bank_to: Option<PathBuf>,
    /// Decay of the moving average of what learns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_decay: Option<f64>,
    /// Timesteps to train at; `None` is all of the model's.
    pub timesteps: Option<Vec<u32>>,
    /// Seed of all randomness.
    pub seed: u64,
}

fn one() -> u32 {
    1
}

fn is_one(n: &u32) -> bool {
    *n == 1
}

/// See [`ValidationSection`](crate::ValidationSection).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationPlan {
    /// Optimizer steps between looks; 0 is never.
    pub every: u64,
    /// Held-out pairs looked at.
    pub n_pairs: u32,
    /// Prompts generated at the same times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
    /// Images of each prompt.
    #[serde(default = "one")]
    pub num_validation_images: u32,
    /// Steps of the sampler.
    #[serde(default)]
    pub num_inference_steps: u32,
    /// How strongly to follow the prompt.
    #[serde(default)]
    pub guidance_scale: f64,
}

/// See [`OutputSection`](crate::OutputSection).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputPlan {
    /// The layouts to write, each once.
    pub layout: Vec<OutputLayout>,
    /// Element type of what was trained.
    pub dtype: OutputType,
}

impl Default for OutputPlan {
    fn default() -> Self {
        Self { layout: vec![OutputLayout::default()], dtype: OutputType::default() }
    }
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
    /// IEEE half precision with a scaled loss; what learns stays f32.
    Fp16,
}

/// The optimizer, named as in kohya's scripts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// AdamW, its moments in f32.
    #[default]
    AdamW,
    /// AdamW, its moments in blocks of 8-bit codes.
    AdamW8bit,
    /// Adafactor at a given learning rate, as the SDXL recipe of Diffusion-DPO uses it.
    Adafactor,
}

/// Where the reference's errors come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceKind {
    /// From a frozen network in memory, or from the policy with its adapter off.
    #[default]
    Live,
    /// From a bank made before the first step; no reference is in memory while training.
    Bank,
}

/// What training will hold in memory at once, and on disk, in bytes, counted from shapes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Weights of the network and of its frozen copy, in the types they are used in.
    pub weights: u64,
    /// What learns: f32 masters, gradients and the optimizer's two moments.
    pub learning: u64,
    /// What one micro-batch keeps for the backward pass.
    pub activations: u64,
    /// Latents and text of all pairs, which are on disk.
    pub cache: u64,
}

impl MemoryEstimate {
    /// All parts of memory together.
    pub fn total(&self) -> u64 {
        self.weights + self.learning + self.activations
    }
}

/// Whether chance treats winner and loser alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Augment {
    /// Each draws its own flip and crop.
    ///
    /// Source: SalesforceAIResearch/DiffusionDPO train.py, which transforms each image on its own.
    #[default]
    Independent,
    /// Both are flipped or not, and cut at the same place.
    ///
    /// Source: diffusers train_diffusion_dpo_sdxl.py, which transforms both images at once.
    Joint,
}

/// What SDXL is told about an image's size, crop and target size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeIds {
    /// That of an uncropped square image of the training resolution, for every pair.
    ///
    /// Source: SalesforceAIResearch/DiffusionDPO train.py.
    #[default]
    Constant,
    /// The winner's size as stored and where its square was cut out, for both images of a pair: what conditions them must not
    /// tell them apart.
    ///
    /// Source: diffusers train_diffusion_dpo_sdxl.py and mapo-t2i/mapo train.py, which take the first image's sizes
    /// whichever won.
    Real,
}

impl Plan {
    /// Version of the plan on disk that this code writes and reads.
    pub const FORMAT: u32 = 1;

    /// The plan, knowing how many pairs there are to train on.
    #[must_use]
    pub fn with_data(self, n_pairs: u64) -> Self {
        Self { n_pairs: Some(n_pairs), ..self }
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
        of_one * u64::from(self.train.n_processes)
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
