//! The training scripts whose commands can be pasted: which one a command is of, and what it leaves to its script.
//!
//! A command is of a script if the script knows every flag of it, and one of them tells the script from the others. What the
//! command does not say then is as the script has it. Sources: the argument parsers of the scripts.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;
use tastemaker_run::{Recipe, keys, words};

use crate::commands::settings::put;
use crate::exit::UsageError;

/// Keys with values in JSON.
type Defaults = &'static [(&'static str, &'static str)];

/// A training script.
#[derive(Debug)]
pub struct Script {
    /// Its file.
    pub file: &'static str,
    /// Whose it is.
    pub of: &'static str,
    /// Its method, where it has one alone; flags such as `--sft` override it.
    pub method: Option<&'static str>,
    /// The flags it knows, in lists of names with spaces between.
    knows: &'static [&'static str],
    /// Flags of which at least one is typed, for they tell it from other scripts.
    marks: &'static str,
    /// A flag without which it is another one of the same file.
    needs: Option<&'static str>,
    /// Whether the model is an SDXL; `None` for either.
    is_xl: Option<bool>,
    /// What the name of the model has in it, where the script goes by that.
    model_has: Option<&'static str>,
    /// What is meant where nothing is typed, keys with values in JSON.
    defaults: &'static [Defaults],
    /// What its `--beta_dpo` is multiplied by to be ours.
    pub beta_factor: f64,
    /// The flag with which it does not clip gradients.
    unclipped_by: Option<&'static str>,
    /// What is done otherwise here, whatever is typed.
    differs: &'static [&'static str],
    /// Whether it resumes from the latest checkpoint by itself.
    pub resumes: bool,
}

/// What of scripts is done otherwise here.
const STRETCHES: &str = "no image is stretched to the size of the other one of its pair, as there";
const VAE: &str = "the VAE computes in fp32, there in the type of --mixed_precision";
const SAFEGUARD: &str = "the winner-preserving factor is each pair's own, there one of a micro-batch";

const SHARED: &str = "pretrained_model_name_or_path revision dataset_name max_train_samples output_dir cache_dir seed resolution \
                      no_hflip random_crop train_batch_size num_train_epochs max_train_steps checkpointing_steps \
                      resume_from_checkpoint gradient_accumulation_steps gradient_checkpointing learning_rate scale_lr lr_scheduler \
                      lr_warmup_steps dataloader_num_workers adam_beta1 adam_beta2 adam_weight_decay adam_epsilon max_grad_norm \
                      hub_model_id logging_dir allow_tf32 report_to mixed_precision local_rank multi_gpu num_processes num_machines \
                      num_cpu_threads_per_process";

const HUGGING_FACE: &str = "dataset_split_name variant run_validation validation_steps vae_encode_batch_size checkpoints_total_limit \
                            lr_num_cycles lr_power use_8bit_adam push_to_hub enable_xformers_memory_efficient_attention tracker_name";

const DIFFUSERS: &str = "hub_token prior_generation_precision rank beta_dpo";

const SALESFORCE: &str = "input_perturbation dataset_config_name train_data_dir image_column caption_column use_adafactor noise_offset \
                          tracker_project_name pretrained_vae_model_name_or_path sdxl sft beta_dpo hard_skip_resume unet_init \
                          proportion_empty_prompts split choice_model dreamlike_pairs_only";

const SALESFORCE_MARKS: &str = "beta_dpo sdxl sft split proportion_empty_prompts choice_model dreamlike_pairs_only hard_skip_resume \
                                tracker_project_name use_adafactor input_perturbation";

const MAPO: &str =
    "pretrained_vae_model_name_or_path beta_mapo label_noise_prob snr_value remove_ties lora_rank";

const KOHYA: &str = "dataset_config train_data_dir output_name save_model_as save_every_n_steps save_every_n_epochs save_precision \
                     network_module network_dim network_alpha network_args network_weights network_dropout network_train_unet_only \
                     unet_lr text_encoder_lr optimizer_type optimizer_args lr_scheduler_num_cycles lr_scheduler_power sdpa xformers \
                     mem_eff_attn max_train_epochs cache_latents cache_latents_to_disk cache_text_encoder_outputs \
                     cache_text_encoder_outputs_to_disk clip_skip caption_extension enable_bucket min_bucket_reso max_bucket_reso \
                     bucket_reso_steps bucket_no_upscale prior_loss_weight persistent_data_loader_workers max_data_loader_n_workers \
                     no_half_vae lowram vae v2 v_parameterization zero_terminal_snr min_snr_gamma noise_offset max_token_length \
                     log_with log_prefix flip_aug shuffle_caption keep_tokens caption_dropout_rate training_comment save_state \
                     save_state_on_train_end save_last_n_epochs save_last_n_steps no_metadata highvram vae_batch_size \
                     dim_from_weights max_train_steps learning_rate sample_every_n_epochs sample_every_n_steps sample_sampler \
                     sample_at_first";

