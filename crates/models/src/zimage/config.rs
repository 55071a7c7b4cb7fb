//! The `config.json` of a `ZImageTransformer2DModel`.

use serde_json::{Value, json};

use crate::config::{ConfigReader, LARGEST, MOST_LAYERS};

/// The most heads, and the widest head.
const MOST_HEADS: i64 = 1024;

/// Axes of a position: caption, row, column.
pub(super) const AXES: usize = 3;

/// Sizes of the transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct ZImageConfig {
    /// Side of a patch, in latent pixels.
    pub patch_size: i64,
    /// Latent channels in and out.
    pub in_channels: i64,
    /// Width of every token.
    pub dim: i64,
    /// Blocks over image and caption together.
    pub n_layers: i64,
    /// Blocks over each of them before.
    pub n_refiner_layers: i64,
    /// Attention heads.
    pub n_heads: i64,
    /// Epsilon of the normalizations outside attention.
    pub norm_eps: f64,
    /// Queries and keys are normalized by their root mean square.
    pub qk_norm: bool,
    /// Width of the caption's hidden states.
    pub cap_feat_dim: i64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// What the time, from 0 for noise to 1, is multiplied by.
    pub t_scale: f64,
    /// Widths of the rotary embedding along caption, row and column.
    pub axes_dims: [i64; AXES],
    /// Positions along each.
    pub axes_lens: [i64; AXES],
}

impl ZImageConfig {
    /// The largest side of a latent.
    pub fn largest_side(&self) -> i64 {
        self.axes_lens[1].min(self.axes_lens[2]) * self.patch_size
    }

    /// Latent side that images have where nothing is said: that of 1024 pixels, in which the pipeline generates, as far as there are
    /// positions.
    pub fn sample_size(&self) -> i64 {
        self.largest_side().min(128)
    }

    /// Width within feed-forward layers.
    pub(super) fn hidden(&self) -> i64 {
        (self.dim as f64 / 3.0 * 8.0) as i64
    }

    /// Reads and validates a diffusers configuration.
    ///
    /// # Errors
    /// Every unknown key and every value this implementation would get wrong, in one message.
    pub fn from_json(config: &Value) -> Result<Self, String> {
        let mut r = ConfigReader::new(config);
        let patches: Vec<i64> = r.or("all_patch_size", vec![2]);
        let config = Self {
            patch_size: patches.first().copied().unwrap_or_default(),
            in_channels: r.or("in_channels", 16),
            dim: r.or("dim", 3840),
            n_layers: r.or("n_layers", 30),
            n_refiner_layers: r.or("n_refiner_layers", 2),
            n_heads: r.or("n_heads", 30),
            norm_eps: r.epsilon("norm_eps", 1e-5),
            qk_norm: r.or("qk_norm", true),
            cap_feat_dim: r.or("cap_feat_dim", 2560),
            rope_theta: r.or("rope_theta", 256.0),
            t_scale: r.or("t_scale", 1000.0),
            axes_dims: r.or("axes_dims", [32, 48, 48]),
            axes_lens: r.or("axes_lens", [1024, 512, 512]),
        };
        if patches.len() != 1 {
            r.problem(format!("`all_patch_size` is {patches:?}; wanted one size"));
        }
        for (key, size, most) in [
            ("all_patch_size", config.patch_size, MOST_LAYERS),
            ("in_channels", config.in_channels, LARGEST),
            ("dim", config.dim, LARGEST),
            ("n_layers", config.n_layers, MOST_LAYERS),
            ("n_refiner_layers", config.n_refiner_layers, MOST_LAYERS),
            ("n_heads", config.n_heads, MOST_HEADS),
            ("cap_feat_dim", config.cap_feat_dim, LARGEST),
        ] {
            r.sizes(key, &[size], most);
        }
        r.sizes("axes_dims", &config.axes_dims, MOST_HEADS);
        r.sizes("axes_lens", &config.axes_lens, LARGEST);
        let head: i64 = config.axes_dims.iter().sum();
        if config.axes_dims.iter().any(|width| width % 2 != 0) || head * config.n_heads != config.dim {
            r.problem(format!(
                "`axes_dims` is {:?}; wanted even numbers whose sum, {head}, is the width of a head, {} by {}",
                config.axes_dims, config.dim, config.n_heads
            ));
        }
        r.neutral("all_f_patch_size", &[json!([1])]);
        r.neutral("siglip_feat_dim", &[]);
        r.ignored("n_kv_heads");
        r.finish().map(|()| config)
    }
}
