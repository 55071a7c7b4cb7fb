//! The configuration of both towers together.
//!
//! Source: `huggingface/transformers:src/transformers/models/clip/configuration_clip.py`, `CLIPConfig`, and the files in
//! `mlfoundations/open_clip:src/open_clip/model_configs`.

use serde_json::{Value, json};

use crate::clip_text::{Activation, ClipTextConfig, EncoderShape, Pooling, annotations};
use crate::clip_vision::ClipVisionConfig;
use crate::config::{ConfigReader, LARGEST, MOST_LAYERS};

/// Sizes of both towers. They project to the same width.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipConfig {
    /// The text tower, with its projection.
    pub text: ClipTextConfig,
    /// The image tower.
    pub vision: ClipVisionConfig,
}

impl ClipConfig {
    /// Reads and validates the `config.json` of a transformers `CLIPModel`.
    ///
    /// # Errors
    /// Every unknown key and every value this implementation would get wrong, in one message.
    pub fn from_json(config: &Value) -> Result<Self, String> {
        let mut r = ConfigReader::new(config);
        // Where both are there, the dict written by older releases counts.
        let mut tower = |name: &str| {
            let plain = r.raw(name);
            r.raw(&format!("{name}_dict")).or(plain).unwrap_or_else(|| json!({}))
        };
        let (text, vision) = (tower("text_config"), tower("vision_config"));
        let width: i64 = r.or("projection_dim", 512);
        r.sizes("projection_dim", &[width], LARGEST);
        r.neutral("architectures", &[json!(["CLIPModel"])]);
        r.ignored("logit_scale_init_value");
        r.ignored("eos_token_id");
        annotations(&mut r, "clip");
        let mut named = |name: &str, problems: String| r.problem(format!("in `{name}`: {problems}"));
        let text = ClipTextConfig::from_json(&text).map_err(|problems| named("text_config", problems)).ok();
        let vision =
            ClipVisionConfig::from_json(&vision).map_err(|problems| named("vision_config", problems)).ok();
        r.finish()?;
        match (text, vision) {
            (Some(text), Some(vision)) => Ok(Self::joined(text, vision, width)),
            _ => Err("a tower without a configuration".to_owned()),
        }
    }

    /// Reads and validates an `open_clip_config.json`.
    ///
    /// # Errors
    /// As [`ClipConfig::from_json`].
    pub fn from_open_clip(config: &Value) -> Result<Self, String> {
        let mut top = ConfigReader::new(config);
        let model = top.raw("model_cfg").unwrap_or_default();
        let preprocess = top.raw("preprocess_cfg").unwrap_or_else(|| json!({}));
        top.finish()?;
        check_preprocess(&preprocess)?;
        let mut r = ConfigReader::new(&model);
        let width = r.or("embed_dim", 0);
        r.sizes("embed_dim", &[width], LARGEST);
        let activation = match r.or("quick_gelu", false) {
            true => Activation::QuickGelu,
            false => Activation::Gelu,
        };
        let (text, vision) = (r.raw("text_cfg").unwrap_or_default(), r.raw("vision_cfg").unwrap_or_default());
        r.finish()?;
        let text =
            open_clip_text(&text, activation).map_err(|problems| format!("in `text_cfg`: {problems}"))?;
        let vision = open_clip_vision(&vision, activation)
            .map_err(|problems| format!("in `vision_cfg`: {problems}"))?;
        Ok(Self::joined(text, vision, width))
    }

    /// OpenCLIP's `ViT-H-14`, which HPS v2 and PickScore were fine-tuned from.
    pub fn vit_h_14() -> Self {
        let encoder = |width: i64, n_layers: i64| EncoderShape {
            width,
            intermediate: 4 * width,
            n_layers,
            n_heads: 16,
            activation: Activation::Gelu,
            eps: 1e-5,
        };
        let vision = ClipVisionConfig {
            image_size: 224,
            patch_size: 14,
            num_channels: 3,
            encoder: encoder(1280, 32),
            projection_dim: 0,
        };
        Self::joined(text_config(49408, 77, encoder(1024, 24)), vision, 1024)
    }

    fn joined(text: ClipTextConfig, vision: ClipVisionConfig, width: i64) -> Self {
        Self {
            text: ClipTextConfig { projection_dim: width, with_projection: true, ..text },
            vision: ClipVisionConfig { projection_dim: width, ..vision },
        }
    }
}

fn text_config(vocab_size: i64, length: i64, encoder: EncoderShape) -> ClipTextConfig {
    ClipTextConfig {
        vocab_size,
        max_position_embeddings: length,
        encoder,
        pooling: Pooling::HighestId,
        projection_dim: 0,
        with_projection: true,
    }
}

