//! Single files and adapters: there and back, and what is missing in words.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use tastemaker_math::Prediction;
use tastemaker_models::adapters::{FILE_NAME, KohyaFacts, LoraFile, LoraNames};
use tastemaker_models::original::{ComponentMap, Layout};
use tastemaker_models::pipeline::{Model, ModelSources, pack, save};
use tastemaker_models::place::Change;
use tastemaker_testkit_torch::{Golden, golden_dir};
use tastemaker_torch::tensors::{self, Named};
use tch::{Kind, Tensor};
use tempfile::TempDir;

use crate::bench::folder;
use crate::stored::{assert_same, weights};

const COMPONENTS: [&str; 3] = ["transformer", "vae", "text_encoder"];
const COMFYUI: &str = "pytorch_lora_weights_comfyui.safetensors";

fn described_by(file: &Path, config: &Path) -> Model {
    let config = Some(config.to_owned());
    Model::from_sources(&ModelSources { config, ..ModelSources::of(file) }).unwrap()
}

#[test]
fn a_model_comes_back_from_a_single_file_bit_for_bit() {
    let (folder, scratch) = (folder(&Golden::load("zimage", "pipeline")), TempDir::new().unwrap());
    let model = Model::open(folder.path()).unwrap();
    let file = scratch.path().join("single.safetensors");
    assert_eq!(pack(&model, &[], &file, &BTreeMap::new()).unwrap(), Layout::ZImage);
    let held = described_by(&file, folder.path());
    let back = scratch.path().join("back");
    save(&held, &[], &back).unwrap();
    let back = Model::open(&back).unwrap();
    for component in COMPONENTS {
        assert_same(&held, &model, component);
        assert_same(&back, &model, component);
    }
    assert_eq!(back.schedule().unwrap().schedule, model.schedule().unwrap().schedule);
}

/// As ComfyUI's split files are, with and without a prefix, with a tensor that nobody reads.
#[test]
fn what_a_file_skips_comes_from_the_folder_that_describes_it() {
    let (folder, scratch) = (folder(&Golden::load("zimage", "pipeline")), TempDir::new().unwrap());
    let model = Model::open(folder.path()).unwrap();
    let file = scratch.path().join("file.safetensors");
    pack(&model, &[], &file, &BTreeMap::new()).unwrap();
    let whole = tensors::read(&file).unwrap();
    let prefix = whole.keys().find_map(|name| name.split_once("cap_embedder.")).unwrap().0.to_owned();
    let own = |start: &str| -> Named {
        let own = whole.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?, tensor)));
        own.map(|(name, tensor)| (format!("{start}{name}"), tensor.shallow_clone())).collect()
    };
    let split: Named = weights(&model, "transformer");
    let with_last =
        own("").into_iter().chain([("norm_final.weight".to_owned(), Tensor::from_slice(&[1f32]))]);
    for (what, stored) in [
        ("alone", own("")),
        ("under a prefix", own(&prefix)),
        ("with a last normalization", with_last.collect()),
        ("under diffusers' names", split),
    ] {
        fs::remove_file(&file).unwrap();
        tensors::write(&file, &stored, &BTreeMap::new()).unwrap();
        let held = described_by(&file, folder.path());
        for component in COMPONENTS {
            assert_same(&held, &model, component);
        }
        let refused = Model::open(&file).unwrap_err().to_string();
        assert!(refused.contains("add --model_config FOLDER"), "{what}: {refused}");
    }
}

/// In both spellings of ComfyUI, joined queries, keys and values under one scale.
#[test]
fn scaled_float8_is_read_in_both_spellings() {
    let (folder, scratch) = (folder(&Golden::load("zimage", "pipeline")), TempDir::new().unwrap());
    let model = Model::open(folder.path()).unwrap();
    let file = |name: &str| scratch.path().join(format!("{name}.safetensors"));
    pack(&model, &[], file("whole"), &BTreeMap::new()).unwrap();
    let whole = tensors::read(&file("whole")).unwrap();
    let own = whole.keys().find_map(|name| name.split_once("cap_embedder.")).unwrap().0.to_owned();
    for (what, end, prefix) in [("first", ".scale_weight", ""), ("later", ".weight_scale", own.as_str())] {
        let (mut written, mut meant) = (Named::new(), Named::new());
        for (name, tensor) in &whole {
            let Some(name) = name.strip_prefix(&own) else { continue };
            let tensor = tensor.shallow_clone();
            let name = format!("{prefix}{name}");
            let layer = name.strip_suffix(".weight").filter(|layer| {
                tensor.dim() == 2 && (layer.contains(".attention.") || layer.contains(".feed_forward."))
            });
            let Some(layer) = layer else {
                written.insert(name.clone(), tensor.shallow_clone());
                meant.insert(name, tensor);
                continue;
            };
            let scale = tensor.abs().max() / 448.0;
            let codes = (&tensor / &scale).to_kind(Kind::Float8e4m3fn);
            written.insert(format!("{layer}{end}"), scale.shallow_clone());
            meant.insert(name.clone(), codes.to_kind(Kind::Float) * scale);
            written.insert(name, codes);
        }
        if prefix.is_empty() {
            written
                .insert("scaled_fp8".to_owned(), Tensor::zeros([2], (Kind::Float8e4m3fn, tch::Device::Cpu)));
        }
        tensors::write(&file(what), &written, &BTreeMap::new()).unwrap();
        tensors::write(&file("meant"), &meant, &BTreeMap::new()).unwrap();
        let [found, wanted] = [what, "meant"].map(|name| described_by(&file(name), folder.path()));
        assert_same(&found, &wanted, "transformer");
    }
}

