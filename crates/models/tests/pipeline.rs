//! Model folders in and out: what is read equals what the networks' own goldens say, and what is wrong is named.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tastemaker_diffusion::{Conditioning, Denoiser, LatentCodec};
use tastemaker_models::ModelError;
use tastemaker_models::adapters::{FILE_NAME, LoraFile};
use tastemaker_models::clip_text::{self, ClipText, ClipTextConfig};
use tastemaker_models::nn::{LoraSpec, Role, Weights};
use tastemaker_models::pipeline::{
    DIFFUSERS_STEM, Family, ModelFolder, StoredType, TRANSFORMERS_STEM, TextEncoders, save_unet,
    write_component,
};
use tastemaker_store::StoreError;
use tastemaker_testkit::{Golden, assert_close, malformed, relative_error};
use tastemaker_torch::{Precision, tensors};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// Ids 0..26 are letters inside a word, 26..52 letters at its end; 52 starts a prompt and 53 ends it.
const END: i64 = 53;

fn write_json(path: &Path, value: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, serde_json::to_string_pretty(value).unwrap()).unwrap();
}

fn edit_json(path: &Path, key: &str, value: Value) {
    let mut config: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    config[key] = value;
    write_json(path, &config);
}

fn tokenizer(folder: &Path, max_length: usize) {
    let letters = ('a'..='z').map(String::from);
    let ends = ('a'..='z').map(|letter| format!("{letter}</w>"));
    let special = ["<|startoftext|>", "<|endoftext|>"].map(str::to_owned);
    let vocab: BTreeMap<_, _> = letters.chain(ends).chain(special).zip(0..).collect();
    write_json(&folder.join("vocab.json"), &json!(vocab));
    fs::write(folder.join("merges.txt"), "#version: 0.2\n").unwrap();
    write_json(&folder.join("tokenizer_config.json"), &json!({"model_max_length": max_length}));
}

/// A text encoder that finds the end of a prompt where our tokenizer puts it.
fn text_encoder(folder: &Path, case: &str) {
    Golden::load("models", case).install(folder, "model.safetensors");
    edit_json(&folder.join("config.json"), "eos_token_id", json!(END));
}

fn scheduler(folder: &Path) {
    write_json(
        &folder.join("scheduler/scheduler_config.json"),
        &json!({
            "_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1,
        }),
    );
}

