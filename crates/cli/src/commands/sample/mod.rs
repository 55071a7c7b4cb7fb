//! `tastemaker sample`: generates prompts.

mod weighted;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tastemaker_store::version;

use anyhow::Result;
use clap::Args;
use tastemaker_diffusion::Denoiser;
use tastemaker_generate::grid::Grid;
use tastemaker_generate::{
    GenerateSettings, LoadedModel, Networks, OutputFile, OutputFiles, SampleRequest, metadata, read_image,
};
use tastemaker_math::{SAMPLERS, number};
use tastemaker_models::adapters::LoraFile;
use tastemaker_models::backbone::{Backbone, BackboneConfig};
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::Model;
use tastemaker_store::dtype::DType;
use tch::Device;

pub use self::weighted::checked_weight;
use self::weighted::{Weighted, hash_of, name_of};
use crate::allocator;
use crate::commands::parts::PartFlags;
use crate::commands::{DeviceFlag, GenerateFlags, PromptFlags, images_per_prompt, seeds, side};
use crate::exit::{Blame, UsageError};
use crate::models::{Chosen, Found, blamed, find, on_noise_of, token_length, two_loras};
use crate::next;
use crate::place::{OverwriteFlag, Place, PlaceError};
use crate::progress::Work;

/// Generates images for prompts with a model, or with a model and a LoRA.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct SampleArgs {
    /// Model: a folder in diffusers layout, a single-file checkpoint, the name of a fetched one, or the output folder of a
    /// training run
    #[arg(long, value_name = "DIR|FILE|ORG/NAME", alias = "pretrained_model_name_or_path")]
    model: String,
    /// LoRA: its file, a folder with one, or the name of a fetched one; `:0.8` at the end sets its weight [default: none]
    #[arg(long, value_name = "FILE|DIR|ORG/NAME[:WEIGHT]")]
    lora: Option<String>,
    /// Weight of the LoRA [default: 1]
    #[arg(long, value_name = "WEIGHT", aliases = ["lora_scale", "network_mul"])]
    lora_weight: Option<f64>,
    /// Model whose UNet predicts the unconditional branch of guidance: its folder, a UNet's, a single file, or a name
    /// [default: none]
    #[arg(long, value_name = "DIR|FILE|ORG/NAME")]
    negative_model: Option<String>,
    /// LoRA on the UNet of the unconditional branch: on --negative_model's, else on the model's own [default: none]
    #[arg(long, value_name = "FILE|DIR|ORG/NAME[:WEIGHT]")]
    negative_lora: Option<String>,
    #[command(flatten)]
    prompts: PromptFlags,
    /// Seed of the first image of each prompt; a seed gives the same noise in every model
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Images per prompt, with seeds counting up
    #[arg(long, value_name = "COUNT", default_value_t = 1, alias = "images_per_prompt", value_parser = images_per_prompt())]
    num_images_per_prompt: u64,
    /// Skip existing images that were generated with the same parameters
    #[arg(long)]
    skip_existing: bool,
    #[command(flatten)]
    overwrite: OverwriteFlag,
    /// Output folder: images are <prompt number>-<seed>.png; several also make image-grid.png, one row per prompt, one
    /// column per seed
    #[arg(long, value_name = "DIR", aliases = ["output_dir", "outdir"])]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceFlag,
    #[command(flatten)]
    flags: GenerateFlags,
    /// Guidance rescale: fraction of the guided prediction rescaled to the standard deviation of the conditional one,
    /// against oversaturation
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0, help_heading = "Generation")]
    guidance_rescale: f64,
    /// DDIM's eta, 0 to 1: fraction of fresh noise in each step
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0, help_heading = "Generation")]
    eta: f64,
    /// Height in pixels, a multiple of 8 [default: the model's]
    #[arg(long, value_name = "PIXELS", value_parser = side, help_heading = "Generation")]
    height: Option<u32>,
    /// Width in pixels, a multiple of 8 [default: the model's]
    #[arg(long, value_name = "PIXELS", value_parser = side, help_heading = "Generation")]
    width: Option<u32>,
    /// Image to start from (img2img), or a few colored pixels as a layout [default: noise]
    #[arg(long, value_name = "FILE", alias = "image_path", help_heading = "Generation")]
    image: Option<PathBuf>,
    /// Denoising strength, the fraction of the steps applied to --image: 1 keeps almost nothing of it [default: 0.8]
    #[arg(
        long,
        value_name = "FRACTION",
        requires = "image",
        alias = "denoising_strength",
        help_heading = "Generation"
    )]
    strength: Option<f64>,
    #[command(flatten)]
    parts: PartFlags,
}

