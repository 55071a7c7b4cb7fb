//! Sizes of both networks.

use serde_json::{Value, json};

use super::keys::VISION;
use crate::config::{ConfigReader, LARGEST, MOST_LAYERS};
use crate::original::OpenFile;

/// Width of an attention head in every image tower that BLIP was published with.
const HEAD_WIDTH: i64 = 64;

/// Sizes of the image tower, which no configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VitConfig {
    /// Side of the square images it takes, in pixels.
    pub image_size: i64,
    /// Side of a patch, in pixels.
    pub patch_size: i64,
    /// Width of the hidden states.
    pub width: i64,
    /// Width inside the feed-forward layers.
    pub intermediate: i64,
    /// Layers.
    pub n_layers: i64,
}

impl VitConfig {
    /// Attention heads, 64 wide each.
    pub fn n_heads(&self) -> i64 {
        self.width / HEAD_WIDTH
    }

    /// Read off the shapes of a file; `None` where they are no image tower's.
    pub(super) fn of(file: &OpenFile) -> Option<Self> {
        let shape = |name: &str| Some(file.weights().get(&format!("{VISION}.{name}"))?.shape.to_vec());
        let size = |n: usize| i64::try_from(n).ok().filter(|n| (1..=LARGEST).contains(n));
        let [width, 3, patch, other] = shape("patch_embed.proj.weight")?[..] else { return None };
        let [1, positions, wide] = shape("pos_embed")?[..] else { return None };
        let [intermediate, _] = shape("blocks.0.mlp.fc1.weight")?[..] else { return None };
        let n_layers = (0..MOST_LAYERS)
            .take_while(|layer| shape(&format!("blocks.{layer}.norm1.weight")).is_some())
            .count();
        let across = positions.checked_sub(1)?.isqrt();
        let fits = patch == other && wide == width && across * across + 1 == positions && across > 0;
        let config = Self {
            image_size: size(across * patch)?,
            patch_size: size(patch)?,
            width: size(width)?,
            intermediate: size(intermediate)?,
            n_layers: n_layers as i64,
        };
        (fits && n_layers > 0 && config.width % HEAD_WIDTH == 0).then_some(config)
    }
}

/// The text encoder: `med_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct MedConfig {
    /// Entries of the token table.
    pub vocab_size: i64,
    /// Positions of the position table.
    pub max_position_embeddings: i64,
    /// Width of the hidden states.
    pub width: i64,
    /// Width inside the feed-forward layers.
    pub intermediate: i64,
    /// Layers.
    pub n_layers: i64,
    /// Attention heads.
    pub n_heads: i64,
    /// Epsilon of every layer normalization.
    pub eps: f64,
}

impl MedConfig {
    /// Reads and validates the file.
    ///
    /// # Errors
    /// Every unknown key and every value this implementation would get wrong, in one message.
    pub fn from_json(config: &Value) -> Result<Self, String> {
        let mut r = ConfigReader::new(config);
        let config = Self {
            vocab_size: r.or("vocab_size", 30524),
            max_position_embeddings: r.or("max_position_embeddings", 512),
            width: r.or("hidden_size", 768),
            intermediate: r.or("intermediate_size", 3072),
            n_layers: r.or("num_hidden_layers", 12),
            n_heads: r.or("num_attention_heads", 12),
            eps: r.epsilon("layer_norm_eps", 1e-12),
        };
        for (name, size, most) in [
            ("vocab_size", config.vocab_size, LARGEST),
            ("max_position_embeddings", config.max_position_embeddings, LARGEST),
            ("hidden_size", config.width, LARGEST),
            ("intermediate_size", config.intermediate, LARGEST),
            ("num_hidden_layers", config.n_layers, MOST_LAYERS),
            ("num_attention_heads", config.n_heads, LARGEST),
        ] {
            r.sizes(name, &[size], most);
        }
        if config.n_heads > 0 && config.width % config.n_heads != 0 {
            r.problem(format!(
                "`hidden_size` is {}, which {} heads do not divide",
                config.width, config.n_heads
            ));
        }
        r.neutral("hidden_act", &[json!("gelu")]);
        r.neutral("add_cross_attention", &[json!(true)]);
        r.neutral("position_embedding_type", &[json!("absolute")]);
        r.neutral("model_type", &[json!("bert")]);
        // The image tower gives `encoder_width`, and there is no table of token types.
        r.ignored(
            "architectures attention_probs_dropout_prob encoder_width hidden_dropout_prob initializer_range pad_token_id \
             type_vocab_size",
        );
        r.finish().map(|()| config)
    }
}
