//! What was typed: a TOML file and flags, every key optional, nothing filled in.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use tastemaker_math::Prediction;
use tastemaker_math::nearest::{did_you_mean, nearest};
use tastemaker_store::json;

use crate::RunError;
use crate::health::Rule;
use crate::keeping::Tracker;
use crate::plan::{Augment, MixedPrecision, OptimizerKind, ReferenceKind, TimeIds};
use crate::schedule::LrScheduler;

/// A table of optional keys, and how one such table lies over another.
macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$kind>,)*
        }

        impl $name {
            fn over(self, below: Self) -> Self {
                Self { $($field: self.$field.or(below.$field),)* }
            }
        }
    };
}

section! {
    /// `[model]`: what is aligned.
    ModelSection {
        /// A folder in diffusers layout, a single-file checkpoint, or the name of a fetched model. Required.
        pretrained_model_name_or_path: String,
        /// Another VAE: its folder, a folder with `vae/`, a file, or a name.
        pretrained_vae_model_name_or_path: String,
        /// Another UNet to start from: its folder, a folder with `unet/`, or a name.
        unet_init: String,
        /// A folder whose configurations, tokenizers and schedule go with a single-file checkpoint, in place of the
        /// published ones.
        model_config: String,
        /// Which weights to take where there are several, such as fp16.
        variant: String,
        /// Branch, tag or commit of a fetched model; main.
        revision: String,
        /// What the network predicts, where its scheduler config is wrong or silent.
        prediction_type: Prediction,
        /// Train on a schedule whose last timestep is pure noise, as SDXL-Turbo is trained; false, as the model says.
        rescale_betas_zero_snr: bool,
    }
}

section! {
    /// `[data]`: what it is aligned to.
    DataSection {
        /// A set of pairs in any layout we read: a folder or file, an address, or the name of a fetched dataset. Required.
        train_data_dir: String,
        /// Which configuration of a dataset that has several: the folder of its files.
        dataset_config_name: String,
        /// Which split of a dataset that has several, such as train or validation.
        dataset_split_name: String,
        /// The layout of the pairs, where their files would be taken for another or for none; as they look.
        format: String,
        /// What columns hold: names under `image_0`, `image_1`, `label_0`, `label_1`, `winner`, `loser`, `score_0`, `score_1`,
        /// `ps_score_0`, `ps_score_1`, `soft_label`, `probability_0`, `caption`; as they are called.
        columns: BTreeMap<String, String>,
        /// A list of rows to skip, as `tastemaker data check --fix` writes it; none.
        exclude: PathBuf,
        /// Side of the square images in pixels, a multiple of 8; 512.
        resolution: u32,
        /// Share of captions never trained on; 0.05.
        held_out_fraction: f64,
        /// Frames of other aspect ratios beside the square; false.
        enable_bucket: bool,
        /// Sides of those are multiples of this; 64.
        bucket_reso_steps: u32,
        /// Their shortest side; half the resolution.
        min_bucket_reso: u32,
        /// Their longest side; twice the resolution.
        max_bucket_reso: u32,
        /// Switches random horizontal flips off; false.
        no_hflip: bool,
        /// Keeps a random part of each image in place of its middle; needs `no_cache`; false.
        random_crop: bool,
        /// Whether flips and crops are drawn `independent` for winner and loser or `joint`; independent, with buckets joint.
        augment: Augment,
        /// Share of pairs trained with the empty caption; 0.
        proportion_empty_prompts: f64,
        /// What SDXL is told about sizes, `constant` or `real`; constant.
        time_ids: TimeIds,
        /// Folder for encoded pairs; one of its own in the user's cache.
        cache_to: PathBuf,
        /// Element type of cached latents, `float32`, `float16` or `bfloat16`; float32.
        cache_dtype: OutputType,
        /// Encodes pairs whenever they are used; false.
        no_cache: bool,
        /// Threads that decode images; 0, one for each processor.
        dataloader_num_workers: u32,
    }
}

section! {
    /// `[adapter]`: which weights learn.
    AdapterSection {
        /// `lora` or `full`; lora.
        kind: AdapterKind,
        /// Rank of the LoRA matrices; 8.
        rank: u32,
        /// LoRA's scale is alpha / rank; the rank, so that the scale is 1.
        alpha: f64,
        /// Name endings of the layers that get a LoRA; to_k, to_q, to_v, to_out.0.
        target_modules: Vec<String>,
        /// Other ranks, by name endings of layers as in peft; none.
        rank_pattern: BTreeMap<String, u32>,
        /// Other alphas, by name endings of layers; none, so that layers of another rank have another scale.
        alpha_pattern: BTreeMap<String, f64>,
        /// Learns the lengths of the rows of weights apart from their directions, DoRA; false.
        use_dora: bool,
        /// Name endings of the text encoders' layers that get one too; none.
        text_encoder_target_modules: Vec<String>,
        /// A LoRA file to start from, which says all of the above; none.
        network_weights: PathBuf,
    }
}

