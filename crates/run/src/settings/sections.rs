//! Every setting, each declared once: name, type, default, check, flag and help.
//!
//! Names are those of the diffusers scripts, else of kohya's, so that published commands carry over.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use tastemaker_math::Prediction;
use tastemaker_store::dtype::DType;

use super::checks::*;
use super::choices::*;
use super::{Key, filled, is_required, planned, settings, side, tracker};
use crate::health::Rule;
use crate::schedule::LrScheduler;

settings! {
    /// `[model]`: what is aligned.
    model "Model": ModelSection => ModelPlan {
        /// Model to align: a folder in diffusers layout, a single-file checkpoint, or the name of a fetched one
        pretrained_model_name_or_path: String = required, value "DIR|FILE|ORG/NAME", alias "model";
        /// Another VAE: its folder, a folder with vae/, a file under original names, or the name of a fetched one
        pretrained_vae_model_name_or_path: String, value "DIR|FILE|ORG/NAME", alias "vae";
        /// Another UNet to start from: its folder, a folder with unet/, or the name of a fetched one
        unet_init: String, value "DIR|ORG/NAME";
        /// Folder whose configs, tokenizers and scheduler go with a single-file checkpoint [default: as published]
        model_config: String, value "DIR|ORG/NAME";
        /// Weights to load where a folder has several, such as fp16 [default: those of no variant]
        variant: String, value "VARIANT";
        /// Branch, tag or commit of a fetched model [default: main]
        revision: String, value "REVISION";
        /// What the network predicts, where the model is wrong or silent about it: epsilon, v_prediction
        prediction_type: Prediction, value "TYPE";
        /// Longest prompts and captions in tokens: 75, or 150 or 225 encoded in chunks of 75, as kohya's scripts do
        max_token_length: u32 = 75, value "TOKENS", check TOKENS;
        /// Rescale the noise schedule to zero terminal SNR
        rescale_betas_zero_snr: bool = default, alias "zero_terminal_snr";
    }

    /// `[data]`: the pairs it is aligned to.
    data "Data": DataSection => DataPlan {
        /// Pairs: a folder or file in any layout of docs/guide/data.md, the address of one, such as s3://bucket/folder/, or
        /// the name of a fetched dataset
        train_data_dir: String = required, value "DIR|FILE|ADDRESS|ORG/NAME", alias "dataset_name";
        /// Config of a dataset that has several: a folder in it
        dataset_config_name: String, value "NAME";
        /// Split of a dataset that has several, such as train or validation
        dataset_split_name: String, value "NAME", alias "split";
        /// Layout of the pairs: jsonl, parquet, webdataset, folders, onetrainer, json, csv [default: detected]
        format: String, value "NAME";
        /// Which columns hold what: image_0, image_1, label_0, label_1, winner, loser, score_0, score_1, ps_score_0, ps_score_1,
        /// soft_label, probability_0, caption; separated by commas [default: detected by their names]
        columns: BTreeMap<String, String> = default, value "KEY=COLUMN";
        /// List of rows to skip, as `tastemaker data check --fix` writes it
        exclude: PathBuf, value "FILE";
        /// Train on at most this many pairs, the first of the set [default: all]
        max_train_samples: usize, value "COUNT", check AT_LEAST_ONE;
        /// Side of the square images, in pixels, a multiple of 8
        resolution: u32 = 512, value "PIXELS", check RESOLUTION, read side;
        /// Fraction of captions held out for validation
        held_out_fraction: f64 = 0.05, value "FRACTION", check BELOW_ONE;
        /// Sort images into buckets of several aspect ratios, all of about as many pixels
        enable_bucket: bool = default;
        /// Sides of bucket resolutions are multiples of this [default: 64]
        bucket_reso_steps: u32, value "PIXELS", check RESOLUTION;
        /// Shortest side of a bucket resolution [default: half the resolution]
        min_bucket_reso: u32, value "PIXELS";
        /// Longest side of a bucket resolution [default: twice the resolution]
        max_bucket_reso: u32, value "PIXELS";
        /// Do not flip images horizontally at random
        no_hflip: bool = default;
        /// Crop images at random, not at their center; needs --no_cache
        random_crop: bool = default;
        /// Flips and crops of winner and loser: independent or joint [default: independent, with buckets joint]
        augment: Augment = { if enable_bucket { Augment::Joint } else { Augment::Independent } }, value "KIND";
        /// Fraction of pairs trained with the empty caption (caption dropout)
        proportion_empty_prompts: f64 = 0.0, value "FRACTION", check FRACTION, alias "caption_dropout_rate";
        /// Fraction of pairs whose winner and loser are exchanged, drawn anew each time a pair is trained on
        label_noise_prob: f64 = 0.0, value "FRACTION", check FRACTION;
        /// SDXL micro-conditioning on size and crop: constant, or real for the winner's own
        time_ids: TimeIds = default, value "KIND";
        /// Folder for cached latents and text embeddings [default: one of its own in the user's cache]
        cache_to: PathBuf, value "DIR", free true;
        /// Element type of cached latents: fp32, fp16, bf16
        cache_dtype: DType = default, value "TYPE";
        /// Encode pairs at every step, cache nothing
        no_cache: bool = default;
        /// Threads that decode images; 0 is one for each processor
        dataloader_num_workers: u32 = 0, value "N", check THREADS, free true, alias "max_data_loader_n_workers";
    }

    /// `[adapter]`: which weights are trained.
    adapter "Adapter": AdapterSection => LoraPlan
    apart
        /// What is trained: lora, or full for every weight of the UNet [default: lora]
        adapter_type: AdapterKind, value "TYPE", old_key "kind", old_flag "adapter";
    {
        /// Rank of the LoRA matrices
        rank: u32 = 8, value "RANK", check UP_TO_65536, alias "lora_rank network_dim";
        /// LoRA alpha; the update is scaled by alpha / rank [default: the rank]
        alpha: f64 = { f64::from(rank) }, value "ALPHA", check POSITIVE, alias "network_alpha lora_alpha";
        /// Name endings of the layers that get a LoRA, with commas between
        target_modules: Vec<String> = { ["to_k", "to_q", "to_v", "to_out.0"].map(str::to_owned).to_vec() },
            value "NAMES", check SOME_NAMES;
        /// Other ranks by name endings of layers, as in peft, with commas between
        rank_pattern: BTreeMap<String, u32> = default, value "NAME=RANK", check RANKS;
        /// Other alphas by name endings of layers, as in peft, with commas between
        alpha_pattern: BTreeMap<String, f64> = default, value "NAME=ALPHA", check ALPHAS;
        /// Train a weight-decomposed LoRA (DoRA)
        use_dora: bool = default;
        /// Name endings of the text encoders' layers that get a LoRA too, with commas between [default: none]
        text_encoder_target_modules: Vec<String> = default, value "NAMES", check NAMES;
        /// LoRA of any tool to start from, which is then also the reference; its rank, alpha and layers are kept
        network_weights: PathBuf, value "FILE";
    }

    /// `[optimizer]`: which, and its learning rate.
    optimizer "Optimizer": OptimizerSection => OptimizerPlan {
        /// Optimizer: adamw, adamw8bit (8-bit state) or adafactor
        optimizer_type: OptimizerKind = default, value "NAME", old_key "kind", alias "optimizer";
        /// Shard the optimizer's state over all processes
        shard_optimizer: bool = default, free true;
        /// Keep the optimizer's state in host memory where training is on another device
        offload_optimizer: bool = default, free true;
        /// Peak learning rate
        learning_rate: f64 = 1e-5, value "RATE", check POSITIVE;
        /// Peak learning rate of the text encoders [default: that of the UNet]
        text_encoder_lr: f64, value "RATE", check POSITIVE;
        /// Multiply the learning rate by the pairs per step
        scale_lr: bool = default;
        /// Learning-rate schedule: constant, constant_with_warmup, linear, cosine, cosine_with_restarts, polynomial
        lr_scheduler: LrScheduler = default, value "SCHEDULE";
        /// Optimizer steps of linear warm-up
        lr_warmup_steps: u64 = 0, value "STEPS";
        /// Hard restarts of cosine_with_restarts
        lr_num_cycles: u32 = 1, value "COUNT", check AT_LEAST_ONE, alias "lr_scheduler_num_cycles";
        /// Power of the polynomial schedule, which ends at 1e-7
        lr_power: f64 = 1.0, value "POWER", check POSITIVE, alias "lr_scheduler_power";
        /// Decay of Adam's first moment
        adam_beta1: f64 = 0.9, value "DECAY", check BELOW_ONE;
        /// Decay of Adam's second moment
        adam_beta2: f64 = 0.999, value "DECAY", check BELOW_ONE;
        /// Decoupled weight decay
        adam_weight_decay: f64 = 1e-2, value "DECAY", check NOT_NEGATIVE;
        /// Added to the root of the second moment
        adam_epsilon: f64 = 1e-8, value "EPSILON", check POSITIVE;
        /// Clip gradients to this norm; 0 does not clip
        max_grad_norm: f64 = 1.0, value "NORM", check NOT_NEGATIVE;
    }

    /// `[train]`: how long, how many pairs at once, in which precision.
    train "Training": TrainSection => TrainPlan {
        /// Optimizer steps
        max_train_steps: u64 = required, value "STEPS", check SOME_STEPS, alias "steps max_steps";
        /// Train on every pair so many times, in place of --max_train_steps
        num_train_epochs: u32, value "COUNT", check UP_TO_65536, free true, alias "max_train_epochs epochs";
        /// Pairs per forward pass
        train_batch_size: u32 = 1, value "PAIRS", check UP_TO_65536, alias "batch_size";
        /// Forward passes per optimizer step
        gradient_accumulation_steps: u32 = 1, value "COUNT", check UP_TO_A_MILLION;
        /// Type of frozen weights and activations: fp32 (or no), bf16 or fp16; trainable weights are always fp32
        mixed_precision: DType = default, value "TYPE";
        /// Recompute activations in the backward pass: less memory, more time
        gradient_checkpointing: bool = default;
        /// Where the reference's errors and inverted latents come from: live, or precomputed before the first step and kept on disk
        reference: ReferenceKind = default, value "KIND";
        /// Folder for precomputed reference errors [default: one of its own in the user's cache]
        reference_dir: PathBuf, value "DIR", free true, old_key "bank_to", old_flag "bank_to";
        /// Decay of an exponential moving average of the trainable weights, which is then the result [default: none]
        ema_decay: f64, value "DECAY", check BELOW_ONE;
        /// Standard deviation of an offset of each channel that is added to the noise
        noise_offset: f64 = 0.0, value "SCALE", check NOT_NEGATIVE;
        /// Timesteps to train at, with commas between [default: all]
        timesteps: Vec<u32>, value "TIMESTEPS", check SOME_TIMESTEPS;
        /// Seed of all randomness
        seed: u64 = 0, value "SEED";
    }

    /// `[validation]`: of held-out pairs, and by images, during training.
    validation "Validation": ValidationSection => ValidationPlan {
        /// Optimizer steps between validations on held-out pairs; 0 is never
        validation_steps: u64 = 0, value "STEPS", free true, old_key "every", old_flag "validation_every",
            alias "sample_every_n_steps";
        /// Held-out pairs to validate on
        validation_pairs: u32 = 64, value "PAIRS", check SOME_PAIRS, old_key "n_pairs";
        /// Prompt to generate images of at each validation; repeat for several
        validation_prompts: Vec<String> = default, value "PROMPT", repeated true, free true,
            alias "validation_prompt", old_key "prompts";
        /// Images of each validation prompt
        num_validation_images: u32 = 1, value "COUNT", check UP_TO_65536, free true;
        /// Denoising steps of validation images [default: 25, for SDXL-Turbo and its like 4]
        num_inference_steps: u32, value "STEPS", check UP_TO_65536, free true;
        /// Guidance scale of validation images [default: 7.5, for SDXL 5, for SDXL-Turbo and its like 0]
        guidance_scale: f64, value "SCALE", check FINITE, free true;
    }

    /// `[checkpoint]`: states to resume from.
    checkpoint "Checkpoints": CheckpointSection => CheckpointPlan {
        /// Optimizer steps between checkpoints; 0 writes one only when the run ends or is stopped
        checkpointing_steps: u64 = 500, value "STEPS", free true, alias "save_every_n_steps";
        /// Checkpoints to keep, the newest; 0 keeps all
        checkpoints_total_limit: u32 = 2, value "COUNT", free true;
    }

    /// `[logging]`: where metrics go, and what alarms do.
    logging "Logging": LoggingSection => LoggingPlan {
        /// Tracker beside events.jsonl: tensorboard or none
        report_to: Tracker = default, value "TRACKER", free true, alias "log_with", read tracker;
        /// Folder for event files, in the output folder unless it is absolute
        logging_dir: PathBuf = { PathBuf::from("logs") }, value "DIR", free true;
        /// Folder of this run in it
        tracker_name: String = { "tastemaker".to_owned() }, value "NAME", check FOLDER_NAME, free true,
            alias "tracker_project_name log_tracker_name";
        /// What a critical alarm does: warn, stop, or keep-best, which ends with the best checkpoint by validation
        on_alarm: Rule = default, value "RULE", free true, old_key "rule";
    }

    /// `[output]`: what is written.
    output "Output": OutputSection => OutputPlan {
        /// Name of the LoRA file for tools other than diffusers, NAME.safetensors [default: pytorch_lora_weights_kohya]
        output_name: String, value "NAME", check FILE_NAME, free true;
        /// What a full fine-tune writes: diffusers, a whole folder; unet, the UNet alone; original, one file; with commas
        /// between
        #[serde(deserialize_with = "one_or_more")]
        output_layout: Vec<OutputLayout> = { vec![OutputLayout::Diffusers] }, value "LAYOUTS", check SOME_LAYOUTS,
            free true, old_key "layout";
        /// Element type of the weights that a full fine-tune writes: fp32, fp16, bf16
        save_precision: DType = default, value "TYPE", free true, old_key "dtype";
    }
}
