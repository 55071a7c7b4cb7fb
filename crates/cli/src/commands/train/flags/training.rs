//! Flags about how training goes and what it leaves.

use std::path::PathBuf;

use clap::Args;
use tastemaker_run::{
    CheckpointSection, LoggingSection, LrScheduler, MixedPrecision, OneOrMore, OptimizerKind,
    OptimizerSection, OutputLayout, OutputSection, OutputType, ReferenceKind, Tracker, TrainSection,
    ValidationSection,
};

use tastemaker_run::health::Rule;

use crate::commands::word;

/// The timesteps that SDXL-Turbo generates in.
///
/// Source: `--is_turbo` of diffusers' train_diffusion_dpo_sdxl.py: 250 k + 249 for k in 0 to 3.
const TURBO_TIMESTEPS: [u32; 4] = [249, 499, 749, 999];

/// Decay of the moving average by `--use_ema`.
///
/// Source: `EMAModel` of diffusers' training_utils.py.
const EMA_DECAY: f64 = 0.9999;

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Optimizer", rename_all = "snake_case")]
pub struct OptimizerFlags {
    /// adamw, adamw8bit, which keeps its state in 8 bits, or adafactor [default: adamw]
    #[arg(long, value_name = "NAME", alias = "optimizer_type", value_parser = word::<OptimizerKind>)]
    optimizer: Option<OptimizerKind>,
    /// The same as --optimizer adamw8bit
    #[arg(long, conflicts_with_all = ["optimizer", "use_adafactor"])]
    use_8bit_adam: bool,
    /// The same as --optimizer adafactor
    #[arg(long, conflicts_with = "optimizer")]
    use_adafactor: bool,
    /// Deal the optimizer's state out to all processes
    #[arg(long)]
    shard_optimizer: bool,
    /// Keep the optimizer's state in the host's memory where training is on another device
    #[arg(long)]
    offload_optimizer: bool,
    /// Highest learning rate [default: 1e-5]
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Highest learning rate of text encoders [default: that of the UNet]
    #[arg(long, value_name = "RATE")]
    text_encoder_lr: Option<f64>,
    /// Multiply the learning rate by the pairs per step
    #[arg(long)]
    scale_lr: bool,
    /// Shape of the learning rate: constant, constant_with_warmup, linear, cosine, cosine_with_restarts [default: constant]
    #[arg(long, value_name = "SHAPE", value_parser = word::<LrScheduler>)]
    lr_scheduler: Option<LrScheduler>,
    /// Optimizer steps of linear warm-up [default: 0]
    #[arg(long, value_name = "STEPS")]
    lr_warmup_steps: Option<u64>,
    /// Times that cosine_with_restarts starts over [default: 1]
    #[arg(long, value_name = "COUNT")]
    lr_num_cycles: Option<u32>,
    /// Decay of AdamW's first moment [default: 0.9]
    #[arg(long, value_name = "DECAY")]
    adam_beta1: Option<f64>,
    /// Decay of AdamW's second moment [default: 0.999]
    #[arg(long, value_name = "DECAY")]
    adam_beta2: Option<f64>,
    /// Decoupled weight decay [default: 0.01]
    #[arg(long, value_name = "DECAY")]
    adam_weight_decay: Option<f64>,
    /// Added to the root of the second moment [default: 1e-8]
    #[arg(long, value_name = "EPSILON")]
    adam_epsilon: Option<f64>,
    /// Gradients longer than this are shortened to it [default: 1]
    #[arg(long, value_name = "LENGTH")]
    max_grad_norm: Option<f64>,
}

