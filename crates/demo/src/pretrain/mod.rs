//! Making the embedded model's weights from the embedded art. Resumable.

mod denoiser;
mod text;
mod train_loop;
mod vae;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::Value;
use tastemaker_diffusion::Vae;
use tastemaker_diffusion::denoiser::Posterior;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_models::nn::{Trainable, Weights};
use tastemaker_models::tokenizer::ClipTokenizer;
use tastemaker_models::vae::AutoencoderKl;
use tastemaker_store::dtype::DType;
use tastemaker_store::{atomic, json};
use tastemaker_torch::tensors::{self, Named, pixels};
use tch::{Device, Kind, Tensor};

use crate::DemoError;
use crate::art::{Art, SIDE};
pub use train_loop::{LoopSettings, Progress, run as train};

/// The file of a network's weights, but for the text encoder's.
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// What to train, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which part; each needs the ones before it.
    pub part: Part,
    /// Model folder: configurations are read from it, weights written to it.
    pub model: PathBuf,
    /// Tokenizer folder.
    pub tokenizer: PathBuf,
    /// Where the state of an unfinished run is kept.
    pub state: PathBuf,
    /// Optimizer steps; `None` for the part's own, as below.
    pub max_train_steps: Option<u64>,
    /// Images per step.
    pub train_batch_size: Option<usize>,
    /// Peak learning rate.
    pub learning_rate: Option<f64>,
    /// Type of the networks, but for the text encoder's.
    pub dtype: DType,
    /// Seed of weights and draws.
    pub seed: u64,
}

/// A part of the embedded model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Image VAE (`vae`).
    Vae,
    /// Text encoder, with a vision tower to match it against.
    Text,
    /// UNet (`unet`).
    #[value(name = "unet", alias = "base")]
    Base,
    /// Transformer of the flow model (`flow/transformer`).
    Flow,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Vae => "vae",
            Part::Text => "text",
            Part::Base => "base",
            Part::Flow => "flow",
        }
    }

    /// Steps, batch, learning rate, decay of the moving average.
    fn defaults(self) -> (u64, usize, f64, f64) {
        match self {
            Part::Vae => (6500, 8, 2e-3, 0.995),
            Part::Text => (2500, 128, 1e-3, 0.99),
            Part::Base => (8000, 48, 1.5e-3, 0.999),
            Part::Flow => (9000, 32, 1.5e-3, 0.999),
        }
    }
}

/// Trains a part; `log` gets lines for people.
///
/// # Errors
/// A loss that is not finite, and files that cannot be read or written.
pub fn run(settings: &Settings, log: &mut dyn FnMut(&str)) -> Result<(), DemoError> {
    tastemaker_torch::memory::keep_freed();
    let art = Art::open()?;
    match settings.part {
        Part::Vae => vae::train(settings, &art, log),
        Part::Text => text::train(settings, &art, log),
        Part::Base | Part::Flow => denoiser::train(settings, &art, log),
    }
}

impl Settings {
    fn batch_size(&self) -> usize {
        self.train_batch_size.unwrap_or(self.part.defaults().1)
    }

    /// Runs the loop over `backward`, and logs it.
    fn train(
        &self,
        trainable: &[Trainable],
        backward: impl FnMut(u64) -> f64,
        log: &mut dyn FnMut(&str),
    ) -> Result<Named, DemoError> {
        atomic::create_folder(&self.state)?;
        let (n_steps, _, learning_rate, ema_decay) = self.part.defaults();
        let n_steps = self.max_train_steps.unwrap_or(n_steps);
        let settings = LoopSettings {
            n_steps,
            learning_rate: self.learning_rate.unwrap_or(learning_rate),
            n_warmup: (n_steps / 20).min(200),
            max_grad_norm: 1.0,
            ema_decay,
            state: self.state.join(format!("{}.safetensors", self.part.name())),
            save_every: 250,
        };
        train_loop::run(trainable, &settings, backward, narrate(self.part.name(), log))
    }
}

