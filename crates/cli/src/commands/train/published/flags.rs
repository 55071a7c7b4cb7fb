//! The flags of published scripts that are not ours, and what becomes of each.
//!
//! Those that cannot change the result are accepted and said to be ignored; those that would are refused with what to type
//! instead. Sources: the argument parsers of the training scripts of diffusers, `SalesforceAIResearch/DiffusionDPO`,
//! `mapo-t2i/mapo` and `AIDC-AI/Diffusion-SDPO`; of `kohya-ss/sd-scripts`, `library/train_util.py` and `train_network.py`.

use serde_json::{Value, json};
use tastemaker_math::nearest::within;
use tastemaker_math::objectives::OBJECTIVES;

/// A flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Its name, without dashes.
    pub name: &'static str,
    /// How many values it takes.
    pub takes: Takes,
    /// What becomes of it.
    pub fate: Fate,
}

/// How many values a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// None.
    Nothing,
    /// One.
    One,
    /// Any number.
    Any,
}

/// What becomes of a flag.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    /// It cannot change the result, for this reason.
    Ignored(&'static str),
    /// It would change the result; type this instead.
    Refused(&'static str),
    /// It stands for these keys with these values in JSON.
    Sets(&'static [(&'static str, &'static str)]),
    /// Its values decide.
    Reads(fn(&[&str]) -> Meaning),
}

/// What a flag with these values means.
#[derive(Debug, Clone, PartialEq)]
pub enum Meaning {
    /// Nothing, and nothing is to be said.
    Nothing,
    /// Nothing, for this reason.
    Ignored(&'static str),
    /// It would change the result; type this instead.
    Refused(String),
    /// These keys with these values, unless they are typed too.
    Sets(Vec<(&'static str, Value)>),
    /// These keys with these values, whatever else was typed for them.
    Overrides(Vec<(&'static str, Value)>),
}

impl Meaning {
    /// The same keys, whatever else was typed for them.
    fn above(self) -> Self {
        match self {
            Self::Sets(keys) => Self::Overrides(keys),
            other => other,
        }
    }
}

use Fate::{Ignored, Reads, Refused, Sets};

const fn switch(name: &'static str, fate: Fate) -> Flag {
    Flag { name, takes: Takes::Nothing, fate }
}

const fn value(name: &'static str, fate: Fate) -> Flag {
    Flag { name, takes: Takes::One, fate }
}

const fn values(name: &'static str, fate: Fate) -> Flag {
    Flag { name, takes: Takes::Any, fate }
}

const TWO_IMAGES: &str = "a pair has two images; name theirs with --columns";
const NO_HUB: &str = "nothing is uploaded";
/// The prompts of diffusers' and MaPO's scripts, of which they generate images every 200 steps with `--run_validation`.
const VALIDATION_PROMPTS: [&str; 4] = [
    "portrait photo of a girl, photograph, highly detailed face, depth of field, moody light, golden hour, style by Dan Winters, \
     Russell James, Steve McCurry, centered, extremely detailed, Nikon D850, award winning photography",
    "Self-portrait oil painting, a beautiful cyborg with golden hair, 8k",
    "Astronaut in a jungle, cold color palette, muted colors, detailed, 8k",
    "A photo of beautiful mountain with realistic sunset and blue lake, highly detailed, masterpiece",
];
const PAIRS: &str = "give the pairs with --train_data_dir";
const NOT_THIS_LOSS: &str = "no method here has it: leave it away";
const CACHED_TEXT: &str = "text is encoded once, unless its encoders are trained";
const ATTENTION: &str = "attention picks its kernel by shape";
const ENCODED_ONCE: &str = "images are encoded in batches of their own, before training";
const LAUNCHED: &str = "processes are started by torchrun, one for each device";
const MODEL_SAYS: &str = "the model says what it is";
const CHECKPOINTS: &str = "checkpoints are written every --checkpointing_steps and at the end";
const NEVER_TYPED: &str = "it changes no result";
const NO_TAGS: &str = "captions are trained as they are: leave it away";
const NO_WARP: &str = "images are only cropped and flipped: leave it away";
const FLIPPED: &str = "images are flipped at random unless --no_hflip is given";
const MASTERS: &str = "trained weights are always fp32: give --mixed_precision";

/// Flags of the scripts of preference methods.
pub const PREFERENCE: &[Flag] = &[
    switch("sft", Sets(&[("method.name", "\"sft\"")])),
    // 250 k + 249 for k in 0 to 3, as in train_diffusion_dpo_sdxl.py of diffusers.
    switch(
        "is_turbo",
        Sets(&[("model.rescale_betas_zero_snr", "true"), ("train.timesteps", "[249,499,749,999]")]),
    ),
    // `text_lora_config` of diffusers' train_dreambooth_lora_sdxl.py.
    switch(
        "train_text_encoder",
        Sets(&[("adapter.text_encoder_target_modules", r#"["q_proj","k_proj","v_proj","out_proj"]"#)]),
    ),
    // `EMAModel` of diffusers' training_utils.py.
    switch("use_ema", Sets(&[("train.ema_decay", "0.9999")])),
    switch("use_8bit_adam", Sets(&[("optimizer.optimizer_type", "\"adamw8bit\"")])),
    switch("use_adafactor", Sets(&[("optimizer.optimizer_type", "\"adafactor\"")])),
    value("caption_column", Reads(|values| sets("data.columns", json!({ "caption": values.last() })))),
    value("loss_type", Reads(loss_type)),
    value("train_method", Reads(train_method)),
    switch("use_winner_preserving", Sets(&[("method.safeguard_mu", "0.0")])),
    value("winner_preserving_mu", Reads(|values| number("method.safeguard_mu", values))),
    value("dmpo_alpha", Reads(|values| number("method.alpha", values))),
    value("cache_dir", Ignored("nothing is downloaded; set HF_HUB_CACHE for another cache")),
    switch("center_crop", Ignored("images are cropped at their center unless --random_crop is given")),
    switch("enable_xformers_memory_efficient_attention", Ignored(ATTENTION)),
    switch("hard_skip_resume", Ignored("a resumed run goes on with the next pair at once")),
    value("hub_model_id", Ignored(NO_HUB)),
    value("hub_token", Ignored(NO_HUB)),
    value("image_column", Ignored(TWO_IMAGES)),
    value("local_rank", Ignored("launchers set LOCAL_RANK")),
    value("prior_generation_precision", Ignored("nothing is generated before training")),
    switch("push_to_hub", Ignored(NO_HUB)),
    values("remove_ties", Reads(remove_ties)),
    switch("run_validation", Reads(|_| run_validation())),
    value("beta", Reads(|values| number("method.beta", values))),
    switch("sdxl", Ignored(MODEL_SAYS)),
    switch("set_grads_to_none", Ignored(NEVER_TYPED)),
    value("vae_encode_batch_size", Ignored(ENCODED_ONCE)),
    value("choice_model", Reads(choice_model)),
    switch("dreamlike_pairs_only", Refused("choose the pairs beforehand, and list the others for --exclude")),
    value("input_perturbation", Reads(|values| only("0", values, NOT_THIS_LOSS))),
    switch("multi_gpu", Ignored(LAUNCHED)),
    value("num_processes", Ignored(LAUNCHED)),
    value("num_machines", Ignored(LAUNCHED)),
    value("num_cpu_threads_per_process", Ignored("set OMP_NUM_THREADS for fewer threads")),
];

/// Flags of kohya's and OneTrainer's tools.
pub const TRAINERS: &[Flag] = &[
    switch("cache_latents", Ignored("latents are computed once unless --no_cache is given")),
    switch("cache_latents_to_disk", Ignored("latents are kept on disk unless --no_cache is given")),
    switch("cache_text_encoder_outputs", Ignored(CACHED_TEXT)),
    switch("cache_text_encoder_outputs_to_disk", Ignored(CACHED_TEXT)),
    switch("xformers", Ignored(ATTENTION)),
    switch("sdpa", Ignored(ATTENTION)),
    switch("mem_eff_attn", Ignored(ATTENTION)),
    switch("lowram", Ignored(NEVER_TYPED)),
    switch("highvram", Ignored(NEVER_TYPED)),
    switch("persistent_data_loader_workers", Ignored(NEVER_TYPED)),
    switch("no_half_vae", Ignored("the VAE computes in fp32 where it must")),
    value("vae_batch_size", Ignored(ENCODED_ONCE)),
    switch("no_metadata", Ignored(NEVER_TYPED)),
    value("training_comment", Ignored(NEVER_TYPED)),
    value("log_prefix", Ignored("give --tracker_name")),
    value(
        "save_model_as",
        Reads(|values| only("safetensors", values, "results are safetensors files: leave it away")),
    ),
    value("save_last_n_epochs", Ignored(CHECKPOINTS)),
    value("save_last_n_steps", Ignored(CHECKPOINTS)),
    switch("save_state", Ignored(CHECKPOINTS)),
    switch("save_state_on_train_end", Ignored(CHECKPOINTS)),
    value("network_module", Reads(network_module)),
    values(
        "network_args",
        Refused("give --rank_pattern for the ranks of single layers, --target_modules for others"),
    ),
    value("network_dropout", Reads(|values| only("0", values, NOT_THIS_LOSS))),
    value("scale_weight_norms", Refused(NOT_THIS_LOSS)),
    switch(
        "network_train_unet_only",
        Reads(|_| Meaning::Overrides(vec![("optimizer.text_encoder_lr", json!(0.0))])),
    ),
    switch("network_train_text_encoder_only", Refused("the UNet is always trained: leave it away")),
    switch("dim_from_weights", Ignored("the LoRA of --network_weights keeps its rank")),
    values("optimizer_args", Reads(optimizer_args)),
    value("unet_lr", Reads(|values| number("optimizer.learning_rate", values).above())),
    switch("v2", Ignored(MODEL_SAYS)),
    switch("v_parameterization", Sets(&[("model.prediction_type", "\"v_prediction\"")])),
    switch("flip_aug", Ignored(FLIPPED)),
    switch("random_flip", Ignored(FLIPPED)),
    switch("color_aug", Refused(NO_WARP)),
    value("face_crop_aug_range", Refused(NO_WARP)),
    switch("bucket_no_upscale", Ignored("images are scaled to their bucket, smaller ones too")),
    value("caption_extension", Reads(caption_extension)),
    switch("shuffle_caption", Refused(NO_TAGS)),
    value("keep_tokens", Reads(|values| only("0", values, NO_TAGS))),
    switch("weighted_captions", Refused(NO_TAGS)),
    value(
        "clip_skip",
        Reads(|values| only("1", values, "the text encoder's published layer is taken: leave it away")),
    ),
    value("prior_loss_weight", Ignored("there are no regularization images")),
    value("reg_data_dir", Refused("there are no regularization images: leave it away")),
    value("dataset_config", Refused(PAIRS)),
    value("in_json", Refused(PAIRS)),
    value("config_file", Refused("give a recipe, as the first argument")),
    value("sample_prompts", Refused("give each prompt with --validation_prompt")),
    value("sample_every_n_epochs", Ignored("images are generated every --validation_steps")),
    switch("sample_at_first", Ignored("images are generated at the first step, too")),
    value("sample_sampler", Ignored("images are generated with the sampler of the model's family")),
    switch("full_fp16", Refused(MASTERS)),
    switch("full_bf16", Refused(MASTERS)),
    switch("fp8_base", Refused("give --base_precision fp8, or int8, which errs less")),
    switch("fp8_scaled", Refused("give --base_precision fp8, or int8, which errs less")),
    switch("torch_compile", Ignored(NEVER_TYPED)),
    value("ip_noise_gamma", Reads(|values| only("0", values, NOT_THIS_LOSS))),
    value("multires_noise_iterations", Reads(|values| only("0", values, NOT_THIS_LOSS))),
    value("multires_noise_discount", Ignored("there is no --multires_noise_iterations")),
    value("adaptive_noise_scale", Reads(|values| only("0", values, NOT_THIS_LOSS))),
    switch("debiased_estimation_loss", Refused(NOT_THIS_LOSS)),
    switch("scale_v_pred_loss_like_noise_pred", Refused(NOT_THIS_LOSS)),
    switch("masked_loss", Refused(NOT_THIS_LOSS)),
];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    PREFERENCE.iter().chain(TRAINERS)
}

fn sets(path: &'static str, value: Value) -> Meaning {
    Meaning::Sets(vec![(path, value)])
}

/// The last value as a number.
pub fn number(path: &'static str, values: &[&str]) -> Meaning {
    let typed = values.last().copied().unwrap_or_default();
    match typed.parse::<f64>() {
        Ok(number) => sets(path, number.into()),
        Err(_) => Meaning::Refused(format!("found {typed}; wanted a number")),
    }
}

/// A flag of which we have one value.
fn only(ours: &str, values: &[&str], instead: &str) -> Meaning {
    let typed = values.last().copied().unwrap_or_default();
    let is_same = typed.eq_ignore_ascii_case(ours)
        || matches!((typed.parse::<f64>(), ours.parse::<f64>()), (Ok(typed), Ok(ours)) if typed == ours);
    if is_same { Meaning::Nothing } else { Meaning::Refused(instead.to_owned()) }
}

/// Of diffusers' train_diffusion_dpo.py, and of kohya's scripts, where it is that of one image.
fn loss_type(values: &[&str]) -> Meaning {
    let method = match values.last().copied().unwrap_or_default() {
        "sigmoid" => "diffusion-dpo",
        "hinge" => "hinge",
        "ipo" => "ipo",
        "l2" => return Meaning::Nothing,
        other => {
            let meant = within(other, OBJECTIVES.iter().map(|entry| entry.name)).unwrap_or("diffusion-dpo");
            return Meaning::Refused(format!(
                "no method is called by --loss_type {other}: give --method, for example {meant}"
            ));
        }
    };
    sets("method.name", method.into())
}

/// Of diffusers' and MaPO's scripts.
fn run_validation() -> Meaning {
    Meaning::Sets(vec![
        ("validation.validation_prompts", json!(VALIDATION_PROMPTS)),
        ("validation.validation_steps", json!(200)),
    ])
}

fn train_method(values: &[&str]) -> Meaning {
    match values.last().copied().unwrap_or_default() {
        method @ ("diffusion-dpo" | "dmpo" | "sft") => sets("method.name", method.into()),
        "dpo" => sets("method.name", "diffusion-dpo".into()),
        other => {
            let meant = within(other, OBJECTIVES.iter().map(|entry| entry.name)).unwrap_or("diffusion-dpo");
            Meaning::Refused(format!("there is no {other} here: give --method, for example {meant}"))
        }
    }
}

fn remove_ties(values: &[&str]) -> Meaning {
    match values.last().map(|value| value.to_ascii_lowercase()).as_deref() {
        Some("false" | "0" | "no") => {
            // The script reads any text as true.
            Meaning::Ignored("ties are always skipped, as the script does whatever is typed")
        }
        _ => Meaning::Nothing,
    }
}

fn choice_model(values: &[&str]) -> Meaning {
    let scorer = match values.last().copied().unwrap_or_default() {
        "" => return Meaning::Nothing,
        "aes" => "aesthetic",
        "clip" => "clip-score",
        "hps" => "hps-v2",
        _ => "pick-score",
    };
    Meaning::Refused(format!(
        "rank the pairs first, with tastemaker data relabel PAIRS --scorer {scorer} --out RANKED"
    ))
}

fn network_module(values: &[&str]) -> Meaning {
    match values.last().copied().unwrap_or_default() {
        "networks.lora" | "networks.lora_sd3" | "lora" => Meaning::Nothing,
        "networks.lora_flux" => Meaning::Refused("Flux is not supported yet: give an SD1.x, SD2.x, SDXL or SD3 model".into()),
        lycoris if lycoris.starts_with("lycoris") => Meaning::Refused(
            "LyCORIS is not supported: leave it away for a LoRA, or give --use_dora for a weight-decomposed one".into(),
        ),
        _ => Meaning::Refused(
            "a LoRA is what is trained here: leave it away, or give --adapter_type full".into(),
        ),
    }
}

fn caption_extension(values: &[&str]) -> Meaning {
    match values.last().copied().unwrap_or_default() {
        ".txt" | ".caption" | "txt" | "caption" => Meaning::Nothing,
        _ => Meaning::Refused("captions beside images are .txt or .caption files".into()),
    }
}

/// `--optimizer_args "weight_decay=0.01" "betas=0.9,0.99"`.
fn optimizer_args(values: &[&str]) -> Meaning {
    let mut keys = Vec::new();
    for typed in values {
        let (name, value) = typed.split_once('=').unwrap_or((typed, ""));
        let number = |text: &str| text.trim().trim_matches(['(', ')']).trim().parse::<f64>().ok();
        match (name, number(value), value.split_once(',')) {
            ("weight_decay", Some(decay), _) => keys.push(("optimizer.adam_weight_decay", decay.into())),
            ("eps", Some(epsilon), _) => keys.push(("optimizer.adam_epsilon", epsilon.into())),
            ("betas", _, Some((first, second))) => {
                let both =
                    [("optimizer.adam_beta1", number(first)), ("optimizer.adam_beta2", number(second))];
                keys.extend(both.into_iter().filter_map(|(key, beta)| Some((key, beta?.into()))));
            }
            // As Adafactor is here.
            ("scale_parameter" | "relative_step" | "warmup_init", ..)
                if value.eq_ignore_ascii_case("false") => {}
            _ => {
                return Meaning::Refused(format!(
                    "no optimizer here has {name}: give the flags under \"Optimizer\", such as --adam_weight_decay"
                ));
            }
        }
    }
    Meaning::Sets(keys)
}