/// As diffusers' scripts have it. Source: train_diffusion_dpo.py and train_diffusion_dpo_sdxl.py.
const DIFFUSERS_DEFAULTS: [(&str, &str); 10] = [
    ("data.resolution", "512"),
    ("adapter.adapter_type", "\"lora\""),
    ("adapter.rank", "4"),
    ("optimizer.learning_rate", "5e-4"),
    ("optimizer.lr_warmup_steps", "500"),
    ("train.train_batch_size", "4"),
    ("train.num_train_epochs", "1"),
    ("checkpoint.checkpoints_total_limit", "0"),
    ("data.held_out_fraction", "0.0"),
    ("output_dir", "\"diffusion-dpo-lora\""),
];

/// As Salesforce's script has it. Source: train.py.
const SALESFORCE_DEFAULTS: [(&str, &str); 12] = [
    ("data.resolution", "512"),
    ("adapter.adapter_type", "\"full\""),
    ("optimizer.learning_rate", "1e-8"),
    ("optimizer.lr_scheduler", "\"constant_with_warmup\""),
    ("optimizer.lr_warmup_steps", "500"),
    ("train.train_batch_size", "1"),
    ("train.max_train_steps", "2000"),
    ("train.mixed_precision", "\"fp16\""),
    ("data.proportion_empty_prompts", "0.2"),
    ("data.held_out_fraction", "0.0"),
    ("checkpoint.checkpoints_total_limit", "0"),
    ("output_dir", "\"sd-model-finetuned\""),
];

/// What SDXL changes in it: Adafactor and gradient checkpointing come with the flag.
const SALESFORCE_XL: [(&str, &str); 3] = [
    ("data.resolution", "1024"),
    ("optimizer.optimizer_type", "\"adafactor\""),
    ("train.gradient_checkpointing", "true"),
];

/// As MaPO's scripts have it. Source: args.py and train.py.
const MAPO_DEFAULTS: [(&str, &str); 10] = [
    ("optimizer.learning_rate", "5e-4"),
    ("optimizer.lr_warmup_steps", "500"),
    ("train.train_batch_size", "4"),
    ("train.num_train_epochs", "1"),
    ("data.resolution", "1024"),
    ("data.augment", "\"joint\""),
    ("data.time_ids", "\"real\""),
    ("data.held_out_fraction", "0.0"),
    ("checkpoint.checkpoints_total_limit", "0"),
    ("output_dir", "\"mapo\""),
];

/// Where a row says nothing else.
const ANY: Script = Script {
    file: "train.py",
    of: "diffusers",
    method: Some("diffusion-dpo"),
    knows: &[],
    marks: "",
    needs: None,
    is_xl: None,
    model_has: None,
    defaults: &[],
    beta_factor: 1.0,
    unclipped_by: None,
    differs: &[],
    resumes: false,
};

