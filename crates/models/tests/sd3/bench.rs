//! The recorded tiny model as a folder in diffusers layout.

use std::fs;
use std::path::Path;

use tastemaker_models::backbone::{Backbone, BackboneConfig};
use tastemaker_models::clip_text::ClipTextConfig;
use tastemaker_models::nn::{Role, Weights};
use tastemaker_models::original::{Layout, Preset, t5_shapes, text_shapes, vae_shapes};
use tastemaker_models::pipeline::{DIFFUSERS_STEM, Family, TRANSFORMERS_STEM, write_component};
use tastemaker_models::t5::T5Config;
use tastemaker_models::vae::VaeConfig;
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, redrawn};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

const POSITIONS: &str = "pos_embed.pos_embed";

/// The model of `golden/sd3/pipeline`, with or without T5's encoder.
pub fn folder(golden: &Golden, with_t5: bool) -> TempDir {
    let scratch = TempDir::new().unwrap();
    let root = scratch.path();
    let copy = |file: &str, to: &Path| assert!(fs::copy(golden.path(file), to).unwrap() > 0);
    let seed = |component: &str| golden.note(component).unwrap().parse().unwrap();
    copy(
        if with_t5 { "model_index.json" } else { "model_index_without_t5.json" },
        &root.join("model_index.json"),
    );
    fs::create_dir(root.join("scheduler")).unwrap();
    copy("scheduler.json", &root.join("scheduler/scheduler_config.json"));
    for (name, second) in [("tokenizer", false), ("tokenizer_2", true)] {
        fs::create_dir(root.join(name)).unwrap();
        for (file, text) in Preset::published(Layout::Sd3).tokenizer(second) {
            fs::write(root.join(name).join(file), text).unwrap();
        }
    }
    let config = |component: &str| golden.json(&format!("{component}.json"));
    let write = |component: &str, stem: &str, shapes| {
        let tensors = redrawn(shapes, seed(component));
        write_component(root.join(component), stem, &config(component), &tensors, DType::F32).unwrap();
    };
    write("vae", DIFFUSERS_STEM, vae_shapes(&VaeConfig::from_json(&config("vae")).unwrap()));
    for component in ["text_encoder", "text_encoder_2"] {
        let shapes = text_shapes(&ClipTextConfig::from_json(&config(component)).unwrap());
        write(component, TRANSFORMERS_STEM, shapes);
    }
    if with_t5 {
        let shapes = t5_shapes(&T5Config::from_json(&config("text_encoder_3")).unwrap());
        write("text_encoder_3", TRANSFORMERS_STEM, shapes);
        fs::create_dir(root.join("tokenizer_3")).unwrap();
        let from = Golden::load("sd3", "tokenizer");
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            fs::copy(from.path(file), root.join("tokenizer_3").join(file)).unwrap();
        }
    }
    let transformer = BackboneConfig::from_json(Family::StableDiffusion3, &config("transformer")).unwrap();
    let mut shapes = transformer.shapes();
    let positions = shapes.remove(POSITIONS).unwrap();
    let mut tensors = redrawn(shapes, seed("transformer"));
    tensors.insert(POSITIONS.to_owned(), table(&positions, &transformer));
    write_component(root.join("transformer"), DIFFUSERS_STEM, &config("transformer"), &tensors, DType::F32)
        .unwrap();
    scratch
}

/// The table of positions that a network starts with.
fn table(shape: &[usize], config: &BackboneConfig) -> Tensor {
    let weights = Weights::fresh(1, Role::Frozen, DType::F32, Device::Cpu);
    drop(Backbone::new(weights.root(), config.clone(), DType::F32));
    let table = weights.finish().unwrap().1.remove(POSITIONS).unwrap();
    assert_eq!((table.size(), table.kind()), (shape.iter().map(|&n| n as i64).collect(), Kind::Float));
    table
}