fn open_clip_text(config: &Value, activation: Activation) -> Result<ClipTextConfig, String> {
    let mut r = ConfigReader::new(config);
    let n_heads = r.or("heads", 8);
    let (vocab_size, length) = (r.or("vocab_size", 49408), r.or("context_length", 77));
    let encoder = open_clip_encoder(&mut r, n_heads, activation, 512);
    for (name, size) in [("vocab_size", vocab_size), ("context_length", length)] {
        r.sizes(name, &[size], LARGEST);
    }
    r.finish().map(|()| text_config(vocab_size, length, encoder))
}

fn open_clip_vision(config: &Value, activation: Activation) -> Result<ClipVisionConfig, String> {
    let mut r = ConfigReader::new(config);
    let head_width: i64 = r.or("head_width", 64);
    let (image_size, patch_size) = (r.or("image_size", 224), r.or("patch_size", 16));
    r.sizes("head_width", &[head_width], LARGEST);
    r.sizes("patch_size", &[patch_size], LARGEST);
    r.sizes("image_size", &[image_size], LARGEST);
    let mut encoder = open_clip_encoder(&mut r, 1, activation, 768);
    encoder.n_heads = encoder.width / head_width.max(1);
    if encoder.n_heads < 1 || encoder.width % head_width.max(1) != 0 {
        r.problem(format!("`width` is {}, which heads of {head_width} do not divide", encoder.width));
    }
    if image_size < patch_size {
        r.problem(format!("`patch_size` is {patch_size} and `image_size` is {image_size}; wanted a patch"));
    }
    r.finish().map(|()| ClipVisionConfig {
        image_size,
        patch_size,
        num_channels: 3,
        encoder,
        projection_dim: 0,
    })
}

fn open_clip_encoder(r: &mut ConfigReader, n_heads: i64, activation: Activation, width: i64) -> EncoderShape {
    let width: i64 = r.or("width", width);
    let n_layers = r.or("layers", 12);
    let ratio: f64 = r.or("mlp_ratio", 4.0);
    r.sizes("width", &[width], LARGEST);
    r.sizes("layers", &[n_layers], MOST_LAYERS);
    r.sizes("heads", &[n_heads], LARGEST);
    if n_heads > 0 && width % n_heads != 0 {
        r.problem(format!("`width` is {width}, which {n_heads} heads do not divide"));
    }
    let intermediate = (width as f64 * ratio) as i64;
    if !(1..=LARGEST).contains(&intermediate) {
        r.problem(format!("`mlp_ratio` is {ratio}; wanted a number such as 4"));
    }
    EncoderShape { width, intermediate, n_layers, n_heads, activation, eps: 1e-5 }
}

/// The pixels must be those that every published scorer sees.
fn check_preprocess(config: &Value) -> Result<(), String> {
    let mut r = ConfigReader::new(config);
    r.neutral("mean", &[json!([0.48145466, 0.4578275, 0.40821073])]);
    r.neutral("std", &[json!([0.26862954, 0.26130258, 0.27577711])]);
    r.neutral("interpolation", &[json!("bicubic")]);
    r.neutral("resize_mode", &[json!("shortest")]);
    for key in ["size", "mode", "fill_color"] {
        r.ignored(key);
    }
    r.finish().map_err(|problems| format!("in `preprocess_cfg`: {problems}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_configurations_are_read() {
        let config = ClipConfig::from_json(&json!({
            "architectures": ["CLIPModel"], "initializer_factor": 1.0, "logit_scale_init_value": 2.6592,
            "model_type": "clip", "projection_dim": 1024, "torch_dtype": "float32",
            "text_config": {"hidden_act": "gelu", "hidden_size": 512, "eos_token_id": 2, "projection_dim": 512},
            "text_config_dict": {"hidden_act": "gelu", "hidden_size": 1024, "intermediate_size": 4096,
                "num_attention_heads": 16, "num_hidden_layers": 24, "eos_token_id": 2},
            "vision_config": {"hidden_act": "gelu", "hidden_size": 1280, "intermediate_size": 5120,
                "num_attention_heads": 16, "num_hidden_layers": 32, "patch_size": 14, "projection_dim": 512},
            "vision_config_dict": null,
        }));
        assert_eq!(config, Ok(ClipConfig::vit_h_14()));
        let config = ClipConfig::from_open_clip(&json!({
            "model_cfg": {"embed_dim": 1024,
                "vision_cfg": {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
                "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24}},
            "preprocess_cfg": {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]},
        }));
        assert_eq!(config, Ok(ClipConfig::vit_h_14()));
    }

    #[test]
    fn what_would_change_the_result_is_refused() {
        let problem = |config| ClipConfig::from_json(&config).unwrap_err();
        assert!(problem(json!({"text_config": {"hidden_act": "relu"}})).contains("in `text_config`: "));
        assert!(problem(json!({"architectures": ["SiglipModel"]})).contains("SiglipModel"));
        let other = json!({"model_cfg": {"embed_dim": 8}, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}});
        assert!(ClipConfig::from_open_clip(&other).unwrap_err().contains("`mean` is [0.5,0.5,0.5]"));
    }
}
