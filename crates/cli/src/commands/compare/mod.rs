//! `tastemaker compare`: generates prompts with several models, scores the images, reports win rates.
//!
//! Everything lies below `--out` and is written at once or not at all: `compare.json` says what is compared,
//! `images/<name>/<number>-<seed>.png` are generated images, `scores.jsonl` scores, `report.html` and `summary.json` the
//! result. A command that was ended is given again and resumes.

mod candidates;
mod generating;
mod planning;
mod result;
mod samples;
mod scoring;
mod table;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::commands::{DeviceFlag, GenerateFlags, images_per_prompt, some};
use crate::exit::Blame;
use crate::next;
use crate::place::{OverwriteFlag, Place};
use candidates::Source;

/// What `--help` says last.
pub const DEFAULTS: &str = "Other defaults: --guidance_scale is 5 for SDXL; for prompts of the demo --num_inference_steps is 20, \
                            --guidance_scale 2 and --batch_size 32.";

/// Generates images for prompts with several models from equal noise, scores them, and writes a page with win rates.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct CompareArgs {
    /// Two or more of: a model (folder, single file, fetched), MODEL+PART or a PART alone on --base (a LoRA, or a UNet's
    /// folder), the output folder of a training run, a folder of images. The first is the baseline
    #[arg(value_name = "[NAME=]MODEL|DIR", required = true, num_args = 2..)]
    models: Vec<String>,
    /// Base model of LoRAs and UNets that are given alone [default: none]
    #[arg(long, value_name = "DIR|FILE|ORG/NAME")]
    base: Option<String>,
    /// Prompts: small (built in), demo, demo:TASK, or a file or folder of prompts
    #[arg(long, value_name = "NAME|FILE|DIR|ORG/NAME", default_value = "small")]
    prompts: String,
    /// Use only this many prompts, sampled evenly over the set [default: all]
    #[arg(long, value_name = "COUNT", value_parser = some)]
    n_prompts: Option<usize>,
    /// Use only prompts of this category; repeat for several [default: all]
    #[arg(long, value_name = "NAME")]
    category: Vec<String>,
    /// Seed of the first image of each prompt
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Images per prompt, with seeds counting up [default: 1]
    #[arg(long, value_name = "COUNT", value_parser = images_per_prompt())]
    num_images_per_prompt: Option<u64>,
    /// Scorer: pick-score, hps-v2, hps-v2.1, clip-score, aesthetic, image-reward, nearest-art; repeat for several.
    /// NAME=PATH takes other weights
    #[arg(long, value_name = "NAME[:VARIANT][=WEIGHTS]", required = true)]
    scorer: Vec<String>,
    /// Output folder; existing images and scores are reused
    #[arg(long, value_name = "DIR", alias = "output_dir")]
    out: PathBuf,
    #[command(flatten)]
    overwrite: OverwriteFlag,
    /// Samples shown on the page
    #[arg(long, value_name = "COUNT", default_value_t = 60)]
    n_images: usize,
    /// Skip prompts without an image in a folder of images, instead of an error
    #[arg(long)]
    skip_missing: bool,
    #[command(flatten)]
    device: DeviceFlag,
    #[command(flatten)]
    flags: GenerateFlags,
    #[command(flatten)]
    parts: SharedParts,
}

/// Parts that all models take in place of their own.
#[derive(Debug, Args)]
#[command(next_help_heading = "Models", rename_all = "snake_case")]
struct SharedParts {
    /// Another VAE for all models: its folder, a folder with vae/, a file, or the name of a fetched one [default: each
    /// model's own]
    #[arg(long, value_name = "DIR|FILE|ORG/NAME", alias = "vae")]
    pretrained_vae_model_name_or_path: Option<String>,
    /// Weights variant to load, such as fp16 [default: none]
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// Shift of the noise levels of flow models towards noise [default: each model's own]
    #[arg(long, value_name = "FACTOR")]
    shift: Option<f64>,
}

/// What the command writes into its folder; the second name of images is that of earlier versions.
const OURS: &[&str] = &[
    "compare.json",
    "scores.jsonl",
    "report.html",
    "summary.json",
    "images/*/#-#.png",
    "pictures/*/#-#.png",
];

/// What an earlier comparison left, which makes way when the first new result is there, and the plan that then takes its place.
pub struct Replaced<'a>(RefCell<Option<Replace<'a>>>);

type Replace<'a> = Box<dyn FnOnce() -> Result<()> + 'a>;

impl<'a> Replaced<'a> {
    fn by(replace: impl FnOnce() -> Result<()> + 'a) -> Self {
        Self(RefCell::new(Some(Box::new(replace))))
    }

    /// Whether it still stands.
    pub fn is_there(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Has it replaced, once.
    ///
    /// # Errors
    /// What cannot be removed or written.
    pub fn make_way(&self) -> Result<()> {
        let replace = self.0.borrow_mut().take();
        replace.map_or(Ok(()), |replace| replace())
    }
}

/// Runs the command.
pub fn compare(args: &CompareArgs) -> Result<()> {
    let place = Place::folder(&args.out, "--out", OURS).marked(&["compare.json"]).beside_others(&[]);
    // What is there is used if it is of the same comparison, which only its plan can say.
    let is_there = args.out.join("compare.json").is_file();
    let _claim = place.claim_unless(is_there, args.overwrite)?;
    args.flags.check()?;
    let device = args.device.open()?;
    let mut set = samples::open(args)?;
    println!("{}: {}", set.prompts.name, set.prompts.summary());
    let mut candidates = candidates::open(args).of_model()?;
    candidates::match_folders(&mut candidates, &mut set, args.skip_missing)?;
    let scorers = scoring::identify(&args.scorer, &set, device)?;
    for candidate in &mut candidates {
        planning::identify(candidate)?;
    }
    let names: Vec<String> = scorers.iter().map(|(name, _)| name.clone()).collect();
    let scorers: BTreeMap<String, String> = scorers.into_iter().collect();
    let replaced = Replaced::by(|| {
        if args.overwrite.overwrite {
            place.clear()?;
        }
        planning::agree(args, &set, &candidates, scorers.clone())
    });
    if !args.overwrite.overwrite {
        replaced.make_way()?;
    }
    for candidate in &candidates {
        if let Source::Model { model, lora, settings, .. } = &candidate.source {
            generating::generate(
                &candidate.name,
                (model, lora.as_deref()),
                settings,
                &set,
                args,
                device,
                &replaced,
            )?;
        }
    }
    let unscored = scoring::score(args, &set, &candidates, &names, device, &replaced)?;
    drop(replaced);
    candidates::skip(&mut candidates, &mut set, &unscored)?;
    let scores = scoring::scores(args, &set, &candidates, &names)?;
    let comparison = result::comparison(args, &set, &candidates, &names, scores)?;
    result::report(&comparison, &args.out)?;
    let (out, is_ours) = (next::word(&args.out), args.prompts == "small" || args.prompts.starts_with("demo"));
    let prompts: &[&str] = if is_ours { &[] } else { &["--prompts", &args.prompts] };
    next::say(&[&["tastemaker", "vote", &out], prompts, &["--db", "votes.sqlite"]].concat());
    Ok(())
}
