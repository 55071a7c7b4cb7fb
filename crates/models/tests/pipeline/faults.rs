//! What is wrong is named, with its file and what was wanted.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tastemaker_models::ModelError;
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::{DIFFUSERS_STEM, Model};
use tastemaker_store::StoreError;
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, malformed};
use tastemaker_torch::tensors;
use tch::Device;
use tempfile::TempDir;

use crate::folders::{WEIGHTS, edit_json, open, sd1, sdxl_text, text, tokenizer, write_json};

#[test]
fn every_tensor_that_does_not_fit_is_named_with_its_file() {
    let folder = sd1();
    let path = folder.path().join("unet").join(WEIGHTS);
    let golden = Golden::load("models", "unet-sd1");
    let mut weights = golden.weights();
    drop(weights.remove("conv_in.bias"));
    let tensor = weights.remove("conv_out.bias").unwrap();
    weights.insert("conv_out.surplus".into(), tensor.shallow_clone());
    weights.insert("conv_norm_out.bias".into(), tensor);
    tensors::write(&path, &weights, &BTreeMap::new()).unwrap();
    let error = open(&folder).unet(Role::Frozen, DType::F32, Device::Cpu, None).unwrap_err();
    let ModelError::Weights { path: named, report } = &error else { panic!("{error:?}") };
    assert_eq!(*named, path);
    assert_eq!(report.missing, ["conv_in.bias", "conv_out.bias"]);
    assert_eq!(report.unexpected, ["conv_out.surplus"]);
    assert_eq!(report.misshapen, [("conv_norm_out.bias".to_owned(), vec![4], vec![8])]);
    assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
}

