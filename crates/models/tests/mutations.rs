//! A thousand damaged models: each is opened as training opens it, and answered without a panic, soon, and in little memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tastemaker_models::ModelError;
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::pack;
use tastemaker_models::pipeline::{Model, ModelSources};
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{mutated_json, mutated_safetensors, tiny_model};
use tastemaker_torch::{memory, tensors};
use tch::Device;
use tempfile::TempDir;

/// No damaged model takes longer.
const LONGEST: Duration = Duration::from_secs(10);

/// Nor do all of them together make the process this much larger, in bytes.
const LARGEST: u64 = 256 << 20;

/// Everything of a model that training reads before its first step.
fn open(sources: &ModelSources) -> Result<(), ModelError> {
    let model = Model::from_sources(sources)?;
    model.schedule()?;
    model.unet(Role::Trained, DType::F32, Device::Cpu, None)?;
    model.vae(Role::Frozen, DType::F32, Device::Cpu)?;
    let text = model.text(DType::F32, Device::Cpu)?;
    drop(text.encode(&["a fox", "\u{fc}ber 9 \u{1f98a}"], 32));
    Ok(())
}

/// A model with its UNet in shards and its tokenizer's special tokens in a file of their own.
fn model(folder: &Path) {
    tiny_model(folder);
    let unet = folder.join("unet");
    let whole = unet.join("diffusion_pytorch_model.safetensors");
    let (mut map, mut shards) = (BTreeMap::new(), [BTreeMap::new(), BTreeMap::new()]);
    for (i, (name, tensor)) in tensors::read(&whole).unwrap().into_iter().enumerate() {
        map.insert(name.clone(), format!("part-{}.safetensors", i % 2));
        shards[i % 2].insert(name, tensor);
    }
    for (i, shard) in shards.iter().enumerate() {
        tensors::write(&unet.join(format!("part-{i}.safetensors")), shard, &BTreeMap::new()).unwrap();
    }
    fs::remove_file(whole).unwrap();
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
    fs::write(unet.join("diffusion_pytorch_model.safetensors.index.json"), index).unwrap();
    let specials = json!({"bos_token": "<|startoftext|>", "pad_token": {"content": "<|endoftext|>"}});
    fs::write(folder.join("tokenizer/special_tokens_map.json"), specials.to_string()).unwrap();
    fs::write(folder.join("tokenizer/added_tokens.json"), "{\"<|endoftext|>\": 53}").unwrap();
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Damages the files one after the other, and opens the model each time.
fn each_damaged(n: u64, files: &[PathBuf], sources: &ModelSources) {
    open(sources).unwrap();
    let before = memory::read();
    let (mut refused, mut slowest) = (0, Duration::ZERO);
    for number in 0..n {
        let path = &files[number as usize % files.len()];
        let sound = fs::read(path).unwrap();
        let is_weights = path.extension().is_some_and(|ending| ending == "safetensors");
        let damaged =
            if is_weights { mutated_safetensors(&sound, number) } else { mutated_json(&sound, number) };
        fs::write(path, &damaged).unwrap();
        let began = Instant::now();
        let answer = catch_unwind(AssertUnwindSafe(|| open(sources)));
        let what = format!("number {number}, {}", path.display());
        let Ok(answer) = answer else { panic!("{what}: {}", excerpt(&damaged)) };
        if let Err(error) = answer {
            refused += 1;
            let text = error.to_string();
            assert!(text.len() < 100_000, "{what}: an error of {} bytes", text.len());
        }
        slowest = slowest.max(began.elapsed());
        assert!(slowest < LONGEST, "{what} took {slowest:?}");
        fs::write(path, sound).unwrap();
    }
    open(sources).unwrap();
    assert!(refused > n / 2, "only {refused} were refused");
    if let (Some(before), Some(after)) = (before, memory::read()) {
        assert!(after.peak < before.resident + LARGEST, "{before:?}, then {after:?}");
    }
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(4000).collect()
}

#[test]
fn a_thousand_damaged_models_are_answered() {
    let folder = TempDir::new().unwrap();
    model(folder.path());
    let files = files(folder.path());
    assert_eq!(files.len(), 15, "{files:?}");
    each_damaged(1000, &files, &ModelSources::of(folder.path()));
}

#[test]
fn damaged_single_files_are_answered() {
    let folder = TempDir::new().unwrap();
    let [described, file] = ["described", "single.safetensors"].map(|name| folder.path().join(name));
    tiny_model(&described);
    pack(&Model::open(&described).unwrap(), &[], &file, &BTreeMap::new()).unwrap();
    let sources = ModelSources { config: Some(described), ..ModelSources::of(&file) };
    each_damaged(100, &[file], &sources);
}