/// The scripts, those that say more about themselves before others.
pub static SCRIPTS: &[Script] = &[
    Script {
        needs: Some("sdxl"),
        model_has: Some("turbo"),
        defaults: &[
            &SALESFORCE_DEFAULTS,
            &SALESFORCE_XL,
            &[("model.rescale_betas_zero_snr", "true"), ("train.timesteps", "[249,499,749,999]")],
        ],
        ..SALESFORCE_SCRIPT
    },
    Script { needs: Some("sdxl"), defaults: &[&SALESFORCE_DEFAULTS, &SALESFORCE_XL], ..SALESFORCE_SCRIPT },
    SALESFORCE_SCRIPT,
    Script {
        of: "AIDC-AI/Diffusion-SDPO",
        knows: &[SHARED, SALESFORCE, "train_method dmpo_alpha use_winner_preserving winner_preserving_mu"],
        marks: "train_method use_winner_preserving winner_preserving_mu dmpo_alpha",
        differs: &[VAE, SAFEGUARD],
        ..SALESFORCE_SCRIPT
    },
    Script {
        file: "train_diffusion_dpo_sdxl.py",
        knows: &[SHARED, HUGGING_FACE, DIFFUSERS, "pretrained_vae_model_name_or_path is_turbo"],
        marks: "rank beta_dpo is_turbo prior_generation_precision",
        is_xl: Some(true),
        defaults: &[
            &DIFFUSERS_DEFAULTS,
            &[("data.resolution", "1024"), ("data.augment", "\"joint\""), ("data.time_ids", "\"real\"")],
        ],
        differs: &[STRETCHES],
        ..DIFFUSERS_SCRIPT
    },
    Script {
        file: "train_diffusion_dpo.py",
        knows: &[SHARED, HUGGING_FACE, DIFFUSERS, "loss_type"],
        marks: "rank beta_dpo loss_type prior_generation_precision",
        is_xl: Some(false),
        defaults: &[&DIFFUSERS_DEFAULTS],
        // It multiplies the margin by its beta where others multiply by half of theirs.
        beta_factor: 2.0,
        differs: &[VAE],
        ..DIFFUSERS_SCRIPT
    },
    Script {
        file: "train_with_lora.py",
        marks: "lora_rank",
        needs: Some("lora_rank"),
        defaults: &[&MAPO_DEFAULTS, &[("adapter.adapter_type", "\"lora\"")]],
        ..MAPO_SCRIPT
    },
    MAPO_SCRIPT,
    KOHYA_SCRIPT,
    Script { file: "sdxl_train_network.py", is_xl: Some(true), ..KOHYA_SCRIPT },
];

const DIFFUSERS_SCRIPT: Script = ANY;

const KOHYA_SCRIPT: Script = Script {
    file: "train_network.py",
    of: "kohya-ss/sd-scripts",
    method: None,
    knows: &[SHARED, KOHYA],
    marks: "network_module network_dim",
    defaults: &[&[("adapter.alpha", "1.0"), ("data.no_hflip", "true")]],
    ..ANY
};

const SALESFORCE_SCRIPT: Script = Script {
    of: "SalesforceAIResearch/DiffusionDPO",
    knows: &[SHARED, SALESFORCE],
    marks: SALESFORCE_MARKS,
    defaults: &[&SALESFORCE_DEFAULTS],
    unclipped_by: Some("use_adafactor"),
    differs: &[VAE],
    resumes: true,
    ..ANY
};

const MAPO_SCRIPT: Script = Script {
    of: "mapo-t2i/mapo",
    method: Some("mapo"),
    knows: &[SHARED, HUGGING_FACE, MAPO],
    marks: "beta_mapo label_noise_prob snr_value remove_ties",
    defaults: &[&MAPO_DEFAULTS, &[("adapter.adapter_type", "\"full\"")]],
    differs: &[STRETCHES],
    ..ANY
};

/// What is known about a command.
pub struct Command<'a> {
    /// The names of its flags as typed, with underscores.
    pub typed: &'a BTreeSet<String>,
    /// The script that it names.
    pub file: Option<&'a str>,
    /// The model.
    pub model: &'a str,
    /// Where results go.
    pub output_dir: &'a str,
    /// Whether the model is an SDXL.
    pub is_xl: &'a dyn Fn() -> bool,
    /// Whether a method was typed.
    pub has_method: bool,
}

/// The script that a command is of, if it is of one.
pub fn script_of(command: &Command<'_>) -> Option<&'static Script> {
    SCRIPTS.iter().find(|script| script.fits(command))
}

/// The name of a training script whose commands can be pasted.
///
/// # Errors
/// [`UsageError`] for another one.
pub fn script_named(path: &Path) -> Result<&'static str, UsageError> {
    let name = path.file_name().unwrap_or_default();
    SCRIPTS.iter().map(|script| script.file).find(|file| name == *file).ok_or_else(|| {
        if WITHOUT_PREFERENCES.iter().any(|file| name == *file) {
            return UsageError(format!(
                "{} trains on single images without preferences: give --method sft, which has its loss, with the folder of images \
                 and captions as --train_data_dir, and leave the name away; or --method kto with liked and disliked images",
                path.display()
            ));
        }
        let files: BTreeSet<&str> = SCRIPTS.iter().map(|script| script.file).collect();
        let known: Vec<&str> = files.into_iter().collect();
        UsageError(format!(
            "commands of {} are not known; known are {}: leave it away and give --method, for example diffusion-dpo",
            path.display(),
            known.join(", ")
        ))
    })
}

