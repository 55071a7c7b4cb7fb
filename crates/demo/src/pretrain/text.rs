//! The text encoder, trained to match captions with art, and the loss that does it.

use serde_json::json;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_models::clip_text::{ClipText, ClipTextConfig};
use tastemaker_models::clip_vision::{ClipVision, ClipVisionConfig};
use tastemaker_models::nn::{Role, Weights};
use tastemaker_models::tokenizer::ClipTokenizer;
use tastemaker_store::dtype::DType;
use tastemaker_torch::tensors::Named;
use tch::{Device, Kind, Tensor};

use super::{Settings, built, config, images, prompt, save, token_ids};
use crate::DemoError;
use crate::art::{Art, SIDE, STYLES};

/// Trains the text encoder.
pub fn train(settings: &Settings, art: &Art, log: &mut dyn FnMut(&str)) -> Result<(), DemoError> {
    let folder = settings.model.join("text_encoder");
    let tokenizer = ClipTokenizer::from_folder(settings.tokenizer.as_path())?;
    let config = config(&folder, ClipTextConfig::from_json)?;
    let vision_config = ClipVisionConfig::from_json(&json!({
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
        "image_size": SIDE, "patch_size": 8, "projection_dim": 64, "hidden_act": "quick_gelu"
    }))
    .map_err(|why| DemoError::Config { path: "vision tower".into(), why })?;
    let images = images(art, &[0, 1, 2, 3]);
    let weights = Weights::fresh(settings.seed, Role::Trained, DType::F32, Device::Cpu);
    let text = ClipText::new(weights.root(), config);
    let (mut trainable, parameters) = built(weights, "text encoder")?;
    let weights = Weights::fresh(settings.seed, Role::Trained, DType::F32, Device::Cpu);
    let vision = ClipVision::new(weights.root(), vision_config, DType::F32);
    trainable.extend(built(weights, "vision tower")?.0);
    let log_scale = Tensor::from(10f32.ln());

    let backward = |step: u64| {
        // Distinct captions, so that no other image of the batch is right as well; any style, flipped or not.
        let mut keyed = Keyed::new(settings.seed, Stream::Data, step, 0);
        let mut order: Vec<usize> = (0..art.captions.len()).collect();
        (0..settings.batch_size()).for_each(|i| {
            let j = i + keyed.below((order.len() - i) as u64) as usize;
            order.swap(i, j);
        });
        let chosen = &order[..settings.batch_size()];
        let rows: Vec<i64> =
            chosen.iter().map(|&c| (c * STYLES.len()) as i64 + keyed.below(4) as i64).collect();
        let prompts: Vec<String> = chosen.iter().map(|&c| prompt(art, c, &mut keyed)).collect();
        let batch = images.index_select(0, &Tensor::from_slice(&rows));
        let batch = if step.is_multiple_of(2) { batch } else { batch.flip([3i64]) };
        let words = text
            .forward(&token_ids(&tokenizer, &prompts))
            .projected
            .expect("the configuration has a projection");
        let loss = contrastive_loss(&words, &vision.forward(&batch).projected, &log_scale);
        loss.backward();
        loss.double_value(&[])
    };
    let averaged = settings.train(&trainable, backward, log)?;
    let text_only: Named = averaged.into_iter().filter(|(name, _)| parameters.contains_key(name)).collect();
    save(&folder.join("model.safetensors"), &text_only, log)
}

/// Symmetric cross-entropy of matching each image with its text among the batch.
///
/// # Shapes
/// `text` and `image` `[b, d]`, not normalized; `log_scale` scalar, the logarithm of the inverse temperature.
///
/// Source: CLIP, arXiv 2103.00020, figure 3.
fn contrastive_loss(text: &Tensor, image: &Tensor, log_scale: &Tensor) -> Tensor {
    let unit = |x: &Tensor| x / x.norm_scalaropt_dim(2, [-1i64].as_slice(), true);
    let logits = unit(text).matmul(&unit(image).tr()) * log_scale.clamp_max(100f64.ln()).exp(); // [b, b]
    let labels = Tensor::arange(logits.size()[0], (Kind::Int64, logits.device()));
    (logits.cross_entropy_for_logits(&labels) + logits.tr().cross_entropy_for_logits(&labels)) * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matched_pairs_lose_less_than_mismatched_ones() {
        let text = Tensor::eye(4, (Kind::Float, tch::Device::Cpu));
        let scale = Tensor::from(3f32);
        let matched = contrastive_loss(&text, &text, &scale).double_value(&[]);
        let mismatched = contrastive_loss(&text, &text.flip([0i64]), &scale).double_value(&[]);
        assert!(matched < 1e-6 && mismatched > 10.0, "{matched} {mismatched}");
    }
}
