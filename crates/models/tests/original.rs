//! Single-file checkpoints: where every tensor lies, there and back.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tastemaker_math::schedule::Prediction;
use tastemaker_models::ModelError;
use tastemaker_models::clip_text::{ClipText, ClipTextConfig};
use tastemaker_models::nn::{Role, Scope, TensorSource, Weights};
use tastemaker_models::original::{ComponentMap, Layout, Preset};
use tastemaker_models::pipeline::{
    DIFFUSERS_STEM, Model, ModelSources, TRANSFORMERS_STEM, save, write_component,
};
use tastemaker_models::pipeline::{SingleFile, pack};
use tastemaker_models::place::Change;
use tastemaker_models::unet::{UNet, UNetConfig};
use tastemaker_models::vae::{AutoencoderKl, VaeConfig};
use tastemaker_store::dtype::DType;
use tastemaker_torch::tensors;
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
    let weights = Weights::fresh(7, Role::Frozen, DType::F32, Device::Cpu);
    construct(weights.root());
    weights.finish().unwrap().1
}

fn write_model(preset: &Preset, folder: &Path) {
    let write = |component: &str, stem: &str, parameters: &BTreeMap<String, Tensor>| {
        let config = preset.config(component);
        write_component(folder.join(component), stem, config, parameters, DType::F16).unwrap();
    };
    let unet = UNetConfig::from_json(preset.config("unet")).unwrap();
    write("unet", DIFFUSERS_STEM, &drawn(|scope| drop(UNet::new(scope, unet, DType::F32))));
    let vae = VaeConfig::from_json(preset.config("vae")).unwrap();
    write("vae", DIFFUSERS_STEM, &drawn(|scope| drop(AutoencoderKl::new(scope, vae, DType::F32))));
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
        let packed = pack(&Model::open(&model).unwrap(), &[], &file, &BTreeMap::new()).unwrap();
        assert_eq!(packed, layout, "{name}");
        let single = SingleFile::open(&file).unwrap();
        assert_eq!(single.layout, layout, "{name}");
        let held = Model::from_file(&single, &preset, Prediction::VPrediction).unwrap();
        save(&held, &[], &back).unwrap();

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
        let back = Model::open(&back).unwrap();
        assert_eq!(back.schedule().unwrap().schedule.prediction(), Prediction::VPrediction);
        back.text(DType::F32, Device::Cpu).unwrap();
    }
}

/// Every tensor of every network, as networks are built from them.
fn parameters(model: &Model) -> Vec<BTreeMap<String, Tensor>> {
    let unet = model.unet(Role::Frozen, DType::F32, Device::Cpu, None).unwrap();
    let vae = model.vae(Role::Frozen, DType::F32, Device::Cpu).unwrap();
    vec![unet.parameters, vae.parameters]
}

#[test]
fn networks_come_out_of_a_single_file_as_out_of_the_folder() {
    for (layout, name) in LAYOUTS {
        let scratch = TempDir::new().unwrap();
        let [folder, path] = ["model", "single.safetensors"].map(|name| scratch.path().join(name));
        let preset = narrow(layout);
        write_model(&preset, &folder);
        let folder = Model::open(&folder).unwrap();
        pack(&folder, &[], &path, &BTreeMap::new()).unwrap();
        let file = Model::from_file(&SingleFile::open(&path).unwrap(), &preset, Prediction::Epsilon).unwrap();
        for (one, other) in parameters(&folder).iter().zip(&parameters(&file)) {
            assert!(one.keys().eq(other.keys()), "{name}");
            assert!(one.iter().all(|(tensor, value)| value.equal(&other[tensor])), "{name}");
        }
        for component in text_components(layout) {
            let (one, other) = (folder.stored(component).unwrap(), file.stored(component).unwrap());
            assert_eq!(one.names(), other.names(), "{name} {component}");
            for tensor in one.names() {
                assert!(one.read(&tensor).unwrap().equal(&other.read(&tensor).unwrap()), "{name} {tensor}");
            }
        }
        let prompts = ["a fox", "rain over the sea"];
        let encoded = file.text(DType::F32, Device::Cpu).unwrap().encode(&prompts, 64);
        assert_eq!(encoded.hidden.size()[..2], [2, 77], "{name}");
    }
}

