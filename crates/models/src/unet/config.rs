//! The `config.json` of a `UNet2DConditionModel`.
//!
//! Source: `huggingface/diffusers:src/diffusers/models/unets/unet_2d_condition.py`, constructor arguments.

use serde_json::{Value, json};

use crate::config::{ConfigReader, LARGEST, MOST_LAYERS};

/// The most transformer blocks on the way down; SDXL has 24.
const MOST_BLOCKS: i64 = 1024;

/// Whether a level has cross-attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// `DownBlock2D` or `UpBlock2D`.
    Plain,
    /// `CrossAttnDownBlock2D` or `CrossAttnUpBlock2D`.
    CrossAttention,
}

/// SDXL's additional conditioning (`addition_embed_type = "text_time"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextTime {
    /// Sinusoid width of each of the six time ids.
    pub time_embed_dim: i64,
    /// Width of the pooled embedding plus six times `time_embed_dim`.
    pub input_dim: i64,
}

/// Sizes of a UNet. Lists hold one value per level, from the full resolution down.
#[derive(Debug, Clone, PartialEq)]
pub struct UNetConfig {
    /// Latent channels in.
    pub in_channels: i64,
    /// Latent channels out.
    pub out_channels: i64,
    /// Latent side the model was made for.
    pub sample_size: i64,
    /// Channels of each level.
    pub block_out_channels: Vec<i64>,
    /// Kind of each level on the way down.
    pub down_blocks: Vec<BlockKind>,
    /// Kind of each level on the way up, from the lowest resolution.
    pub up_blocks: Vec<BlockKind>,
    /// ResNet blocks of each level on the way down; one more on the way up.
    pub layers_per_block: Vec<i64>,
    /// Transformer blocks in each attention layer of each level.
    pub transformer_layers: Vec<i64>,
    /// Attention heads of each level.
    pub heads: Vec<i64>,
    /// Width of the text hidden states.
    pub cross_attention_dim: i64,
    /// Linear instead of convolutional projections around the transformer blocks.
    pub use_linear_projection: bool,
    /// Attention scores in f32 (SD2.1).
    pub upcast_attention: bool,
    /// Groups of every group normalization.
    pub norm_num_groups: i64,
    /// Epsilon of the ResNet blocks' normalization.
    pub norm_eps: f64,
    /// Cosines before sines in the timestep embedding.
    pub flip_sin_to_cos: bool,
    /// Shift of the timestep embedding's frequencies.
    pub freq_shift: f64,
    /// SDXL's additional conditioning.
    pub text_time: Option<TextTime>,
}

impl UNetConfig {
    /// Width of the timestep embedding after its two layers.
    pub fn time_embed_dim(&self) -> i64 {
        self.block_out_channels[0] * 4
    }

    /// Reads and validates a diffusers configuration.
    ///
    /// # Errors
    /// Every unknown key and every value this implementation would get wrong, in one message.
    pub fn from_json(config: &Value) -> Result<Self, String> {
        let mut r = ConfigReader::new(config);
        let block_out_channels: Vec<i64> = r.or("block_out_channels", vec![320, 640, 1280, 1280]);
        let n = block_out_channels.len();
        let down_blocks = block_kinds(&mut r, "down_block_types", "Down", n);
        let up_blocks = block_kinds(&mut r, "up_block_types", "Up", n);
        // Diffusers' historical misnomer: `attention_head_dim` is the number of heads unless `num_attention_heads` is set.
        let heads = r.per_level("attention_head_dim", 8i64, n);
        if r.raw("num_attention_heads").is_some() {
            let problem =
                "`num_attention_heads` is set, which diffusers itself refuses; wanted `attention_head_dim`";
            r.problem(problem.into());
        }
        let text_time = text_time(&mut r);
        let config = Self {
            in_channels: r.or("in_channels", 4),
            out_channels: r.or("out_channels", 4),
            sample_size: r.or("sample_size", 64),
            down_blocks,
            up_blocks,
            layers_per_block: r.per_level("layers_per_block", 2, n),
            transformer_layers: r.per_level("transformer_layers_per_block", 1, n),
            heads,
            cross_attention_dim: r.or("cross_attention_dim", 1280),
            use_linear_projection: r.or("use_linear_projection", false),
            upcast_attention: r.or("upcast_attention", false),
            norm_num_groups: r.or("norm_num_groups", 32),
            norm_eps: r.epsilon("norm_eps", 1e-5),
            flip_sin_to_cos: r.or("flip_sin_to_cos", true),
            freq_shift: r.or("freq_shift", 0.0),
            text_time,
            block_out_channels,
        };
        neutral_keys(&mut r);
        config.check(&mut r);
        r.finish().map(|()| config)
    }

