//! Generating the images of a set, each of which is kept by what decides it and never generated twice.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use tastemaker_eval::generate::{GenerateSettings, Generator, Job};
use tastemaker_eval::pairing::prefixed;
use tastemaker_math::Sampler;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_models::adapters::LoraFile;
use tastemaker_models::nn::Role;
use tastemaker_run::MixedPrecision;
use tastemaker_store::atomic;
use tastemaker_store::checksum::{sha256_bytes, sha256_file};
use tastemaker_torch::Precision;
use tastemaker_torch::error::guard;
use tastemaker_train::precision_of;
use tch::Device;

use super::sides::{Side, Sides};
use crate::allocator;
use crate::commands::word;
use crate::exit::UsageError;
use crate::hub::locate_lora;
use crate::images;
use crate::progress::Work;

/// How images are generated.
#[derive(Debug, Clone, Args)]
#[command(rename_all = "snake_case")]
pub struct GeneratingFlags {
    /// How steps are taken; names of diffusers, A1111 and ComfyUI will do, too
    #[arg(long, value_name = "NAME", value_parser = |typed: &str| typed.parse::<Sampler>(), default_value = "ddim")]
    sampler: Sampler,
    /// What to lead away from, in all images
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,
    /// Steps of the sampler
    #[arg(long, value_name = "STEPS", default_value_t = 50)]
    num_inference_steps: usize,
    /// How strongly to follow the prompt; 1 and below is without guidance
    #[arg(long, value_name = "SCALE", default_value_t = 7.5)]
    guidance_scale: f64,
    /// Images per forward pass
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1024))]
    batch_size: u64,
    /// Type of weights and activations, no or bf16
    #[arg(long, value_name = "TYPE", value_parser = word::<MixedPrecision>, default_value = "no")]
    mixed_precision: MixedPrecision,
}

impl GeneratingFlags {
    /// # Errors
    /// [`UsageError`] for a scale that is no number.
    pub fn check(&self) -> Result<(), UsageError> {
        match self.guidance_scale.is_finite() {
            true => Ok(()),
            false => Err(UsageError(format!("--guidance_scale is {}; wanted a number", self.guidance_scale))),
        }
    }

    /// What decides an image beside its model, prompt and noise.
    pub fn provenance(&self) -> Value {
        json!({
            "sampler": self.sampler.entry().name,
            "negative_prompt": self.negative_prompt,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "mixed_precision": self.mixed_precision,
        })
    }

    fn settings(&self) -> GenerateSettings {
        GenerateSettings {
            sampler: self.sampler,
            n_steps: self.num_inference_steps,
            guidance_scale: self.guidance_scale,
            batch_size: self.batch_size as usize,
            ..GenerateSettings::default()
        }
    }

    fn precision(&self) -> Precision {
        precision_of(self.mixed_precision)
    }
}

/// An image to generate.
pub struct Image {
    /// Number of its side.
    pub side: usize,
    /// Number of its prompt.
    pub prompt: usize,
    /// The prompt with what stands before it.
    pub text: String,
    /// Seed of its noise, as `tastemaker sample --seed` takes it.
    pub seed: u64,
    /// What decides it, in one word.
    pub uid: String,
}

impl Image {
    fn job(&self, flags: &GeneratingFlags) -> Job {
        Job {
            prompt: self.text.clone(),
            negative_prompt: flags.negative_prompt.clone(),
            seed: self.seed,
            ..Job::default()
        }
    }
}

/// A folder of images, and how they are generated.
pub struct Studio<'a> {
    out: PathBuf,
    flags: &'a GeneratingFlags,
    device: Device,
    sides: &'a Sides,
    /// Fingerprints of each side's model.
    prints: Vec<Value>,
}

impl<'a> Studio<'a> {
    /// Opens the folder of a set, or begins one.
    ///
    /// # Errors
    /// [`UsageError`] for a folder that holds something else, and whatever keeps models from being read.
    pub fn open(out: &Path, flags: &'a GeneratingFlags, device: Device, sides: &'a Sides) -> Result<Self> {
        let work = out.join("work");
        let is_other = out.exists()
            && !work.is_dir()
            && std::fs::read_dir(out).map_or(true, |mut dir| dir.next().is_some());
        if is_other {
            return Err(
                UsageError(format!("{} holds something else; choose another --out", out.display())).into()
            );
        }
        let prints = sides.all.iter().map(print).collect::<Result<_>>()?;
        atomic::create_folder(&work)?;
        Ok(Self { out: out.to_owned(), flags, device, sides, prints })
    }

    /// Where the set goes.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Where an image is or will be.
    pub fn path(&self, image: &Image) -> PathBuf {
        self.out.join("work").join(format!("{}.png", image.uid))
    }

    /// Everything about the sides, in order.
    pub fn provenance(&self) -> Value {
        let side = |(side, print): (&Side, &Value)| json!({ "model": side.model, "lora": side.lora, "prefix": side.prefix, "sha256": print });
        self.sides.all.iter().zip(&self.prints).map(side).collect()
    }