#[test]
fn what_an_sd2_file_predicts_must_be_said() {
    let scratch = TempDir::new().unwrap();
    let [folder, file] = ["model", "single.safetensors"].map(|name| scratch.path().join(name));
    let preset = narrow(Layout::Sd2);
    write_model(&preset, &folder);
    pack(&Model::open(&folder).unwrap(), &[], &file, &BTreeMap::new()).unwrap();
    assert!(matches!(Model::open(&file), Err(ModelError::UnknownPrediction)));
    // Said, it goes on to the sizes, which are not those of the published model.
    let said = ModelSources { prediction: Some(Prediction::VPrediction), ..ModelSources::of(&file) };
    let error = Model::from_sources(&said).unwrap_err().to_string();
    assert!(error.contains("is not known"), "{error}");

    // A folder with the configurations of its own describes it, and what is said goes before what the folder says.
    let described = scratch.path().join("described");
    let held = Model::from_file(&SingleFile::open(&file).unwrap(), &preset, Prediction::Epsilon).unwrap();
    save(&held, &[], &described).unwrap();
    let sources = ModelSources { config: Some(described), ..said };
    let model = Model::from_sources(&sources).unwrap();
    assert_eq!(model.schedule().unwrap().schedule.prediction(), Prediction::VPrediction);
    let again = scratch.path().join("again");
    save(&model, &[], &again).unwrap();
    let again = Model::open(&again).unwrap().schedule().unwrap();
    assert_eq!(again, model.schedule().unwrap());
    let silent = Model::from_sources(&ModelSources { prediction: None, ..sources }).unwrap();
    assert_eq!(silent.schedule().unwrap().schedule.prediction(), Prediction::Epsilon);
}

#[test]
fn a_file_without_the_part_that_is_replaced_will_do() {
    let scratch = TempDir::new().unwrap();
    let [folder, file] = ["model", "single.safetensors"].map(|name| scratch.path().join(name));
    let preset = narrow(Layout::Sd1);
    write_model(&preset, &folder);
    pack(&Model::open(&folder).unwrap(), &[], &file, &BTreeMap::new()).unwrap();
    let (_, vae) = maps(&preset).remove(1);
    let mut tensors = tensors::read(&file).unwrap();
    vae.entries().for_each(|(_, _, place)| drop(tensors.remove(&place.name)));
    tensors::write(&file, &tensors, &BTreeMap::new()).unwrap();
    fs::create_dir_all(folder.join("scheduler")).unwrap();
    fs::write(folder.join("scheduler/scheduler_config.json"), preset.config("scheduler").to_string())
        .unwrap();
    let without = ModelSources { config: Some(folder.clone()), ..ModelSources::of(&file) };
    assert!(Model::from_sources(&without).unwrap_err().to_string().contains("is missing"));
    let model = Model::from_sources(&ModelSources { vae: Some(folder.clone()), ..without }).unwrap();
    let wanted = parameters(&Model::open(&folder).unwrap());
    let found = parameters(&model);
    assert!(wanted[1].iter().all(|(name, tensor)| found[1][name].equal(tensor)));
}

/// Something done to the tensors of a checkpoint.
type Edit<'a> = &'a dyn Fn(&mut BTreeMap<String, Tensor>);

#[test]
fn what_is_no_checkpoint_is_refused_by_name() {
    let scratch = TempDir::new().unwrap();
    let [model, file] = ["model", "single.safetensors"].map(|name| scratch.path().join(name));
    let preset = narrow(Layout::Sd1);
    write_model(&preset, &model);
    pack(&Model::open(&model).unwrap(), &[], &file, &BTreeMap::new()).unwrap();
    let whole = tensors::read(&file).unwrap();
    let refusal = |edit: Edit<'_>| {
        let mut tensors: BTreeMap<_, _> = whole.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
        edit(&mut tensors);
        tensors::write(&file, &tensors, &BTreeMap::new()).unwrap();
        let held = |single: SingleFile| Model::from_file(&single, &preset, Prediction::Epsilon);
        SingleFile::open(&file).and_then(held).expect_err("it is damaged").to_string()
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
    Model::from_file(&SingleFile::open(&file).unwrap(), &preset, Prediction::Epsilon).unwrap();
}
