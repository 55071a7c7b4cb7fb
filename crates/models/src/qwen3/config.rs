//! The `config.json` of a `Qwen3Model` or `Qwen3ForCausalLM`.
//!
//! Source: `huggingface/transformers:src/transformers/models/qwen3/configuration_qwen3.py`.

use serde_json::{Value, json};

use crate::config::{ConfigReader, LARGEST, MOST_LAYERS};

/// Keys that concern training, generation or how it is computed.
const IGNORED: &str = "architectures attention_dropout bos_token_id dtype eos_token_id initializer_range max_position_embeddings \
    max_window_layers pad_token_id tie_word_embeddings torch_dtype transformers_version use_cache pretraining_tp";

/// Sizes of the encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Qwen3Config {
    /// Tokens that have an embedding.
    pub vocab_size: i64,
    /// Width of the hidden states.
    pub hidden_size: i64,
    /// Width within feed-forward layers.
    pub intermediate_size: i64,
    /// Layers.
    pub num_hidden_layers: i64,
    /// Heads of queries.
    pub num_attention_heads: i64,
    /// Heads of keys and values, each for several of queries.
    pub num_key_value_heads: i64,
    /// Width of a head.
    pub head_dim: i64,
    /// Epsilon of the normalizations.
    pub eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
}

impl Qwen3Config {
    /// The layers that Z-Image reads: what leaves the last but one.
    pub(crate) fn n_read(&self) -> i64 {
        (self.num_hidden_layers - 1).max(0)
    }

    /// A network of those layers alone.
    #[must_use]
    pub fn as_read(&self) -> Self {
        Self { num_hidden_layers: self.n_read(), ..self.clone() }
    }

    /// Reads and validates a transformers configuration, in the spelling of its release 4 or 5.
    ///
    /// # Errors
    /// Every unknown key and every value this implementation would get wrong, in one message.
    pub fn from_json(config: &Value) -> Result<Self, String> {
        let mut r = ConfigReader::new(config);
        let rope = r.raw("rope_parameters");
        let of_rope =
            |key: &str| rope.as_ref().and_then(|rope| rope.get(key)).filter(|value| !value.is_null());
        if let Some(kind) = of_rope("rope_type").filter(|kind| **kind != json!("default")) {
            r.problem(format!("`rope_type` is {kind}, which is not supported; wanted default"));
        }
        let theta = of_rope("rope_theta").and_then(Value::as_f64);
        let heads = r.or("num_attention_heads", 32);
        let config = Self {
            vocab_size: r.or("vocab_size", 151_936),
            hidden_size: r.or("hidden_size", 4096),
            intermediate_size: r.or("intermediate_size", 22_016),
            num_hidden_layers: r.or("num_hidden_layers", 32),
            num_attention_heads: heads,
            num_key_value_heads: r.or("num_key_value_heads", heads),
            head_dim: r.or("head_dim", 128),
            eps: r.epsilon("rms_norm_eps", 1e-6),
            rope_theta: r.or("rope_theta", theta.unwrap_or(1e4)),
        };
        for (key, size, most) in [
            ("vocab_size", config.vocab_size, LARGEST),
            ("hidden_size", config.hidden_size, LARGEST),
            ("intermediate_size", config.intermediate_size, LARGEST),
            ("num_hidden_layers", config.num_hidden_layers, MOST_LAYERS),
            ("num_attention_heads", config.num_attention_heads, LARGEST),
            ("num_key_value_heads", config.num_key_value_heads, LARGEST),
            ("head_dim", config.head_dim, LARGEST),
        ] {
            r.sizes(key, &[size], most);
        }
        if config.head_dim % 2 != 0 || config.num_attention_heads % config.num_key_value_heads.max(1) != 0 {
            r.problem(format!(
                "{} heads of width {} over {} of keys; wanted an even width and a multiple",
                config.num_attention_heads, config.head_dim, config.num_key_value_heads
            ));
        }
        let layer_types: Vec<String> = r.or("layer_types", Vec::new());
        if let Some(kind) = layer_types.iter().find(|kind| *kind != "full_attention") {
            r.problem(format!("`layer_types` has {kind}, which is not supported; wanted full_attention"));
        }
        r.neutral("model_type", &[json!("qwen3")]);
        r.neutral("hidden_act", &[json!("silu")]);
        r.neutral("attention_bias use_sliding_window", &[json!(false)]);
        r.neutral("rope_scaling sliding_window quantization_config", &[]);
        r.ignored(IGNORED);
        r.finish().map(|()| config)
    }
}
