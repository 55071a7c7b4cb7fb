//! The `config.json` of an `AutoencoderKL`.
//!
//! Source: `huggingface/diffusers:src/diffusers/models/autoencoders/autoencoder_kl.py`, constructor arguments.

use serde_json::{Value, json};
use tastemaker_store::dtype::DType;

use crate::config::{ConfigReader, LARGEST, MOST_LAYERS};

/// Sizes of a VAE. Lists hold one value per level, from the full resolution down.
#[derive(Debug, Clone, PartialEq)]
pub struct VaeConfig {
    /// Image channels.
    pub in_channels: i64,
    /// Image channels of the decoder's result.
    pub out_channels: i64,
    /// Channels of a latent.
    pub latent_channels: i64,
    /// Channels of each level.
    pub block_out_channels: Vec<i64>,
    /// ResNet blocks of each level of the encoder; one more in the decoder.
    pub layers_per_block: i64,
    /// Groups of every group normalization.
    pub norm_num_groups: i64,
    /// Attention in the middle blocks.
    pub mid_block_add_attention: bool,
    /// 1x1 convolution after the encoder.
    pub use_quant_conv: bool,
    /// 1x1 convolution before the decoder.
    pub use_post_quant_conv: bool,
    /// Latents are multiplied by this after encoding and divided by it before decoding.
    pub scaling_factor: f64,
    /// Subtracted before the scaling factor is applied.
    pub shift_factor: f64,
    /// The VAE must not run in fp16.
    pub force_upcast: bool,
}

impl VaeConfig {
    /// Image pixels per latent pixel, along one side.
    pub fn downsampling(&self) -> i64 {
        1 << (self.block_out_channels.len() - 1)
    }

    /// The type that the VAE runs in where `wanted` is that of the other networks: one that fp16 would ruin runs in f32.
    ///
    /// Source: `upcast_vae` of diffusers' `StableDiffusionXLPipeline`.
    pub fn runs_in(&self, wanted: DType) -> DType {
        if wanted == DType::F16 && self.force_upcast { DType::F32 } else { wanted }
    }

    /// Reads and validates a diffusers configuration.
    ///
    /// # Errors
    /// Every unknown key and every value this implementation would get wrong, in one message.
    pub fn from_json(config: &Value) -> Result<Self, String> {
        let mut r = ConfigReader::new(config);
        let block_out_channels: Vec<i64> = r.or("block_out_channels", vec![64]);
        for (key, kind) in
            [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")]
        {
            let names: Vec<String> = r.or(key, vec![kind.to_owned()]);
            if names.len() != block_out_channels.len() || names.iter().any(|name| name != kind) {
                r.problem(format!("`{key}` is {names:?}; wanted {} times {kind}", block_out_channels.len()));
            }
        }
        let config = Self {
            in_channels: r.or("in_channels", 3),
            out_channels: r.or("out_channels", 3),
            latent_channels: r.or("latent_channels", 4),
            layers_per_block: r.or("layers_per_block", 1),
            norm_num_groups: r.or("norm_num_groups", 32),
            mid_block_add_attention: r.or("mid_block_add_attention", true),
            use_quant_conv: r.or("use_quant_conv", true),
            use_post_quant_conv: r.or("use_post_quant_conv", true),
            scaling_factor: r.within("scaling_factor", 0.18215, 1e-4..=1e4),
            shift_factor: r.within("shift_factor", 0.0, -1e4..=1e4),
            force_upcast: r.or("force_upcast", true),
            block_out_channels,
        };
        r.neutral("act_fn", &[json!("silu"), json!("swish")]);
        r.neutral("latents_mean", &[]);
        r.neutral("latents_std", &[]);
        r.ignored("sample_size");
        r.levels(&config.block_out_channels, config.norm_num_groups);
        for (key, n) in [
            ("in_channels", config.in_channels),
            ("out_channels", config.out_channels),
            ("latent_channels", config.latent_channels),
        ] {
            r.sizes(key, &[n], LARGEST);
        }
        r.sizes("layers_per_block", &[config.layers_per_block], MOST_LAYERS);
        r.finish().map(|()| config)
    }
}
