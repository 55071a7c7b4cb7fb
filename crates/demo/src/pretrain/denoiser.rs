//! The denoising networks, trained with the ordinary training step and the `sft` objective.

use std::path::PathBuf;

use serde_json::{Value, json};
use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_math::flow::Density;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_math::objectives::objective;
use tastemaker_math::schedule::{BetaSchedule, NoiseSchedule, Prediction};
use tastemaker_models::clip_text::{ClipText, ClipTextConfig, ClipTextOutput};
use tastemaker_models::mmdit::{Mmdit, MmditConfig};
use tastemaker_models::nn::{Role, Weights};
use tastemaker_models::tokenizer::ClipTokenizer;
use tastemaker_models::unet::{UNet, UNetConfig};
use tastemaker_models::vae::{AutoencoderKl, VaeConfig};
use tastemaker_store::dtype::DType;
use tastemaker_store::json;
use tastemaker_torch::tensors;
use tastemaker_train::data::{Augmentation, BatchOptions, EncodedPair, EncodedPairs, Use};
use tastemaker_train::draws::{Disturbance, Timesteps};
use tastemaker_train::reference::Reference;
use tastemaker_train::step::Engine;
use tch::{Device, Tensor};

use super::{Part, Settings, WEIGHTS, built, config, encode_in_parts, images, prompt, rows, save, token_ids};
use crate::DemoError;
use crate::art::Art;
use crate::task::BASE_STYLES;

/// Trains the network on the art of the base's styles.
pub fn train(settings: &Settings, art: &Art, log: &mut dyn FnMut(&str)) -> Result<(), DemoError> {
    let weights = Weights::fresh(settings.seed, Role::Trained, settings.dtype, Device::Cpu);
    match settings.part {
        Part::Flow => {
            let folder = settings.model.join("flow/transformer");
            let network =
                Mmdit::new(weights.root(), config(&folder, MmditConfig::from_json)?, settings.dtype);
            let path = settings.model.join("flow/scheduler/scheduler_config.json");
            let shift = json::read::<Value>(&path)?["shift"].as_f64().unwrap_or(1.0);
            let schedule = NoiseSchedule::flow(1000, shift)?;
            let levels = Timesteps::By(Density::LogitNormal { mean: 0.0, std: 1.0 });
            let on = Course { folder, schedule, levels, objective: json!({}) };
            on.train(&network, weights, settings, art, log)
        }
        _ => {
            let folder = settings.model.join("unet");
            let network = UNet::new(weights.root(), config(&folder, UNetConfig::from_json)?, settings.dtype);
            let betas = BetaSchedule::ScaledLinear;
            let schedule = NoiseSchedule::new(betas, 1000, 0.00085, 0.012, Prediction::Epsilon)?;
            let objective = json!({"snr_gamma": 5.0});
            let on = Course { folder, schedule, levels: Timesteps::All, objective };
            on.train(&network, weights, settings, art, log)
        }
    }
}

/// What a network is trained on, besides the art.
struct Course {
    /// Its configuration's folder, and its weights'.
    folder: PathBuf,
    schedule: NoiseSchedule,
    levels: Timesteps<'static>,
    /// Settings of `sft`.
    objective: Value,
}