#[test]
fn damaged_weights_are_refused() {
    let sound = TempDir::new().unwrap();
    let source = Golden::load("models", "vae").install(sound.path(), WEIGHTS);
    for damage in [
        malformed::truncated,
        malformed::header_too_long,
        malformed::overlapping,
        malformed::wrong_dtype,
        malformed::wrong_shape,
        |source: &Path, folder: &Path| malformed::renamed(source, folder, "surplus.weight"),
    ] {
        let (folder, scratch) = (sd1(), TempDir::new().unwrap());
        let path = folder.path().join("vae").join(WEIGHTS);
        fs::rename(damage(&source, scratch.path()), &path).unwrap();
        let error = open(&folder).vae(Role::Frozen, DType::F32, Device::Cpu).unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn configurations_that_cannot_be_honored_are_refused_with_their_file() {
    let refused = |file: &str, key: &str, value: Value, part: &str| {
        let folder = sd1();
        let path = folder.path().join(file);
        edit_json(&path, key, value);
        let model = Model::open(folder.path());
        let error = model.and_then(|model| model.schedule().map(drop)).unwrap_err();
        assert!(matches!(error, ModelError::Config { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with(path.to_str().unwrap()) && text.contains(part), "{text}");
    };
    refused("unet/config.json", "hyper_attention", json!(true), "unknown key `hyper_attention`");
    refused("unet/config.json", "act_fn", json!("gelu"), "`act_fn` is \"gelu\"");
    refused("vae/config.json", "latents_mean", json!([0.0]), "`latents_mean`");
    refused("scheduler/scheduler_config.json", "sigma_data", json!(0.5), "unknown key `sigma_data`");
    refused("scheduler/scheduler_config.json", "trained_betas", json!([0.1]), "`trained_betas`");
    refused("model_index.json", "_class_name", json!("FluxPipeline"), "FluxPipeline");
}

#[test]
fn sizes_beyond_all_measure_are_refused_before_anything_is_made_of_them() {
    let huge = json!(1_000_000_000_000_000_000i64);
    for (file, keys) in [
        (
            "unet/config.json",
            &[
                "in_channels",
                "out_channels",
                "sample_size",
                "cross_attention_dim",
                "layers_per_block",
                "transformer_layers_per_block",
            ][..],
        ),
        ("vae/config.json", &["in_channels", "out_channels", "latent_channels", "layers_per_block"]),
        (
            "text_encoder/config.json",
            &[
                "vocab_size",
                "max_position_embeddings",
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "projection_dim",
            ],
        ),
    ] {
        for key in keys {
            let folder = sd1();
            edit_json(&folder.path().join(file), key, huge.clone());
            let error = Model::open(folder.path()).unwrap_err().to_string();
            let wanted = format!("`{key}` has 1000000000000000000; wanted at most");
            assert!(error.contains(&wanted), "{error}");
        }
    }
    for file in ["unet/config.json", "vae/config.json"] {
        let folder = sd1();
        edit_json(&folder.path().join(file), "block_out_channels", json!([8, 1_000_000_000_000_000_000i64]));
        assert!(Model::open(folder.path()).unwrap_err().to_string().contains("wanted at most"));
    }
}

#[test]
fn components_that_do_not_fit_each_other_are_refused() {
    let refused = |file: &str, key: &str, value: Value, part: &str| {
        let folder = sd1();
        edit_json(&folder.path().join(file), key, value);
        let error = Model::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("model_index.json") && error.contains(part), "{error}");
    };
    refused(
        "unet/config.json",
        "in_channels",
        json!(9),
        "the UNet takes 9 channels, the VAE's latents have 4",
    );
    refused("unet/config.json", "cross_attention_dim", json!(768), "width 768, the text encoders give 12");
    refused("text_encoder/config.json", "hidden_size", json!(24), "width 12, the text encoders give 24");

    let folder = sd1();
    tokenizer(&folder.path().join("tokenizer"), 77);
    let error = text(&folder).unwrap_err().to_string();
    assert!(error.contains("prompts of 77 tokens; `text_encoder` has 8 positions"), "{error}");
}

#[test]
fn sdxl_conditioning_must_be_as_wide_as_the_unet_wants() {
    let folder = sdxl_text();
    let path = folder.path().join("unet/config.json");
    let mut config = Golden::load("models", "unet-sdxl").config_json();
    config["cross_attention_dim"] = json!(64);
    write_json(&path, &config);
    let error = Model::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("takes 64 values, pooled text and sizes are 72"), "{error}");
    config["projection_class_embeddings_input_dim"] = json!(72);
    write_json(&path, &config);
    let model = open(&folder);
    let absent: Vec<_> = model.index().components.iter().filter(|name| !model.has(name)).collect();
    assert_eq!(absent, ["vae", "scheduler"]);
    edit_json(&folder.path().join("text_encoder_2/config.json"), "architectures", json!(["CLIPTextModel"]));
    let error = Model::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("`text_encoder_2` has no projection"), "{error}");
}

#[test]
fn what_is_missing_is_named_with_what_was_wanted() {
    let folder = sd1();
    let missing = |error: ModelError| match error {
        ModelError::Store(StoreError::Missing { path, wanted }) => (path, wanted),
        other => panic!("{other:?}"),
    };
    let nowhere = folder.path().join("nowhere");
    let (path, wanted) = missing(Model::open(&nowhere).unwrap_err());
    assert_eq!((path, wanted.as_str()), (nowhere, "a diffusers model folder or a single-file checkpoint"));
    let (path, _) = missing(Model::open(folder.path().join("unet")).unwrap_err());
    assert_eq!(path, folder.path().join("unet/model_index.json"));

    let model = open(&folder);
    fs::remove_file(folder.path().join("vae").join(WEIGHTS)).unwrap();
    let (path, wanted) = missing(model.vae(Role::Frozen, DType::F32, Device::Cpu).unwrap_err());
    assert_eq!(path, folder.path().join("vae").join(format!("{DIFFUSERS_STEM}.safetensors")));
    assert!(wanted.contains("fp16"), "{wanted}");
    fs::remove_dir_all(folder.path().join("unet")).unwrap();
    let (path, _) = missing(model.unet(Role::Frozen, DType::F32, Device::Cpu, None).unwrap_err());
    assert_eq!(path, folder.path().join("unet/config.json"));
    fs::remove_file(folder.path().join("tokenizer/vocab.json")).unwrap();
    let (path, _) = missing(model.text(DType::F32, Device::Cpu).unwrap_err());
    assert_eq!(path, folder.path().join("tokenizer/vocab.json"));
}
