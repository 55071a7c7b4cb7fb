//! `tastemaker sample`: generates prompts.

mod parameters;
mod sheet;
mod weighted;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use image::RgbImage;
use tastemaker_data::set::decode;
use tastemaker_diffusion::Denoiser;
use tastemaker_eval::generate::{GenerateSettings, Generator, Job, Networks};
use tastemaker_math::{SAMPLERS, Sampler};
use tastemaker_models::adapters::LoraFile;
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::Model;
use tastemaker_models::unet::UNet;
use tastemaker_run::MixedPrecision;
use tastemaker_store::{StoreError, atomic, json};
use tastemaker_torch::Precision;
use tastemaker_torch::error::guard;
use tastemaker_train::precision_of;
use tch::Device;

use self::sheet::Sheet;
use self::weighted::{Weighted, hash_of, name_of};
use crate::allocator;
use crate::commands::DeviceFlag;
use crate::commands::parts::PartFlags;
use crate::commands::word;
use crate::exit::UsageError;
use crate::hub::locate;

/// Generates prompts with a model, or with a model and a LoRA.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct SampleArgs {
    /// The model: a folder in diffusers layout, a single-file checkpoint, or the name of a fetched one
    #[arg(long, value_name = "DIR|FILE|ORG/NAME", alias = "pretrained_model_name_or_path")]
    model: String,
    /// A LoRA: its file, a folder with one, or the name of a fetched one; with :0.8 behind it, at that weight
    #[arg(long, value_name = "FILE|DIR|ORG/NAME[:WEIGHT]")]
    lora: Option<String>,
    /// What the LoRA's update is multiplied by [default: 1]
    #[arg(long, value_name = "WEIGHT", requires = "lora")]
    lora_weight: Option<f64>,
    /// Another model whose UNet predicts what guidance leads away from: its folder, a UNet's, a single file, or a name
    #[arg(long, value_name = "DIR|FILE|ORG/NAME")]
    negative_model: Option<String>,
    /// A LoRA on the UNet that predicts what guidance leads away from: on --negative_model's, else on the model's own
    #[arg(long, value_name = "FILE|DIR|ORG/NAME[:WEIGHT]")]
    negative_lora: Option<String>,
    /// What to generate; repeat for several
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,
    /// A file with one prompt a line, after those typed
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// What to lead away from, in all images
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,
    /// Seed of the first image of each prompt; the same seed starts from the same noise in every model
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Images of each prompt, with seeds counting up
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    num_images_per_prompt: u64,
    /// How steps are taken, see below; names of diffusers, A1111 and ComfyUI will do, too
    #[arg(long, value_name = "NAME", value_parser = |typed: &str| typed.parse::<Sampler>(), default_value = "ddim")]
    sampler: Sampler,
    /// Steps of the sampler
    #[arg(long, value_name = "STEPS", default_value_t = 50)]
    num_inference_steps: usize,
    /// How strongly to follow the prompt; 1 and below is without guidance
    #[arg(long, value_name = "SCALE", default_value_t = 7.5)]
    guidance_scale: f64,
    /// How much of the guided prediction gets the spread of the unguided one, 0 to 1: against burned colors
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    guidance_rescale: f64,
    /// Share of fresh noise in each step of ddim, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    eta: f64,
    /// Height in pixels, a multiple of 8 [default: the model's]
    #[arg(long, value_name = "PIXELS")]
    height: Option<u32>,
    /// Width in pixels, a multiple of 8 [default: the model's]
    #[arg(long, value_name = "PIXELS")]
    width: Option<u32>,
    /// An image to start from, or a few colored pixels as a layout
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Share of the steps that --image goes through: 1 keeps next to nothing of it [default: 0.8]
    #[arg(long, value_name = "SHARE", requires = "image")]
    strength: Option<f64>,
    /// Images per forward pass
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    batch_size: usize,
    /// Type of weights and activations, no or bf16
    #[arg(long, value_name = "TYPE", value_parser = word::<MixedPrecision>, default_value = "no")]
    mixed_precision: MixedPrecision,
    /// Leave images alone that are there, generated with the same parameters
    #[arg(long)]
    skip_existing: bool,
    /// Where images go, as <number of the prompt>-<seed>.png; several also as contact-sheet.png, prompts down, seeds across
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceFlag,
    #[command(flatten)]
    parts: PartFlags,
}

/// What a sheet of all images is called.
pub const SHEET: &str = "contact-sheet.png";

/// The samplers, for the end of the help.
pub fn samplers() -> String {
    SAMPLERS.iter().fold("Samplers:\n".to_owned(), |mut text, entry| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:<16} {}", entry.name, entry.summary);
        text
    })
}