section! {
    /// `[optimizer]`: which, and its learning rate.
    OptimizerSection {
        /// `adamw`, `adamw8bit` (state in 8 bits) or `adafactor`; adamw.
        kind: OptimizerKind,
        /// Deals the optimizer's state out to all processes; false.
        shard_optimizer: bool,
        /// Keeps the optimizer's state in the host's memory where training is on another device; false.
        offload_optimizer: bool,
        /// Highest learning rate; 1e-5.
        learning_rate: f64,
        /// Highest learning rate of text encoders; that of the UNet.
        text_encoder_lr: f64,
        /// Multiplies the learning rate by the pairs per step, as the published launchers do; false.
        scale_lr: bool,
        /// Decay of the first moment; 0.9.
        adam_beta1: f64,
        /// Decay of the second moment; 0.999.
        adam_beta2: f64,
        /// Decoupled weight decay; 0.01.
        adam_weight_decay: f64,
        /// Added to the root of the second moment; 1e-8.
        adam_epsilon: f64,
        /// Gradients longer than this are shortened to it; 1.
        max_grad_norm: f64,
        /// Shape of the learning rate over the run; constant.
        lr_scheduler: LrScheduler,
        /// Optimizer steps of linear warm-up; 0.
        lr_warmup_steps: u64,
        /// Times that `cosine_with_restarts` starts over; 1.
        lr_num_cycles: u32,
    }
}

section! {
    /// `[train]`: how long, how many at once, in which precision.
    TrainSection {
        /// Optimizer steps. Required.
        max_train_steps: u64,
        /// Pairs per forward; 1.
        train_batch_size: u32,
        /// Forwards per optimizer step; 1.
        gradient_accumulation_steps: u32,
        /// Type of frozen weights and activations, `no`, `bf16` or `fp16`; what learns is always f32; no.
        mixed_precision: MixedPrecision,
        /// Computes activations again in the backward pass and does not keep them; false.
        gradient_checkpointing: bool,
        /// Where the reference's errors come from: `live`, a network beside the policy or the policy without its adapter, or
        /// `bank`, computed before the first step and kept on disk; live.
        reference: ReferenceKind,
        /// Folder for a reference bank; one of its own in the user's cache.
        bank_to: PathBuf,
        /// Decay of the moving average of what learns, which is then the result; none.
        ema_decay: f64,
        /// Timesteps to train at; all of the model's.
        timesteps: Vec<u32>,
        /// Seed of all randomness; 0.
        seed: u64,
    }
}

section! {
    /// `[validation]`: looking at held-out pairs, and generating, on the way.
    ValidationSection {
        /// Optimizer steps between looks; 0, never.
        every: u64,
        /// Held-out pairs looked at; 64.
        n_pairs: u32,
        /// Prompts generated at the same times; none.
        prompts: Vec<String>,
        /// Images of each prompt; 1.
        num_validation_images: u32,
        /// Steps of the DDIM sampler; 25.
        num_inference_steps: u32,
        /// How strongly to follow the prompt; 7.5.
        guidance_scale: f64,
    }
}

section! {
    /// `[checkpoint]`: from where a run can go on.
    CheckpointSection {
        /// Optimizer steps between checkpoints; 0 writes one only when the run is stopped; 500.
        checkpointing_steps: u64,
        /// Checkpoints to keep, the newest; 0 keeps all; 2.
        checkpoints_total_limit: u32,
    }
}

section! {
    /// `[logging]`: who is told, and what happens on alarms.
    LoggingSection {
        /// `tensorboard` or `none`; tensorboard.
        report_to: Tracker,
        /// Folder for event files, in the output folder unless it is absolute; logs.
        logging_dir: PathBuf,
        /// Folder of this run in it; tastemaker.
        tracker_name: String,
        /// What an alarm about danger does: `warn`, `stop`, or `keep-best`, which ends with the weights that held-out pairs liked best;
        /// warn.
        rule: Rule,
    }
}

section! {
    /// `[output]`: what a full fine-tune writes.
    OutputSection {
        /// `diffusers`, `unet`, `original`, or a list of them; diffusers.
        layout: OneOrMore<OutputLayout>,
        /// Element type of what was trained: `float32`, `float16` or `bfloat16`; float32.
        dtype: OutputType,
    }
}

/// A single word, or a list of words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum OneOrMore<T> {
    /// One.
    One(T),
    /// As many as there are.
    More(Vec<T>),
}

