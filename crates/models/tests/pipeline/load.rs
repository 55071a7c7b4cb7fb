//! What is read equals what the networks' own goldens say.

use std::collections::BTreeMap;
use std::fs;

use serde_json::json;
use tastemaker_diffusion::Vae;
use tastemaker_models::ModelError;
use tastemaker_models::adapters::{FILE_NAME, LoraFile};
use tastemaker_models::clip_text::{self, ClipText, ClipTextConfig};
use tastemaker_models::nn::{LoraSpec, Ranks, Role, Weights};
use tastemaker_models::pipeline::{CutCaptions, Family, Model, ModelSources};
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, assert_close, relative_error};
use tastemaker_torch::tensors;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use crate::folders::{END, WEIGHTS, open, predict, sd1, sdxl_text, text, write_json};

#[test]
fn networks_come_out_of_a_folder_as_they_were_recorded() {
    let (folder, golden) = (sd1(), Golden::load("models", "unet-sd1"));
    let model = open(&folder);
    assert_eq!(model.family(), Family::StableDiffusion);
    assert!(model.index().components.iter().all(|component| model.has(component)));
    let unet = model.unet(Role::Trained, DType::F32, Device::Cpu, None).unwrap();
    assert_close(&predict(&golden, &unet.network), &golden.tensor("output"), 1e-5, "unet");
    assert_eq!(unet.trainable.len(), unet.parameters.len());

    let golden = Golden::load("models", "vae");
    let vae = model.vae(Role::Frozen, DType::F32, Device::Cpu).unwrap();
    let latents = golden.tensor("latent") * vae.network.config().scaling_factor;
    assert_close(&vae.network.decode(&latents), &golden.tensor("decoded"), 1e-5, "vae");
    assert!(vae.trainable.is_empty());
    assert_eq!(model.schedule().unwrap().sampling.steps_offset, 1);
}

#[test]
fn an_adapter_comes_along_and_must_fit() {
    let (folder, golden) = (sd1(), Golden::load("models", "unet-sd1-lora"));
    let model = open(&folder);
    let load = |lora: LoraSpec| model.unet(Role::Frozen, DType::F32, Device::Cpu, Some(lora));
    let spec = || LoraFile::read(golden.path(FILE_NAME)).unwrap().unet.into_spec();
    let unet = load(spec()).unwrap();
    assert_close(&predict(&golden, &unet.network), &golden.tensor("output"), 1e-5, "adapted");
    assert!(unet.trainable.iter().all(|p| p.name.contains(".lora_")));

    let mut extra = spec();
    let factor = Tensor::zeros([4, 8], (Kind::Float, Device::Cpu));
    extra.tensors.as_mut().unwrap().insert("nowhere.lora_A.weight".into(), factor);
    let Err(ModelError::Weights { report, .. }) = load(extra) else { panic!("a factor without a layer") };
    assert_eq!(report.unexpected, ["nowhere.lora_A.weight"]);

    let fresh = |target: &str| LoraSpec {
        ranks: Ranks::uniform(2, 2.0),
        target_modules: vec!["to_q".into(), target.into()],
        seed: 0,
        tensors: None,
        anchored: false,
        use_dora: false,
    };
    assert!(load(fresh("to_out.0")).is_ok());
    let error = load(fresh("to_kk")).unwrap_err().to_string();
    assert!(error.contains("ending in to_kk"), "{error}");
}

