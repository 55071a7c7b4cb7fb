//! Flags of published training commands: shorthands of ours, and those that have no counterpart here.
//!
//! Those that cannot change the result are accepted and said to be ignored; those that would are refused with what to do
//! instead. Source: the argument parsers of the diffusers, Salesforce and MaPO training scripts.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, parser::ValueSource};
use serde_json::{Map, Value, json};
use tastemaker_math::objectives::OBJECTIVES;

use crate::commands::settings::put;
use crate::exit::UsageError;

/// What becomes of a flag.
#[derive(Clone, Copy)]
enum Fate {
    /// It cannot change the result, for this reason.
    Ignored(&'static str),
    /// It would change the result; do this instead.
    Refused(&'static str),
    /// It stands for these keys with these values in JSON.
    Sets(&'static [(&'static str, &'static str)]),
    /// Its value is the column of captions.
    CaptionColumn,
}

use Fate::{CaptionColumn, Ignored, Refused, Sets};

const TWO_IMAGES: &str = "a pair has two images; name theirs with --columns";
const NO_HUB: &str = "nothing is uploaded";
const NO_IMAGES: &str = "give --validation_steps, and --validation_prompts for images";
const LOCAL: &str = "give the pairs with --train_data_dir";
const NOT_THIS_LOSS: &str = "the published objectives do not have it";
const CACHED_TEXT: &str = "text is encoded once, unless its encoders are trained";

/// (Name, whether it takes a value, what becomes of it.)
const PUBLISHED: [(&str, bool, Fate); 38] = [
    ("sft", false, Sets(&[("method.name", "\"sft\"")])),
    // 250 k + 249 for k in 0 to 3, as in train_diffusion_dpo_sdxl.py of diffusers.
    (
        "is_turbo",
        false,
        Sets(&[("model.rescale_betas_zero_snr", "true"), ("train.timesteps", "[249,499,749,999]")]),
    ),
    // `text_lora_config` of diffusers' train_dreambooth_lora_sdxl.py.
    (
        "train_text_encoder",
        false,
        Sets(&[("adapter.text_encoder_target_modules", r#"["q_proj","k_proj","v_proj","out_proj"]"#)]),
    ),
    // `EMAModel` of diffusers' training_utils.py.
    ("use_ema", false, Sets(&[("train.ema_decay", "0.9999")])),
    ("use_8bit_adam", false, Sets(&[("optimizer.optimizer_type", "\"adamw8bit\"")])),
    ("use_adafactor", false, Sets(&[("optimizer.optimizer_type", "\"adafactor\"")])),
    ("caption_column", true, CaptionColumn),
    ("allow_tf32", false, Ignored("precision is set by --mixed_precision alone")),
    ("cache_dir", true, Ignored("nothing is downloaded; set HF_HUB_CACHE for another cache")),
    ("cache_latents", false, Ignored("latents are computed once unless --no_cache is given")),
    ("cache_latents_to_disk", false, Ignored("latents are kept on disk unless --no_cache is given")),
    ("cache_text_encoder_outputs", false, Ignored(CACHED_TEXT)),
    ("cache_text_encoder_outputs_to_disk", false, Ignored(CACHED_TEXT)),
    ("center_crop", false, Ignored("images are cropped at their center unless --random_crop is given")),
    ("enable_xformers_memory_efficient_attention", false, Ignored("attention picks its kernel by shape")),
    ("hub_model_id", true, Ignored(NO_HUB)),
    ("hub_token", true, Ignored(NO_HUB)),
    ("image_column", true, Ignored(TWO_IMAGES)),
    ("local_rank", true, Ignored("launchers set LOCAL_RANK")),
    ("push_to_hub", false, Ignored(NO_HUB)),
    ("remove_ties", false, Ignored("ties are always skipped")),
    ("run_validation", false, Ignored(NO_IMAGES)),
    ("sdxl", false, Ignored("the model folder says what it is")),
    ("set_grads_to_none", false, Ignored("it changes no result")),
    ("v2", false, Ignored("the model folder says what it is")),
    ("vae_encode_batch_size", true, Ignored("images are encoded 8 at a time, before training")),
    ("choice_model", true, Refused("rank the pairs beforehand and train on the ranking")),
    ("dataset_config", true, Refused(LOCAL)),
    ("dreamlike_pairs_only", false, Refused("choose the pairs beforehand")),
    ("input_perturbation", true, Refused(NOT_THIS_LOSS)),
    ("label_noise_prob", true, Refused("make a copy of the pairs with labels flipped")),
    ("lr_power", true, Refused("there is no polynomial --lr_scheduler")),
    ("network_args", true, Refused("a LoRA is shaped by the flags under \"Adapter\"")),
    ("network_module", true, Refused("a LoRA needs no module named")),
    ("noise_offset", true, Refused(NOT_THIS_LOSS)),
    ("num_train_epochs", true, Refused("give --max_train_steps; --dry-run says how many make an epoch")),
    ("snr_gamma", true, Refused(NOT_THIS_LOSS)),
    ("v_parameterization", false, Refused("give --prediction_type v_prediction")),
];

/// What of this was typed.
#[derive(Debug, Default)]
pub struct Published {
    /// What to say about flags that are ignored.
    pub ignored: Vec<String>,
    refused: Vec<String>,
    /// Settings of methods, by the flags that are short for them.
    settings: Vec<(&'static str, f64)>,
}

impl Published {
    /// The settings of a method that were typed by their published names.
    ///
    /// # Errors
    /// [`UsageError`] naming every flag that is refused, or one of another method.
    pub fn settings(&self, method: &str) -> Result<Map<String, Value>, UsageError> {
        if !self.refused.is_empty() {
            return Err(UsageError(self.refused.join("; ")));
        }
        let mut settings = Map::new();
        for &(flag, value) in &self.settings {
            let entry = OBJECTIVES.iter().find(|entry| entry.name == method);
            let setting = entry.and_then(|entry| entry.short_for(flag)).ok_or_else(|| {
                let owners = owners(flag);
                UsageError(format!("--{flag} is a setting of {owners}, and the method is {method}"))
            })?;
            settings.insert(setting.to_owned(), value.into());
        }
        Ok(settings)
    }
}

/// The methods that have a setting by this flag, with commas between.
fn owners(flag: &str) -> String {
    let entries = OBJECTIVES.iter().filter(|entry| entry.short_for(flag).is_some());
    entries.map(|entry| entry.name).collect::<Vec<_>>().join(", ")
}

/// The flags that are short for settings of methods.
fn short_flags() -> BTreeMap<&'static str, &'static str> {
    let shorthands = OBJECTIVES.iter().flat_map(|entry| entry.shorthands);
    shorthands.map(|shorthand| (shorthand.flag, shorthand.key)).collect()
}

/// The flags, for the parser; help shows only what stands for something of ours.
pub fn args() -> impl Iterator<Item = Arg> {
    let of_methods = short_flags().into_iter().map(|(flag, setting)| {
        let help = format!("Same as --set {setting}=VALUE, for {}", owners(flag));
        Arg::new(flag).long(flag).value_name("VALUE").value_parser(clap::value_parser!(f64)).help(help)
    });
    let others = PUBLISHED.iter().map(|&(name, takes_value, fate)| {
        let action = if takes_value { ArgAction::Set } else { ArgAction::SetTrue };
        let arg = Arg::new(name).long(name).action(action);
        match fate {
            Ignored(_) | Refused(_) => arg.hide(true),
            CaptionColumn => arg.value_name("NAME").help("Same as --columns caption=NAME"),
            Sets(keys) => {
                arg.help(format!("Same as {}", in_full(keys))).conflicts_with_all(others(name, keys))
            }
        }
    });
    of_methods.chain(others).map(|arg| arg.help_heading("Shorthands of published scripts"))
}

/// What a shorthand stands for, as it would be typed.
fn in_full(keys: &[(&str, &str)]) -> String {
    let flag = |(path, value): &(&str, &str)| {
        let name = id(path);
        match *value {
            "true" => format!("--{name}"),
            value => format!("--{name} {}", value.replace(['[', ']', '"'], "")),
        }
    };
    keys.iter().map(flag).collect::<Vec<_>>().join(" ")
}

fn id(path: &str) -> &str {
    if path == "method.name" { "method" } else { path.rsplit('.').next().unwrap_or(path) }
}

/// The flags that a shorthand cannot stand beside: the key it sets, and other shorthands of that.
fn others(shorthand: &str, keys: &[(&'static str, &str)]) -> Vec<&'static str> {
    let set: Vec<&'static str> =
        keys.iter().filter(|(_, value)| *value != "true").map(|(path, _)| *path).collect();
    let sets_one_of =
        |fate: &Fate| matches!(fate, Sets(keys) if keys.iter().any(|(path, _)| set.contains(path)));
    let twins = PUBLISHED.iter().filter(|(name, _, fate)| *name != shorthand && sets_one_of(fate));
    set.iter().map(|path| id(path)).chain(twins.map(|(name, ..)| *name)).collect()
}

/// The shorthands that were typed, as a recipe, and everything else that was.
pub fn typed(matches: &ArgMatches) -> (Value, Published) {
    let is_typed = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
    let (mut recipe, mut published) = (json!({}), Published::default());
    let of_methods = short_flags().into_keys().filter(|flag| is_typed(flag));
    published.settings = of_methods.filter_map(|flag| Some((flag, *matches.get_one::<f64>(flag)?))).collect();
    for &(name, _, fate) in PUBLISHED.iter().filter(|(name, ..)| is_typed(name)) {
        match fate {
            Ignored(reason) => published.ignored.push(format!("--{name} is ignored: {reason}")),
            Refused(instead) => published.refused.push(format!("--{name} is not supported: {instead}")),
            CaptionColumn => {
                let column = matches.get_one::<String>(name).cloned();
                put(&mut recipe, "data.columns", json!({ "caption": column }));
            }
            Sets(keys) => {
                for (path, value) in keys {
                    put(&mut recipe, path, serde_json::from_str(value).unwrap_or_default());
                }
            }
        }
    }
    (recipe, published)
}
