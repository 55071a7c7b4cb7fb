//! How much memory a run will take, before anything of it is loaded.

use tastemaker_math::objectives::{Corruption, Objective};
use tastemaker_models::original::{n_numbers, text_shapes, unet_shapes};
use tastemaker_models::pipeline::{Family, Model};
use tastemaker_models::place::Shapes;
use tastemaker_models::unet::{Activations, TrainedPart, UNetConfig};
use tastemaker_run::{Adapter, LoraPlan, MemoryEstimate, OptimizerKind, Plan, ReferenceKind, RunError};
use tastemaker_store::dtype::DType;

use crate::TrainError;
use crate::adapter::{ranks, targeted};
use crate::setup::needs_reference;

/// Tokens of a caption.
const N_TOKENS: u64 = 77;

/// Bytes of a master and its gradient, and of its moving average.
const MASTER: u64 = 8;
const AVERAGE: u64 = 4;

/// Bytes of one use of a pair in a precomputed reference: identity, repetition and two errors.
const NAMED_ERRORS: u64 = 32;

/// Bytes of the optimizer's state per trained number; rows and columns of Adafactor are not counted.
fn state_bytes(kind: OptimizerKind) -> u64 {
    match kind {
        OptimizerKind::AdamW => 8,
        OptimizerKind::AdamW8bit => 2,
        OptimizerKind::Adafactor => 0,
    }
}

/// What training by a plan holds in memory at once, from the shapes of the model's parts. Of pairs the plan must know the
/// number, or their latents are not counted. `are_single` says that they are single images.
///
/// Not counted is what a single operation needs for itself, and loading and encoding, which come before.
///
/// # Errors
/// [`TrainError::Model`] for configurations that are missing or not supported.
pub fn memory(plan: &Plan, folder: &Model, are_single: bool) -> Result<MemoryEstimate, TrainError> {
    let config = folder.unet_config()?;
    let vae = folder.vae_config()?;
    let objective = plan.method.objective().map_err(RunError::from)?;
    let compute = match plan.train.mixed_precision {
        DType::F32 => 4,
        DType::Bf16 | DType::F16 => 2,
    };
    let shapes = unet_shapes(&config);
    let n_weights = n_numbers(&shapes);
    // Text encoders stay only where they are trained.
    let mut text = 0;
    let (trained_part, trained) = match &plan.adapter {
        Adapter::Full {} => (TrainedPart::Everything, n_weights),
        // Not read yet, so its size is not known.
        Adapter::Continued { .. } => (TrainedPart::Adapters, 0),
        Adapter::Lora(lora) => {
            let of_text = &lora.text_encoder_target_modules;
            let mut trained = adapted(&shapes, lora, &lora.target_modules);
            if !of_text.is_empty() {
                for (component, _) in folder.family().text_components() {
                    let shapes = text_shapes(&folder.text_config(component)?);
                    trained += adapted(&shapes, lora, of_text);
                    text += n_numbers(&shapes);
                }
            }
            (TrainedPart::Adapters, trained)
        }
    };
    // Masters of a full fine-tune are counted as trained; used in bf16, each has a copy that lives as long as the step.
    let weights = match (trained_part, compute) {
        (TrainedPart::Adapters, bytes) => n_weights * bytes,
        (TrainedPart::Everything, 4) => 0,
        (TrainedPart::Everything, bytes) => n_weights * bytes,
    };
    let is_live = plan.train.reference == ReferenceKind::Live;
    let needs_copy = trained_part == TrainedPart::Everything && is_live && needs_reference(&objective);
    let copy = if needs_copy { n_weights * compute } else { 0 };

    let side = u64::from(plan.data.resolution) / vae.downsampling() as u64;
    let rows = u64::from(plan.train.train_batch_size) * n_sides(&objective, are_single);
    let activations =
        if plan.train.gradient_checkpointing { Activations::LayerInputs } else { Activations::All };
    let kept = config.kept_for_backward((side, side), N_TOKENS, trained_part, activations);
    let average = if plan.train.ema_decay.is_some() { AVERAGE } else { 0 };
    let per_number = MASTER + average + state_bytes(plan.optimizer.optimizer_type);
    Ok(MemoryEstimate {
        weights: weights + copy + text * compute,
        learning: trained * per_number,
        activations: rows * kept * compute,
        reference: match needs_reference(&objective) && !is_live {
            true => {
                let n_uses = plan.train.max_train_steps * plan.effective_batch();
                let latents = n_sides(&objective, are_single) * config.in_channels as u64 * side * side * 4;
                let inverts = objective.corruption() != Corruption::Forward;
                n_uses * (NAMED_ERRORS + if inverts { latents } else { 0 })
            }
            false => 0,
        },
        cache: match plan.data.no_cache {
            true => 0,
            false => {
                plan.n_pairs.unwrap_or(0) * bytes_per_pair(plan, folder, (&config, side, compute), are_single)
            }
        },
    })
}

/// Mean and standard deviation of both images, or of one that is single, flipped too where that is asked for, and the embeddings of
/// one caption.
fn bytes_per_pair(
    plan: &Plan,
    folder: &Model,
    (config, side, compute): (&UNetConfig, u64, u64),
    are_single: bool,
) -> u64 {
    let n_images = if are_single { 1 } else { 2 };
    let stored = if plan.data.cache_dtype == DType::F32 { 4 } else { 2 };
    let latents = config.in_channels as u64 * side * side * stored;
    let flips = if plan.data.no_hflip { 1 } else { 2 };
    let pooled = match folder.family() {
        Family::StableDiffusion => 0,
        Family::StableDiffusionXl => config.text_time.map_or(0, |text_time| text_time.input_dim as u64),
    };
    2 * n_images * flips * latents + (N_TOKENS * config.cross_attention_dim as u64 + pooled) * compute
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
