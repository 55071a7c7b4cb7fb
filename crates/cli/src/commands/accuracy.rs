//! `tastemaker accuracy`: how often a model prefers the image that people prefer.

use std::path::PathBuf;
use tastemaker_store::version;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use tastemaker_data::set::PairSet;
use tastemaker_data::{PairSource, exclusions};
use tastemaker_math::number;
use tastemaker_models::adapters::LoraFile;
use tastemaker_models::pipeline::{Model, ModelSources};
use tastemaker_store::checksum::hex;
use tastemaker_store::dtype::DType;
use tastemaker_store::json;
use tastemaker_train::data::EncodeSettings;
use tastemaker_train::validation::Measurements;
use tastemaker_train::validation::accuracy::{
    Accuracy, Draws, Preferred, accuracy as accuracy_of, check_comparable, measure_model,
};

use crate::allocator;
use crate::commands::DeviceFlag;
use crate::commands::parts::PartFlags;
use crate::commands::{side, word};
use crate::exit::UsageError;
use crate::hub::pair_caches;
use crate::models::{Chosen, chosen_lora, on_noise_of, read_lora, token_length};
use crate::next;
use crate::pairs::{self, Part, ReadingFlags};
use crate::place::{OverwriteFlag, Place, Written};
use crate::progress::{Progress, Work, counted};

/// Measures preference accuracy: how often a model's implicit reward ranks the winner higher. The reward of an image is how
/// much better than the reference the model denoises it.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct AccuracyArgs {
    /// Aligned model: a folder in diffusers layout, a single-file checkpoint, the name of a fetched one, or the output
    /// folder of a training run
    #[arg(long, value_name = "DIR|FILE|ORG/NAME", alias = "pretrained_model_name_or_path")]
    model: String,
    /// LoRA for the model: its file, a folder with one, or the name of a fetched one [default: none]
    #[arg(long, value_name = "FILE|DIR|ORG/NAME")]
    lora: Option<String>,
    /// Reference model [default: the model without --lora and --unet_init, or the base model of the training run]
    #[arg(long, value_name = "DIR|FILE|ORG/NAME", conflicts_with = "without_reference")]
    reference: Option<String>,
    /// Use no reference model: the image that the model denoises better is the preferred one, as for MaPO
    #[arg(long)]
    without_reference: bool,
    /// Labeled pairs: a folder or file in any layout of docs/guide/data.md, its URL, or the name of a fetched dataset
    #[arg(long, value_name = "SET", alias = "train_data_dir")]
    pairs: String,
    /// Split of a dataset that has several, such as validation [default: all files]
    #[arg(long, value_name = "NAME")]
    dataset_split_name: Option<String>,
    #[command(flatten)]
    reading: ReadingFlags,
    /// List of rows to skip, as written by `tastemaker data check --fix` [default: none]
    #[arg(long, value_name = "FILE")]
    exclude: Option<PathBuf>,
    /// Noise and timestep samples per pair, spread evenly over the schedule
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    draws: u64,
    /// Seed of timesteps and noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Side of the square that images are cropped to, in pixels [default: the model's]
    #[arg(long, value_name = "PIXELS", value_parser = side)]
    resolution: Option<u32>,
    /// Pairs per forward pass
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1024))]
    batch_size: u64,
    /// Precision of weights and activations: no (fp32), bf16 or fp16
    #[arg(long, value_name = "TYPE", value_parser = word::<DType>, default_value = "no")]
    mixed_precision: DType,
    /// Also print the log-loss of the labels, at this beta of Diffusion-DPO's loss, such as 5000 [default: not printed]
    #[arg(long, value_name = "BETA", visible_alias = "beta_dpo")]
    beta: Option<f64>,
    /// JSON file for the results [default: not written]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    overwrite: OverwriteFlag,
    #[command(flatten)]
    device: DeviceFlag,
    #[command(flatten)]
    parts: PartFlags,
}

/// The file of results.
const FOUND: Written = Written {
    what: "results of this command",
    is: |path| json::read::<Value>(path).is_ok_and(|found| found.get("accuracy").is_some()),
};

/// Runs the command.
pub fn accuracy(args: &AccuracyArgs) -> Result<()> {
    let place = args.out.as_deref().map(|out| Place::file(out, "--out", FOUND));
    let _claim = place.map(|place| place.claim(args.overwrite)).transpose()?;
    if let Some(beta) = args.beta.filter(|beta| !(beta.is_finite() && *beta > 0.0)) {
        return Err(UsageError(format!("--beta is {}; wanted a number above 0", number(beta))).into());
    }
    let Chosen { model, lora, base } = args.parts.choose(&args.model)?;
    let lora = chosen_lora(&args.model, lora, args.lora.as_deref())?;
    let model = on_noise_of(model, lora.as_deref())?;
    let reference = reference(args, base.as_deref())?;
    let set = open(args)?;
    pairs::report_skipped(&set);
    if let Some(reference) = &reference {
        check_comparable(&model, reference)?;
    }
    let model = model.with_max_token_length(lora.as_deref().and_then(token_length));
    let lora = lora.map(|path| read_lora(path, &model)).transpose()?;
    let encode = encode_settings(args, &model)?;
    allocator::suit(&model)?;

    // One after the other, so that only one network is in memory.
    let policy = measured(args, &encode, &model, lora, &set)?;
    let before =
        reference.as_ref().map(|reference| measured(args, &encode, reference, None, &set)).transpose()?;
    let n_timesteps = model.schedule()?.schedule.len();
    let found = accuracy_of(&policy, before.as_ref(), n_timesteps, args.beta)
        .ok_or_else(|| UsageError("not one pair could be measured".into()))?;
    print(args, &found, n_timesteps);
    if let Some(out) = &args.out {
        json::write(out, &about(args, &set, &found))?;
    }
    let model: &[&str] = match &args.lora {
        Some(lora) => &[&args.model, lora, "--base", &args.model],
        None => &[&args.model, "OTHER"],
    };
    next::say(
        &[&["tastemaker", "compare"], model, &["--scorer", "pick-score", "--out", "compared"]].concat(),
    );
    Ok(())
}

