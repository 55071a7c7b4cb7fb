//! How much memory a run will take, before anything of it is loaded.
//!
//! A run is at one thing after the other, and what it needs is what the largest of them needs: encoding captions, encoding images,
//! training, and generating images for validation. What each holds is counted from the shapes of the model's parts. Two things are
//! not counted but known from measurement: what the program itself takes, and what libtorch's kernels add to it when they first run.

mod relief;

use tastemaker_math::objectives::{Corruption, Objective};
use tastemaker_models::backbone::BackboneConfig;
use tastemaker_models::clip_text::ClipTextConfig;
use tastemaker_models::nn::is_large;
use tastemaker_models::original::{n_numbers, qwen_shapes, t5_shapes, text_shapes, vae_shapes};
use tastemaker_models::pipeline::{Family, Model, QWEN_LENGTH, T5_LENGTH};
use tastemaker_models::place::Shapes;
use tastemaker_models::unet::{Activations, Footprint, Pass, TrainedPart};
use tastemaker_models::vae::VaeConfig;
use tastemaker_run::{
    Adapter, LoraPlan, MemoryEstimate, OptimizerKind, Phase, Plan, ReferenceKind, RunError,
};
use tastemaker_torch::memory as measured;
use tch::Device;

use crate::TrainError;
use crate::adapter::{ranks, targeted};
use crate::data::EncodeSettings;
use crate::setup::needs_reference;
use relief::relief;
pub use relief::words as relief_in_words;

/// Bytes of a master, of its gradient, and of its moving average.
const MASTER: u64 = 4;
const GRADIENT: u64 = 4;
const AVERAGE: u64 = 4;

/// Bytes of one use of a pair in a precomputed reference: identity, repetition and two errors.
const NAMED_ERRORS: u64 = 32;

/// Captions that a text encoder encodes at once.
const CAPTIONS: u64 = 64;

/// What libtorch's kernels add to a program that has opened a model: their code, and what they keep.
const KERNELS: u64 = 32 << 20;

/// Bytes of the optimizer's state per trained number; rows and columns of Adafactor are not counted.
fn state_bytes(kind: OptimizerKind) -> u64 {
    match kind {
        OptimizerKind::AdamW => 8,
        OptimizerKind::AdamW8bit => 2,
        OptimizerKind::Adafactor => 0,
    }
}

/// What training by a plan takes: each part of the run on the device, and on disk. Of pairs the plan must know the number, or
/// their latents are not counted. `are_single` says that they are single images. A device that is not known
/// is taken for one with memory of its own.
///
/// # Errors
/// [`TrainError::Model`] for configurations that are missing or not supported.
pub fn memory(
    plan: &Plan,
    folder: &Model,
    are_single: bool,
    device: Option<Device>,
) -> Result<MemoryEstimate, TrainError> {
    let parts = Parts::of(plan, folder, device)?;
    let mut estimate = of_plan(plan, &parts, are_single)?;
    estimate.free = device.and_then(measured::free_on);
    if let Some(free) = estimate.free.filter(|free| estimate.total() > *free) {
        estimate.relief = relief(plan, free, &|plan| of_plan(plan, &parts, are_single).ok());
    }
    Ok(estimate)
}

/// What would take less than a plan does: for when memory has ended.
///
/// # Errors
/// As [`memory`].
pub fn what_takes_less(
    plan: &Plan,
    folder: &Model,
    are_single: bool,
    device: Option<Device>,
) -> Result<String, TrainError> {
    let parts = Parts::of(plan, folder, device)?;
    let total = of_plan(plan, &parts, are_single)?.total();
    let all = relief(plan, total, &|plan| of_plan(plan, &parts, are_single).ok());
    Ok(relief_in_words(&all))
}

/// The parts of a model, as far as the estimate knows them.
struct Parts {
    backbone: BackboneConfig,
    vae: VaeConfig,
    /// Of each text encoder, with its numbers.
    text: Vec<(ClipTextConfig, Shapes)>,
    /// Of the network that predicts.
    shapes: Shapes,
    /// Numbers of T5's encoder, or of Qwen's as far as it is read.
    n_others: u64,
    /// Tokens that the network attends to.
    n_states: u64,
    n_vae: u64,
    /// Tokens of a caption in CLIP.
    n_tokens: u64,
    /// What the process holds already where networks live.
    program: u64,
    /// Whether they live on the host.
    on_host: bool,
}

