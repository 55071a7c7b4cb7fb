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
use tastemaker_weights::safetensors::Header;
use tch::{Device, Kind, Tensor};
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
                    Change::Swapped => "swapped".to_owned(),
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
fn a_single_file_in_float8_is_the_model_of_the_numbers_it_stands_for() {
    for (layout, name) in LAYOUTS {
        let scratch = TempDir::new().unwrap();
        let [folder, held, whole, again] =
            ["model", "held.safetensors", "whole.safetensors", "again.safetensors"]
                .map(|name| scratch.path().join(name));
        let preset = narrow(layout);
        write_model(&preset, &folder);
        pack(&Model::open(&folder).unwrap(), &[], &whole, &BTreeMap::new()).unwrap();
        let (mut narrow, mut wide) = (tensors::Named::new(), tensors::Named::new());
        for (name, tensor) in tensors::read(&whole).unwrap() {
            let codes = tensor.to_kind(Kind::Float8e4m3fn);
            let mut meant = codes.to_kind(Kind::Float);
            // Scaled as ComfyUI's files of today are, where there is one weight; fused ones have one scale, too.
            if let Some(layer) = name.strip_suffix(".weight").filter(|_| tensor.dim() == 2) {
                narrow.insert(format!("{layer}.weight_scale"), Tensor::from(0.5f32));
                meant *= 0.5;
            }
            narrow.insert(name.clone(), codes);
            wide.insert(name, meant.to_kind(Kind::BFloat16));
        }
        tensors::write(&held, &narrow, &BTreeMap::new()).unwrap();
        tensors::write(&whole, &wide, &BTreeMap::new()).unwrap();
        let open = |path: &Path| {
            Model::from_file(&SingleFile::open(path).unwrap(), &preset, Prediction::VPrediction).unwrap()
        };
        let (held, whole) = (open(&held), open(&whole));
        for component in ["unet", "vae"].iter().chain(text_components(layout)) {
            let (one, other) = (held.stored(component).unwrap(), whole.stored(component).unwrap());
            assert_eq!(one.names(), other.names(), "{name} {component}");
            for tensor in one.names() {
                let (found, wanted) = (one.read(&tensor).unwrap(), other.read(&tensor).unwrap());
                assert!(found.equal(&wanted.to_kind(Kind::Float)), "{name} {component} {tensor}");
            }
        }
        let encode =
            |model: &Model| model.text(DType::F32, Device::Cpu).unwrap().encode(&["a fox"], 64).hidden;
        assert!(encode(&held).equal(&encode(&whole)), "{name}");

        // Converted, its numbers stand for themselves.
        pack(&held, &[], &again, &BTreeMap::new()).unwrap();
        let again = tensors::read(&again).unwrap();
        assert!(
            again.values().all(|tensor| tensor.numel() == 0 || tensor.kind() == Kind::BFloat16),
            "{name}"
        );
        assert!(wide.iter().all(|(tensor, value)| again[tensor].equal(value)), "{name}");
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
    let one = || Tensor::zeros([1], (Kind::Float, Device::Cpu));
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
            "found no text encoder of SD1.x, SD2.x or SDXL, and no transformer of SD3".to_owned(),
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

/// A checkpoint with these tensors of no element, these entries in its header and this name.
fn saying(whole: &BTreeMap<String, Tensor>, path: &Path, marks: &[&str], header: &[(&str, &str)]) {
    let mut tensors: BTreeMap<_, _> = whole.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
    let none = || Tensor::zeros([0], (Kind::Float, Device::Cpu));
    tensors.extend(marks.iter().map(|name| ((*name).to_owned(), none())));
    let header = header.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    tensors::write(path, &tensors, &header).unwrap();
}

#[test]
fn what_a_single_file_says_of_its_noise_is_honored_and_contradictions_are_asked_about() {
    const V: Option<Prediction> = Some(Prediction::VPrediction);
    const E: Option<Prediction> = Some(Prediction::Epsilon);
    const SPEC: &str = "modelspec.prediction_type";
    let scratch = TempDir::new().unwrap();
    let folder = scratch.path().join("model");
    write_model(&narrow(Layout::Sdxl), &folder);
    let plain = scratch.path().join("plain.safetensors");
    pack(&Model::open(&folder).unwrap(), &[], &plain, &BTreeMap::new()).unwrap();
    let whole = tensors::read(&plain).unwrap();
    type Said<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, &'a str)], Result<Option<Prediction>, ()>, bool);
    let cases: [Said<'_>; 16] = [
        ("plain", &[], &[], Ok(None), false),
        ("noob", &["v_pred"], &[], Ok(V), false),
        ("noob", &["v_pred", "ztsnr"], &[], Ok(V), true),
        ("noob-vpred-1.0", &["v_pred", "ztsnr"], &[(SPEC, "v")], Ok(V), true),
        ("x", &[], &[(SPEC, "v")], Ok(V), false),
        ("x", &[], &[(SPEC, "epsilon")], Ok(E), false),
        ("x", &["ztsnr"], &[(SPEC, "epsilon")], Ok(E), true),
        ("x", &[], &[(SPEC, "v"), ("ss_zero_terminal_snr", "True")], Ok(V), true),
        ("model_V-Pred_ztsnr", &[], &[], Ok(V), true),
        ("model-epsilonpred-v1.1", &[], &[], Ok(E), false),
        ("my-eps-mix", &[], &[], Ok(E), false),
        ("stepsmix_v2", &[], &[], Ok(None), false),
        ("x", &["v_pred"], &[(SPEC, "epsilon")], Err(()), false),
        ("x-epsilonpred", &["v_pred"], &[], Err(()), false),
        ("x-vpred", &[], &[(SPEC, "epsilon")], Err(()), false),
        ("x", &["ztsnr"], &[], Err(()), true),
    ];
    for (name, marks, header, wanted, zero) in cases {
        let path = scratch.path().join(name).with_extension("safetensors");
        let path =
            if name.contains("1.") { scratch.path().join(format!("{name}.safetensors")) } else { path };
        saying(&whole, &path, marks, header);
        let noise = SingleFile::open(&path).unwrap().noise;
        let case = format!("{name} {marks:?} {header:?}");
        assert_eq!(noise.zero_terminal_snr.is_some(), zero, "{case}");
        match (noise.prediction(&path, None), wanted) {
            (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{case}"),
            (Err(error), Err(())) => {
                assert!(error.to_string().contains("add --prediction_type"), "{case}: {error}");
                assert_eq!(noise.prediction(&path, E).unwrap(), E, "what is said goes before");
            }
            (found, wanted) => panic!("{case}: {found:?}, wanted {wanted:?}"),
        }
    }
    let beside = scratch.path().join("plain.yml");
    fs::write(&beside, "model:\n  params:\n    parameterization: v\n").unwrap();
    assert_eq!(SingleFile::open(&plain).unwrap().noise.prediction(&plain, None).unwrap(), V);
    fs::write(&beside, "model: [").unwrap();
    assert!(SingleFile::open(&plain).unwrap_err().to_string().contains("plain.yml is malformed"));
    let path = scratch.path().join("edm.safetensors");
    saying(&whole, &path, &["edm_mean", "edm_std"], &[]);
    assert!(SingleFile::open(&path).unwrap_err().to_string().contains("EDM"));
}

#[test]
fn noise_that_a_folder_has_is_said_by_the_single_file_and_comes_back() {
    let scratch = TempDir::new().unwrap();
    let [folder, file, back] = ["model", "single.safetensors", "back"].map(|name| scratch.path().join(name));
    let preset = narrow(Layout::Sdxl);
    write_model(&preset, &folder);
    let mut scheduler = preset.config("scheduler").clone();
    scheduler["prediction_type"] = json!("v_prediction");
    scheduler["rescale_betas_zero_snr"] = json!(true);
    scheduler["timestep_spacing"] = json!("trailing");
    fs::create_dir_all(folder.join("scheduler")).unwrap();
    fs::write(folder.join("scheduler/scheduler_config.json"), scheduler.to_string()).unwrap();
    let model = Model::open(&folder).unwrap();
    let wanted = model.schedule().unwrap();
    pack(&model, &[], &file, &BTreeMap::new()).unwrap();
    let stored = tensors::read(&file).unwrap();
    assert!(["v_pred", "ztsnr"].iter().all(|mark| stored[*mark].numel() == 0));
    let header = Header::read(&file).unwrap().metadata;
    assert_eq!(header["modelspec.prediction_type"], "v");

    // Configurations that say otherwise contradict the file; without any word of theirs it is as the file says.
    let single = SingleFile::open(&file).unwrap();
    let held =
        Model::from_file(&single, &preset, single.noise.prediction(&file, None).unwrap().unwrap()).unwrap();
    assert!(held.schedule().unwrap().schedule == wanted.schedule);
    save(&held, &[], &back).unwrap();
    assert_eq!(Model::open(&back).unwrap().schedule().unwrap().sampling, wanted.sampling);
    fs::write(folder.join("scheduler/scheduler_config.json"), preset.config("scheduler").to_string())
        .unwrap();
    let described = ModelSources { config: Some(folder), ..ModelSources::of(&file) };
    let error = Model::from_sources(&described).unwrap_err();
    assert!(matches!(error, ModelError::Contradiction { .. }), "{error}");
    let chosen = ModelSources { prediction: Some(Prediction::VPrediction), ..described };
    assert!(Model::from_sources(&chosen).unwrap().schedule().unwrap().schedule == wanted.schedule);
}

#[test]
fn text_encoders_are_found_under_every_name_they_have() {
    // What stands before the names of a text tower.
    let tower = |layout: Layout, component: usize| {
        let (_, map) = maps(&Preset::published(layout)).remove(component);
        let name = map.entries().find(|(_, _, place)| place.name.ends_with("token_embedding.weight"));
        name.unwrap().2.name.replace("token_embedding.weight", "")
    };
    // SD2-Turbo has its one tower where SDXL has the first of its two encoders.
    let (sd2, turbo) = (tower(Layout::Sd2, 2), tower(Layout::Sdxl, 3).replace(".1.", ".0."));
    for (layout, from, to) in [
        (Layout::Sd1, ".transformer.text_model.", ".transformer."),
        (Layout::Sdxl, ".transformer.text_model.", ".transformer."),
        (Layout::Sd2, sd2.as_str(), turbo.as_str()),
    ] {
        let scratch = TempDir::new().unwrap();
        let [folder, path] = ["model", "single.safetensors"].map(|name| scratch.path().join(name));
        let preset = narrow(layout);
        write_model(&preset, &folder);
        pack(&Model::open(&folder).unwrap(), &[], &path, &BTreeMap::new()).unwrap();
        let spelled = |path: &Path| {
            let model =
                Model::from_file(&SingleFile::open(path).unwrap(), &preset, Prediction::Epsilon).unwrap();
            model.text(DType::F32, Device::Cpu).unwrap().encode(&["a fox"], 64).hidden
        };
        let wanted = spelled(&path);
        let stored = tensors::read(&path).unwrap();
        let n_moved = stored.keys().filter(|name| name.contains(from)).count();
        assert!(n_moved > 10, "{layout:?}");
        let moved = stored.into_iter().map(|(name, tensor)| (name.replace(from, to), tensor)).collect();
        tensors::write(&path, &moved, &BTreeMap::new()).unwrap();
        assert_eq!(SingleFile::open(&path).unwrap().layout, layout);
        assert!(spelled(&path).equal(&wanted), "{layout:?}");
    }
}