#[test]
fn every_tensor_of_the_published_transformer_lies_where_diffusers_finds_it() {
    let map = ComponentMap::backbone(&Layout::ZImage.published_backbone()).unwrap();
    let line = |(ours, _, place): (&str, &[usize], &tastemaker_models::place::Place)| {
        let change = match place.change {
            Change::None => "same".to_owned(),
            Change::Rows { part, .. } => format!("rows {part}"),
            other => panic!("{other:?}"),
        };
        format!("transformer\t{ours}\t{}\t{change}", place.name)
    };
    let found: Vec<String> = map.entries().map(line).collect();
    let wanted = fs::read_to_string(golden_dir("original", "zimage.tsv")).unwrap();
    let differs = found.iter().zip(wanted.lines()).find(|(found, wanted)| *found != wanted);
    assert_eq!(differs, None);
    assert_eq!(found.len(), wanted.lines().count());
}

fn facts() -> KohyaFacts {
    KohyaFacts {
        layout: Layout::ZImage,
        prediction: Prediction::Flow,
        resolution: 1024,
        title: "test".to_owned(),
        training: BTreeMap::new(),
    }
}

/// The update of each layer, `alpha / rank` times the product of its factors.
fn updates(file: &LoraFile) -> BTreeMap<String, Tensor> {
    let factor =
        |layer: &str, end: &str| file.unet.tensors[&format!("{layer}.{end}.weight")].to_kind(Kind::Double);
    let layers = file.unet.layers().into_iter();
    let update = |layer: &String| {
        let scale = file.unet.ranks.alpha(layer) / file.unet.ranks.rank(layer) as f64;
        factor(layer, "lora_B").matmul(&factor(layer, "lora_A")) * scale
    };
    layers.map(|layer| (layer.clone(), update(&layer))).collect()
}

#[track_caller]
fn assert_updates(found: &LoraFile, wanted: &LoraFile, what: &str) {
    let (found, wanted) = (updates(found), updates(wanted));
    assert!(found.keys().eq(wanted.keys()), "{what}");
    for (layer, wanted) in &wanted {
        let apart = (&found[layer] - wanted).abs().max().double_value(&[]);
        assert!(apart <= 1e-7 * wanted.abs().max().double_value(&[]), "{what}: {layer} is off by {apart}");
    }
}

/// diffusers' pipeline made the recorded images from the recorded file (`golden/zimage/whole.py`).
#[test]
fn the_file_for_comfyui_is_the_one_that_diffusers_loads() {
    let golden = Golden::load("zimage", "pipeline");
    let folder = folder(&golden);
    let model = Model::open(folder.path()).unwrap();
    let config = model.backbone_config().unwrap();
    let file = LoraFile::read_for(golden.path(FILE_NAME), &model).unwrap();
    let scratch = TempDir::new().unwrap();
    let path = scratch.path().join("comfyui.safetensors");
    file.write_kohya(&path, &config, &facts()).unwrap();
    let (found, wanted) = (tensors::read(&path).unwrap(), tensors::read(&golden.path(COMFYUI)).unwrap());
    assert!(found.keys().eq(wanted.keys()), "{:?}", found.keys());
    assert!(wanted.iter().all(|(name, tensor)| found[name].equal(tensor)));
    let back = LoraFile::read_for(&path, &model).unwrap();
    assert_updates(&back, &file, "back");
    assert_eq!(back.unet.ranks.alpha.to_string(), golden.note("alpha").unwrap());
}

