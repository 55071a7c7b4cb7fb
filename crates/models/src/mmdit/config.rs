//! The `config.json` of an `SD3Transformer2DModel`.

use serde_json::{Value, json};

use crate::config::{ConfigReader, LARGEST, MOST_LAYERS};

/// The largest side of a table of positions: four times that of SD3.5-medium.
const MOST_POSITIONS: i64 = 1536;

/// Sizes of the transformer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MmditConfig {
    /// Latent side the model was made for.
    pub sample_size: i64,
    /// Side of a patch, in latent pixels.
    pub patch_size: i64,
    /// Latent channels in.
    pub in_channels: i64,
    /// Latent channels out.
    pub out_channels: i64,
    /// Blocks.
    pub num_layers: i64,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// Width of a head.
    pub attention_head_dim: i64,
    /// Width of the text hidden states.
    pub joint_attention_dim: i64,
    /// Width of the pooled text.
    pub pooled_projection_dim: i64,
    /// Side of the table of positions, in patches.
    pub pos_embed_max_size: i64,
    /// Blocks whose image patches attend once more, to each other alone (SD3.5-medium).
    pub dual_attention_layers: Vec<i64>,
    /// Queries and keys are normalized by their root mean square (SD3.5).
    pub qk_norm: bool,
}

impl MmditConfig {
    /// Width of every token.
    pub fn width(&self) -> i64 {
        self.num_attention_heads * self.attention_head_dim
    }

    /// The largest side of a latent, which is that of the table of positions.
    pub fn largest_side(&self) -> i64 {
        self.pos_embed_max_size * self.patch_size
    }

    /// Reads and validates a diffusers configuration.
    ///
    /// # Errors
    /// Every unknown key and every value this implementation would get wrong, in one message.
    pub fn from_json(config: &Value) -> Result<Self, String> {
        let mut r = ConfigReader::new(config);
        let in_channels = r.or("in_channels", 16);
        let config = Self {
            sample_size: r.or("sample_size", 128),
            patch_size: r.or("patch_size", 2),
            in_channels,
            out_channels: r.optional("out_channels").unwrap_or(in_channels),
            num_layers: r.or("num_layers", 18),
            num_attention_heads: r.or("num_attention_heads", 18),
            attention_head_dim: r.or("attention_head_dim", 64),
            joint_attention_dim: r.or("joint_attention_dim", 4096),
            pooled_projection_dim: r.or("pooled_projection_dim", 2048),
            pos_embed_max_size: r.or("pos_embed_max_size", 96),
            dual_attention_layers: r.or("dual_attention_layers", Vec::new()),
            qk_norm: r.optional::<String>("qk_norm").is_some_and(|kind| {
                if kind != "rms_norm" {
                    r.problem(format!(
                        "`qk_norm` is {kind}, which is not supported; wanted rms_norm or null"
                    ));
                }
                true
            }),
        };
        for (key, size, most) in [
            ("sample_size", config.sample_size, LARGEST),
            ("patch_size", config.patch_size, MOST_LAYERS),
            ("in_channels", config.in_channels, LARGEST),
            ("out_channels", config.out_channels, LARGEST),
            ("num_layers", config.num_layers, MOST_LAYERS),
            ("num_attention_heads", config.num_attention_heads, MOST_HEADS),
            ("attention_head_dim", config.attention_head_dim, MOST_HEADS),
            ("joint_attention_dim", config.joint_attention_dim, LARGEST),
            ("pooled_projection_dim", config.pooled_projection_dim, LARGEST),
            ("pos_embed_max_size", config.pos_embed_max_size, MOST_POSITIONS),
        ] {
            r.sizes(key, &[size], most);
        }
        if config.width() % 4 != 0 {
            r.problem(format!(
                "the width is {}; wanted a multiple of 4, for the table of positions",
                config.width()
            ));
        }
        r.neutral("caption_projection_dim", &[json!(config.width())]);
        let blocks = 0..config.num_layers;
        if let Some(layer) = config.dual_attention_layers.iter().find(|layer| !blocks.contains(layer)) {
            r.problem(format!("`dual_attention_layers` has {layer}; there are {} layers", config.num_layers));
        }
        r.finish().map(|()| config)
    }
}

/// The most heads, and the widest head.
const MOST_HEADS: i64 = 1024;