#[test]
fn sd_prompts_become_the_last_hidden_state() {
    let folder = sd1();
    let text = text(&folder).unwrap();
    let prompts: Vec<String> = ('a'..='z').cycle().take(70).map(|c| format!("{c} c{c}")).collect();
    let all = text.encode(&prompts, 64);
    assert_eq!(all.hidden.size(), [70, 8, 12]);
    assert!(all.pooled.is_none() && all.time_ids.is_none());
    // Beyond one batch, every prompt is still in its place.
    assert_close(
        &all.hidden.narrow(0, 69, 1),
        &text.encode(&prompts[69..], 64).hidden,
        1e-5,
        "the last prompt",
    );
    assert!(text.empty(64).hidden.equal(&text.unconditional(64).hidden));

    let weights = tensors::read(&folder.path().join("text_encoder/model.safetensors")).unwrap();
    let config = tastemaker_store::json::read(folder.path().join("text_encoder/config.json")).unwrap();
    let weights = Weights::from_source(weights, Role::Frozen, DType::F32, Device::Cpu);
    let network = ClipText::new(weights.root(), ClipTextConfig::from_json(&config).unwrap());
    let ids = Tensor::from_slice(&[52i64, 26 + 1, 2, 26 + 1, END, END, END, END]).view([1, 8]);
    let wanted = network.forward(&ids).last_hidden_state;
    assert_close(&text.encode(&["B  cb"], 64).hidden, &wanted, 1e-6, "one prompt");
}

#[test]
fn long_prompts_are_encoded_in_chunks_as_kohyas_scripts_do() {
    let (sd1, sdxl) = (sd1(), sdxl_text());
    let open = |folder: &TempDir, length| {
        let sources = ModelSources { max_token_length: Some(length), ..ModelSources::of(folder.path()) };
        Model::from_sources(&sources).unwrap()
    };
    let text = |model: &Model| model.text(DType::F32, Device::Cpu).unwrap();
    // Chunks of six tokens, each letter one.
    let (one, three) = (open(&sd1, 75), open(&sd1, 225));
    let pieces = ["a b c d e f", "g h i j k l", "m n"];
    let whole = text(&three).encode(&[pieces.join(" "), "a b".to_owned()], 64).hidden;
    let parts = text(&one).encode(&[pieces.as_slice(), &["a b", ""]].concat(), 64).hidden;
    assert_eq!((whole.size(), parts.size()), (vec![2, 20, 12], vec![5, 8, 12]));
    for (prompt, chunks) in [(0, [0, 1, 2]), (1, [3, 4, 4])] {
        let found = whole.get(prompt);
        for (chunk, part) in (0..).zip(chunks) {
            let (at, part) = (6 * chunk, parts.get(part));
            assert_close(&found.narrow(0, 1 + at, 6), &part.narrow(0, 1, 6), 1e-5, "a chunk");
        }
        assert_close(&found.get(0), &parts.get(chunks[0]).get(0), 1e-5, "the start");
        assert_close(&found.get(19), &parts.get(chunks[2]).get(7), 1e-5, "the end");
    }
    let captions = [pieces.join(" "), "a".repeat(7), "b".to_owned()];
    let cut = |model: &Model| model.cut_captions(captions.iter().map(String::as_str)).unwrap();
    assert_eq!(cut(&one), CutCaptions { n_captions: 2, n_tokens: 9, limit: 6 });
    assert_eq!(cut(&three), CutCaptions { n_captions: 0, n_tokens: 0, limit: 18 });
    assert_eq!(one.text_fingerprint().unwrap(), Model::open(sd1.path()).unwrap().text_fingerprint().unwrap());
    assert_ne!(one.text_fingerprint().unwrap(), three.text_fingerprint().unwrap());

    let (one, two) = (open(&sdxl, 75), open(&sdxl, 150));
    let first = ["a"; 14].join(" ");
    let (whole, part) = (text(&two).encode(&[format!("{first} b")], 64), text(&one).encode(&[first], 64));
    assert_eq!(whole.hidden.size(), [1, 30, 64]);
    assert_close(&whole.pooled.unwrap(), &part.pooled.unwrap(), 1e-5, "the first chunk's projection");
}