impl Parts {
    fn of(plan: &Plan, folder: &Model, device: Option<Device>) -> Result<Self, TrainError> {
        let (backbone, vae) = (folder.backbone_config()?, folder.vae_config()?);
        let text = folder.family().text_components().iter().map(|(component, _)| {
            let config = folder.text_config(component)?;
            let shapes = text_shapes(&config);
            Ok((config, shapes))
        });
        let text = text.collect::<Result<Vec<_>, TrainError>>()?;
        let of_chunk = text.first().map_or(0, |(config, _)| config.max_position_embeddings as u64);
        let n_chunks = u64::from(plan.model.max_token_length / 75).max(1);
        let n_tokens = n_chunks * of_chunk.saturating_sub(2) + 2;
        let on_host = device == Some(Device::Cpu);
        let program = measured::read().filter(|_| on_host).map_or(0, |now| now.resident + KERNELS);
        Ok(Self {
            shapes: backbone.shapes(),
            n_vae: n_numbers(&vae_shapes(&vae)),
            backbone,
            vae,
            text,
            n_others: others_than_clip(folder)?,
            n_states: match folder.family() {
                Family::ZImage => QWEN_LENGTH as u64,
                Family::StableDiffusion3 => n_tokens + T5_LENGTH as u64,
                Family::StableDiffusion | Family::StableDiffusionXl => n_tokens,
            },
            n_tokens,
            program,
            on_host,
        })
    }

    /// Numbers of all text encoders.
    fn n_text(&self) -> u64 {
        self.n_others + self.text.iter().map(|(_, shapes)| n_numbers(shapes)).sum::<u64>()
    }

    /// Bytes that encoding this many captions holds at once, or keeps for a backward pass.
    fn encoding_text(&self, n_captions: u64, bytes: u64, is_kept: bool) -> u64 {
        let of_one = |(config, _): &(ClipTextConfig, Shapes)| {
            let encoder = &config.encoder;
            let (width, inner, n_layers) =
                (encoder.width as u64, encoder.intermediate as u64, encoder.n_layers as u64);
            // The states of each layer are its results; beside them one layer's normalization, projections and feed-forward layer.
            let inside = 6 * width + 2 * inner;
            self.n_tokens * if is_kept { n_layers * (width + inside) } else { n_layers * width + inside }
        };
        n_captions * bytes * self.text.iter().map(of_one).sum::<u64>()
    }
}

/// Numbers of the text encoder beside those of CLIP, or in their place.
fn others_than_clip(folder: &Model) -> Result<u64, TrainError> {
    let of_t5 = folder.t5_config()?.map_or(0, |config| n_numbers(&t5_shapes(&config)));
    let of_qwen = folder.qwen_config()?.map_or(0, |config| n_numbers(&qwen_shapes(&config.as_read())));
    Ok(of_t5 + of_qwen)
}

/// What is held while this is done.
fn phase(doing: &'static str, parts: &[(&'static str, u64)]) -> Phase {
    Phase { doing, parts: parts.iter().copied().filter(|(_, bytes)| *bytes > 0).collect() }
}