impl Course {
    fn train(
        &self,
        network: &dyn Denoiser,
        weights: Weights,
        settings: &Settings,
        art: &Art,
        log: &mut dyn FnMut(&str),
    ) -> Result<(), DemoError> {
        let encoded = encode_art(settings, art, &BASE_STYLES)?;
        let (trainable, parameters) = built(weights, settings.part.name())?;
        let n_parameters: usize = parameters.values().map(Tensor::numel).sum();
        log(&format!("network of {n_parameters} parameters, {} images", encoded.pairs.len()));
        let sft = objective("sft", &self.objective).map_err(|error| DemoError::Usage(error.to_string()))?;
        let engine = Engine {
            text: None,
            policy: network,
            reference: &Reference::None,
            objective: &sft,
            schedule: &self.schedule,
            soft_labels: None,
            labels: None,
            timesteps: self.levels,
            seed: settings.seed,
            disturbance: Disturbance::default(),
        };
        let augmentation = Augmentation { seed: settings.seed, joint: false };
        let options = BatchOptions { augmentation, with_losers: false, device: Device::Cpu };
        let backward = |step: u64| {
            let uses: Vec<Use> = rows(settings.seed, step, settings.batch_size(), encoded.pairs.len())
                .into_iter()
                .enumerate()
                .map(|(slot, row)| {
                    let draw = step * settings.batch_size() as u64 + slot as u64;
                    let drop_caption =
                        Keyed::new(settings.seed, Stream::CaptionDropout, draw, 0).bernoulli(0.1);
                    Use { index: row as usize, draw, drop_caption }
                })
                .collect();
            let records = engine.accumulate(&encoded.batch_of(&uses, &options), uses.len());
            records.iter().map(|record| record.outcome.loss).sum::<f64>() / records.len() as f64
        };
        let averaged = settings.train(&trainable, backward, log)?;
        // Buffers that a network has beside what is trained are part of its file.
        let mut all = parameters;
        all.extend(averaged);
        save(&self.folder.join(WEIGHTS), &all, log)
    }
}

/// Encodes the art of some styles once, each image under its label and under label-and-tag variants.
fn encode_art(settings: &Settings, art: &Art, styles: &[usize]) -> Result<EncodedPairs, DemoError> {
    const VARIANTS: usize = 4;
    let vae_folder = settings.model.join("vae");
    let weights = tensors::read(&vae_folder.join(WEIGHTS))?;
    let weights = Weights::from_source(weights, Role::Frozen, DType::F32, Device::Cpu);
    let vae_config = config(&vae_folder, VaeConfig::from_json)?;
    let vae = AutoencoderKl::new(weights.root(), vae_config, DType::F32);
    built(weights, "vae")?;
    let images = encode_in_parts(&vae, &images(art, styles));

    let folder = settings.model.join("text_encoder");
    let tokenizer = ClipTokenizer::from_folder(settings.tokenizer.as_path())?;
    let text_config = config(&folder, ClipTextConfig::from_json)?;
    let weights = Weights::from_source(
        tensors::read(&folder.join("model.safetensors"))?,
        Role::Frozen,
        DType::F32,
        Device::Cpu,
    );
    let text = ClipText::new(weights.root(), text_config);
    built(weights, "text encoder")?;
    let encode = |prompts: &[String]| {
        let output = tch::no_grad(|| text.forward(&token_ids(&tokenizer, prompts)));
        match settings.part {
            Part::Flow => twice(&output),
            _ => Conditioning::text(output.last_hidden_state),
        }
    };
    // Variant 0 is the plain label and is used twice as often as it would be by chance.
    let mut keyed = Keyed::new(settings.seed, Stream::Data, u64::MAX, 1);
    let mut prompts = Vec::new();
    for caption in 0..art.captions.len() {
        prompts.push(art.captions[caption].label.clone());
        (1..VARIANTS).for_each(|_| prompts.push(prompt(art, caption, &mut keyed)));
    }
    let mut pairs = Vec::new();
    for caption in 0..art.captions.len() {
        for style in 0..styles.len() {
            let image = caption * styles.len() + style;
            for variant in 0..VARIANTS {
                let caption = caption * VARIANTS + variant;
                pairs.push(EncodedPair { id: pairs.len() as u64, winner: image, loser: image, caption });
            }
        }
    }
    Ok(EncodedPairs {
        images,
        hflip: false,
        captions: encode(&prompts),
        empty: encode(&[String::new()]),
        pairs,
    })
}

/// The conditioning of an SD3 pipeline whose two CLIP encoders are the same one, without T5.
fn twice(text: &ClipTextOutput) -> Conditioning {
    let beside_itself = |x: &Tensor| Tensor::cat(&[x, x], -1);
    let pooled = text.projected.as_ref().map(beside_itself);
    Conditioning { pooled, ..Conditioning::text(beside_itself(text.penultimate())) }
}