/// Runs the command.
pub fn sample(args: &SampleArgs) -> Result<()> {
    let prompts = prompts(args)?;
    check(args)?;
    let image = args.image.as_deref().map(read_image).transpose()?.map(Arc::new);
    let precision = precision_of(args.mixed_precision);
    let device = args.device.open()?;
    let folder = args.parts.open(&args.model)?;
    allocator::suit(&folder)?;
    let lora = args.lora.as_deref().map(|lora| Weighted::parse(lora, args.lora_weight)).transpose()?;
    let specs = lora.as_ref().map(|lora| lora.read(&folder)).transpose()?;
    let (unet_lora, text_loras) = specs.map(LoraFile::into_specs).unwrap_or_default();
    atomic::create_folder(&args.out)?;
    let generator = Generator::adapted(&folder, text_loras, precision, device)?;
    let unet = folder.unet(Role::Frozen, precision, device, unet_lora)?.network;
    let negative = negative(args, &folder, precision, device)?;

    let settings = GenerateSettings { size: size(args, &generator), ..settings(args) };
    let common = told(args, &folder, lora.as_ref(), generator.size(&settings))?;
    let seeds = args.seed..args.seed.saturating_add(args.num_images_per_prompt);
    let mut sheet = Sheet::new(prompts.len(), seeds.clone().count());
    let mut wanted = Vec::new();
    for (number, prompt) in prompts.iter().enumerate() {
        for (column, seed) in seeds.clone().enumerate() {
            let path = args.out.join(format!("{number:04}-{seed}.png"));
            let text = parameters::text(prompt, args.negative_prompt.as_deref(), &with_seed(&common, seed));
            if args.skip_existing && parameters::read(&path).as_ref() == Some(&text) {
                sheet.put(number, column, &read_image(&path)?);
                println!("{}  is there already", path.display());
                continue;
            }
            let job = Job {
                prompt: prompt.clone(),
                negative_prompt: args.negative_prompt.clone(),
                seed,
                number: 0,
                image: image.clone(),
            };
            wanted.push((job, path, text, (number, column)));
        }
    }
    let jobs: Vec<Job> = wanted.iter().map(|(job, ..)| job.clone()).collect();
    let at_once = jobs.len().min(args.batch_size.max(1));
    let doing = format!("generating {at_once} images at once (a smaller --batch_size needs less memory)");
    let networks =
        Networks { denoiser: &unet, negative: negative.as_ref().map(|network| network as &dyn Denoiser) };
    guard(&doing, || {
        generator.generate_each(networks, &jobs, &settings, |index, image| {
            let (job, path, text, (row, column)) = &wanted[index];
            atomic::write_bytes(path, &parameters::png(&image, text)?)?;
            sheet.put(*row, *column, &image);
            println!("{}  {}", path.display(), job.prompt);
            anyhow::Ok(())
        })
    })??;
    sheet.write(&args.out.join(SHEET))
}

/// What can be said of the flags before anything is read.
fn check(args: &SampleArgs) -> Result<(), UsageError> {
    let refuse = |text: String| Err(UsageError(text));
    for (flag, value) in [("guidance_scale", args.guidance_scale), ("eta", args.eta)] {
        if !value.is_finite() {
            return refuse(format!("--{flag} is {value}; wanted a number"));
        }
    }
    for (flag, value) in [("guidance_rescale", args.guidance_rescale), ("eta", args.eta)] {
        if !(0.0..=1.0).contains(&value) {
            return refuse(format!("--{flag} is {value}; wanted a number from 0 to 1"));
        }
    }
    let scale = args.guidance_scale;
    for (flag, is_given) in [
        ("negative_prompt", args.negative_prompt.is_some()),
        ("negative_model", args.negative_model.is_some()),
        ("negative_lora", args.negative_lora.is_some()),
        ("guidance_rescale", args.guidance_rescale != 0.0),
    ] {
        if is_given && scale <= 1.0 {
            return refuse(format!(
                "--{flag} does nothing at --guidance_scale {scale}: wanted a scale above 1"
            ));
        }
    }
    Ok(())
}

fn settings(args: &SampleArgs) -> GenerateSettings {
    let default = GenerateSettings::default();
    GenerateSettings {
        sampler: args.sampler,
        n_steps: args.num_inference_steps,
        guidance_scale: args.guidance_scale,
        guidance_rescale: args.guidance_rescale,
        batch_size: args.batch_size,
        eta: args.eta,
        strength: args.strength.unwrap_or(default.strength),
        ..default
    }
}

/// Width and height where one of them was typed; the other is the model's.
fn size(args: &SampleArgs, generator: &Generator) -> Option<(u32, u32)> {
    let side = generator.resolution() as u32;
    let is_typed = args.width.or(args.height).is_some();
    is_typed.then(|| (args.width.unwrap_or(side), args.height.unwrap_or(side)))
}

