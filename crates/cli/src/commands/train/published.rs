//! Flags of published training commands that have no counterpart here.
//!
//! Those that cannot change the result are accepted and said to be ignored; those that would are refused with what to do
//! instead. Source: the argument parsers of the diffusers, Salesforce and MaPO training scripts.

use clap::{Arg, ArgAction, ArgMatches, parser::ValueSource};

use crate::exit::UsageError;

/// What becomes of a flag.
#[derive(Clone, Copy)]
enum Fate {
    /// It cannot change the result, for this reason.
    Ignored(&'static str),
    /// It would change the result; do this instead.
    Refused(&'static str),
}

use Fate::{Ignored, Refused};

const TWO_IMAGES: &str = "a pair has two images; name theirs with --columns";
const NO_HUB: &str = "nothing is uploaded";
const NO_IMAGES: &str = "give --validation_every, and --validation_prompt for images";
const LOCAL: &str = "give the pairs with --train_data_dir";
const NOT_THIS_LOSS: &str = "the published objectives do not have it";

/// (Name, whether it takes a value, what becomes of it.)
const PUBLISHED: [(&str, bool, Fate); 32] = [
    ("allow_tf32", false, Ignored("precision is set by --mixed_precision alone")),
    ("cache_dir", true, Ignored("nothing is downloaded; set HF_HUB_CACHE for another cache")),
    ("cache_latents", false, Ignored("latents are computed once unless --no_cache is given")),
    ("cache_latents_to_disk", false, Ignored("latents are kept on disk unless --no_cache is given")),
    ("cache_text_encoder_outputs", false, Ignored("text is encoded once, unless its encoders learn")),
    ("cache_text_encoder_outputs_to_disk", false, Ignored("text is encoded once, unless its encoders learn")),
    ("center_crop", false, Ignored("images are cropped at their center unless --random_crop is given")),
    ("enable_xformers_memory_efficient_attention", false, Ignored("attention picks its kernel by shape")),
    ("hub_model_id", true, Ignored(NO_HUB)),
    ("hub_token", true, Ignored(NO_HUB)),
    ("image_column", true, Ignored(TWO_IMAGES)),
    ("local_rank", true, Ignored("one process trains")),
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
    ("max_train_samples", true, Refused("make a smaller set of pairs")),
    ("network_args", true, Refused("a LoRA is shaped by the flags under \"What learns\"")),
    ("network_module", true, Refused("a LoRA needs no module named")),
    ("noise_offset", true, Refused(NOT_THIS_LOSS)),
    ("num_train_epochs", true, Refused("give --max_train_steps; --dry-run says how many make an epoch")),
    ("snr_gamma", true, Refused(NOT_THIS_LOSS)),
    ("v_parameterization", false, Refused("give --prediction_type v_prediction")),
];

/// The flags, for the parser; help does not show them.
pub fn args() -> impl Iterator<Item = Arg> {
    PUBLISHED.iter().map(|&(name, takes_value, _)| {
        let action = if takes_value { ArgAction::Set } else { ArgAction::SetTrue };
        Arg::new(name).long(name).action(action).hide(true)
    })
}

/// What to say about the ones that were typed.
///
/// # Errors
/// [`UsageError`] naming every one that is refused.
pub fn notices(matches: &ArgMatches) -> Result<Vec<String>, UsageError> {
    let is_typed = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
    let (mut ignored, mut refused) = (Vec::new(), Vec::new());
    for (name, _, fate) in PUBLISHED.iter().filter(|(name, ..)| is_typed(name)) {
        match fate {
            Ignored(reason) => ignored.push(format!("--{name} is ignored: {reason}")),
            Refused(instead) => refused.push(format!("--{name} is not supported: {instead}")),
        }
    }
    if refused.is_empty() { Ok(ignored) } else { Err(UsageError(refused.join("; "))) }
}