fn of_plan(plan: &Plan, parts: &Parts, are_single: bool) -> Result<MemoryEstimate, TrainError> {
    let objective = plan.method.objective().map_err(RunError::from)?;
    let settings = EncodeSettings::of(plan, Device::Cpu);
    let precision = plan.train.mixed_precision;
    let compute = precision.bytes() as u64;
    let pixels = u64::from(plan.data.resolution);
    let side = pixels / parts.vae.downsampling() as u64;
    let rows = u64::from(plan.train.train_batch_size) * n_sides(&objective, are_single);

    let trained = Trained::of(plan, parts);
    let is_live = plan.train.reference == ReferenceKind::Live;
    let compares = needs_reference(&objective);
    // Masters of a full fine-tune are counted as trained; used in half precision, each has a copy that lives as long as the step.
    let n_weights = n_numbers(&parts.shapes);
    let frozen = match (trained.part, compute) {
        (TrainedPart::Everything, 4) => 0,
        (TrainedPart::Everything, _) => n_weights * compute,
        (TrainedPart::Adapters, _) => frozen_base(plan, &parts.shapes, compute),
    };
    let copy = match trained.part == TrainedPart::Everything && is_live && compares && !follows(plan) {
        true => n_weights * compute,
        false => 0,
    };
    let text = if settings.trains_text || plan.data.no_cache { parts.n_text() * compute } else { 0 };
    let vae = if plan.data.no_cache { parts.n_vae * MASTER } else { 0 };

    let activations =
        if plan.train.gradient_checkpointing { Activations::LayerInputs } else { Activations::All };
    let pass = Pass {
        size: (side, side),
        n_tokens: parts.n_states,
        trained: trained.keeps,
        use_dora: matches!(&plan.adapter, Adapter::Lora(lora) if lora.use_dora),
        activations,
        dtype: precision,
    };
    let Footprint { kept, backward, forward } = parts.backbone.footprint(&pass);
    let kept_of_text = match settings.trains_text {
        true => parts.encoding_text(rows, compute, true),
        false => 0,
    };
    // The largest gradient of a weight is there before it is added, and kernels order weights their own way.
    let largest = parts.shapes.values().map(|shape| shape.iter().map(|&n| n as u64).product());
    // As large is a weight of few bits that is unpacked.
    let largest = MASTER * largest.max().unwrap_or(0);
    let program = ("program", parts.program);
    let held = frozen + copy + text + vae;
    let encoded = u64::from(settings.vae_batch_size() as u32);
    let maps = MASTER * encoded * parts.vae.held_to_encode((pixels, pixels));

    let mut phases = Vec::new();
    if !settings.trains_text && !plan.data.no_cache {
        let states = parts.encoding_text(CAPTIONS, compute, false);
        let weights = parts.n_text() * compute;
        phases.push(phase("encoding captions", &[program, ("weights", weights), ("activations", states)]));
    }
    if !plan.data.no_cache {
        let weights = parts.n_vae * MASTER;
        phases.push(phase("encoding images", &[program, ("weights", weights), ("activations", maps)]));
    }
    if compares && !is_live {
        let activations = rows * forward;
        let weights = match trained.part {
            TrainedPart::Everything => n_weights * compute,
            TrainedPart::Adapters => frozen,
        };
        let weights = weights + text + vae;
        phases.push(phase(
            "precomputing the reference",
            &[program, ("weights", weights), ("activations", activations)],
        ));
    }
    let encoding_live = if plan.data.no_cache { maps / encoded.max(1) * rows } else { 0 };
    phases.push(phase(
        "training",
        &[
            program,
            ("weights", held),
            ("trainable parameters", trained.bytes),
            ("activations", rows * kept + kept_of_text),
            ("backward pass", (rows * backward + largest).max(encoding_live)),
        ],
    ));
    if plan.validation.validation_steps > 0 && !plan.validation.validation_prompts.is_empty() {
        let decoding = MASTER * parts.vae.held_to_decode((pixels, pixels));
        let weights = held + parts.n_vae * MASTER;
        phases.push(phase(
            "generating images",
            &[
                program,
                ("weights", weights),
                ("trainable parameters", trained.bytes),
                ("activations", decoding.max(2 * forward)),
            ],
        ));
    }
    let mut estimate = MemoryEstimate { phases, ..MemoryEstimate::default() };
    if compares && !is_live {
        let n_uses = plan.train.max_train_steps * plan.effective_batch();
        let latents = n_sides(&objective, are_single) * parts.backbone.in_channels() as u64 * side * side * 4;
        let inverts = objective.corruption() != Corruption::Forward;
        estimate.reference = n_uses * (NAMED_ERRORS + if inverts { latents } else { 0 });
    }
    if !plan.data.no_cache {
        estimate.cache = plan.n_pairs.unwrap_or(0) * bytes_per_pair(plan, parts, (side, compute), are_single);
    }
    Ok(estimate)
}