/// The network that predicts what guidance leads away from, where it is another one.
fn negative(args: &SampleArgs, folder: &Model, precision: Precision, device: Device) -> Result<Option<UNet>> {
    let other = match &args.negative_model {
        None if args.negative_lora.is_none() => return Ok(None),
        None => folder.clone(),
        Some(name) if locate(name, None)?.is_file() => PartFlags::default().open(name)?,
        Some(name) => args.parts.open_with_unet(&args.model, name)?,
    };
    let (ours, theirs) = (folder.unet_config()?, other.unet_config()?);
    let told = (ours.cross_attention_dim, ours.in_channels, ours.text_time.is_some());
    if told != (theirs.cross_attention_dim, theirs.in_channels, theirs.text_time.is_some()) {
        let text =
            "the UNet of --negative_model is of another family than the model's: both are told the same";
        return Err(UsageError(text.to_owned()).into());
    }
    if folder.schedule()?.schedule != other.schedule()?.schedule {
        let text = "--negative_model was trained on other noise, or predicts something else, than the model";
        return Err(UsageError(text.to_owned()).into());
    }
    let lora =
        args.negative_lora.as_deref().map(|lora| Weighted::parse(lora, None)?.read(&other)).transpose()?;
    let (lora, text_loras) = lora.map(LoraFile::into_specs).unwrap_or_default();
    if !text_loras.is_empty() {
        let text =
            "--negative_lora adapts text encoders, which both predictions share: wanted one of a UNet alone";
        return Err(UsageError(text.to_owned()).into());
    }
    Ok(Some(other.unet(Role::Frozen, precision, device, lora)?.network))
}

/// The settings that all images share, in the order and under the names of A1111.
fn told(
    args: &SampleArgs,
    folder: &Model,
    lora: Option<&Weighted>,
    (width, height): (u32, u32),
) -> Result<Vec<(&'static str, String)>> {
    let mut told = vec![
        ("Steps", args.num_inference_steps.to_string()),
        ("Sampler", args.sampler.entry().label.to_owned()),
        ("CFG scale", args.guidance_scale.to_string()),
        ("Seed", String::new()),
        ("Size", format!("{width}x{height}")),
    ];
    let parts = args.parts.told();
    let own_unet = parts.iter().all(|(name, _)| *name != "UNet");
    told.extend(hash_of(folder.path()).filter(|_| own_unet).map(|hash| ("Model hash", hash)));
    // A fetched model lies in a folder called by its commit.
    let is_name = args.model.contains('/') && !Path::new(&args.model).exists();
    told.push(("Model", if is_name { args.model.clone() } else { name_of(folder.path()) }));
    told.extend(parts);
    let mut unless = |is_default: bool, name: &'static str, value: String| {
        if !is_default {
            told.push((name, value));
        }
    };
    if let Some(image) = &args.image {
        unless(
            false,
            "Denoising strength",
            args.strength.unwrap_or(GenerateSettings::default().strength).to_string(),
        );
        unless(false, "Image", name_of(image));
    }
    unless(args.eta == 0.0, "Eta DDIM", args.eta.to_string());
    unless(args.guidance_rescale == 0.0, "CFG Rescale", args.guidance_rescale.to_string());
    unless(
        args.mixed_precision == MixedPrecision::No,
        "Precision",
        format!("{:?}", args.mixed_precision).to_lowercase(),
    );
    if let Some(lora) = lora {
        unless(false, "Lora hashes", format!("{}: {}", lora.name(), lora.hash()?));
        unless(lora.weight == 1.0, "Lora weight", lora.weight.to_string());
    }
    for (name, other) in [("Negative model", &args.negative_model), ("Negative lora", &args.negative_lora)] {
        unless(other.is_none(), name, other.clone().unwrap_or_default());
    }
    unless(false, "Version", format!("tastemaker {}", env!("CARGO_PKG_VERSION")));
    Ok(told)
}

fn with_seed(common: &[(&'static str, String)], seed: u64) -> Vec<(&'static str, String)> {
    let told = common.iter().cloned();
    told.map(|(name, value)| if name == "Seed" { (name, seed.to_string()) } else { (name, value) }).collect()
}

fn read_image(path: &Path) -> Result<RgbImage, StoreError> {
    let bytes = fs::read(path).map_err(|error| StoreError::io("read", path, error))?;
    decode(&bytes)
        .map_err(|error| StoreError::malformed(path, error.to_string(), "a PNG, JPEG or WebP image"))
}

/// The prompts typed, then those of the file; blank lines are none.
fn prompts(args: &SampleArgs) -> Result<Vec<String>> {
    let mut prompts = args.prompt.clone();
    if let Some(file) = &args.prompts {
        let text = json::read_text(file)?;
        prompts.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
    }
    if prompts.is_empty() {
        return Err(UsageError("nothing to generate: give --prompt or a file with --prompts".into()).into());
    }
    Ok(prompts)
}