/// What a grid of all images is called.
pub const GRID: &str = "image-grid.png";

/// What it was called before.
pub const OLD_GRID: &str = "contact-sheet.png";

/// What the command writes into its folder.
const OURS: &[&str] = &["#-#.png", GRID, OLD_GRID];

/// The samplers, for the end of the help.
pub fn samplers() -> String {
    SAMPLERS.iter().fold("Samplers:\n".to_owned(), |mut text, entry| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:<16} {}", entry.name, entry.summary);
        text
    })
}

/// Whether an image says that the command generated it; the grid says nothing and is known by its name.
fn is_sample(path: &Path) -> bool {
    let is_grid = path.file_name().is_some_and(|name| name == GRID || name == OLD_GRID);
    is_grid || metadata::read(path).is_some_and(|text| text.contains("Version: tastemaker"))
}

/// Runs the command.
pub fn sample(args: &SampleArgs) -> Result<()> {
    let place = Place::folder(&args.out, "--out", OURS).proved(is_sample);
    let _claim = place.claim_unless(args.skip_existing, args.overwrite)?;
    let prompts = args.prompts.read()?;
    check(args)?;
    let seeds = seeds(args.seed, args.num_images_per_prompt)?;
    let image = args.image.as_deref().map(read_image).transpose()?.map(Arc::new);
    let precision = args.flags.mixed_precision;
    let device = args.device.open()?;
    let Chosen { model: folder, lora: own, .. } = args.parts.choose(&args.model)?;
    let weighted = |typed: &str| Weighted::parse(typed, args.lora_weight).of_model();
    let lora = match (own, &args.lora) {
        (Some(_), Some(typed)) => return Err(two_loras(&args.model, typed).into()),
        (Some(own), None) => Some(Weighted::of_run(own, args.lora_weight)?),
        (None, None) if args.lora_weight.is_some() => {
            return Err(UsageError(
                "--lora_weight is the weight of a LoRA, and there is none: give --lora".into(),
            )
            .into());
        }
        (None, typed) => typed.as_deref().map(weighted).transpose()?,
    };
    let trained_with = lora.as_ref().and_then(|lora| token_length(&lora.path));
    let folder = folder.with_max_token_length(args.flags.max_token_length.or(trained_with));
    let folder = on_noise_of(folder, lora.as_ref().map(|lora| lora.path.as_path()))?;
    allocator::suit(&folder)?;
    let settings = settings(args, GenerateSettings::of(&folder)?);
    check_guidance(args, settings.guidance_scale)?;
    let lora_file = lora.as_ref().map(|lora| lora.read(&folder).of_model()).transpose()?;
    let texts =
        prompts.iter().map(|prompt| &prompt.text).chain(&args.flags.negative_prompt).map(String::as_str);
    let loaded = LoadedModel::open(&folder, lora_file, texts, precision, device)?;
    let negative = negative(args, &folder, precision, device)?;

    let settings = GenerateSettings { size: size(args, loaded.generator.resolution()), ..settings };
    let common = parameters(args, &settings, &folder, lora.as_ref(), loaded.generator.size(&settings))?;
    let n_columns = seeds.clone().count();
    let file = |number: usize, prompt: &str, seed: u64| {
        let text = metadata::text(prompt, args.flags.negative_prompt.as_deref(), &with_seed(&common, seed));
        let request = SampleRequest {
            prompt: prompt.to_owned(),
            negative_prompt: args.flags.negative_prompt.clone(),
            seed,
            number: 0,
            image: image.clone(),
        };
        OutputFile { request, path: args.out.join(format!("{number:04}-{seed}.png")), parameters: Some(text) }
    };
    let files: Vec<OutputFile> = prompts
        .iter()
        .flat_map(|prompt| seeds.clone().map(move |seed| (prompt, seed)))
        .map(|(prompt, seed)| file(prompt.number, &prompt.text, seed))
        .collect();
    let replaces = args.overwrite.overwrite && !args.skip_existing;
    if let Some(other) = files.iter().find(|file| file.is_other())
        && !args.overwrite.overwrite
    {
        return Err(PlaceError(format!(
            "{} was generated otherwise; choose another --out or --overwrite",
            other.path.display()
        ))
        .into());
    }
    let files = if replaces { OutputFiles::anew(files) } else { OutputFiles::keeping(files) };
    let mut grid = Grid::new(prompts.len(), n_columns);
    for (index, file) in files.kept() {
        grid.put(index / n_columns, index % n_columns, &read_image(&file.path)?);
        println!("{}  skipped, exists", file.path.display());
    }
    let negative = negative.as_ref().map(|network| network as &dyn Denoiser);
    let networks = Networks { negative, ..loaded.networks() };
    let (mut work, mut done) = (Work::new("generating", "images"), 0);
    let ready = || if replaces { Ok(place.clear()?) } else { Ok(()) };
    let generated = files.write(&loaded.generator, networks, &settings, ready, |index, image| {
        grid.put(index / n_columns, index % n_columns, image);
        let OutputFile { path, request, .. } = files.file(index);
        work.print(&format!("{}  {}", path.display(), request.prompt));
        done += 1;
        work.at(done, files.n_missing() as u64);
        anyhow::Ok(())
    });
    generated.map_err(|error| blamed(error, &args.model))?;
    work.end();
    grid.write(&args.out.join(GRID))?;
    let line = ["tastemaker", "score", &next::word(&args.out), "--scorer", "pick-score"];
    next::say_with_scorer("pick-score", &line);
    Ok(())
}

