//! The `config.json` of a `CLIPVisionModelWithProjection`.
//!
//! Source: `huggingface/transformers:src/transformers/models/clip/configuration_clip.py`.

use serde_json::{Value, json};

use crate::clip_text::{Activation, EncoderShape, annotations, encoder_shape};
use crate::config::ConfigReader;

/// Sizes of an image tower.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipVisionConfig {
    /// Side of the square images it takes, in pixels.
    pub image_size: i64,
    /// Side of a patch, in pixels.
    pub patch_size: i64,
    /// Image channels.
    pub num_channels: i64,
    /// The transformer layers.
    pub encoder: EncoderShape,
    /// Width of the image embedding.
    pub projection_dim: i64,
}

impl ClipVisionConfig {
    /// Patches of an image.
    pub fn n_patches(&self) -> i64 {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Reads and validates a transformers configuration.
    ///
    /// # Errors
    /// Every unknown key and every value this implementation would get wrong, in one message.
    pub fn from_json(config: &Value) -> Result<Self, String> {
        let mut r = ConfigReader::new(config);
        let config = Self {
            image_size: r.or("image_size", 224),
            patch_size: r.or("patch_size", 32),
            num_channels: r.or("num_channels", 3),
            encoder: encoder_shape(
                &mut r,
                EncoderShape {
                    width: 768,
                    intermediate: 3072,
                    n_layers: 12,
                    n_heads: 12,
                    activation: Activation::QuickGelu,
                    eps: 1e-5,
                },
            ),
            projection_dim: r.or("projection_dim", 512),
        };
        r.neutral("architectures", &[json!(["CLIPVisionModelWithProjection"])]);
        r.ignored("eos_token_id");
        annotations(&mut r, "clip_vision_model");
        if config.patch_size < 1 || config.image_size < config.patch_size {
            r.problem(format!(
                "`patch_size` is {} and `image_size` is {}; wanted at least one patch",
                config.patch_size, config.image_size
            ));
        }
        for (name, size) in [("num_channels", config.num_channels), ("projection_dim", config.projection_dim)]
        {
            if size < 1 {
                r.problem(format!("`{name}` is {size}; wanted at least 1"));
            }
        }
        r.finish().map(|()| config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_smaller_than_a_patch_is_refused() {
        let text =
            ClipVisionConfig::from_json(&json!({"image_size": 8, "patch_size": 16})).expect_err("no patch");
        assert!(text.contains("at least one patch"), "{text}");
    }

    #[test]
    fn a_tower_without_projection_is_refused() {
        let text =
            ClipVisionConfig::from_json(&json!({"architectures": ["CLIPVisionModel"]})).expect_err("no head");
        assert!(text.contains("CLIPVisionModelWithProjection"), "{text}");
    }
}
