//! Generating the images of a set, each of which is kept under a name that says everything that decides it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};
use tastemaker_eval::pairing::prefixed;
use tastemaker_generate::{GenerateSettings, LoadedModel, OutputFile, OutputFiles, SampleRequest};
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_store::atomic;
use tastemaker_store::checksum::{sha256_bytes, sha256_file};
use tastemaker_store::dtype::DType;
use tch::Device;

use super::sides::{Side, Sides};
use crate::allocator;
use crate::commands::GenerateFlags;
use crate::models::blamed;
use crate::progress::Work;
use crate::prompts::Numbered;

/// An image to generate.
pub struct Image {
    /// Number of its side.
    pub side: usize,
    /// Number of its prompt.
    pub prompt: usize,
    /// The prompt.
    pub caption: String,
    /// The prompt with its prefix.
    pub text: String,
    /// Seed of its noise, as `tastemaker sample --seed` takes it.
    pub seed: u64,
    /// Hash of everything that decides it.
    pub uid: String,
}

/// The folder of a set that is being made, with the images generated so far.
pub struct SetFolder<'a> {
    out: PathBuf,
    flags: &'a GenerateFlags,
    settings: GenerateSettings,
    device: Device,
    sides: &'a Sides,
    /// Hashes of each side's model.
    hashes: Vec<Value>,
}

impl<'a> SetFolder<'a> {
    /// Opens the folder of a set, or begins one.
    ///
    /// # Errors
    /// Whatever keeps models from being read.
    pub fn open(out: &Path, flags: &'a GenerateFlags, device: Device, sides: &'a Sides) -> Result<Self> {
        let work = out.join("work");
        let hashes = sides.all.iter().map(hashes).collect::<Result<_>>()?;
        atomic::create_folder(&work)?;
        // Both sides are drawn alike, as the model is that the set is for.
        let own = sides.all.last().map(|side| GenerateSettings::of(&side.folder)).transpose()?;
        let settings = flags.settings(own.unwrap_or_default());
        Ok(Self { out: out.to_owned(), flags, settings, device, sides, hashes })
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
    pub fn sides(&self) -> Value {
        let side = |(side, hashes): (&Side, &Value)| json!({ "model": side.model, "lora": side.lora, "prefix": side.prefix, "sha256": hashes });
        self.sides.all.iter().zip(&self.hashes).map(side).collect()
    }

    /// What decides an image beside its model, prompt and noise.
    pub fn settings(&self) -> Value {
        json!({
            "sampler": self.settings.sampler.entry().name,
            "negative_prompt": self.flags.negative_prompt,
            "num_inference_steps": self.settings.n_steps,
            "guidance_scale": self.settings.guidance_scale,
            "mixed_precision": match self.flags.mixed_precision {
                DType::F32 => "no",
                dtype => dtype.name(),
            },
        })
    }

    /// The model of an image as it was typed, with its LoRA.
    pub fn model_name(&self, image: &Image) -> String {
        let Side { model, lora, .. } = &self.sides.all[image.side];
        lora.as_ref().map_or_else(|| model.clone(), |lora| format!("{model} + {lora}"))
    }

    /// SHA-256 of a side's UNet.
    pub fn unet_hash(&self, side: usize) -> &str {
        self.hashes[side]["unet"].as_str().unwrap_or_default()
    }

    /// The images of a set, `n_each` of each prompt one after the other, and where there are two sides the winner's before the
    /// loser's.
    ///
    /// Seeds are drawn by prompt and number, so that more images of a prompt, or prompts added at the end, leave those there
    /// are as they are.
    pub fn plan(&self, prompts: &[Numbered], n_each: u64, seed: u64) -> Vec<Image> {
        let mut images = Vec::new();
        for Numbered { number: prompt, text: caption } in prompts {
            let prompt = *prompt;
            for number in 0..n_each {
                for (side, Side { prefix, .. }) in self.sides.all.iter().enumerate() {
                    let apart = side > 0 && !self.sides.same_noise;
                    let draw = if apart { number + (1 << 32) } else { number };
                    // Half of the range, so that a signed column holds it.
                    let seed = Keyed::new(seed, Stream::Data, prompt as u64, draw).next_u64() >> 1;
                    let text = prefixed(prefix, caption);
                    let decides = json!([self.hashes[side], text, seed, self.settings()]);
                    let uid = sha256_bytes(decides.to_string().as_bytes())[..32].to_owned();
                    images.push(Image { side, prompt, caption: caption.clone(), text, seed, uid });
                }
            }
        }
        images
    }

    /// Generates what is not there yet, and says how many images that were.
    pub fn generate(&self, images: &[Image]) -> Result<usize> {
        let mut progress = Work::new("generating", "images");
        let (mut n_done, mut n_generated) = (0, 0);
        for (number, side) in self.sides.all.iter().enumerate() {
            let of_side = images.iter().filter(|image| image.side == number);
            let files = OutputFiles::keeping(of_side.map(|image| self.file(image)).collect());
            n_done += files.len() - files.n_missing();
            if files.n_missing() == 0 {
                continue;
            }
            allocator::suit(&side.folder)?;
            let (lora, precision) = (side.adapter()?, self.flags.mixed_precision);
            let loaded = LoadedModel::open(&side.folder, lora, files.texts(), precision, self.device)?;
            let generated = files.write(
                &loaded.generator,
                loaded.networks(),
                &self.settings,
                || Ok(()),
                |_, _| {
                    n_done += 1;
                    progress.at(n_done as u64, images.len() as u64);
                    anyhow::Ok(())
                },
            );
            generated.map_err(|error| blamed(error, &side.model))?;
            n_generated += files.n_missing();
        }
        progress.end();
        Ok(n_generated)
    }

    fn file(&self, image: &Image) -> OutputFile {
        let request = SampleRequest {
            prompt: image.text.clone(),
            negative_prompt: self.flags.negative_prompt.clone(),
            seed: image.seed,
            ..SampleRequest::default()
        };
        OutputFile { request, path: self.path(image), parameters: None }
    }
}

/// Everything of a side's model that decides an image.
fn hashes(side: &Side) -> Result<Value> {
    let Side { folder, adapter, .. } = side;
    let lora = adapter.as_ref().map(sha256_file).transpose()?;
    let scheduler = format!("{:?}", folder.schedule()?);
    Ok(json!({
        "unet": folder.backbone_fingerprint()?,
        "vae": folder.vae_fingerprint()?,
        "text": folder.text_fingerprint()?,
        "scheduler": sha256_bytes(scheduler.as_bytes()),
        "lora": lora,
    }))
}