#[test]
fn sdxl_prompts_become_penultimate_states_a_projection_and_sizes() {
    let folder = sdxl_text();
    let text = text(&folder).unwrap();
    let found = text.encode(&["ab", "c"], 96);
    let ids = |word: &[i64]| [&[52], word, &vec![END; 15 - word.len()][..]].concat();
    let ids = Tensor::from_slice(&[ids(&[0, 27]), ids(&[28])].concat()).view([2, 16]);
    let outputs = ["text_encoder", "text_encoder_2"].map(|name| {
        let file = folder.path().join(name).join("model.safetensors");
        let stored = tensors::read(&file).unwrap().into_iter();
        let weights: BTreeMap<String, Tensor> =
            stored.filter_map(|(name, tensor)| Some((clip_text::modern_name(&name)?, tensor))).collect();
        let config = tastemaker_store::json::read(folder.path().join(name).join("config.json")).unwrap();
        let weights = Weights::from_source(weights, Role::Frozen, DType::F32, Device::Cpu);
        ClipText::new(weights.root(), ClipTextConfig::from_json(&config).unwrap()).forward(&ids)
    });
    assert_close(&found.hidden.narrow(2, 0, 32), outputs[0].penultimate(), 1e-6, "first encoder");
    assert_close(&found.hidden.narrow(2, 32, 32), outputs[1].penultimate(), 1e-6, "second encoder");
    assert_close(found.pooled.as_ref().unwrap(), outputs[1].projected.as_ref().unwrap(), 1e-6, "pooled");
    let sizes = Tensor::from_slice(&[96f32, 96.0, 0.0, 0.0, 96.0, 96.0]).repeat([2, 1]);
    assert!(found.time_ids.unwrap().equal(&sizes));

    let (empty, zeros) = (text.empty(96), text.unconditional(96));
    assert!(empty.hidden.abs().max().double_value(&[]) > 0.0);
    assert_eq!(zeros.hidden.abs().max().double_value(&[]), 0.0);
    assert_eq!(zeros.pooled.unwrap().abs().max().double_value(&[]), 0.0);
    assert!(zeros.time_ids.unwrap().equal(&empty.time_ids.unwrap()));
}

#[test]
fn half_precision_shards_and_variants_are_read() {
    let golden = Golden::load("models", "unet-sd1");
    let load = |folder: &TempDir| {
        let unet = open(folder).unet(Role::Frozen, DType::F32, Device::Cpu, None).unwrap();
        relative_error(&predict(&golden, &unet.network), &golden.tensor("output"))
    };
    for (kind, tolerance) in [(Kind::Half, 0.01), (Kind::BFloat16, 0.05)] {
        let folder = sd1();
        let unet = folder.path().join("unet");
        let tensors = golden.weights().into_iter().map(|(name, t)| (name, t.to_kind(kind))).collect();
        fs::remove_file(unet.join(WEIGHTS)).unwrap();
        let variant = unet.join("diffusion_pytorch_model.fp16.safetensors");
        tensors::write(&variant, &tensors, &BTreeMap::new()).unwrap();
        assert!(load(&folder) < tolerance, "{kind:?}");
    }
    let folder = sd1();
    let unet = folder.path().join("unet");
    let (mut map, mut shards) = (BTreeMap::new(), [BTreeMap::new(), BTreeMap::new()]);
    for (i, (name, tensor)) in golden.weights().into_iter().enumerate() {
        map.insert(name.clone(), format!("diffusion_pytorch_model-0000{}-of-00002.safetensors", i % 2 + 1));
        shards[i % 2].insert(name, tensor);
    }
    for (i, shard) in shards.iter().enumerate() {
        let name = format!("diffusion_pytorch_model-0000{}-of-00002.safetensors", i + 1);
        tensors::write(&unet.join(name), shard, &BTreeMap::new()).unwrap();
    }
    fs::remove_file(unet.join(WEIGHTS)).unwrap();
    write_json(&unet.join(format!("{WEIGHTS}.index.json")), &json!({"metadata": {}, "weight_map": map}));
    assert!(load(&folder) < 1e-5);
}
