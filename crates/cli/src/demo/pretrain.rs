//! `tastemaker pretrain`: makes the embedded model's weights from the embedded art. Resumable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::Value;
use tastemaker_diffusion::Vae;
use tastemaker_diffusion::conditioning::Conditioning;
use tastemaker_diffusion::denoiser::Posterior;
use tastemaker_diffusion::noise::NoiseKey;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_math::objectives::objective;
use tastemaker_math::schedule::{BetaSchedule, NoiseSchedule, Prediction};
use tastemaker_models::clip_text::{ClipText, ClipTextConfig};
use tastemaker_models::clip_vision::{ClipVision, ClipVisionConfig};
use tastemaker_models::nn::{Role, Trainable, Weights};
use tastemaker_models::tokenizer::ClipTokenizer;
use tastemaker_models::unet::{UNet, UNetConfig};
use tastemaker_models::vae::{AutoencoderKl, VaeConfig};
use tastemaker_store::dtype::DType;
use tastemaker_torch::tensors::{self, Named};
use tastemaker_train::data::{Augmentation, BatchOptions, EncodedPair, EncodedPairs, Use};
use tastemaker_train::pretrain::{LoopSettings, Progress, contrastive_loss, run, vae_loss};
use tastemaker_train::reference::Reference;
use tastemaker_train::step::{Engine, Timesteps};
use tch::{Device, Kind, Tensor};

use super::art::{Art, SIDE, STYLES};

/// Makes one part of the embedded model from the embedded art.
#[derive(Debug, Args)]
pub struct PretrainArgs {
    /// Which part; each needs the ones before it.
    #[arg(value_enum)]
    part: Part,
    /// Model folder: configurations are read from it, weights written to it.
    #[arg(long, value_name = "DIR", default_value = "assets/demo/model")]
    model: PathBuf,
    /// Tokenizer folder.
    #[arg(long, value_name = "DIR", default_value = "assets/demo/tokenizer")]
    tokenizer: PathBuf,
    /// Where the state of an unfinished run is kept.
    #[arg(long, value_name = "DIR", default_value = "target/pretrain")]
    state: PathBuf,
    /// Optimizer steps [default: the part's own].
    #[arg(long, value_name = "STEPS")]
    max_train_steps: Option<u64>,
    /// Images per step [default: the part's own].
    #[arg(long, value_name = "IMAGES")]
    train_batch_size: Option<usize>,
    /// Peak learning rate [default: the part's own].
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Compute in bfloat16.
    #[arg(long)]
    bf16: bool,
    /// Threads [default: libtorch's choice].
    #[arg(long)]
    threads: Option<i32>,
    /// Seed of weights and draws.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Image VAE (`vae`).
    Vae,
    /// Text encoder, with a vision tower to match it against.
    Text,
    /// Denoising network (`unet`).
    Base,
}

/// Steps, batch, learning rate, moving average.
fn defaults(part: Part) -> (u64, usize, f64, f64) {
    match part {
        Part::Vae => (6500, 8, 2e-3, 0.995),
        Part::Text => (2500, 128, 1e-3, 0.99),
        Part::Base => (8000, 48, 1.5e-3, 0.999),
    }
}

/// Runs the command.
pub fn pretrain(args: &PretrainArgs) -> Result<()> {
    tastemaker_torch::memory::keep_freed();
    if let Some(threads) = args.threads {
        tch::set_num_threads(threads);
    }
    let art = Art::open()?;
    match args.part {
        Part::Vae => vae(args, &art),
        Part::Text => text(args, &art),
        Part::Base => base(args, &art),
    }
}

impl PretrainArgs {
    fn precision(&self) -> DType {
        if self.bf16 { DType::Bf16 } else { DType::F32 }
    }

    fn batch_size(&self) -> usize {
        self.train_batch_size.unwrap_or(defaults(self.part).1)
    }

    fn settings(&self, name: &str) -> Result<LoopSettings> {
        std::fs::create_dir_all(&self.state).with_context(|| format!("creating {}", self.state.display()))?;
        let (n_steps, _, learning_rate, ema_decay) = defaults(self.part);
        let n_steps = self.max_train_steps.unwrap_or(n_steps);
        Ok(LoopSettings {
            n_steps,
            learning_rate: self.learning_rate.unwrap_or(learning_rate),
            n_warmup: (n_steps / 20).min(200),
            max_grad_norm: 1.0,
            ema_decay,
            state: self.state.join(format!("{name}.safetensors")),
            save_every: 250,
        })
    }
}

