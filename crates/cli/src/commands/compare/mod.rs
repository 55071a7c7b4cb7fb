//! `tastemaker compare`: generates prompts with several models, scores the images, reports who wins.
//!
//! Everything lies below `--out` and is written at once or not at all: `compare.json` says what is compared,
//! `images/<name>/<number>-<seed>.png` are generated images, `scores.jsonl` scores, `report.html` and `summary.json` the
//! result. A command that was ended is given again and goes on where it was.

mod asked;
mod contestants;
mod generating;
mod planning;
mod result;
mod scoring;
mod table;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tastemaker_math::Sampler;
use tastemaker_run::MixedPrecision;
use tastemaker_store::atomic;

use crate::commands::{DeviceFlag, word};
use crate::exit::UsageError;
use contestants::Source;

/// Generates prompts with several models from equal noise, scores the images, and writes a page that says who wins.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct CompareArgs {
    /// Two or more of: a model (folder, single file, fetched), MODEL+PART or a PART alone on --base (a LoRA, or a UNet's folder),
    /// a training's output folder, a folder of images. The first is what the others are measured by
    #[arg(value_name = "[NAME=]WHAT", required = true, num_args = 2..)]
    contestants: Vec<String>,
    /// The model that LoRAs and UNets named alone belong to
    #[arg(long, value_name = "DIR|FILE|ORG/NAME")]
    base: Option<String>,
    /// What to ask for: small (built in), demo, demo:TASK, or a file or folder of prompts
    #[arg(long, value_name = "NAME|FILE|DIR|ORG/NAME", default_value = "small")]
    prompts: String,
    /// Ask only so many prompts, spread evenly over the set
    #[arg(long, value_name = "COUNT")]
    n_prompts: Option<usize>,
    /// Ask only prompts of this category; repeat for several
    #[arg(long, value_name = "NAME")]
    category: Vec<String>,
    /// Seed of the first image of each prompt
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Images of each prompt, with seeds counting up [default: 1]
    #[arg(long, value_name = "COUNT")]
    num_images_per_prompt: Option<u64>,
    /// Who scores; repeat for several
    #[arg(long, value_name = "NAME[:VARIANT][=WEIGHTS]", required = true)]
    scorer: Vec<String>,
    /// Where everything goes; what an earlier command left there is used
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Prompts with images on the page
    #[arg(long, value_name = "COUNT", default_value_t = 60)]
    n_images: usize,
    /// Skip prompts of which a folder of images has none, instead of refusing
    #[arg(long)]
    skip_missing: bool,
    #[command(flatten)]
    flags: GenerateFlags,
    #[command(flatten)]
    parts: SharedParts,
}

/// How models generate; what is not given is as usual for the family of each.
#[derive(Debug, Args)]
#[command(next_help_heading = "Generating", rename_all = "snake_case")]
struct GenerateFlags {
    /// How steps are taken; names of diffusers, A1111 and ComfyUI will do, too
    #[arg(long, value_name = "NAME", value_parser = |typed: &str| typed.parse::<Sampler>(), default_value = "ddim")]
    sampler: Sampler,
    /// What to lead away from, in all images
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,
    /// Steps of the sampler [default: 50; 20 for demo prompts]
    #[arg(long, value_name = "STEPS")]
    num_inference_steps: Option<usize>,
    /// How strongly to follow the prompt [default: 7.5; 5 for SDXL, 2 for demo prompts]
    #[arg(long, value_name = "SCALE")]
    guidance_scale: Option<f64>,
    /// Images per forward pass [default: 4; 32 for demo prompts]
    #[arg(long, value_name = "COUNT")]
    batch_size: Option<usize>,
    /// Type of weights and activations, no or bf16
    #[arg(long, value_name = "TYPE", value_parser = word::<MixedPrecision>, default_value = "no")]
    mixed_precision: MixedPrecision,
    #[command(flatten)]
    device: DeviceFlag,
}

/// Parts that all models take in place of their own.
#[derive(Debug, Args)]
#[command(next_help_heading = "Models", rename_all = "snake_case")]
struct SharedParts {
    /// Another VAE for all models: its folder, a folder with vae/, a file, or the name of a fetched one
    #[arg(long, value_name = "DIR|FILE|ORG/NAME", alias = "vae")]
    pretrained_vae_model_name_or_path: Option<String>,
    /// Which weights to take where a folder has several, such as fp16
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
}

/// Runs the command.
pub fn compare(args: &CompareArgs) -> Result<()> {
    check(args)?;
    let device = args.flags.device.open()?;
    let mut asked = asked::open(args)?;
    println!("{}: {}", asked.set.name, asked.set.said());
    let mut entrants = contestants::open(args)?;
    contestants::answer(&mut entrants, &mut asked, args.skip_missing)?;
    let scorers = scoring::identify(&args.scorer, &asked, device)?;
    for entrant in &mut entrants {
        planning::identify(entrant)?;
    }
    atomic::create_folder(&args.out)?;
    let names: Vec<String> = scorers.iter().map(|(name, _)| name.clone()).collect();
    planning::agree(args, &asked, &entrants, scorers.into_iter().collect())?;
    for entrant in &entrants {
        if let Source::Model { model, lora, generating } = &entrant.source {
            generating::generate(
                &entrant.name,
                model,
                lora.as_deref(),
                generating,
                &asked,
                (&args.out, device),
            )?;
        }
    }
    let scores = scoring::scores(args, &asked, &entrants, &names, device)?;
    let contest = result::contest(args, &asked, &entrants, &names, scores)?;
    result::report(&contest, &args.out)
}

/// What no part of the command would notice before hours of generating.
fn check(args: &CompareArgs) -> Result<(), UsageError> {
    let flags = &args.flags;
    if let Some(scale) = flags.guidance_scale.filter(|scale| !scale.is_finite()) {
        return Err(UsageError(format!("--guidance_scale is {scale}; wanted a number")));
    }
    for (flag, value) in [
        ("num_inference_steps", flags.num_inference_steps.map(|n| n as u64)),
        ("batch_size", flags.batch_size.map(|n| n as u64)),
        ("num_images_per_prompt", args.num_images_per_prompt),
    ] {
        if value == Some(0) {
            return Err(UsageError(format!("--{flag} is 0; wanted at least 1")));
        }
    }
    Ok(())
}
