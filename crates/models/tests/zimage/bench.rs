//! The recorded tiny model as a folder in diffusers layout.

use std::fs;

use tastemaker_models::backbone::BackboneConfig;
use tastemaker_models::original::{qwen_shapes, vae_shapes};
use tastemaker_models::pipeline::{DIFFUSERS_STEM, Family, TRANSFORMERS_STEM, write_component};
use tastemaker_models::qwen3::Qwen3Config;
use tastemaker_models::vae::VaeConfig;
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, redrawn};
use tempfile::TempDir;

/// The model of `golden/zimage/pipeline`.
pub fn folder(golden: &Golden) -> TempDir {
    let scratch = TempDir::new().unwrap();
    let root = scratch.path();
    for folder in ["scheduler", "tokenizer"] {
        fs::create_dir(root.join(folder)).unwrap();
    }
    let tokenizer = Golden::load("zimage", "tokenizer");
    for (from, file, to) in [
        (golden, "model_index.json", "model_index.json"),
        (golden, "scheduler.json", "scheduler/scheduler_config.json"),
        (&tokenizer, "tokenizer.json", "tokenizer/tokenizer.json"),
        (&tokenizer, "tokenizer_config.json", "tokenizer/tokenizer_config.json"),
    ] {
        assert!(fs::copy(from.path(file), root.join(to)).unwrap() > 0);
    }
    let config = |component: &str| golden.json(&format!("{component}.json"));
    let qwen = Qwen3Config::from_json(&config("text_encoder")).unwrap();
    let transformer = BackboneConfig::from_json(Family::ZImage, &config("transformer")).unwrap();
    for (component, stem, shapes) in [
        ("vae", DIFFUSERS_STEM, vae_shapes(&VaeConfig::from_json(&config("vae")).unwrap())),
        ("text_encoder", TRANSFORMERS_STEM, qwen_shapes(&qwen)),
        ("transformer", DIFFUSERS_STEM, transformer.shapes()),
    ] {
        let tensors = redrawn(shapes, golden.note(component).unwrap().parse().unwrap());
        write_component(root.join(component), stem, &config(component), &tensors, DType::F32).unwrap();
    }
    scratch
}
