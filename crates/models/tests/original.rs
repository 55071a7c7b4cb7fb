//! Single-file checkpoints: where every tensor lies, there and back.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tastemaker_math::schedule::Prediction;
use tastemaker_models::clip_text::{ClipText, ClipTextConfig};
use tastemaker_models::nn::{Role, Scope, Weights};
use tastemaker_models::original::{Change, ComponentMap, Layout, Preset, SingleFile, pack};
use tastemaker_models::pipeline::{
    DIFFUSERS_STEM, ModelFolder, StoredType, TRANSFORMERS_STEM, write_component,
};
use tastemaker_models::unet::{UNet, UNetConfig};
use tastemaker_models::vae::{Vae, VaeConfig};
use tastemaker_torch::{Precision, tensors};
use tch::{Device, Tensor};
use tempfile::TempDir;

const LAYOUTS: [(Layout, &str); 3] = [(Layout::Sd1, "sd1"), (Layout::Sd2, "sd2"), (Layout::Sdxl, "sdxl")];

fn text_components(layout: Layout) -> &'static [&'static str] {
    match layout {
        Layout::Sdxl => &["text_encoder", "text_encoder_2"],
        _ => &["text_encoder"],
    }
}

fn maps(preset: &Preset) -> Vec<(&'static str, ComponentMap)> {
    let unet = UNetConfig::from_json(preset.config("unet")).unwrap();
    let vae = VaeConfig::from_json(preset.config("vae")).unwrap();
    let mut maps =
        vec![("unet", ComponentMap::unet(&unet).unwrap()), ("vae", ComponentMap::vae(&vae).unwrap())];
    for (index, component) in text_components(preset.layout).iter().enumerate() {
        let config = ClipTextConfig::from_json(preset.config(component)).unwrap();
        maps.push((component, ComponentMap::text(preset.layout, index, &config).unwrap()));
    }
    maps
}

#[test]
fn every_tensor_of_the_published_models_lies_where_diffusers_finds_it() {
    for (layout, name) in LAYOUTS {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/original");
        let wanted = fs::read_to_string(Path::new(golden).join(format!("{name}.tsv"))).unwrap();
        let mut found = String::new();
        for (component, map) in maps(&Preset::published(layout)) {
            for (ours, _, place) in map.entries() {
                let change = match place.change {
                    Change::None => "same".to_owned(),
                    Change::Pixels => "pixels".to_owned(),
                    Change::Transposed => "transposed".to_owned(),
                    Change::Rows { part, .. } => format!("rows {part}"),
                };
                found += &format!("{component}\t{ours}\t{}\t{change}\n", place.name);
            }
        }
        let differs = found.lines().zip(wanted.lines()).find(|(found, wanted)| found != wanted);
        assert_eq!(differs, None, "{name}");
        assert_eq!(found.lines().count(), wanted.lines().count(), "{name}");
    }
}

/// A model of the same build as a published one, with narrow layers.
fn narrow(layout: Layout) -> Preset {
    let mut preset = Preset::published(layout);
    let mut set = |component: &str, key: &str, value: Value| {
        preset.configs.get_mut(component).unwrap()[key] = value;
    };
    let n_levels = if layout == Layout::Sdxl { 3 } else { 4 };
    set("unet", "block_out_channels", json!([8, 16, 24, 32][..n_levels]));
    set("unet", "norm_num_groups", json!(4));
    set("unet", "attention_head_dim", json!(2));
    set("vae", "block_out_channels", json!([4, 8, 8, 12]));
    set("vae", "norm_num_groups", json!(2));
    for component in text_components(layout) {
        for (key, value) in [
            ("hidden_size", 12),
            ("intermediate_size", 20),
            ("num_attention_heads", 3),
            ("vocab_size", 49408),
        ] {
            set(component, key, json!(value));
        }
        set(component, "num_hidden_layers", json!(2));
        set(component, "projection_dim", json!(10));
    }
    let width = 12 * text_components(layout).len();
    set("unet", "cross_attention_dim", json!(width));
    if layout == Layout::Sdxl {
        set("unet", "addition_time_embed_dim", json!(4));
        set("unet", "projection_class_embeddings_input_dim", json!(10 + 6 * 4));
    }
    preset
}