/// What can be said of the flags before anything is read.
fn check(args: &SampleArgs) -> Result<(), UsageError> {
    args.flags.check()?;
    for (flag, value) in [("guidance_rescale", args.guidance_rescale), ("eta", args.eta)] {
        if !(0.0..=1.0).contains(&value) {
            return Err(UsageError(format!("--{flag} is {}; wanted a number from 0 to 1", number(value))));
        }
    }
    args.flags.guidance_scale.map_or(Ok(()), |scale| check_guidance(args, scale))
}

/// What is about guidance needs some.
fn check_guidance(args: &SampleArgs, scale: f64) -> Result<(), UsageError> {
    for (flag, is_given) in [
        ("negative_prompt", args.flags.negative_prompt.is_some()),
        ("negative_model", args.negative_model.is_some()),
        ("negative_lora", args.negative_lora.is_some()),
        ("guidance_rescale", args.guidance_rescale != 0.0),
    ] {
        if is_given && scale <= 1.0 {
            return Err(UsageError(format!(
                "--{flag} does nothing at --guidance_scale {}: wanted a scale above 1",
                number(scale)
            )));
        }
    }
    Ok(())
}

fn settings(args: &SampleArgs, default: GenerateSettings) -> GenerateSettings {
    GenerateSettings {
        guidance_rescale: args.guidance_rescale,
        eta: args.eta,
        strength: args.strength.unwrap_or(default.strength),
        ..args.flags.settings(default)
    }
}

/// Width and height where one of them was typed; the other is the model's.
fn size(args: &SampleArgs, resolution: i64) -> Option<(u32, u32)> {
    let side = resolution as u32;
    let is_typed = args.width.or(args.height).is_some();
    is_typed.then(|| (args.width.unwrap_or(side), args.height.unwrap_or(side)))
}

