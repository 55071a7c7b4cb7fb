//! A whole model in diffusers layout, small enough to train in a test.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::{Array, Arrays, Golden, arrays};

/// Side of the images that [`tiny_model`] generates, in pixels.
pub const TINY_RESOLUTION: u32 = 32;

const TOKENS: usize = 16;
const LAYERS: usize = 2;

/// Ids 0..26 are letters inside a word, 26..52 letters at its end; 52 starts a prompt and 53 ends it.
const VOCABULARY: usize = 54;

/// Writes a model of the SD1 family: a UNet of three levels with attention, a VAE, a text encoder of two layers and a
/// tokenizer of letters. The same bytes every time.
///
/// # Panics
/// When a file cannot be read or written.
#[track_caller]
pub fn tiny_model(folder: &Path) {
    model(folder, "StableDiffusionPipeline", "unet-demo", &[TextEncoder { width: 12, projection: None }]);
}

/// Writes a model of the SDXL family, as [`tiny_model`] does: two text encoders, the second with a projection.
///
/// # Panics
/// When a file cannot be read or written.
#[track_caller]
pub fn tiny_sdxl_model(folder: &Path) {
    let encoders =
        [TextEncoder { width: 4, projection: None }, TextEncoder { width: 8, projection: Some(16) }];
    model(folder, "StableDiffusionXLPipeline", "unet-sdxl", &encoders);
}

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// What the recorded UNets attend to is as wide as all text encoders together.
struct TextEncoder {
    width: usize,
    projection: Option<usize>,
}

impl TextEncoder {
    fn class(&self) -> &'static str {
        if self.projection.is_some() { "CLIPTextModelWithProjection" } else { "CLIPTextModel" }
    }
}

#[track_caller]
fn model(folder: &Path, pipeline: &str, unet: &str, encoders: &[TextEncoder]) {
    Golden::load("models", unet).install(&folder.join("unet"), WEIGHTS);
    let mut index = json!({
        "_class_name": pipeline, "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
    });
    around(folder, &mut index, encoders);
    let schedule = json!({
        "_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1,
    });
    write_json(&folder.join("scheduler/scheduler_config.json"), &schedule);
}

/// The VAE, the text encoders with their tokenizers, and the index, which names them too.
#[track_caller]
fn around(folder: &Path, index: &mut Value, encoders: &[TextEncoder]) {
    Golden::load("models", "vae-demo").install(&folder.join("vae"), WEIGHTS);
    index["vae"] = json!(["diffusers", "AutoencoderKL"]);
    for (encoder, suffix) in encoders.iter().zip(["", "_2"]) {
        let (text, tokens) = (format!("text_encoder{suffix}"), format!("tokenizer{suffix}"));
        text_encoder(&folder.join(&text), encoder);
        tokenizer(&folder.join(&tokens));
        index[&text] = json!(["transformers", encoder.class()]);
        index[&tokens] = json!(["transformers", "CLIPTokenizer"]);
    }
    write_json(&folder.join("model_index.json"), index);
}

#[track_caller]
fn text_encoder(folder: &Path, encoder: &TextEncoder) {
    let (width, inner) = (encoder.width, 2 * encoder.width);
    let mut config = json!({
        "architectures": [encoder.class()], "vocab_size": VOCABULARY, "hidden_size": width, "intermediate_size": inner,
        "num_hidden_layers": LAYERS, "num_attention_heads": width / 4, "max_position_embeddings": TOKENS,
        "eos_token_id": VOCABULARY - 1,
    });
    if let Some(projection) = encoder.projection {
        config["projection_dim"] = json!(projection);
    }
    write_json(&folder.join("config.json"), &config);

    let mut named = Arrays::new();
    let mut matrix = |name: String, shape: &[usize]| {
        let start = named.len() as f32;
        let values = (0..shape.iter().product()).map(|i: usize| (i as f32 * 1.7 + start).sin() * 0.3);
        named.insert(name, Array { shape: shape.to_vec(), values: values.collect() });
    };
    let text = "text_model";
    matrix(format!("{text}.embeddings.token_embedding.weight"), &[VOCABULARY, width]);
    matrix(format!("{text}.embeddings.position_embedding.weight"), &[TOKENS, width]);
    for layer in 0..LAYERS {
        let layer = format!("{text}.encoder.layers.{layer}");
        for projection in ["q", "k", "v", "out"] {
            let projection = format!("{layer}.self_attn.{projection}_proj");
            matrix(format!("{projection}.weight"), &[width, width]);
            matrix(format!("{projection}.bias"), &[width]);
        }
        for (linear, n_in, n_out) in [("fc1", width, inner), ("fc2", inner, width)] {
            matrix(format!("{layer}.mlp.{linear}.weight"), &[n_out, n_in]);
            matrix(format!("{layer}.mlp.{linear}.bias"), &[n_out]);
        }
        for norm in ["layer_norm1", "layer_norm2"] {
            matrix(format!("{layer}.{norm}.weight"), &[width]);
            matrix(format!("{layer}.{norm}.bias"), &[width]);
        }
    }
    matrix(format!("{text}.final_layer_norm.weight"), &[width]);
    matrix(format!("{text}.final_layer_norm.bias"), &[width]);
    if let Some(projection) = encoder.projection {
        matrix("text_projection.weight".to_owned(), &[projection, width]);
    }
    arrays::write(&folder.join("model.safetensors"), &named);
}

#[track_caller]
fn tokenizer(folder: &Path) {
    let letters = ('a'..='z').map(String::from);
    let ends = ('a'..='z').map(|letter| format!("{letter}</w>"));
    let special = ["<|startoftext|>", "<|endoftext|>"].map(str::to_owned);
    let vocabulary: BTreeMap<_, _> = letters.chain(ends).chain(special).zip(0..).collect();
    write_json(&folder.join("vocab.json"), &json!(vocabulary));
    write(&folder.join("merges.txt"), "#version: 0.2\n");
    write_json(&folder.join("tokenizer_config.json"), &json!({"model_max_length": TOKENS}));
}

#[track_caller]
fn write_json(path: &Path, value: &Value) {
    write(path, &format!("{value:#}\n"));
}

#[track_caller]
fn write(path: &Path, text: &str) {
    let folder = path.parent().expect("a file lies in a folder");
    std::fs::create_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    std::fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
