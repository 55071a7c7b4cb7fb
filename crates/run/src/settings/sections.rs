//! Every setting, each declared once: name, type, default, check, flag and help.
//!
//! Names are those of the diffusers scripts, else of kohya's, so that published commands carry over.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use tastemaker_math::Prediction;
use tastemaker_math::objectives::BetaConvention;
use tastemaker_store::dtype::{BasePrecision, DType};

use super::checks::*;
use super::choices::*;
use super::{Key, filled, is_required, optimizer, planned, settings, side, tracker};
use crate::health::Rule;
use crate::schedule::LrScheduler;

settings! {
    /// `[model]`: what is aligned.
    model "Model": ModelSection => ModelPlan {
        /// Model to align: a folder in diffusers layout, a single-file checkpoint, or the name of a fetched one
        pretrained_model_name_or_path: String = required, value "DIR|FILE|ORG/NAME", alias "model";
        /// Another VAE: its folder, a folder with vae/, a file with original key names, or the name of a fetched one
        /// [default: the model's own]
        pretrained_vae_model_name_or_path: String, value "DIR|FILE|ORG/NAME", alias "vae";
        /// Another UNet to start from: its folder, a folder with unet/, or the name of a fetched one [default: the model's
        /// own]
        unet_init: String, value "DIR|ORG/NAME";
        /// Folder with configs, tokenizers and scheduler for a single-file checkpoint [default: the published ones]
        model_config: String, value "DIR|ORG/NAME";
        /// Weights variant to load, such as fp16 [default: none]
        variant: String, value "VARIANT";
        /// Branch, tag or commit of a fetched model [default: main]
        revision: String, value "REVISION";
        /// Prediction type, overriding the scheduler config: epsilon or v_prediction [default: the scheduler config's]
        prediction_type: Prediction, value "TYPE";
        /// Shift of a flow model's noise levels towards noise, in training and sampling, overriding the scheduler config
        /// [default: the scheduler config's]
        shift: f64, value "FACTOR", check POSITIVE;
        /// Longest prompts and captions in tokens: 75, or 150 or 225 encoded in chunks of 75, as kohya's scripts do
        max_token_length: u32 = 75, value "TOKENS", check TOKENS;
        /// Rescale the noise schedule to zero terminal SNR
        rescale_betas_zero_snr: bool = default, alias "zero_terminal_snr";
    }

    /// `[data]`: the pairs it is aligned to.
    data "Data": DataSection => DataPlan {
        /// Pairs: a folder or file in any layout of docs/guide/data.md, its URL, such as s3://bucket/folder/, or the name
        /// of a fetched dataset
        train_data_dir: String = required, value "DIR|FILE|ADDRESS|ORG/NAME", alias "dataset_name";
        /// Config of a dataset that has several: a folder in it [default: all files]
        dataset_config_name: String, value "NAME";
        /// Split of a dataset that has several, such as train or validation [default: all files]
        dataset_split_name: String, value "NAME", alias "split";
        /// Layout of the pairs: jsonl, parquet, webdataset, folders, onetrainer, json, csv, images [default: detected]
        format: String, value "NAME";
        /// Column mapping, separated by commas. Keys: image_0, image_1, label_0, label_1, winner, loser, score_0, score_1,
        /// ps_score_0, ps_score_1, soft_label, probability_0, caption [default: detected by name]
        columns: BTreeMap<String, String> = default, value "KEY=COLUMN";
        /// List of rows to skip, as written by `tastemaker data check --fix` [default: none]
        exclude: PathBuf, value "FILE";
        /// Train on at most this many pairs, from the start of the set [default: all]
        max_train_samples: usize, value "COUNT", check AT_LEAST_ONE;
        /// Side of the square training images, in pixels, a multiple of 8; with --enable_bucket, of a square of equal area
        /// [default: what the model was made for: 512, SD2.x with v_prediction 768, SDXL 1024]
        resolution: u32 = 512, value "PIXELS", check RESOLUTION, read side;
        /// Fraction of captions held out for validation [default: 0.05, without validation_steps 0]
        held_out_fraction: f64 = 0.05, value "FRACTION", check BELOW_ONE;
        /// Choice of held-out captions: counted, exactly that fraction, or drawn, each by itself, as earlier versions did
        /// [default: counted]
        held_out_choice: HeldOutChoice = default, value "KIND";
        /// Aspect-ratio bucketing: images are grouped by aspect ratio at about the same pixel count
        enable_bucket: bool = default;
        /// Sides of bucket resolutions are multiples of this [default: 64]
        bucket_reso_steps: u32, value "PIXELS", check RESOLUTION;
        /// Shortest side of a bucket resolution [default: half the resolution]
        min_bucket_reso: u32, value "PIXELS";
        /// Longest side of a bucket resolution [default: twice the resolution]
        max_bucket_reso: u32, value "PIXELS";
        /// Disable random horizontal flips
        no_hflip: bool = default;
        /// Random instead of center crops; needs --no_cache
        random_crop: bool = default;
        /// Augmentation of winner and loser: independent, or joint flips and crops [default: independent, with buckets
        /// joint]
        augment: Augment = { if enable_bucket { Augment::Joint } else { Augment::Independent } }, value "KIND";
        /// Fraction of pairs trained with the empty caption (caption dropout)
        proportion_empty_prompts: f64 = 0.0, value "FRACTION", check FRACTION, alias "caption_dropout_rate";
        /// Fraction of pairs whose winner and loser are swapped, at random each time a pair is used
        label_noise_prob: f64 = 0.0, value "FRACTION", check FRACTION;
        /// SDXL micro-conditioning on size and crop: constant, or real: the winner's original size and crop
        time_ids: TimeIds = default, value "KIND";
        /// Folder for cached latents and text embeddings [default: in the user's cache folder]
        cache_to: PathBuf, value "DIR", free true;
        /// Precision of cached latents: fp32, fp16 or bf16 [default: fp32, above 100,000 pairs fp16]
        cache_dtype: DType, value "TYPE";
        /// Encode pairs at every step, without a cache
        no_cache: bool = default;
        /// Threads that decode images; 0 is one per CPU core
        dataloader_num_workers: u32 = 0, value "N", check THREADS, free true, alias "max_data_loader_n_workers";
    }

    /// `[adapter]`: which weights are trained.
    adapter "Adapter": AdapterSection => LoraPlan
    apart
        /// What is trained: lora, or full for all UNet weights [default: lora]
        adapter_type: AdapterKind, value "TYPE", old_key "kind", old_flag "adapter";
    {
        /// Rank of the LoRA matrices
        rank: u32 = 8, value "RANK", check UP_TO_65536, alias "lora_rank network_dim";
        /// LoRA alpha; the update is scaled by alpha / rank [default: the rank]
        alpha: f64 = { f64::from(rank) }, value "ALPHA", check ALPHA, alias "network_alpha lora_alpha";
        /// Layers that get a LoRA, by name endings, separated by commas
        target_modules: Vec<String> = { ["to_k", "to_q", "to_v", "to_out.0"].map(str::to_owned).to_vec() },
            value "NAMES", check SOME_NAMES;
        /// Per-layer ranks, by name endings as in peft, separated by commas [default: none]
        rank_pattern: BTreeMap<String, u32> = default, value "NAME=RANK", check RANKS;
        /// Per-layer alphas, by name endings as in peft, separated by commas [default: none]
        alpha_pattern: BTreeMap<String, f64> = default, value "NAME=ALPHA", check ALPHAS;
        /// Train a weight-decomposed LoRA (DoRA)
        use_dora: bool = default;
        /// Text encoder layers that get a LoRA too, by name endings, separated by commas [default: none]
        text_encoder_target_modules: Vec<String> = default, value "NAMES", check NAMES;
        /// LoRA to start from (diffusers or kohya format), with its rank, alpha and layers; the reference is the base model
        /// with this LoRA [default: none]
        network_weights: PathBuf, value "FILE";
    }

    /// `[optimizer]`: which, and its learning rate.
    optimizer "Optimizer": OptimizerSection => OptimizerPlan {
        /// Optimizer: adamw, adamw8bit (8-bit state) or adafactor
        optimizer_type: OptimizerKind = default, value "NAME", old_key "kind", old_flag "optimizer", read optimizer;
        /// Shard the optimizer state over all processes (ZeRO stage 1, on GPUs 2)
        shard_optimizer: bool = default, free true;
        /// Keep the optimizer state in CPU memory when training on a GPU
        offload_optimizer: bool = default, free true;
        /// Peak learning rate
        learning_rate: f64 = 1e-5, value "RATE", check POSITIVE;
        /// Peak learning rate of the text encoders; 0 keeps the text encoder layers of --network_weights as they are [default:
        /// that of the UNet]
        text_encoder_lr: f64, value "RATE", check NOT_NEGATIVE;
        /// Multiply the learning rate by the effective batch size
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
        /// Epsilon of Adam, added to the root of the second moment
        adam_epsilon: f64 = 1e-8, value "EPSILON", check POSITIVE;
        /// Clip gradients to this norm; 0 does not clip
        max_grad_norm: f64 = 1.0, value "NORM", check NOT_NEGATIVE;
    }

    /// `[train]`: how long, how many pairs at once, in which precision.
    train "Training": TrainSection => TrainPlan {
        /// Optimizer steps; or --num_train_epochs
        max_train_steps: u64 = required, value "STEPS", check SOME_STEPS, alias "steps max_steps";
        /// Epochs, instead of --max_train_steps
        num_train_epochs: u32, value "COUNT", check UP_TO_65536, free true, alias "max_train_epochs epochs";
        /// Pairs per forward pass
        train_batch_size: u32 = 1, value "PAIRS", check UP_TO_65536, alias "batch_size";
        /// Forward passes per optimizer step
        gradient_accumulation_steps: u32 = 1, value "COUNT", check UP_TO_A_MILLION;
        /// Precision of frozen weights and activations: no (fp32), bf16 or fp16; trainable weights are always fp32
        mixed_precision: DType = default, value "TYPE";
        /// Precision of the frozen base under a LoRA, in its transformer blocks: bf16, int8, fp8 or nf4 [default: that of
        /// mixed_precision]
        base_precision: BasePrecision, value "TYPE", alias "base_model_precision";
        /// Recompute activations in the backward pass: less memory, more time
        gradient_checkpointing: bool = default;
        /// The reference model's losses (MSE) and inverted latents: live, or precomputed before the first step and kept on
        /// disk
        reference: ReferenceKind = default, value "KIND", old_value ("bank", "precomputed");
        /// Folder for the precomputed reference [default: in the user's cache folder]
        reference_dir: PathBuf, value "DIR", free true, old_key "bank_to", old_flag "bank_to";
        /// Decay of an EMA of the trainable weights that serves as the reference [default: the reference stays as it is]
        reference_ema_decay: f64, value "DECAY", check BELOW_ONE;
        /// Convention of the method's beta: mean (half of beta times mean errors, as in diffusers), no-half (OneTrainer), sum
        /// (SimpleTuner) or sum-no-half; the plan has it as mean
        beta_convention: BetaConvention = default, value "CONVENTION";
        /// Adapt beta to the size of margins, from the method's beta on
        auto_beta: bool = default;
        /// Factor on the gradient, sigmoid(-logit), that auto_beta gives a pair of typical margin; an undecided one has 0.5
        auto_beta_target_gf: f64 = 0.2, value "FRACTION", check BELOW_HALF;
        /// Decay of auto_beta's mean margin per step
        auto_beta_decay: f64 = 0.99, value "DECAY", check BELOW_ONE;
        /// Smallest beta of auto_beta [default: SimpleTuner's, 0.001 of sums over a latent]
        auto_beta_min: f64, value "BETA", check POSITIVE;
        /// Largest beta of auto_beta [default: SimpleTuner's, 1 of sums over a latent]
        auto_beta_max: f64, value "BETA", check POSITIVE;
        /// Decay of an EMA of the trainable weights, which is then the result [default: no EMA]
        ema_decay: f64, value "DECAY", check BELOW_ONE;
        /// Noise offset: standard deviation of a per-channel offset added to the noise
        noise_offset: f64 = 0.0, value "SCALE", check NOT_NEGATIVE;
        /// Timesteps to train at, separated by commas [default: all]
        timesteps: Vec<u32>, value "TIMESTEPS", check SOME_TIMESTEPS;
        /// Noise levels to train a flow model at, above 0 and up to 1, separated by commas [default: all]
        sigmas: Vec<f64>, value "SIGMAS", check NOISE_LEVELS;
        /// Density of a flow model's training noise levels: uniform, logit_normal, mode, sigmoid or logsnr
        timestep_density: TimestepDensity = default, value "DENSITY", alias "timestep_sampling";
        /// Mean of logit_normal (below 0 towards noise) and of logsnr
        logit_mean: f64 = 0.0, value "MEAN", check FINITE;
        /// Standard deviation of logit_normal and of logsnr
        logit_std: f64 = 1.0, value "STD", check POSITIVE;
        /// Scale of mode, from -1 to 1.75
        mode_scale: f64 = 1.29, value "SCALE", check MODE_SCALE;
        /// Scale of sigmoid
        sigmoid_scale: f64 = 1.0, value "SCALE", check POSITIVE;
        /// Shift of sigmoid towards noise; 1 is none
        discrete_flow_shift: f64 = 1.0, value "FACTOR", check POSITIVE;
        /// Seed of all randomness
        seed: u64 = 0, value "SEED";
    }

    /// `[validation]`: of held-out pairs, and by images, during training.
    validation "Validation": ValidationSection => ValidationPlan {
        /// Optimizer steps between validations on held-out pairs; 0 disables them
        validation_steps: u64 = 0, value "STEPS", free true, old_key "every", old_flag "validation_every",
            alias "sample_every_n_steps";
        /// Held-out pairs to validate on
        validation_pairs: u32 = 64, value "PAIRS", check SOME_PAIRS, old_key "n_pairs";
        /// Prompt to generate images for at each validation; repeat for several [default: none]
        validation_prompts: Vec<String> = default, value "PROMPT", repeated true, free true,
            alias "validation_prompt", old_key "prompts";
        /// Images per validation prompt
        num_validation_images: u32 = 1, value "COUNT", check UP_TO_65536, free true;
        /// Denoising steps of validation images [default: 25; SDXL-Turbo and similar models: 4]
        num_inference_steps: u32, value "STEPS", check UP_TO_65536, free true;
        /// Guidance scale of validation images [default: 7.5; SDXL: 5; SDXL-Turbo and similar models: 0]
        guidance_scale: f64, value "SCALE", check FINITE, free true;
    }

    /// `[checkpoint]`: states to resume from.
    checkpoint "Checkpoints": CheckpointSection => CheckpointPlan {
        /// Optimizer steps between checkpoints; 0 writes one only when the run ends or is stopped
        checkpointing_steps: u64 = 500, value "STEPS", free true, alias "save_every_n_steps";
        /// Epochs between checkpoints, instead of --checkpointing_steps
        save_every_n_epochs: u32, value "EPOCHS", check UP_TO_65536, free true;
        /// Newest checkpoints to keep; 0 keeps all
        checkpoints_total_limit: u32 = 2, value "COUNT", free true;
    }

    /// `[logging]`: where metrics go, and what alarms do.
    logging "Logging": LoggingSection => LoggingPlan {
        /// Tracker in addition to events.jsonl: tensorboard or none
        report_to: Tracker = default, value "TRACKER", free true, alias "log_with", read tracker;
        /// Folder for event files, relative to the output folder
        logging_dir: PathBuf = { PathBuf::from("logs") }, value "DIR", free true;
        /// Folder of this run inside --logging_dir
        tracker_name: String = { "tastemaker".to_owned() }, value "NAME", check FOLDER_NAME, free true,
            alias "tracker_project_name log_tracker_name";
        /// What a critical alarm does: warn, stop, or keep-best, which ends with the best checkpoint by validation; alarms:
        /// docs/guide/reading-a-run.md
        on_alarm: Rule = default, value "RULE", free true, old_key "rule";
    }

    /// `[output]`: what is written.
    output "Output": OutputSection => OutputPlan {
        /// Name of the LoRA file for tools other than diffusers, NAME.safetensors [default: pytorch_lora_weights_kohya]
        output_name: String, value "NAME", check LORA_NAME, free true;
        /// Layouts that a full fine-tune writes: diffusers, a complete folder; unet, the UNet alone; original, a single
        /// file; separated by commas
        #[serde(deserialize_with = "one_or_more")]
        output_layout: Vec<OutputLayout> = { vec![OutputLayout::Diffusers] }, value "LAYOUTS", check SOME_LAYOUTS,
            free true, old_key "layout";
        /// Precision of the weights that a full fine-tune writes: fp32, fp16 or bf16
        save_precision: DType = default, value "TYPE", free true, old_key "dtype";
    }
}