/// Source: `model_lora_keys_unet`, `Comfy-Org/ComfyUI:comfy/lora.py`; the lists of `golden/original`.
#[test]
fn every_layer_of_the_published_transformer_has_a_name_that_comfyui_knows() {
    let config = Layout::ZImage.published_backbone();
    let recorded = fs::read_to_string(golden_dir("original", "zimage.tsv")).unwrap();
    let known: BTreeSet<String> = recorded
        .lines()
        .filter_map(|line| line.split('\t').nth(1)?.strip_suffix(".weight"))
        .map(|layer| format!("diffusion_model.{layer}"))
        .collect();
    let shapes = config.shapes();
    let layers = shapes.iter().filter(|(name, shape)| name.ends_with(".weight") && shape.len() == 2);
    let mut stored = Named::new();
    let one = |shape: &[i64]| Tensor::zeros(shape, (Kind::Half, tch::Device::Cpu));
    for (name, shape) in layers {
        let layer = name.trim_end_matches(".weight");
        let [n_out, n_in] = [shape[0] as i64, shape[1] as i64];
        stored.insert(format!("transformer.{layer}.lora_A.weight"), one(&[1, n_in]));
        stored.insert(format!("transformer.{layer}.lora_B.weight"), one(&[n_out, 1]));
    }
    let scratch = TempDir::new().unwrap();
    let (path, twin) = (scratch.path().join("lora.safetensors"), scratch.path().join("twin.safetensors"));
    tensors::write(&path, &stored, &BTreeMap::new()).unwrap();
    let (file, names, layout) = LoraFile::open(&path).unwrap();
    assert_eq!((names, layout), (LoraNames::Diffusers, Some(Layout::ZImage)));
    file.write_kohya(&twin, &config, &facts()).unwrap();
    let mut ends: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in tensors::read(&twin).unwrap().into_keys() {
        let end = [".lora_A.weight", ".lora_B.weight", ".alpha"]
            .into_iter()
            .find(|end| name.ends_with(end))
            .unwrap();
        ends.entry(name.trim_end_matches(end).to_owned()).or_default().insert(end.to_owned());
    }
    assert!(ends.values().all(|ends| ends.len() == 3));
    let strangers: Vec<&String> = ends.keys().filter(|layer| !known.contains(*layer)).collect();
    assert!(strangers.is_empty() && ends.len() == file.unet.layers().len(), "{strangers:?}");
    let (_, names, layout) = LoraFile::open(&twin).unwrap();
    assert_eq!((names, layout), (LoraNames::Kohya, Some(Layout::ZImage)));
}

/// The names of trainers, and joined queries, keys and values: their factors as a block-diagonal one, with three times the rank and alpha.
#[test]
fn adapters_are_read_under_every_name_that_others_write() {
    let golden = Golden::load("zimage", "pipeline");
    let folder = folder(&golden);
    let model = Model::open(folder.path()).unwrap();
    let wanted = LoraFile::read_for(golden.path(FILE_NAME), &model).unwrap();
    let alpha: f64 = golden.note("alpha").unwrap().parse().unwrap();
    let flat = |layer: &str| layer.replace('.', "_");
    let kohya = ["lora", "unet", ""].join("_");
    let split = |name: &dyn Fn(&str) -> String, [down, up]: [&str; 2]| -> Named {
        let mut stored = Named::new();
        for layer in wanted.unet.layers() {
            let factor = |end: &str| wanted.unet.tensors[&format!("{layer}.{end}.weight")].shallow_clone();
            stored.insert(format!("{}.{down}.weight", name(&layer)), factor("lora_A"));
            stored.insert(format!("{}.{up}.weight", name(&layer)), factor("lora_B"));
            stored.insert(format!("{}.alpha", name(&layer)), Tensor::from(alpha as f32));
        }
        stored
    };
    let joined = |name: &dyn Fn(&str) -> String| -> Named {
        let native =
            split(&|layer| layer.replace("attention.to_out.0", "attention.out"), ["lora_down", "lora_up"]);
        let mut stored = Named::new();
        for (full, tensor) in &native {
            let (layer, end) = full.split_at(full.rfind(".lora_").unwrap_or(full.len() - ".alpha".len()));
            let Some((block, part)) = layer.rsplit_once(".to_") else {
                stored.insert(format!("{}{end}", name(layer)), tensor.shallow_clone());
                continue;
            };
            let of = |part: &str| &native[&format!("{block}.to_{part}{end}")];
            let parts = ["q", "k", "v"].map(of);
            let whole = match end {
                ".alpha" => tensor * 3.0,
                ".lora_down.weight" => Tensor::cat(&parts, 0),
                _ => Tensor::block_diag(&parts),
            };
            assert!(["q", "k", "v"].contains(&part));
            stored.insert(format!("{}{end}", name(&format!("{block}.qkv"))), whole);
        }
        stored
    };
    let scratch = TempDir::new().unwrap();
    let path = scratch.path().join("lora.safetensors");
    for (what, stored) in [
        ("ai-toolkit's", split(&|layer| format!("diffusion_model.{layer}"), ["lora_A", "lora_B"])),
        ("OneTrainer's", split(&|layer| format!("transformer.{layer}"), ["lora_down", "lora_up"])),
        ("peft's", split(&|layer| format!("base_model.model.{layer}"), ["lora_A", "lora_B"])),
        ("bare", split(&|layer| layer.to_owned(), ["lora_A", "lora_B"])),
        ("musubi-tuner's", split(&|layer| format!("{kohya}{}", flat(layer)), ["lora_down", "lora_up"])),
        ("LyCORIS'", split(&|layer| format!("lycoris_{}", flat(layer)), ["lora_down", "lora_up"])),
        ("joined, flat", joined(&|layer| format!("{kohya}{}", flat(layer)))),
        ("joined, dotted", joined(&|layer| format!("diffusion_model.{layer}"))),
    ] {
        tensors::write(&path, &stored, &BTreeMap::new()).unwrap();
        assert_updates(&LoraFile::read_for(&path, &model).unwrap(), &wanted, what);
        fs::remove_file(&path).unwrap();
    }
}
