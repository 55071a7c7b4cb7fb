//! The `config.json` of a `CLIPTextModel`, and what it shares with a `CLIPVisionModel`'s.
//!
//! Source: `huggingface/transformers:src/transformers/models/clip/configuration_clip.py`.

use serde_json::{Value, json};

use crate::config::{ConfigReader, LARGEST, MOST_LAYERS};

/// Keys every transformers configuration may carry; none of them reaches an encoder's output.
const IGNORED: &str = "bad_words_ids begin_suppress_tokens bos_token_id decoder_start_token_id diversity_penalty do_sample dtype \
    early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task forced_bos_token_id \
    forced_eos_token_id id2label initializer_factor initializer_range is_encoder_decoder label2id length_penalty \
    max_length min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions \
    output_hidden_states output_scores pad_token_id prefix problem_type remove_invalid_values repetition_penalty \
    return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss \
    tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript transformers_version \
    typical_p use_bfloat16 use_cache _attn_implementation _attn_implementation_autoset";

/// Nonlinearity of the feed-forward layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x sigmoid(1.702 x), as OpenAI trained with.
    QuickGelu,
    /// The exact Gaussian error linear unit, as OpenCLIP trained with.
    Gelu,
}

/// Which position of the last hidden state stands for the whole prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first place of the highest token id. Configurations written before the end-of-text id was right say
    /// `eos_token_id = 2` and mean this.
    HighestId,
    /// The first place of this token id.
    First(i64),
}

/// Sizes of a stack of CLIP transformer layers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncoderShape {
    /// Width of the hidden states.
    pub width: i64,
    /// Width inside the feed-forward layers.
    pub intermediate: i64,
    /// Layers.
    pub n_layers: i64,
    /// Attention heads.
    pub n_heads: i64,
    /// Nonlinearity of the feed-forward layers.
    pub activation: Activation,
    /// Epsilon of every layer normalization.
    pub eps: f64,
}

/// Sizes of a text encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipTextConfig {
    /// Entries of the token table.
    pub vocab_size: i64,
    /// Longest prompt, in tokens.
    pub max_position_embeddings: i64,
    /// The transformer layers.
    pub encoder: EncoderShape,
    /// How the pooled state is chosen.
    pub pooling: Pooling,
    /// Width of the projected pooled state.
    pub projection_dim: i64,
    /// Whether `architectures` names `CLIPTextModelWithProjection`, which projects the pooled state.
    pub with_projection: bool,
}

impl ClipTextConfig {
    /// Reads and validates a transformers configuration.
    ///
    /// # Errors
    /// Every unknown key and every value this implementation would get wrong, in one message.
    pub fn from_json(config: &Value) -> Result<Self, String> {
        let mut r = ConfigReader::new(config);
        let architectures: Vec<String> = r.or("architectures", vec!["CLIPTextModel".to_owned()]);
        for name in &architectures {
            if name != "CLIPTextModel" && name != "CLIPTextModelWithProjection" {
                r.problem(format!(
                    "`architectures` holds {name}; wanted CLIPTextModel or CLIPTextModelWithProjection"
                ));
            }
        }
        let config = Self {
            vocab_size: r.or("vocab_size", 49408),
            max_position_embeddings: r.or("max_position_embeddings", 77),
            encoder: encoder_shape(
                &mut r,
                EncoderShape {
                    width: 512,
                    intermediate: 2048,
                    n_layers: 12,
                    n_heads: 8,
                    activation: Activation::QuickGelu,
                    eps: 1e-5,
                },
            ),
            pooling: match r.or("eos_token_id", 49407) {
                2 => Pooling::HighestId,
                id => Pooling::First(id),
            },
            projection_dim: r.or("projection_dim", 512),
            with_projection: architectures.iter().any(|name| name == "CLIPTextModelWithProjection"),
        };
        annotations(&mut r, "clip_text_model");
        for (name, size) in [
            ("vocab_size", config.vocab_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("projection_dim", config.projection_dim),
        ] {
            r.sizes(name, &[size], LARGEST);
        }
        r.finish().map(|()| config)
    }
}

/// Reads the keys that size the transformer layers, the same for text and for images.
pub(crate) fn encoder_shape(r: &mut ConfigReader, default: EncoderShape) -> EncoderShape {
    let activation = r.optional::<String>("hidden_act");
    let shape = EncoderShape {
        width: r.or("hidden_size", default.width),
        intermediate: r.or("intermediate_size", default.intermediate),
        n_layers: r.or("num_hidden_layers", default.n_layers),
        n_heads: r.or("num_attention_heads", default.n_heads),
        activation: match activation.as_deref() {
            None => default.activation,
            Some("quick_gelu") => Activation::QuickGelu,
            Some("gelu") => Activation::Gelu,
            Some(other) => {
                r.problem(format!("`hidden_act` is {other}; wanted quick_gelu or gelu"));
                default.activation
            }
        },
        eps: r.epsilon("layer_norm_eps", default.eps),
    };
    for (name, size, most) in [
        ("hidden_size", shape.width, LARGEST),
        ("intermediate_size", shape.intermediate, LARGEST),
        ("num_hidden_layers", shape.n_layers, MOST_LAYERS),
        ("num_attention_heads", shape.n_heads, LARGEST),
    ] {
        r.sizes(name, &[size], most);
    }
    if shape.n_heads > 0 && shape.width % shape.n_heads != 0 {
        r.problem(format!("`hidden_size` is {}, which {} heads do not divide", shape.width, shape.n_heads));
    }
    shape
}

/// Checks and drops the keys that every transformers configuration may carry.
pub(crate) fn annotations(r: &mut ConfigReader, model_type: &str) {
    r.neutral("model_type", &[json!(model_type)]);
    r.neutral("attention_dropout dropout", &[json!(0.0), json!(0)]);
    r.neutral("add_cross_attention is_decoder", &[json!(false)]);
    r.neutral("chunk_size_feed_forward", &[json!(0)]);
    r.neutral("cross_attention_hidden_size quantization_config", &[]);
    r.neutral("pruned_heads", &[json!({})]);
    r.ignored(IGNORED);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_published_configuration_pools_at_the_highest_id() {
        let config = ClipTextConfig::from_json(&json!({
            "architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0,
            "eos_token_id": 2, "hidden_act": "quick_gelu", "hidden_size": 768, "initializer_factor": 1.0,
            "intermediate_size": 3072, "layer_norm_eps": 1e-05, "model_type": "clip_text_model",
            "num_attention_heads": 12, "pad_token_id": 1, "torch_dtype": "float32", "transformers_version": "4.22.0",
        }))
        .expect("every key is known");
        assert_eq!((config.pooling, config.with_projection), (Pooling::HighestId, false));
        assert_eq!((config.encoder.width, config.encoder.n_layers), (768, 12));
    }

    #[test]
    fn what_would_change_the_result_is_refused_at_once() {
        let text = ClipTextConfig::from_json(&json!({
            "hidden_act": "relu", "attention_dropout": 0.1, "num_attention_heads": 7, "rope_theta": 1e4,
            "architectures": ["T5EncoderModel"],
        }))
        .expect_err("five problems");
        for part in
            ["relu", "`attention_dropout` is 0.1", "7 heads", "unknown key `rope_theta`", "T5EncoderModel"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