    /// The model of an image as it was typed, with its LoRA.
    pub fn model_name(&self, image: &Image) -> String {
        let Side { model, lora, .. } = &self.sides.all[image.side];
        lora.as_ref().map_or_else(|| model.clone(), |lora| format!("{model} + {lora}"))
    }

    /// SHA-256 of a side's UNet.
    pub fn unet_print(&self, side: usize) -> &str {
        self.prints[side]["unet"].as_str().unwrap_or_default()
    }

    /// The images of a set, `n_each` of each prompt one after the other, and where there are two sides the winner's before the
    /// loser's.
    ///
    /// Seeds are drawn by prompt and number, so that more images of a prompt, or prompts added behind, leave those there
    /// are as they are.
    pub fn plan(&self, prompts: &[String], n_each: u64, seed: u64) -> Vec<Image> {
        let mut images = Vec::new();
        for (prompt, text) in prompts.iter().enumerate() {
            for number in 0..n_each {
                for (side, Side { prefix, .. }) in self.sides.all.iter().enumerate() {
                    let apart = side > 0 && !self.sides.same_noise;
                    let draw = if apart { number + (1 << 32) } else { number };
                    // Half of the range, so that a signed column holds it.
                    let seed = Keyed::new(seed, Stream::Data, prompt as u64, draw).next_u64() >> 1;
                    let text = prefixed(prefix, text);
                    let decides = json!([self.prints[side], text, seed, self.flags.provenance()]);
                    let uid = sha256_bytes(decides.to_string().as_bytes())[..32].to_owned();
                    images.push(Image { side, prompt, text, seed, uid });
                }
            }
        }
        images
    }

    /// Generates what is not there yet, and says how many images that were.
    ///
    /// Images are generated in batches that do not depend on what is there, so that a set which was begun and stopped is bit
    /// for bit the one that was not.
    pub fn generate(&self, images: &[Image]) -> Result<usize> {
        let batches: Vec<Vec<&Image>> = (0..self.sides.all.len())
            .flat_map(|side| {
                let of_side: Vec<&Image> = images.iter().filter(|image| image.side == side).collect();
                of_side.chunks(self.flags.batch_size as usize).map(<[&Image]>::to_vec).collect::<Vec<_>>()
            })
            .collect();
        let mut progress = Work::new("generating", "images");
        let (mut n_done, mut n_generated) = (0, 0);
        let mut open: Option<(usize, Opened)> = None;
        for batch in batches {
            let n_missing = batch.iter().filter(|image| !self.path(image).is_file()).count();
            if n_missing > 0 {
                let side = batch[0].side;
                let opened = match open.take().filter(|(number, _)| *number == side) {
                    Some((_, opened)) => opened,
                    None => Opened::new(&self.sides.all[side], self.flags, self.device)?,
                };
                self.generate_batch(&opened, &batch)?;
                open = Some((side, opened));
            }
            n_generated += n_missing;
            n_done += batch.len();
            progress.at(n_done as u64, images.len() as u64);
        }
        progress.end();
        Ok(n_generated)
    }

    fn generate_batch(&self, opened: &Opened, batch: &[&Image]) -> Result<()> {
        let jobs: Vec<Job> = batch.iter().map(|image| image.job(self.flags)).collect();
        let doing =
            format!("generating {} images at once (a smaller --batch_size needs less memory)", jobs.len());
        let settings = self.flags.settings();
        let generated =
            guard(&doing, || tch::no_grad(|| opened.generator.generate(&opened.network, &jobs, &settings)))??;
        for (image, pixels) in batch.iter().zip(generated) {
            images::write(&self.path(image), &pixels)?;
        }
        Ok(())
    }
}

/// The networks of a side.
struct Opened {
    generator: Generator,
    network: tastemaker_models::unet::UNet,
}

impl Opened {
    fn new(side: &Side, flags: &GeneratingFlags, device: Device) -> Result<Self> {
        allocator::suit(&side.folder)?;
        let (lora, text) = side.adapter()?.map(LoraFile::into_specs).unwrap_or_default();
        let precision = flags.precision();
        let generator = Generator::adapted(&side.folder, text, precision, device)?;
        let network = side.folder.unet(Role::Frozen, precision, device, lora)?.network;
        Ok(Self { generator, network })
    }
}

/// Everything of a side's model that decides an image.
fn print(side: &Side) -> Result<Value> {
    let Side { folder, lora, .. } = side;
    let lora = lora.as_deref().map(locate_lora).transpose()?.map(sha256_file).transpose()?;
    let scheduler = format!("{:?}", folder.schedule()?);
    Ok(json!({
        "unet": folder.unet_fingerprint()?,
        "vae": folder.vae_fingerprint()?,
        "text": folder.text_fingerprint()?,
        "scheduler": sha256_bytes(scheduler.as_bytes()),
        "lora": lora,
    }))
}