/// The network of the unconditional branch, where it is another one.
fn negative(args: &SampleArgs, folder: &Model, precision: DType, device: Device) -> Result<Option<Backbone>> {
    let other = match &args.negative_model {
        None if args.negative_lora.is_none() => return Ok(None),
        None => folder.clone(),
        Some(name) => match find(name, None)? {
            Found::UNet(unet, _) => args.parts.open_with_unet(&args.model, &unet.to_string_lossy())?,
            Found::Model(path) if path.is_dir() => {
                args.parts.open_with_unet(&args.model, &path.to_string_lossy())?
            }
            _ => PartFlags::default().open(name)?,
        },
    };
    let (ours, theirs) = (folder.backbone_config()?, other.backbone_config()?);
    let inputs = |config: &BackboneConfig| {
        (config.component(), config.text_width(), config.in_channels(), config.pooled_width().is_some())
    };
    if inputs(&ours) != inputs(&theirs) {
        let text = "the network of --negative_model is of another family than the model's: both take the same conditioning";
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
        let text = "--negative_lora adapts text encoders, which both predictions share: wanted one of the network that predicts alone";
        return Err(UsageError(text.to_owned()).into());
    }
    Ok(Some(other.backbone(Role::Frozen, precision, device, lora)?.network))
}

/// The settings that all images share, in the order and under the names of A1111.
fn parameters(
    args: &SampleArgs,
    settings: &GenerateSettings,
    folder: &Model,
    lora: Option<&Weighted>,
    (width, height): (u32, u32),
) -> Result<Vec<(&'static str, String)>> {
    let mut parameters = vec![
        ("Steps", settings.n_steps.to_string()),
        ("Sampler", settings.sampler.entry().label.to_owned()),
        ("CFG scale", number(settings.guidance_scale)),
        ("Seed", String::new()),
        ("Size", format!("{width}x{height}")),
    ];
    if folder.max_token_length() > 75 {
        parameters.push(("Max token length", folder.max_token_length().to_string()));
    }
    let parts = args.parts.parameters();
    let own_unet = parts.iter().all(|(name, _)| *name != "UNet");
    parameters.extend(hash_of(folder.path()).filter(|_| own_unet).map(|hash| ("Model hash", hash)));
    // A fetched model lies in a folder called by its commit.
    let is_name = args.model.contains('/') && !Path::new(&args.model).exists();
    parameters.push(("Model", if is_name { args.model.clone() } else { name_of(folder.path()) }));
    parameters.extend(parts);
    let mut unless = |is_default: bool, name: &'static str, value: String| {
        if !is_default {
            parameters.push((name, value));
        }
    };
    if let Some(image) = &args.image {
        unless(false, "Denoising strength", number(settings.strength));
        unless(false, "Image", name_of(image));
    }
    unless(args.eta == 0.0, "Eta DDIM", number(args.eta));
    unless(args.guidance_rescale == 0.0, "CFG Rescale", number(args.guidance_rescale));
    let precision = args.flags.mixed_precision;
    unless(precision == DType::F32, "Precision", format!("{precision:?}").to_lowercase());
    if let Some(lora) = lora {
        unless(false, "Lora hashes", format!("{}: {}", lora.name(), lora.hash()?));
        unless(lora.weight == 1.0, "Lora weight", number(lora.weight));
    }
    for (name, other) in [("Negative model", &args.negative_model), ("Negative lora", &args.negative_lora)] {
        unless(other.is_none(), name, other.clone().unwrap_or_default());
    }
    unless(false, "Version", format!("tastemaker {}", version()));
    Ok(parameters)
}

fn with_seed(common: &[(&'static str, String)], seed: u64) -> Vec<(&'static str, String)> {
    let all = common.iter().cloned();
    all.map(|(name, value)| if name == "Seed" { (name, seed.to_string()) } else { (name, value) }).collect()
}