fn config(folder: &Path) -> Result<Value> {
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

/// Prints every fiftieth step: mean loss since the last line, and the rate.
fn narrate(name: &'static str) -> impl FnMut(Progress) {
    let (mut sum, mut n, mut since) = (0.0, 0u32, std::time::Instant::now());
    move |progress: Progress| {
        sum += progress.loss;
        n += 1;
        if progress.step.is_multiple_of(50) || progress.step <= 5 {
            let seconds = since.elapsed().as_secs_f64() / f64::from(n);
            println!(
                "{name} step {:>6}  loss {:.5}  gradient {:.3}  lr {:.2e}  {seconds:.3} s/step",
                progress.step,
                sum / f64::from(n),
                progress.gradient_norm,
                progress.learning_rate
            );
            (sum, n, since) = (0.0, 0, std::time::Instant::now());
        }
    }
}

/// Images of all captions in the given styles, `[n, 3, 64, 64]` in [-1, 1]; caption-major.
fn images(art: &Art, styles: &[usize]) -> Tensor {
    let mut values = Vec::new();
    for caption in 0..art.captions.len() {
        for &style in styles {
            values.extend(tastemaker_data::transform::to_chw(&art.image(caption, style)));
        }
    }
    Tensor::from_slice(&values).reshape([-1, 3, i64::from(SIDE), i64::from(SIDE)])
}

/// `n` row numbers below `n_rows`, drawn for this step.
fn rows(seed: u64, step: u64, n: usize, n_rows: usize) -> Vec<i64> {
    let mut keyed = Keyed::new(seed, Stream::Data, step, 0);
    (0..n).map(|_| keyed.below(n_rows as u64) as i64).collect()
}

fn save(path: &Path, weights: &Named, kind: Kind) -> Result<()> {
    let stored: Named = weights.iter().map(|(name, tensor)| (name.clone(), tensor.to_kind(kind))).collect();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    tensors::write(path, &stored, &metadata)?;
    println!("wrote {}", path.display());
    Ok(())
}

fn vae(args: &PretrainArgs, art: &Art) -> Result<()> {
    let folder = args.model.join("vae");
    let json = config(&folder)?;
    let config = VaeConfig::from_json(&json).map_err(anyhow::Error::msg)?;
    let images = images(art, &[0, 1, 2, 3]);
    let n_images = images.size()[0] as usize;
    let weights = Weights::fresh(args.seed, Role::Trained, args.precision(), Device::Cpu);
    let vae = AutoencoderKl::new(weights.root(), config.clone(), args.precision());
    let (trainable, _) = weights.finish().map_err(|report| anyhow::anyhow!("{report}"))?;
    start_with_little_noise(&trainable, config.latent_channels);
    let side = i64::from(SIDE) / config.downsampling();
    let latent_shape = [config.latent_channels, side, side];

    let backward = |step: u64| {
        let rows = rows(args.seed, step, args.batch_size(), n_images);
        let batch = images.index_select(0, &Tensor::from_slice(&rows));
        let key = NoiseKey { seed: args.seed, stream: Stream::PosteriorNoise, index: step, draw: 0 };
        let mut generator = key.generator();
        let mut noise = vec![0f32; args.batch_size() * latent_shape.iter().product::<i64>() as usize];
        generator.fill_normal(&mut noise);
        let noise = Tensor::from_slice(&noise).reshape([-1, latent_shape[0], side, side]);
        // Art may be flipped and its colors exchanged: cheap variety for a vae.
        let batch = if step.is_multiple_of(2) { batch } else { batch.flip([3i64]) };
        let batch = if step.is_multiple_of(3) { batch.roll([(step % 9 / 3) as i64], [1i64]) } else { batch };
        let loss = vae_loss(&vae, &batch, &noise, 1e-3);
        loss.total.backward();
        loss.reconstruction
    };
    let mut averaged = run(&trainable, &args.settings("vae")?, backward, narrate("vae"))?;
    averaged.values_mut().for_each(|tensor| *tensor = tensor.to_kind(Kind::Half).to_kind(Kind::Float));
    save(&folder.join("diffusion_pytorch_model.safetensors"), &averaged, Kind::Half)?;

    // Latents shall have unit standard deviation: the scaling factor of arXiv 2112.10752, appendix G.
    let weights = Weights::from_source(averaged, Role::Frozen, DType::F32, Device::Cpu);
    let vae = AutoencoderKl::new(weights.root(), VaeConfig { scaling_factor: 1.0, ..config }, DType::F32);
    weights.finish().map_err(|report| anyhow::anyhow!("{report}"))?;
    let mean = encode_in_parts(&vae, &images).mean;
    let decoded = tch::no_grad(|| vae.decode_raw(&mean.narrow(0, 0, 64)));
    let scaling_factor = 1.0 / mean.std(true).double_value(&[]);
    let mut json = json;
    json["scaling_factor"] = Value::from((scaling_factor * 1e5).round() / 1e5);
    let path = folder.join("config.json");
    std::fs::write(&path, serde_json::to_string_pretty(&json)? + "\n")
        .with_context(|| format!("writing {}", path.display()))?;
    let difference = (decoded - images.narrow(0, 0, 64)).abs().mean(Kind::Float).double_value(&[]);
    println!(
        "scaling factor {scaling_factor:.5}; mean absolute difference {difference:.4} of the range -1..1"
    );
    Ok(())
}

/// Posteriors of many images, a few at a time.
fn encode_in_parts(vae: &AutoencoderKl, images: &Tensor) -> Posterior {
    let parts = images.split(64, 0).into_iter().map(|part| tch::no_grad(|| vae.encode(&part)));
    let (means, stds): (Vec<_>, Vec<_>) = parts.map(|p| (p.mean, p.std)).unzip();
    Posterior { mean: Tensor::cat(&means, 0), std: Tensor::cat(&stds, 0) }
}

/// Starts the posterior's log variance at -4: a fresh encoder's latents would drown in noise of unit deviation.
fn start_with_little_noise(trainable: &[Trainable], latent_channels: i64) {
    let bias = trainable.iter().find(|parameter| parameter.name == "quant_conv.bias");
    if let Some(bias) = bias {
        tch::no_grad(|| {
            let _ = bias.tensor.narrow(0, latent_channels, latent_channels).fill_(-4.0);
        });
    }
}

fn text(args: &PretrainArgs, art: &Art) -> Result<()> {
    let folder = args.model.join("text_encoder");
    let tokenizer = ClipTokenizer::from_folder(args.tokenizer.as_path())?;
    let config = ClipTextConfig::from_json(&config(&folder)?).map_err(anyhow::Error::msg)?;
    let vision_config = ClipVisionConfig::from_json(&serde_json::json!({
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
        "image_size": SIDE, "patch_size": 8, "projection_dim": 64, "hidden_act": "quick_gelu"
    }))
    .map_err(anyhow::Error::msg)?;
    let images = images(art, &[0, 1, 2, 3]);
    let weights = Weights::fresh(args.seed, Role::Trained, DType::F32, Device::Cpu);
    let text = ClipText::new(weights.root(), config);
    let (mut trainable, parameters) = weights.finish().map_err(|report| anyhow::anyhow!("{report}"))?;
    let weights = Weights::fresh(args.seed, Role::Trained, DType::F32, Device::Cpu);
    let vision = ClipVision::new(weights.root(), vision_config, DType::F32);
    trainable.extend(weights.finish().map_err(|report| anyhow::anyhow!("{report}"))?.0);
    let log_scale = Tensor::from(10f32.ln());

    let backward = |step: u64| {
        // Distinct captions, so that no other image of the batch is right as well; any style, flipped or not.
        let mut keyed = Keyed::new(args.seed, Stream::Data, step, 0);
        let mut order: Vec<usize> = (0..art.captions.len()).collect();
        (0..args.batch_size()).for_each(|i| {
            let j = i + keyed.below((order.len() - i) as u64) as usize;
            order.swap(i, j);
        });
        let chosen = &order[..args.batch_size()];
        let rows: Vec<i64> =
            chosen.iter().map(|&c| (c * STYLES.len()) as i64 + keyed.below(4) as i64).collect();
        let prompts: Vec<String> = chosen.iter().map(|&c| prompt(art, c, &mut keyed)).collect();
        let n_tokens = tokenizer.max_length() as i64;
        let ids = Tensor::from_slice(&tokenizer.encode_batch(&prompts)).reshape([-1, n_tokens]);
        let batch = images.index_select(0, &Tensor::from_slice(&rows));
        let batch = if step.is_multiple_of(2) { batch } else { batch.flip([3i64]) };
        let words = text.forward(&ids).projected.expect("the configuration has a projection");
        let loss = contrastive_loss(&words, &vision.forward(&batch).projected, &log_scale);
        loss.backward();
        loss.double_value(&[])
    };
    let averaged = run(&trainable, &args.settings("text")?, backward, narrate("text"))?;
    let text_only: Named = averaged.into_iter().filter(|(name, _)| parameters.contains_key(name)).collect();
    save(&folder.join("model.safetensors"), &text_only, Kind::Half)
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

fn base(args: &PretrainArgs, art: &Art) -> Result<()> {
    let folder = args.model.join("unet");
    let unet_config = UNetConfig::from_json(&config(&folder)?).map_err(anyhow::Error::msg)?;
    let schedule = NoiseSchedule::new(BetaSchedule::ScaledLinear, 1000, 0.00085, 0.012, Prediction::Epsilon)?;
    let encoded = encode_art(args, art, &[0, 1, 2])?;
    let weights = Weights::fresh(args.seed, Role::Trained, args.precision(), Device::Cpu);
    let unet = UNet::new(weights.root(), unet_config, args.precision());
    let (trainable, parameters) = weights.finish().map_err(|report| anyhow::anyhow!("{report}"))?;
    let n_parameters: usize = parameters.values().map(Tensor::numel).sum();
    println!("network of {n_parameters} parameters, {} images", encoded.pairs.len());
    let sft = objective("sft", &serde_json::json!({"snr_gamma": 5.0}))?;
    let engine = Engine {
        text: None,
        policy: &unet,
        reference: &Reference::None,
        objective: &sft,
        schedule: &schedule,
        soft_labels: None,
        labels: None,
        timesteps: Timesteps::All,
        seed: args.seed,
    };
    let augmentation = Augmentation { seed: args.seed, joint: false };
    let making = BatchOptions { augmentation, with_losers: false, device: Device::Cpu };
    let backward = |step: u64| {
        let uses: Vec<Use> = rows(args.seed, step, args.batch_size(), encoded.pairs.len())
            .into_iter()
            .enumerate()
            .map(|(slot, row)| {
                let draw = step * args.batch_size() as u64 + slot as u64;
                let drop_caption = Keyed::new(args.seed, Stream::CaptionDropout, draw, 0).bernoulli(0.1);
                Use { index: row as usize, draw, drop_caption }
            })
            .collect();
        let records = engine.accumulate(&encoded.batch_of(&uses, &making), uses.len());
        records.iter().map(|record| record.outcome.loss).sum::<f64>() / records.len() as f64
    };
    let averaged = run(&trainable, &args.settings("base")?, backward, narrate("base"))?;
    save(&folder.join("diffusion_pytorch_model.safetensors"), &averaged, Kind::Half)
}

/// Encodes the art of some styles once, each image under its label and under label-and-tag variants.
fn encode_art(args: &PretrainArgs, art: &Art, styles: &[usize]) -> Result<EncodedPairs> {
    const VARIANTS: usize = 4;
    let vae_folder = args.model.join("vae");
    let weights = tensors::read(&vae_folder.join("diffusion_pytorch_model.safetensors"))?;
    let weights = Weights::from_source(weights, Role::Frozen, DType::F32, Device::Cpu);
    let vae_config = VaeConfig::from_json(&config(&vae_folder)?).map_err(anyhow::Error::msg)?;
    let vae = AutoencoderKl::new(weights.root(), vae_config, DType::F32);
    weights.finish().map_err(|report| anyhow::anyhow!("{report}"))?;
    let images = images(art, styles);
    let Posterior { mean, std } = encode_in_parts(&vae, &images);

    let folder = args.model.join("text_encoder");
    let tokenizer = ClipTokenizer::from_folder(args.tokenizer.as_path())?;
    let text_config = ClipTextConfig::from_json(&config(&folder)?).map_err(anyhow::Error::msg)?;
    let weights = Weights::from_source(
        tensors::read(&folder.join("model.safetensors"))?,
        Role::Frozen,
        DType::F32,
        Device::Cpu,
    );
    let text = ClipText::new(weights.root(), text_config);
    weights.finish().map_err(|report| anyhow::anyhow!("{report}"))?;
    let encode = |prompts: &[String]| {
        let n_tokens = tokenizer.max_length() as i64;
        let ids = Tensor::from_slice(&tokenizer.encode_batch(prompts)).reshape([-1, n_tokens]);
        Conditioning::text(tch::no_grad(|| text.forward(&ids).last_hidden_state))
    };
    // Variant 0 is the plain label and is used twice as often as it would be by chance.
    let mut keyed = Keyed::new(args.seed, Stream::Data, u64::MAX, 1);
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
        images: Posterior { mean, std },
        hflip: false,
        captions: encode(&prompts),
        empty: encode(&[String::new()]),
        pairs,
    })
}
