//! A whole model in diffusers layout, small enough to train in a test.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tastemaker_torch::tensors::{self, Named};
use tch::{Device, Kind, Tensor};

use crate::Golden;

/// Side of the pictures that [`tiny_model`] paints, in pixels.
pub const TINY_RESOLUTION: u32 = 32;

/// Width of the text encoder: what the recorded UNets attend to.
const WIDTH: i64 = 12;
const TOKENS: i64 = 16;
const LAYERS: i64 = 2;

/// Ids 0..26 are letters inside a word, 26..52 letters at its end; 52 starts a prompt and 53 ends it.
const VOCABULARY: i64 = 54;

/// Writes a model of the SD1 family: a UNet of two levels with attention, a VAE, a text encoder of two layers and a
/// tokenizer of letters. The same bytes every time.
///
/// # Panics
/// When a file cannot be read or written.
#[track_caller]
pub fn tiny_model(folder: &Path) {
    let weights = "diffusion_pytorch_model.safetensors";
    Golden::load("models", "unet-demo").install(&folder.join("unet"), weights);
    Golden::load("models", "vae-demo").install(&folder.join("vae"), weights);
    text_encoder(&folder.join("text_encoder"));
    tokenizer(&folder.join("tokenizer"));
    let schedule = json!({
        "_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1,
    });
    write_json(&folder.join("scheduler/scheduler_config.json"), &schedule);
    let index = json!({
        "_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    });
    write_json(&folder.join("model_index.json"), &index);
}

#[track_caller]
fn text_encoder(folder: &Path) {
    let inner = 2 * WIDTH;
    let config = json!({
        "architectures": ["CLIPTextModel"], "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": inner,
        "num_hidden_layers": LAYERS, "num_attention_heads": 3, "max_position_embeddings": TOKENS,
        "eos_token_id": VOCABULARY - 1,
    });
    write_json(&folder.join("config.json"), &config);

    let mut named = Named::new();
    let mut matrix = |name: String, shape: &[i64]| {
        let start = named.len() as f64;
        let n: i64 = shape.iter().product();
        let values = (Tensor::arange(n, (Kind::Float, Device::Cpu)) * 1.7 + start).sin() * 0.3;
        named.insert(name, values.reshape(shape));
    };
    let text = "text_model";
    matrix(format!("{text}.embeddings.token_embedding.weight"), &[VOCABULARY, WIDTH]);
    matrix(format!("{text}.embeddings.position_embedding.weight"), &[TOKENS, WIDTH]);
    for layer in 0..LAYERS {
        let layer = format!("{text}.encoder.layers.{layer}");
        for projection in ["q", "k", "v", "out"] {
            let projection = format!("{layer}.self_attn.{projection}_proj");
            matrix(format!("{projection}.weight"), &[WIDTH, WIDTH]);
            matrix(format!("{projection}.bias"), &[WIDTH]);
        }
        for (linear, n_in, n_out) in [("fc1", WIDTH, inner), ("fc2", inner, WIDTH)] {
            matrix(format!("{layer}.mlp.{linear}.weight"), &[n_out, n_in]);
            matrix(format!("{layer}.mlp.{linear}.bias"), &[n_out]);
        }
        for norm in ["layer_norm1", "layer_norm2"] {
            matrix(format!("{layer}.{norm}.weight"), &[WIDTH]);
            matrix(format!("{layer}.{norm}.bias"), &[WIDTH]);
        }
    }
    matrix(format!("{text}.final_layer_norm.weight"), &[WIDTH]);
    matrix(format!("{text}.final_layer_norm.bias"), &[WIDTH]);
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    tensors::write(&folder.join("model.safetensors"), &named, &metadata).unwrap_or_else(|e| panic!("{e}"));
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
