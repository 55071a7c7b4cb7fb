//! The loss that makes a text encoder from captioned images.

use tch::{Kind, Tensor};

/// Symmetric cross-entropy of matching each image with its text among the batch.
///
/// # Shapes
/// `text` and `image` `[b, d]`, not normalized; `log_scale` scalar, the logarithm of the inverse temperature.
///
/// Source: CLIP, arXiv 2103.00020, figure 3.
pub fn contrastive_loss(text: &Tensor, image: &Tensor, log_scale: &Tensor) -> Tensor {
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