/// Training scripts of diffusers and of kohya that know no preferences.
const WITHOUT_PREFERENCES: [&str; 13] = [
    "train_text_to_image.py",
    "train_text_to_image_lora.py",
    "train_text_to_image_sdxl.py",
    "train_text_to_image_lora_sdxl.py",
    "train_dreambooth.py",
    "train_dreambooth_lora.py",
    "train_dreambooth_lora_sdxl.py",
    "train_dreambooth_lora_sdxl_advanced.py",
    "train_lcm_distill_lora_sdxl.py",
    "fine_tune.py",
    "train_db.py",
    "sdxl_train.py",
    "train_textual_inversion.py",
];

/// Flags of ours that say where and how a pasted command runs here, and nothing about what it trains.
const HERE: [&str; 10] = [
    "train_data_dir",
    "device",
    "cudnn_attention",
    "dry_run",
    "overwrite",
    "held_out_fraction",
    "no_cache",
    "exclude",
    "format",
    "columns",
];

impl Script {
    fn fits(&self, command: &Command<'_>) -> bool {
        let names = |list: &'static str| list.split_whitespace();
        let is_typed = |name: &str| command.typed.contains(name);
        let knows = |name: &str| self.knows.iter().any(|list| names(list).any(|known| known == name));
        let is_ours =
            |name: &str| HERE.contains(&name) || keys().any(|key| key.is_free && key.is_called(name));
        let is_named = command.file == Some(self.file);
        let is_foreign = |name: &String| !keys().any(|key| key.is_called(name));
        let is_marked = is_named
            || command.typed.iter().any(is_foreign)
                && (names(self.marks).any(is_typed)
                    || self.method.is_some_and(|method| command.output_dir.contains(method)));
        // Who says the method means it, and leaves nothing to a script of another one.
        let is_free = self.method.is_none() || !command.has_method || is_named;
        is_free
            && is_marked
            && command.file.is_none_or(|_| is_named)
            && command.typed.iter().all(|name| knows(name) || is_ours(name))
            && self.needs.is_none_or(|flag| is_typed(flag) || is_named && self.file != ANY.file)
            && self.model_has.is_none_or(|part| command.model.contains(part))
            && self.is_xl.is_none_or(|is_xl| self.only_one(command) || (command.is_xl)() == is_xl)
    }

    /// Whether a flag was typed that only this one of two sibling scripts knows.
    fn only_one(&self, command: &Command<'_>) -> bool {
        let known = |script: &Self, name: &str| {
            script.knows.iter().flat_map(|list| list.split_whitespace()).any(|known| known == name)
        };
        let mut siblings = SCRIPTS.iter().filter(|other| other.of == self.of && other.file != self.file);
        command.file == Some(self.file)
            || siblings.all(|other| command.typed.iter().any(|name| known(self, name) && !known(other, name)))
    }

    /// What is said about a command of it that typed these keys.
    pub fn about(&self, typed: &Recipe, defaults: &Recipe) -> String {
        let named = typed.method.name.as_deref();
        let value = |recipe: &Recipe| serde_json::to_value(recipe).unwrap_or_default();
        let (typed, defaults) = (value(typed), value(defaults));
        let left = keys().filter(|key| key.typed(&typed).is_none());
        let left = left.filter_map(|key| Some(format!("{} {}", key.name(), words(key.typed(&defaults)?))));
        let left = left.collect::<Vec<_>>().join(", ");
        let method =
            named.or(self.method).map_or(String::new(), |method| format!("the method is {method}; "));
        let differs = match self.differs {
            [] => String::new(),
            differs => format!("; otherwise than there: {}", differs.join("; ")),
        };
        format!(
            "a command of {} ({}): {method}what it leaves out is as there: {left}{differs}",
            self.file, self.of
        )
    }

    /// What is meant where nothing but these flags is typed, as a recipe.
    pub fn recipe(&self, typed: &BTreeSet<String>) -> Recipe {
        let mut recipe = json!({});
        if self.unclipped_by.is_some_and(|flag| typed.contains(flag)) {
            put(&mut recipe, "optimizer.max_grad_norm", 0.into());
        }
        for (path, value) in self.defaults.iter().copied().flatten() {
            put(&mut recipe, path, serde_json::from_str(value).unwrap_or_default());
        }
        let mut recipe: Recipe = serde_json::from_value(recipe).unwrap_or_default();
        recipe.method.name = self.method.map(str::to_owned);
        recipe
    }
}