impl OptimizerFlags {
    pub fn section(self) -> OptimizerSection {
        let named =
            [(self.use_8bit_adam, OptimizerKind::AdamW8bit), (self.use_adafactor, OptimizerKind::Adafactor)];
        let named = named.into_iter().find(|(typed, _)| *typed).map(|(_, kind)| kind);
        OptimizerSection {
            kind: self.optimizer.or(named),
            shard_optimizer: self.shard_optimizer.then_some(true),
            offload_optimizer: self.offload_optimizer.then_some(true),
            learning_rate: self.learning_rate,
            text_encoder_lr: self.text_encoder_lr,
            scale_lr: self.scale_lr.then_some(true),
            adam_beta1: self.adam_beta1,
            adam_beta2: self.adam_beta2,
            adam_weight_decay: self.adam_weight_decay,
            adam_epsilon: self.adam_epsilon,
            max_grad_norm: self.max_grad_norm,
            lr_scheduler: self.lr_scheduler,
            lr_warmup_steps: self.lr_warmup_steps,
            lr_num_cycles: self.lr_num_cycles,
        }
    }
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Training", rename_all = "snake_case")]
pub struct TrainFlags {
    /// Optimizer steps
    #[arg(long, value_name = "STEPS")]
    max_train_steps: Option<u64>,
    /// Pairs per forward pass [default: 1]
    #[arg(long, value_name = "PAIRS")]
    train_batch_size: Option<u32>,
    /// Forward passes per optimizer step [default: 1]
    #[arg(long, value_name = "COUNT")]
    gradient_accumulation_steps: Option<u32>,
    /// Type of frozen weights and activations, no, bf16 or fp16; what learns is always f32 [default: no]
    #[arg(long, value_name = "TYPE", value_parser = word::<MixedPrecision>)]
    mixed_precision: Option<MixedPrecision>,
    /// Compute activations again in the backward pass: less memory, more time
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Where the reference's errors come from: live, or bank, computed before the first step and kept on disk [default: live]
    #[arg(long, value_name = "KIND", value_parser = word::<ReferenceKind>)]
    reference: Option<ReferenceKind>,
    /// Folder for a reference bank [default: one of its own in the user's cache]
    #[arg(long, value_name = "DIR")]
    bank_to: Option<PathBuf>,
    /// Decay of a moving average of what learns, which is then the result [default: none]
    #[arg(long, value_name = "DECAY")]
    ema_decay: Option<f64>,
    /// The same as --ema_decay 0.9999
    #[arg(long, conflicts_with = "ema_decay")]
    use_ema: bool,
    /// Timesteps to train at, with commas between [default: all]
    #[arg(long, value_name = "TIMESTEPS", value_delimiter = ',')]
    timesteps: Option<Vec<u32>>,
    /// Seed of all randomness [default: 0]
    #[arg(long)]
    seed: Option<u64>,
}

impl TrainFlags {
    pub fn section(self, is_turbo: bool) -> TrainSection {
        TrainSection {
            max_train_steps: self.max_train_steps,
            train_batch_size: self.train_batch_size,
            gradient_accumulation_steps: self.gradient_accumulation_steps,
            mixed_precision: self.mixed_precision,
            gradient_checkpointing: self.gradient_checkpointing.then_some(true),
            reference: self.reference,
            bank_to: self.bank_to,
            ema_decay: self.ema_decay.or(self.use_ema.then_some(EMA_DECAY)),
            timesteps: is_turbo.then(|| TURBO_TIMESTEPS.to_vec()).or(self.timesteps),
            seed: self.seed,
        }
    }
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Looking on the way", rename_all = "snake_case")]
pub struct ValidationFlags {
    /// Optimizer steps between looks at held-out pairs; 0 is never [default: 0]
    #[arg(long, value_name = "STEPS", alias = "validation_steps")]
    validation_every: Option<u64>,
    /// Held-out pairs looked at [default: 64]
    #[arg(long, value_name = "PAIRS")]
    validation_pairs: Option<u32>,
    /// A prompt to generate at the same times; repeat for several
    #[arg(long, value_name = "PROMPT", aliases = ["validation_prompts"])]
    validation_prompt: Option<Vec<String>>,
    /// Images of each such prompt [default: 1]
    #[arg(long, value_name = "COUNT")]
    num_validation_images: Option<u32>,
}

impl ValidationFlags {
    pub fn section(self) -> ValidationSection {
        ValidationSection {
            every: self.validation_every,
            n_pairs: self.validation_pairs,
            prompts: self.validation_prompt,
            num_validation_images: self.num_validation_images,
            ..ValidationSection::default()
        }
    }
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Checkpoints", rename_all = "snake_case")]
pub struct CheckpointFlags {
    /// Optimizer steps between checkpoints; 0 writes one only when the run is stopped [default: 500]
    #[arg(long, value_name = "STEPS")]
    checkpointing_steps: Option<u64>,
    /// Checkpoints to keep, the newest; 0 keeps all [default: 2]
    #[arg(long, value_name = "COUNT")]
    checkpoints_total_limit: Option<u32>,
}

impl CheckpointFlags {
    pub fn section(self) -> CheckpointSection {
        CheckpointSection {
            checkpointing_steps: self.checkpointing_steps,
            checkpoints_total_limit: self.checkpoints_total_limit,
        }
    }
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Who is told", rename_all = "snake_case")]
pub struct LoggingFlags {
    /// tensorboard or none [default: tensorboard]
    #[arg(long, value_name = "TRACKER", value_parser = word::<Tracker>)]
    report_to: Option<Tracker>,
    /// Folder for event files, in the output folder unless it is absolute [default: logs]
    #[arg(long, value_name = "DIR")]
    logging_dir: Option<PathBuf>,
    /// Folder of this run in it [default: tastemaker]
    #[arg(long, value_name = "NAME", alias = "tracker_project_name")]
    tracker_name: Option<String>,
    /// What an alarm about danger does: warn, stop, or keep-best, which ends with the weights that held-out pairs liked best
    /// [default: warn]
    #[arg(long, value_name = "RULE", value_parser = word::<Rule>)]
    on_alarm: Option<Rule>,
}

impl LoggingFlags {
    pub fn section(self) -> LoggingSection {
        LoggingSection {
            report_to: self.report_to,
            logging_dir: self.logging_dir,
            tracker_name: self.tracker_name,
            rule: self.on_alarm,
        }
    }
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What a full fine-tune writes", rename_all = "snake_case")]
pub struct OutputFlags {
    /// diffusers, a whole folder; unet, the UNet alone; original, one file; with commas between [default: diffusers]
    #[arg(long, value_name = "LAYOUTS", value_delimiter = ',', value_parser = word::<OutputLayout>)]
    output_layout: Option<Vec<OutputLayout>>,
    /// Element type of what was trained: float, fp16, bf16 [default: float]
    #[arg(long, value_name = "TYPE", value_parser = word::<OutputType>)]
    save_precision: Option<OutputType>,
}

impl OutputFlags {
    pub fn section(self) -> OutputSection {
        OutputSection { layout: self.output_layout.map(OneOrMore::More), dtype: self.save_precision }
    }
}