impl<T> OneOrMore<T> {
    /// All values.
    pub fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(value) => vec![value],
            Self::More(values) => values,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Words<T> {
            type Value = OneOrMore<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word or a list of words")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
                T::deserialize(word.into_deserializer()).map(OneOrMore::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, words: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(words)).map(OneOrMore::More)
            }
        }

        deserializer.deserialize_any(Words(PhantomData))
    }
}

/// The layouts of a trained model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputLayout {
    /// A whole folder, as diffusers writes it.
    #[default]
    Diffusers,
    /// The UNet alone, as diffusers writes it.
    Unet,
    /// One file under the names of the original Stable Diffusion code.
    Original,
}

/// The element types of a trained model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputType {
    /// Nothing is lost.
    #[default]
    #[serde(alias = "float")]
    Float32,
    /// IEEE half precision.
    #[serde(alias = "fp16")]
    Float16,
    /// bfloat16.
    #[serde(alias = "bf16")]
    Bfloat16,
}

/// Which weights learn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// Low-rank additions to named layers.
    #[default]
    Lora,
    /// Every weight of the network.
    Full,
}

/// `[method]`: the preference method and its own settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MethodSection {
    /// A name of [`OBJECTIVES`](tastemaker_math::objectives::OBJECTIVES). Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Everything else in the table; the method checks it.
    #[serde(flatten)]
    pub settings: Map<String, Value>,
}

/// A recipe as typed.
///
/// Keys have the names the diffusers training scripts give them, so that published commands carry over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// Where results go. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_dir: Option<PathBuf>,
    /// What is aligned.
    pub model: ModelSection,
    /// What it is aligned to.
    pub data: DataSection,
    /// By which method.
    pub method: MethodSection,
    /// Which weights learn.
    pub adapter: AdapterSection,
    /// AdamW and its learning rate.
    pub optimizer: OptimizerSection,
    /// How long, how many at once, in which precision.
    pub train: TrainSection,
    /// Looking at held-out pairs on the way.
    pub validation: ValidationSection,
    /// From where it can go on.
    pub checkpoint: CheckpointSection,
    /// Who is told.
    pub logging: LoggingSection,
    /// What a full fine-tune writes.
    pub output: OutputSection,
}

/// What flags say: a recipe that lies over the recipe.
pub type Overrides = Recipe;

impl Recipe {
    /// Reads a recipe file.
    ///
    /// # Errors
    /// [`RunError::Store`] for a missing, unreadable or non-UTF-8 file, else as [`Recipe::parse`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, RunError> {
        let path = path.as_ref();
        Self::parse(path, &json::read_text(path)?)
    }

    /// Parses a recipe; `path` is for errors.
    ///
    /// # Errors
    /// [`RunError::Recipe`] with the line and, for an unknown key, the nearest one.
    pub fn parse(path: &Path, text: &str) -> Result<Self, RunError> {
        toml::from_str(text).map_err(|e| RunError::Recipe {
            path: path.to_path_buf(),
            line: 1 + text[..e.span().map_or(0, |span| span.start.min(text.len()))].matches('\n').count(),
            message: explain(e.message()),
        })
    }

    /// This recipe where it says something, the one below where it does not.
    ///
    /// Settings belong to their method: if this recipe names another method than the one below, only its own
    /// settings count.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            output_dir: self.output_dir.or(below.output_dir),
            model: self.model.over(below.model),
            data: self.data.over(below.data),
            method: self.method.over(below.method),
            adapter: self.adapter.over(below.adapter),
            optimizer: self.optimizer.over(below.optimizer),
            train: self.train.over(below.train),
            validation: self.validation.over(below.validation),
            checkpoint: self.checkpoint.over(below.checkpoint),
            logging: self.logging.over(below.logging),
            output: self.output.over(below.output),
        }
    }
}

impl MethodSection {
    /// Whether this table asks for another method than the one below.
    pub(crate) fn replaces(&self, below: &Self) -> bool {
        matches!((&self.name, &below.name), (Some(asked), Some(below)) if asked != below)
    }

    fn over(self, below: Self) -> Self {
        if self.replaces(&below) {
            return self;
        }
        let mut settings = below.settings;
        settings.extend(self.settings);
        Self { name: self.name.or(below.name), settings }
    }
}

/// Adds the nearest match to a parser's "unknown field `x`, expected one of `a`, `b`".
fn explain(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match quoted.next() {
        Some(word) if message.starts_with("unknown ") => {
            let known: Vec<&str> = quoted.collect();
            let kind = if message.starts_with("unknown field") { "key" } else { "value" };
            let guess = did_you_mean(nearest(word, known.iter().copied()));
            format!("unknown {kind} \"{word}\"{guess}; known are {}", known.join(", "))
        }
        _ => message.trim_end().replace('\n', ", "),
    }
}