/// Bytes of the frozen weights under an adapter.
fn frozen_base(plan: &Plan, shapes: &Shapes, compute: u64) -> u64 {
    let of_one = |(name, shape): (&String, &Vec<usize>)| {
        let large = plan.train.base_precision.filter(|_| name.strip_suffix(".weight").is_some_and(is_large));
        match (large, shape.as_slice()) {
            (Some(base), &[rows, columns]) => base.bytes(rows as u64, columns as u64),
            _ => compute * shape.iter().map(|&n| n as u64).product::<u64>(),
        }
    };
    shapes.iter().map(of_one).sum()
}

/// Whether the reference is an average of the trained weights.
fn follows(plan: &Plan) -> bool {
    plan.train.reference_ema_decay.is_some()
}

/// What is trained.
struct Trained {
    part: TrainedPart,
    /// What decides which activations are kept: adapters beyond attention need inputs that attention does not.
    keeps: TrainedPart,
    /// Bytes of masters, gradients, averages and the optimizer's state.
    bytes: u64,
}

impl Trained {
    fn of(plan: &Plan, parts: &Parts) -> Self {
        let (part, numbers, is_attention) = match &plan.adapter {
            Adapter::Full {} => (TrainedPart::Everything, n_numbers(&parts.shapes), false),
            // Not read yet, so its size is not known.
            Adapter::Continued { .. } => (TrainedPart::Adapters, 0, true),
            Adapter::Lora(lora) => {
                let of_text = &lora.text_encoder_target_modules;
                let of_text: u64 = match of_text.is_empty() {
                    true => 0,
                    false => parts.text.iter().map(|(_, shapes)| adapted(shapes, lora, of_text)).sum(),
                };
                let numbers = adapted(&parts.shapes, lora, &lora.target_modules) + of_text;
                let mut layers = targeted(&parts.shapes, &lora.target_modules);
                let is_attention = layers.all(|(layer, _)| layer.contains(".attn"));
                (TrainedPart::Adapters, numbers, is_attention)
            }
        };
        let n_averages = u64::from(plan.train.ema_decay.is_some()) + u64::from(follows(plan));
        let average = n_averages * AVERAGE;
        let n_owners = if plan.optimizer.shard_optimizer { u64::from(plan.n_processes.max(1)) } else { 1 };
        let is_elsewhere = plan.optimizer.offload_optimizer && !parts.on_host;
        let state = if is_elsewhere { 0 } else { state_bytes(plan.optimizer.optimizer_type) / n_owners };
        Self {
            part,
            keeps: if is_attention { TrainedPart::Adapters } else { TrainedPart::Everything },
            bytes: numbers * (MASTER + GRADIENT + average + state),
        }
    }
}

/// Mean and standard deviation of both images, or of one that is single, flipped too where that is asked for, and the embeddings of
/// one caption.
fn bytes_per_pair(plan: &Plan, parts: &Parts, (side, compute): (u64, u64), are_single: bool) -> u64 {
    let n_images = if are_single { 1 } else { 2 };
    let stored = plan.data.cache_dtype.unwrap_or_default().bytes() as u64;
    let latents = parts.backbone.in_channels() as u64 * side * side * stored;
    let flips = if plan.data.no_hflip { 1 } else { 2 };
    let pooled = parts.backbone.pooled_width().unwrap_or(0) as u64;
    let hidden = parts.n_states * parts.backbone.text_width() as u64;
    2 * n_images * flips * latents + (hidden + pooled) * compute
}

/// Images of a pair that go through the network.
fn n_sides(objective: &Objective, are_single: bool) -> u64 {
    if objective.needs().loser && !are_single { 2 } else { 1 }
}

/// Trained numbers in the adapter of a network.
fn adapted(shapes: &Shapes, lora: &LoraPlan, target_modules: &[String]) -> u64 {
    let ranks = ranks(lora);
    targeted(shapes, target_modules)
        .map(|(layer, shape)| factors(shape, ranks.rank(layer) as u64, lora.use_dora))
        .sum()
}

/// Numbers in both factors of a layer whose weight has this shape, and in DoRA's magnitudes.
fn factors(weight: &[usize], rank: u64, use_dora: bool) -> u64 {
    let n_out = weight.first().copied().unwrap_or(0) as u64;
    let fan_in: u64 = weight.iter().skip(1).map(|&n| n as u64).product();
    rank * (n_out + fan_in) + if use_dora { n_out } else { 0 }
}
