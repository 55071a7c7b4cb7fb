//! Tiny model folders, put together from the networks' goldens.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_models::ModelError;
use tastemaker_models::clip_text::{ClipText, ClipTextConfig};
use tastemaker_models::nn::{Role, Weights};
use tastemaker_models::pipeline::{Model, TRANSFORMERS_STEM, TextEncoders, write_component};
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::Golden;
use tch::{Device, Tensor};
use tempfile::TempDir;

pub const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// Ids 0..26 are letters inside a word, 26..52 letters at its end; 52 starts a prompt and 53 ends it.
pub const END: i64 = 53;

pub fn write_json(path: &Path, value: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, serde_json::to_string_pretty(value).unwrap()).unwrap();
}

pub fn edit_json(path: &Path, key: &str, value: Value) {
    let mut config: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    config[key] = value;
    write_json(path, &config);
}

pub fn tokenizer(folder: &Path, max_length: usize) {
    let letters = ('a'..='z').map(String::from);
    let ends = ('a'..='z').map(|letter| format!("{letter}</w>"));
    let special = ["<|startoftext|>", "<|endoftext|>"].map(str::to_owned);
    let vocab: BTreeMap<_, _> = letters.chain(ends).chain(special).zip(0..).collect();
    write_json(&folder.join("vocab.json"), &json!(vocab));
    fs::write(folder.join("merges.txt"), "#version: 0.2\n").unwrap();
    write_json(&folder.join("tokenizer_config.json"), &json!({"model_max_length": max_length}));
}

/// A text encoder that finds the end of a prompt where our tokenizer puts it.
pub fn text_encoder(folder: &Path, case: &str) {
    Golden::load("models", case).install(folder, "model.safetensors");
    edit_json(&folder.join("config.json"), "eos_token_id", json!(END));
}

pub fn scheduler(folder: &Path) {
    write_json(
        &folder.join("scheduler/scheduler_config.json"),
        &json!({
            "_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1,
        }),
    );
}

/// A whole model: SD1's UNet and VAE goldens, a text encoder as wide as the UNet wants, a tokenizer, a passenger.
pub fn sd1() -> TempDir {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    Golden::load("models", "unet-sd1").install(&root.join("unet"), WEIGHTS);
    edit_json(&root.join("unet/config.json"), "cross_attention_dim", json!(12));
    Golden::load("models", "vae").install(&root.join("vae"), WEIGHTS);
    let config = json!({
        "architectures": ["CLIPTextModel"], "vocab_size": 60, "hidden_size": 12, "intermediate_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 3, "max_position_embeddings": 8, "eos_token_id": END,
    });
    let weights = Weights::fresh(5, Role::Frozen, DType::F32, Device::Cpu);
    ClipText::new(weights.root(), ClipTextConfig::from_json(&config).unwrap());
    let parameters = weights.finish().unwrap().1;
    let text = root.join("text_encoder");
    write_component(&text, TRANSFORMERS_STEM, &config, &parameters, DType::F32).unwrap();
    tokenizer(&root.join("tokenizer"), 8);
    scheduler(root);
    write_json(&root.join("feature_extractor/preprocessor_config.json"), &json!({"do_resize": true}));
    write_json(
        &root.join("model_index.json"),
        &json!({
            "_class_name": "StableDiffusionPipeline", "feature_extractor": ["transformers", "CLIPImageProcessor"],
            "safety_checker": [null, null], "requires_safety_checker": false,
            "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        }),
    );
    folder
}

/// SDXL's text side: two encoders of width 32, the second with a projection to 24.
pub fn sdxl_text() -> TempDir {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    for (suffix, case) in [("", "clip-text"), ("_2", "clip-text-projection")] {
        text_encoder(&root.join(format!("text_encoder{suffix}")), case);
        tokenizer(&root.join(format!("tokenizer{suffix}")), 16);
    }
    let pair = |library: &str, class: &str| json!([library, class]);
    write_json(
        &root.join("model_index.json"),
        &json!({
            "_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": true,
            "scheduler": pair("diffusers", "EulerDiscreteScheduler"),
            "text_encoder": pair("transformers", "CLIPTextModel"),
            "text_encoder_2": pair("transformers", "CLIPTextModelWithProjection"),
            "tokenizer": pair("transformers", "CLIPTokenizer"), "tokenizer_2": pair("transformers", "CLIPTokenizer"),
            "unet": pair("diffusers", "UNet2DConditionModel"), "vae": pair("diffusers", "AutoencoderKL"),
        }),
    );
    folder
}

pub fn open(folder: &TempDir) -> Model {
    Model::open(folder.path()).unwrap()
}

pub fn text(folder: &TempDir) -> Result<TextEncoders, ModelError> {
    open(folder).text(DType::F32, Device::Cpu)
}

pub fn predict(golden: &Golden, network: &impl Denoiser) -> Tensor {
    let conditioning = Conditioning::text(golden.tensor("encoder_hidden_states"));
    network.predict(&golden.tensor("sample"), &golden.tensor("timestep"), &conditioning)
}

/// Every file below a folder, by its path in it.
pub fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}