    fn check(&self, r: &mut ConfigReader) {
        r.levels(&self.block_out_channels, self.norm_num_groups);
        for (key, n) in [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("sample_size", self.sample_size),
            ("cross_attention_dim", self.cross_attention_dim),
        ] {
            r.sizes(key, &[n], LARGEST);
        }
        r.sizes("layers_per_block", &self.layers_per_block, MOST_LAYERS);
        r.sizes("transformer_layers_per_block", &self.transformer_layers, MOST_LAYERS);
        if let Some(TextTime { time_embed_dim, input_dim }) = self.text_time {
            r.sizes("addition_time_embed_dim", &[time_embed_dim], LARGEST);
            r.sizes("projection_class_embeddings_input_dim", &[input_dim], LARGEST);
        }
        let layers = self.layers_per_block.iter().zip(&self.transformer_layers);
        let n_blocks = layers.fold(0i64, |n, (a, b)| n.saturating_add(a.saturating_mul(*b)));
        if n_blocks > MOST_BLOCKS {
            r.problem(format!("{n_blocks} transformer blocks on the way down; wanted at most {MOST_BLOCKS}"));
        }
        for (level, (&channels, &heads)) in self.block_out_channels.iter().zip(&self.heads).enumerate() {
            if heads < 1 || channels % heads != 0 {
                r.problem(format!(
                    "level {level} has {channels} channels, which {heads} heads do not divide"
                ));
            }
        }
    }
}

fn block_kinds(r: &mut ConfigReader, key: &str, direction: &str, n: usize) -> Vec<BlockKind> {
    let plain = format!("{direction}Block2D");
    let cross = format!("CrossAttn{direction}Block2D");
    let mut default = vec![cross.clone(); n];
    if let Some(end) = if direction == "Down" { default.last_mut() } else { default.first_mut() } {
        end.clone_from(&plain);
    }
    let names: Vec<String> = r.or(key, default);
    if names.len() != n {
        r.problem(format!("`{key}` has {} entries; wanted {n}, one per level", names.len()));
    }
    names
        .iter()
        .map(|name| {
            if *name != plain && *name != cross {
                r.problem(format!("`{key}` holds {name}; wanted {plain} or {cross}"));
            }
            if *name == cross { BlockKind::CrossAttention } else { BlockKind::Plain }
        })
        .collect()
}

fn text_time(r: &mut ConfigReader) -> Option<TextTime> {
    let kind: Option<String> = r.optional("addition_embed_type");
    let time_embed_dim = r.optional("addition_time_embed_dim");
    let input_dim = r.optional("projection_class_embeddings_input_dim");
    match (kind.as_deref(), time_embed_dim, input_dim) {
        (None, _, _) => None,
        (Some("text_time"), Some(time_embed_dim), Some(input_dim)) => {
            Some(TextTime { time_embed_dim, input_dim })
        }
        (Some("text_time"), ..) => {
            r.problem(
                "`addition_embed_type` is text_time without `addition_time_embed_dim` and \
                 `projection_class_embeddings_input_dim`"
                    .into(),
            );
            None
        }
        (Some(other), ..) => {
            r.problem(format!("`addition_embed_type` is {other}; wanted null or text_time"));
            None
        }
    }
}

/// Keys that are supported only at the value under which they change nothing.
fn neutral_keys(r: &mut ConfigReader) {
    r.neutral(
        "class_embed_type encoder_hid_dim encoder_hid_dim_type num_class_embeds time_embedding_act_fn time_embedding_dim \
         timestep_post_act time_cond_proj_dim cross_attention_norm reverse_transformer_layers_per_block",
        &[],
    );
    r.neutral(
        "center_input_sample class_embeddings_concat dual_cross_attention only_cross_attention \
         mid_block_only_cross_attention resnet_skip_time_act",
        &[json!(false)],
    );
    // The weights say themselves what they are in.
    r.or::<Value>("quantization_config", Value::Null);
    r.neutral("act_fn", &[json!("silu"), json!("swish")]);
    r.neutral("attention_type resnet_time_scale_shift", &[json!("default")]);
    r.neutral("conv_in_kernel conv_out_kernel", &[json!(3)]);
    r.neutral("downsample_padding", &[json!(1)]);
    r.neutral("dropout", &[json!(0.0), json!(0)]);
    r.neutral("mid_block_scale_factor resnet_out_scale_factor", &[json!(1), json!(1.0)]);
    r.neutral("mid_block_type", &[json!("UNetMidBlock2DCrossAttn")]);
    r.neutral("time_embedding_type", &[json!("positional")]);
    r.ignored("addition_embed_type_num_heads");
}