/// The model to compare with; `None` if nothing is to be compared with.
fn reference(args: &AccuracyArgs, base: Option<&ModelSources>) -> Result<Option<Model>> {
    if args.without_reference {
        return Ok(None);
    }
    let parts = args.parts.without_unet();
    let differs = args.lora.is_some() || args.parts.has_unet();
    match &args.reference {
        Some(reference) => Ok(Some(parts.open(reference)?)),
        None if base.is_some() => {
            let base = base.cloned().unwrap_or_default();
            Ok(Some(Model::from_sources(&parts.over(base)?)?))
        }
        None if differs => Ok(Some(parts.open(&args.model)?)),
        None => Err(UsageError(
            "nothing to compare the model with: give --reference, or --without_reference for a model aligned without one".into(),
        )
        .into()),
    }
}

fn open(args: &AccuracyArgs) -> Result<PairSet> {
    let part = Part { config: None, split: args.dataset_split_name.as_deref() };
    let mut set = pairs::open(&args.pairs, part, &args.reading.settings()?)?;
    if let Some(list) = &args.exclude {
        exclusions::apply(list, &mut set)?;
    }
    Ok(set)
}

fn encode_settings(args: &AccuracyArgs, model: &Model) -> Result<EncodeSettings> {
    let resolution = args.resolution.map_or_else(|| model.made_for(), Ok)?;
    let cache_root = pair_caches().unwrap_or_else(|| "accuracy-cache".into());
    let precision = args.mixed_precision;
    Ok(EncodeSettings { precision, ..EncodeSettings::square(resolution, cache_root, args.device.open()?) })
}

fn measured(
    args: &AccuracyArgs,
    encode: &EncodeSettings,
    model: &Model,
    lora: Option<LoraFile>,
    set: &PairSet,
) -> Result<Measurements> {
    let draws = Draws { per_pair: args.draws, batch_size: args.batch_size as usize, seed: args.seed };
    let mut encoding = Progress::new(0);
    let mut progress = Work::new("measuring", "draws");
    let found = measure_model(
        model,
        lora,
        set,
        encode,
        draws,
        &mut |event| {
            encoding.on_event(event);
            Ok(())
        },
        &mut |done, of| progress.at(done, of),
    );
    encoding.end();
    progress.end();
    Ok(found?)
}

fn print(args: &AccuracyArgs, found: &Accuracy, n_timesteps: usize) {
    println!(
        "prefers {} of {}, {} each, seed {}",
        in_words(&found.whole),
        counted(found.whole.count.n(), "pair"),
        counted(args.draws, "draw"),
        args.seed
    );
    for (quarter, preferred) in found.by_quarter.iter().enumerate() {
        let (from, to) = (quarter * n_timesteps / 4, (quarter + 1) * n_timesteps / 4 - 1);
        if let Some(preferred) = preferred {
            let pairs = counted(preferred.count.n(), "pair");
            println!("  timesteps {from}-{to}: {} of {pairs}", in_words(preferred));
        }
    }
    println!("mean margin {:+.3e}", found.margin);
    if let (Some(beta), Some(loss)) = (args.beta, found.log_loss) {
        println!("log-loss {loss:.4} at beta {} (0.6931 is chance level)", number(beta));
    }
}

fn in_words(Preferred { count, interval }: &Preferred) -> String {
    let [estimate, low, high] =
        [interval.estimate, interval.low, interval.high].map(|fraction| 100.0 * fraction);
    let ties =
        if count.ties > 0 { format!(", {} at one half", counted(count.ties, "tie")) } else { String::new() };
    format!("the winner in {estimate:.1}% ({low:.1}-{high:.1}{ties})")
}

fn about(args: &AccuracyArgs, set: &PairSet, found: &Accuracy) -> Value {
    let preferred = |Preferred { count, interval }: &Preferred| {
        json!({
            "fraction": interval.estimate, "low": interval.low, "high": interval.high,
            "wins": count.wins, "ties": count.ties, "losses": count.losses,
        })
    };
    json!({
        "format": 2,
        "made_by": format!("tastemaker {} accuracy", version()),
        "model": args.model,
        "lora": args.lora,
        "reference": args.reference,
        "without_reference": args.without_reference,
        "pairs": args.pairs,
        "fingerprint": hex(&set.fingerprint()),
        "n_pairs": found.whole.count.n(),
        "draws": args.draws,
        "seed": args.seed,
        "accuracy": preferred(&found.whole),
        "by_quarter": found.by_quarter.iter().map(|quarter| quarter.as_ref().map(preferred)).collect::<Vec<_>>(),
        "margin": found.margin,
        "beta": args.beta,
        "log_loss": found.log_loss,
    })
}