fn drawn(construct: impl FnOnce(Scope<'_>)) -> BTreeMap<String, Tensor> {
    let weights = Weights::fresh(7, Role::Frozen, Precision::F32, Device::Cpu);
    construct(weights.root());
    weights.finish().unwrap().1
}

fn write_model(preset: &Preset, folder: &Path) {
    let write = |component: &str, stem: &str, parameters: &BTreeMap<String, Tensor>| {
        let config = preset.config(component);
        write_component(folder.join(component), stem, config, parameters, StoredType::F16).unwrap();
    };
    let unet = UNetConfig::from_json(preset.config("unet")).unwrap();
    write("unet", DIFFUSERS_STEM, &drawn(|scope| drop(UNet::new(scope, unet, Precision::F32))));
    let vae = VaeConfig::from_json(preset.config("vae")).unwrap();
    write("vae", DIFFUSERS_STEM, &drawn(|scope| drop(Vae::new(scope, vae, Precision::F32))));
    for component in text_components(preset.layout) {
        let config = ClipTextConfig::from_json(preset.config(component)).unwrap();
        write(component, TRANSFORMERS_STEM, &drawn(|scope| drop(ClipText::new(scope, config))));
    }
    fs::write(folder.join("model_index.json"), preset.config("model_index").to_string()).unwrap();
}

#[test]
fn a_model_comes_back_from_a_single_file_bit_for_bit() {
    for (layout, name) in LAYOUTS {
        let scratch = TempDir::new().unwrap();
        let [model, file, back] =
            ["model", "single.safetensors", "back"].map(|name| scratch.path().join(name));
        let preset = narrow(layout);
        write_model(&preset, &model);
        let packed = pack(&ModelFolder::open(&model).unwrap(), &file, &BTreeMap::new()).unwrap();
        assert_eq!(packed, layout, "{name}");
        let single = SingleFile::open(&file).unwrap();
        assert_eq!(single.layout, layout, "{name}");
        single.unpack(&back, Prediction::VPrediction, &preset).unwrap();

        for component in ["unet", "vae"].iter().chain(text_components(layout)) {
            let stem = if component.starts_with("text") { TRANSFORMERS_STEM } else { DIFFUSERS_STEM };
            let read = |root: &Path| {
                tensors::read(&root.join(component).join(format!("{stem}.safetensors"))).unwrap()
            };
            let (before, after) = (read(&model), read(&back));
            assert!(before.keys().eq(after.keys()), "{name} {component}");
            for (tensor, value) in &before {
                assert_eq!(value.kind(), after[tensor].kind());
                assert!(value.equal(&after[tensor]), "{name} {component} {tensor}");
            }
        }
        let back = ModelFolder::open(&back).unwrap();
        assert_eq!(back.schedule().unwrap().schedule.prediction(), Prediction::VPrediction);
        back.text(Precision::F32, Device::Cpu).unwrap();
    }
}

/// Something done to the tensors of a checkpoint.
type Edit<'a> = &'a dyn Fn(&mut BTreeMap<String, Tensor>);

#[test]
fn what_is_no_checkpoint_is_refused_by_name() {
    let scratch = TempDir::new().unwrap();
    let [model, file, back] = ["model", "single.safetensors", "back"].map(|name| scratch.path().join(name));
    let preset = narrow(Layout::Sd1);
    write_model(&preset, &model);
    pack(&ModelFolder::open(&model).unwrap(), &file, &BTreeMap::new()).unwrap();
    let whole = tensors::read(&file).unwrap();
    let refusal = |edit: Edit<'_>| {
        let mut tensors: BTreeMap<_, _> = whole.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
        edit(&mut tensors);
        tensors::write(&file, &tensors, &BTreeMap::new()).unwrap();
        let unpack = |single: SingleFile| single.unpack(&back, Prediction::Epsilon, &preset);
        let error = SingleFile::open(&file).and_then(unpack).expect_err("it is damaged");
        assert!(!back.join("model_index.json").exists());
        error.to_string()
    };
    let one = || Tensor::zeros([1], (tch::Kind::Float, Device::Cpu));
    let stored = |component: usize, ours: &str| {
        let (_, map) = maps(&preset).remove(component);
        let found = map.entries().find(|(name, ..)| *name == ours).map(|(_, _, place)| place.name.clone());
        found.unwrap()
    };
    let conv = stored(0, "conv_out.bias");
    let stranger = conv.replace("bias", "scale");
    let position = stored(2, "text_model.embeddings.position_embedding.weight");
    let text = position.split("text_model").next().unwrap().to_owned();
    let edits: [(Edit<'_>, String); 5] = [
        (&|t| drop(t.remove(&conv)), format!("`{conv}` is missing")),
        (&|t| drop(t.insert(conv.clone(), one())), format!("`{conv}` has shape [1]")),
        (&|t| drop(t.insert(stranger.clone(), one())), format!("`{stranger}` is not known")),
        (
            &|t| t.retain(|name, _| !name.starts_with(&text)),
            "found no text encoder of SD1.x, SD2.x or SDXL".to_owned(),
        ),
        (&|t| t.clear(), "found no tensor named".to_owned()),
    ];
    for (edit, wanted) in edits {
        let text = refusal(edit);
        assert!(text.contains(&wanted), "{wanted} in {text}");
    }
    // Schedules and averages that checkpoints carry along do not disturb.
    let mut tensors = whole;
    tensors.insert("betas".into(), one());
    tensors.insert("model_ema.decay".into(), one());
    tensors.insert(position.replace("position_embedding.weight", "position_ids"), one());
    tensors::write(&file, &tensors, &BTreeMap::new()).unwrap();
    SingleFile::open(&file).unwrap().unpack(&back, Prediction::Epsilon, &preset).unwrap();
}
