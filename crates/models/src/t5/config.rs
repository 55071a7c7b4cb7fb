//! The `config.json` of a `T5EncoderModel`.
//!
//! Source: `huggingface/transformers:src/transformers/models/t5/configuration_t5.py`.

use serde_json::{Value, json};
use tastemaker_store::dtype::DType;

use crate::config::{ConfigReader, LARGEST, MOST_LAYERS};

/// Keys that concern training, generation or the decoder.
const IGNORED: &str = "architectures bos_token_id classifier_dropout decoder_start_token_id dropout_rate dtype eos_token_id \
    initializer_factor is_decoder is_encoder_decoder n_positions num_decoder_layers output_past pad_token_id \
    scale_decoder_outputs task_specific_params tie_word_embeddings tokenizer_class torch_dtype transformers_version use_cache";

/// Sizes of the encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct T5Config {
    /// Tokens that have an embedding.
    pub vocab_size: i64,
    /// Width of the hidden states.
    pub d_model: i64,
    /// Width of a head.
    pub d_kv: i64,
    /// Width within feed-forward layers.
    pub d_ff: i64,
    /// Layers.
    pub num_layers: i64,
    /// Attention heads.
    pub num_heads: i64,
    /// Kinds of distance between two tokens, in both directions together.
    pub n_buckets: i64,
    /// Distance from which on all are one kind.
    pub max_distance: i64,
    /// Epsilon of the normalizations.
    pub eps: f64,
}

impl T5Config {
    /// The type that the encoder runs in where `wanted` is that of the other networks: its feed-forward layers go beyond the numbers
    /// of fp16, so bf16 takes its place.
    ///
    /// Source: `_keep_in_fp32_modules` of transformers' `T5PreTrainedModel`.
    pub fn runs_in(wanted: DType) -> DType {
        if wanted == DType::F16 { DType::Bf16 } else { wanted }
    }

    /// Reads and validates a transformers configuration.
    ///
    /// # Errors
    /// Every unknown key and every value this implementation would get wrong, in one message.
    pub fn from_json(config: &Value) -> Result<Self, String> {
        let mut r = ConfigReader::new(config);
        let config = Self {
            vocab_size: r.or("vocab_size", 32_128),
            d_model: r.or("d_model", 512),
            d_kv: r.or("d_kv", 64),
            d_ff: r.or("d_ff", 2048),
            num_layers: r.or("num_layers", 6),
            num_heads: r.or("num_heads", 8),
            n_buckets: r.or("relative_attention_num_buckets", 32),
            max_distance: r.or("relative_attention_max_distance", 128),
            eps: r.epsilon("layer_norm_epsilon", 1e-6),
        };
        for (key, size, most) in [
            ("vocab_size", config.vocab_size, LARGEST),
            ("d_model", config.d_model, LARGEST),
            ("d_kv", config.d_kv, LARGEST),
            ("d_ff", config.d_ff, LARGEST),
            ("num_layers", config.num_layers, MOST_LAYERS),
            ("num_heads", config.num_heads, LARGEST),
            ("relative_attention_num_buckets", config.n_buckets, LARGEST),
            ("relative_attention_max_distance", config.max_distance, LARGEST),
        ] {
            r.sizes(key, &[size], most);
        }
        if config.n_buckets % 4 != 0 || config.max_distance <= config.n_buckets / 4 {
            r.problem(format!(
                "{} buckets for distances up to {}; wanted a multiple of 4 that a quarter of is below that",
                config.n_buckets, config.max_distance
            ));
        }
        match r.optional::<String>("feed_forward_proj").as_deref() {
            Some("gated-gelu") => {}
            other => {
                r.problem(format!("`feed_forward_proj` is {}; wanted gated-gelu", other.unwrap_or("relu")))
            }
        }
        r.neutral("dense_act_fn", &[json!("gelu_new")]);
        r.neutral("is_gated_act", &[json!(true)]);
        r.neutral("model_type", &[json!("t5")]);
        r.neutral("quantization_config", &[]);
        r.ignored(IGNORED);
        r.finish().map(|()| config)
    }
}