/// A whole model: SD1's UNet and VAE goldens, a text encoder as wide as the UNet wants, a tokenizer, a passenger.
fn sd1() -> TempDir {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    Golden::load("models", "unet-sd1").install(&root.join("unet"), WEIGHTS);
    edit_json(&root.join("unet/config.json"), "cross_attention_dim", json!(12));
    Golden::load("models", "vae").install(&root.join("vae"), WEIGHTS);
    let config = json!({
        "architectures": ["CLIPTextModel"], "vocab_size": 60, "hidden_size": 12, "intermediate_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 3, "max_position_embeddings": 8, "eos_token_id": END,
    });
    let weights = Weights::fresh(5, Role::Frozen, Precision::F32, Device::Cpu);
    ClipText::new(weights.root(), ClipTextConfig::from_json(&config).unwrap());
    let parameters = weights.finish().unwrap().1;
    let text = root.join("text_encoder");
    write_component(&text, TRANSFORMERS_STEM, &config, &parameters, StoredType::F32).unwrap();
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
fn sdxl_text() -> TempDir {
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

fn open(folder: &TempDir) -> ModelFolder {
    ModelFolder::open(folder.path()).unwrap()
}

fn text(folder: &TempDir) -> Result<TextEncoders, ModelError> {
    open(folder).text(Precision::F32, Device::Cpu)
}

fn predict(golden: &Golden, network: &impl Denoiser) -> Tensor {
    let conditioning = Conditioning::text(golden.tensor("encoder_hidden_states"));
    network.predict(&golden.tensor("sample"), &golden.tensor("timestep"), &conditioning)
}

#[test]
fn networks_come_out_of_a_folder_as_they_were_recorded() {
    let (folder, golden) = (sd1(), Golden::load("models", "unet-sd1"));
    let model = open(&folder);
    assert_eq!((model.family(), model.absent()), (Family::StableDiffusion, vec![]));
    let unet = model.unet(Role::Trained, Precision::F32, Device::Cpu, None).unwrap();
    assert_close(&predict(&golden, &unet.network), &golden.tensor("output"), 1e-5, "unet");
    assert_eq!(unet.trainable.len(), unet.parameters.len());

    let golden = Golden::load("models", "vae");
    let vae = model.vae(Role::Frozen, Precision::F32, Device::Cpu).unwrap();
    let latents = golden.tensor("latent") * vae.network.config().scaling_factor;
    assert_close(&vae.network.decode(&latents), &golden.tensor("decoded"), 1e-5, "vae");
    assert!(vae.trainable.is_empty());
    assert_eq!(model.schedule().unwrap().sampling.steps_offset, 1);
}

#[test]
fn an_adapter_comes_along_and_must_fit() {
    let (folder, golden) = (sd1(), Golden::load("models", "unet-sd1-lora"));
    let model = open(&folder);
    let load = |lora: LoraSpec| model.unet(Role::Frozen, Precision::F32, Device::Cpu, Some(lora));
    let spec = || LoraFile::read(golden.path(FILE_NAME)).unwrap().into_spec();
    let unet = load(spec()).unwrap();
    assert_close(&predict(&golden, &unet.network), &golden.tensor("output"), 1e-5, "adapted");
    assert!(unet.trainable.iter().all(|p| p.name.contains(".lora_")));

    let mut extra = spec();
    let factor = Tensor::zeros([4, 8], (Kind::Float, Device::Cpu));
    extra.tensors.as_mut().unwrap().insert("nowhere.lora_A.weight".into(), factor);
    let Err(ModelError::Weights { report, .. }) = load(extra) else { panic!("a factor without a layer") };
    assert_eq!(report.unexpected, ["nowhere.lora_A.weight"]);

    let fresh = |target: &str| LoraSpec {
        rank: 2,
        alpha: 2.0,
        target_modules: vec!["to_q".into(), target.into()],
        seed: 0,
        tensors: None,
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
    let weights = Weights::from_tensors(weights, Role::Frozen, Precision::F32, Device::Cpu);
    let network = ClipText::new(weights.root(), ClipTextConfig::from_json(&config).unwrap());
    let ids = Tensor::from_slice(&[52i64, 26 + 1, 2, 26 + 1, END, END, END, END]).view([1, 8]);
    let wanted = network.forward(&ids).last_hidden_state;
    assert_close(&text.encode(&["B  cb"], 64).hidden, &wanted, 1e-6, "one prompt");
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
        let weights = clip_text::modern_names(tensors::read(&file).unwrap());
        let config = tastemaker_store::json::read(folder.path().join(name).join("config.json")).unwrap();
        let weights = Weights::from_tensors(weights, Role::Frozen, Precision::F32, Device::Cpu);
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
        let unet = open(folder).unet(Role::Frozen, Precision::F32, Device::Cpu, None).unwrap();
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

/// Every file below a folder, by its path in it.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
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

#[test]
fn a_saved_model_is_the_same_but_for_its_unet() {
    let (folder, out) = (sd1(), TempDir::new().unwrap());
    fs::write(folder.path().join("v1-5-pruned.safetensors"), "a checkpoint in another layout").unwrap();
    let model = open(&folder);
    let unet = model.unet(Role::Trained, Precision::F32, Device::Cpu, None).unwrap();
    let destination = out.path().join("runs/tuned");
    tch::no_grad(|| unet.trainable.iter().for_each(|p| drop(p.tensor.shallow_clone().fill_(0.5))));
    save_unet(&model, &destination, &unet.parameters, StoredType::F32).unwrap();

    let (mut before, mut after) = (files(folder.path()), files(&destination));
    let weights = Path::new("unet").join(WEIGHTS);
    before.remove(Path::new("v1-5-pruned.safetensors"));
    assert_ne!(before.remove(&weights), after.remove(&weights));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    assert_eq!(before, after);

    let again = ModelFolder::open(&destination).unwrap();
    let again = again.unet(Role::Frozen, Precision::F32, Device::Cpu, None).unwrap();
    assert!(again.parameters.values().all(|tensor| tensor.eq(0.5).all().int64_value(&[]) == 1));
}

#[test]
fn saving_what_was_loaded_gives_the_same_weights() {
    let (folder, out) = (sd1(), TempDir::new().unwrap());
    let model = open(&folder);
    let unet = model.unet(Role::Trained, Precision::F32, Device::Cpu, None).unwrap();
    for (dtype, kind) in
        [(StoredType::F32, Kind::Float), (StoredType::F16, Kind::Half), (StoredType::Bf16, Kind::BFloat16)]
    {
        save_unet(&model, out.path(), &unet.parameters, dtype).unwrap();
        let stored = tensors::read(&out.path().join("unet").join(WEIGHTS)).unwrap();
        assert!(stored.keys().eq(unet.parameters.keys()));
        assert!(
            stored.iter().all(|(name, tensor)| tensor.equal(&unet.parameters[name].to_kind(kind))),
            "{kind:?}"
        );
    }
}

#[test]
fn a_model_is_not_saved_over_itself_nor_with_tensors_that_do_not_fit() {
    let folder = sd1();
    let before = files(folder.path());
    let model = open(&folder);
    let mut parameters = model.unet(Role::Frozen, Precision::F32, Device::Cpu, None).unwrap().parameters;
    let error = save_unet(&model, folder.path(), &parameters, StoredType::F32).unwrap_err();
    assert!(error.to_string().contains("the model itself"), "{error}");
    let tensor = parameters.remove("conv_in.bias").unwrap();
    parameters.insert("conv_in.lora_A.weight".into(), tensor);
    let out = TempDir::new().unwrap();
    let Err(ModelError::Weights { report, .. }) = save_unet(&model, out.path(), &parameters, StoredType::F32)
    else {
        panic!("a parameter is missing")
    };
    assert_eq!(report.missing, ["conv_in.bias"]);
    assert_eq!(report.unexpected, ["conv_in.lora_A.weight"]);
    assert_eq!(files(folder.path()), before);
    assert!(files(out.path()).is_empty());
}

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
    let error = open(&folder).unet(Role::Frozen, Precision::F32, Device::Cpu, None).unwrap_err();
    let ModelError::Weights { path: named, report } = &error else { panic!("{error:?}") };
    assert_eq!(*named, path);
    assert_eq!(report.missing, ["conv_in.bias", "conv_out.bias"]);
    assert_eq!(report.unexpected, ["conv_out.surplus"]);
    assert_eq!(report.misshapen, [("conv_norm_out.bias".to_owned(), vec![4], vec![8])]);
    assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
}

#[test]
fn damaged_weights_are_refused() {
    let source = Golden::load("models", "vae").weights_path();
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
        let error = open(&folder).vae(Role::Frozen, Precision::F32, Device::Cpu).unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn configurations_that_cannot_be_honoured_are_refused_with_their_file() {
    let refused = |file: &str, key: &str, value: Value, part: &str| {
        let folder = sd1();
        let path = folder.path().join(file);
        edit_json(&path, key, value);
        let model = ModelFolder::open(folder.path());
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
fn components_that_do_not_fit_each_other_are_refused() {
    let refused = |file: &str, key: &str, value: Value, part: &str| {
        let folder = sd1();
        edit_json(&folder.path().join(file), key, value);
        let error = ModelFolder::open(folder.path()).unwrap_err().to_string();
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
    let error = ModelFolder::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("takes 64 values, pooled text and sizes are 72"), "{error}");
    config["projection_class_embeddings_input_dim"] = json!(72);
    write_json(&path, &config);
    let model = open(&folder);
    assert_eq!(model.absent(), ["vae", "scheduler"]);
    edit_json(&folder.path().join("text_encoder_2/config.json"), "architectures", json!(["CLIPTextModel"]));
    let error = ModelFolder::open(folder.path()).unwrap_err().to_string();
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
    let (path, wanted) = missing(ModelFolder::open(&nowhere).unwrap_err());
    assert_eq!((path, wanted.as_str()), (nowhere, "a diffusers model folder"));
    let (path, _) = missing(ModelFolder::open(folder.path().join("unet")).unwrap_err());
    assert_eq!(path, folder.path().join("unet/model_index.json"));

    let model = open(&folder);
    fs::remove_file(folder.path().join("vae").join(WEIGHTS)).unwrap();
    let (path, wanted) = missing(model.vae(Role::Frozen, Precision::F32, Device::Cpu).unwrap_err());
    assert_eq!(path, folder.path().join("vae").join(format!("{DIFFUSERS_STEM}.safetensors")));
    assert!(wanted.contains("fp16"), "{wanted}");
    fs::remove_dir_all(folder.path().join("unet")).unwrap();
    let (path, _) = missing(model.unet(Role::Frozen, Precision::F32, Device::Cpu, None).unwrap_err());
    assert_eq!(path, folder.path().join("unet/config.json"));
    fs::remove_file(folder.path().join("tokenizer/vocab.json")).unwrap();
    let (path, _) = missing(model.text(Precision::F32, Device::Cpu).unwrap_err());
    assert_eq!(path, folder.path().join("tokenizer/vocab.json"));
}