/// Logs every fiftieth step: mean loss since the last line, and the rate.
fn narrate(name: &'static str, log: &mut dyn FnMut(&str)) -> impl FnMut(Progress) {
    let (mut sum, mut n, mut since) = (0.0, 0u32, std::time::Instant::now());
    move |Progress { step, loss, gradient_norm, learning_rate }: Progress| {
        sum += loss;
        n += 1;
        if step.is_multiple_of(50) || step <= 5 {
            let (loss, seconds) = (sum / f64::from(n), since.elapsed().as_secs_f64() / f64::from(n));
            log(&format!(
                "{name} step {step:>6}  loss {loss:.5}  gradient {gradient_norm:.3}  lr {learning_rate:.2e}  {seconds:.3} s/step"
            ));
            (sum, n, since) = (0.0, 0, std::time::Instant::now());
        }
    }
}

/// A network's configuration, read by its own rule.
fn config<C>(folder: &Path, read: fn(&Value) -> Result<C, String>) -> Result<C, DemoError> {
    let path = folder.join("config.json");
    read(&json::read(&path)?).map_err(|why| DemoError::Config { path, why })
}

/// The parameters of a network that is built; `name` is for people.
fn built(weights: Weights, name: &str) -> Result<(Vec<Trainable>, Named), DemoError> {
    weights.finish().map_err(|report| DemoError::Config { path: name.into(), why: report.to_string() })
}

/// Images of all captions in the given styles, `[n, 3, 64, 64]` in [-1, 1]; caption-major.
fn images(art: &Art, styles: &[usize]) -> Tensor {
    let of_caption = |caption| styles.iter().map(move |&style| art.image(caption, style));
    let images: Vec<_> = (0..art.captions.len()).flat_map(of_caption).collect();
    pixels(images.iter().map(|image| image.as_raw().as_slice()), (SIDE, SIDE), Device::Cpu)
}

/// `n` row numbers below `n_rows`, drawn for this step.
fn rows(seed: u64, step: u64, n: usize, n_rows: usize) -> Vec<i64> {
    let mut keyed = Keyed::new(seed, Stream::Data, step, 0);
    (0..n).map(|_| keyed.below(n_rows as u64) as i64).collect()
}

/// Token ids, `[n, max_length]`.
fn token_ids(tokenizer: &ClipTokenizer, prompts: &[String]) -> Tensor {
    Tensor::from_slice(&tokenizer.encode_batch(prompts)).reshape([-1, tokenizer.max_length() as i64])
}

/// A caption's label, or sometimes label and a tag, or one tag.
fn prompt(art: &Art, caption: usize, keyed: &mut Keyed) -> String {
    let caption = &art.captions[caption];
    let tag = |keyed: &mut Keyed| caption.tags[keyed.below(caption.tags.len() as u64) as usize].clone();
    match keyed.below(10) {
        0 if !caption.tags.is_empty() => tag(keyed),
        1 if !caption.tags.is_empty() => format!("{}, {}", caption.label, tag(keyed)),
        _ => caption.label.clone(),
    }
}

/// Posteriors of many images, a few at a time.
fn encode_in_parts(vae: &AutoencoderKl, images: &Tensor) -> Posterior {
    let parts = images.split(64, 0).into_iter().map(|part| tch::no_grad(|| vae.encode(&part)));
    let (means, stds): (Vec<_>, Vec<_>) = parts.map(|p| (p.mean, p.std)).unzip();
    Posterior { mean: Tensor::cat(&means, 0), std: Tensor::cat(&stds, 0) }
}

/// Writes weights in half precision.
fn save(path: &Path, weights: &Named, log: &mut dyn FnMut(&str)) -> Result<(), DemoError> {
    let half = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.to_kind(Kind::Half));
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    tensors::write(path, &weights.iter().map(half).collect(), &metadata)?;
    log(&format!("wrote {}", path.display()));
    Ok(())
}
