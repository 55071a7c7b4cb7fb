//! Adapted UNets against peft (`golden/models/unet-sd1-lora*`), and adapter files in and out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_models::ModelError;
use tastemaker_models::adapters::{FILE_NAME, LoraFile, LoraPart};
use tastemaker_models::clip_text::{ClipText, ClipTextConfig};
use tastemaker_models::nn::{AdapterSwitch, LoraSpec, Ranks, Role, Trainable, Weights};
use tastemaker_models::unet::{UNet, UNetConfig};
use tastemaker_store::StoreError;
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, assert_close, assert_gradients, malformed};
use tastemaker_torch::tensors;
use tastemaker_weights::safetensors::Header;
use tch::{Device, Kind, Reduction, Tensor};
use tempfile::TempDir;

const CASES: [&str; 4] = ["unet-sd1-lora", "unet-sd1-lora-conv", "unet-sd1-lora-ranks", "unet-sd1-dora"];

fn adapted(golden: &Golden, lora: Option<LoraSpec>) -> (UNet, Vec<Trainable>, AdapterSwitch) {
    let mut weights = Weights::from_source(golden.weights(), Role::Frozen, DType::F32, Device::Cpu);
    if let Some(lora) = lora {
        weights = weights.with_lora(lora);
    }
    let switch = weights.adapter_switch();
    let config = UNetConfig::from_json(&golden.config_json()).unwrap();
    let network = UNet::new(weights.root(), config, DType::F32);
    (network, weights.finish().unwrap().0, switch)
}

/// The UNet's part of a file.
fn unet(path: impl AsRef<Path>) -> LoraPart {
    LoraFile::read(path).unwrap().unet
}

fn predict(golden: &Golden, network: &UNet) -> Tensor {
    let conditioning = Conditioning::text(golden.tensor("encoder_hidden_states"));
    network.predict(&golden.tensor("sample"), &golden.tensor("timestep"), &conditioning)
}

fn number(golden: &Golden, key: &str) -> f64 {
    golden.note(key).unwrap().parse().unwrap()
}

#[test]
fn outputs_and_gradients_equal_peft() {
    for case in CASES {
        let golden = Golden::load("models", case);
        let (tolerance, slope_tolerance) = (golden.tolerance("output"), golden.tolerance("gradient"));
        let file = unet(golden.path(FILE_NAME));
        assert_eq!(
            (file.ranks.rank as f64, file.ranks.alpha),
            (number(&golden, "rank"), number(&golden, "alpha"))
        );
        let (network, trainable, _) = adapted(&golden, Some(file.into_spec()));
        let y = predict(&golden, &network);
        assert_close(&y, &golden.tensor("output"), tolerance, &format!("{case}: output"));
        y.mse_loss(&golden.tensor("target"), Reduction::Mean).backward();
        let gradients: BTreeMap<_, _> = trainable.into_iter().map(|p| (p.name, p.tensor.grad())).collect();
        assert_gradients(&gradients, &golden, slope_tolerance);
    }
}

#[test]
fn an_adapter_that_is_off_is_not_there() {
    let golden = Golden::load("models", "unet-sd1-lora");
    let file = unet(golden.path(FILE_NAME));
    let (network, _, switch) = adapted(&golden, Some(file.into_spec()));
    let (plain, ..) = adapted(&golden, None);
    let (on, base) = (predict(&golden, &network), predict(&golden, &plain));
    assert!(!on.equal(&base));
    switch.set(false);
    assert!(predict(&golden, &network).equal(&base));
    switch.set(true);
    assert!(predict(&golden, &network).equal(&on));
}

#[test]
fn an_anchored_adapter_that_is_off_is_as_it_started() {
    for case in CASES {
        let golden = Golden::load("models", case);
        let read = || unet(golden.path(FILE_NAME));
        let (network, trainable, switch) = adapted(&golden, Some(read().into_start()));
        let started = predict(&golden, &adapted(&golden, Some(read().into_spec())).0);
        assert!(predict(&golden, &network).equal(&started));
        tch::no_grad(|| {
            trainable.iter().for_each(|factor| drop(factor.tensor.shallow_clone().g_mul_scalar_(1.5)))
        });
        assert!(!predict(&golden, &network).equal(&started));
        switch.set(false);
        assert!(predict(&golden, &network).equal(&started));
    }
}

#[test]
fn a_fresh_adapter_changes_nothing() {
    let golden = Golden::load("models", "unet-sd1-lora");
    let lora = LoraSpec {
        ranks: Ranks::uniform(4, 8.0),
        target_modules: vec!["to_q".into(), "conv1".into()],
        seed: 1,
        tensors: None,
        anchored: false,
        use_dora: false,
    };
    let (network, trainable, _) = adapted(&golden, Some(lora));
    assert!(!trainable.is_empty());
    assert!(predict(&golden, &network).equal(&predict(&golden, &adapted(&golden, None).0)));
}

#[test]
fn a_fresh_dora_changes_nothing_to_the_last_bit() {
    let golden = Golden::load("models", "unet-sd1-lora");
    for precision in [DType::F32, DType::Bf16] {
        let lora = LoraSpec {
            ranks: Ranks::uniform(4, 8.0),
            target_modules: ["to_q", "proj_in", "conv1", "conv", "ff.net.2"].map(str::to_owned).to_vec(),
            seed: 1,
            tensors: None,
            anchored: false,
            use_dora: true,
        };
        let weights =
            Weights::from_source(golden.weights(), Role::Frozen, precision, Device::Cpu).with_lora(lora);
        let switch = weights.adapter_switch();
        let config = UNetConfig::from_json(&golden.config_json()).unwrap();
        let network = UNet::new(weights.root(), config, precision);
        let (trainable, parameters) = weights.finish().unwrap();
        let magnitudes = || trainable.iter().filter(|p| p.name.ends_with(".lora_magnitude_vector"));
        assert!(magnitudes().count() > 10);
        for magnitude in magnitudes() {
            let weight = &parameters[&magnitude.name.replace("lora_magnitude_vector", "weight")];
            let rows = weight.to_kind(Kind::Double).flatten(1, -1).norm_scalaropt_dim(2.0, [1i64], false);
            assert_close(&magnitude.tensor.flatten(0, -1), &rows.to_kind(Kind::Float), 1e-6, &magnitude.name);
        }
        let on = predict(&golden, &network);
        switch.set(false);
        assert!(predict(&golden, &network).equal(&on), "{precision:?}");
        // The magnitudes alone learn already: the network is theirs to stretch.
        switch.set(true);
        tch::no_grad(|| magnitudes().for_each(|p| drop(p.tensor.shallow_clone().g_mul_scalar_(1.01))));
        assert!(!predict(&golden, &network).equal(&on), "{precision:?}");
    }
}

#[test]
fn a_merged_adapter_computes_what_it_computed_apart() {
    for case in CASES {
        let golden = Golden::load("models", case);
        let file = unet(golden.path(FILE_NAME));
        let merged = |strength: f64| {
            let merged = file.merged(&golden.weights(), strength).unwrap();
            let weights = Weights::from_source(merged, Role::Frozen, DType::F32, Device::Cpu);
            let config = UNetConfig::from_json(&golden.config_json()).unwrap();
            predict(&golden, &UNet::new(weights.root(), config, DType::F32))
        };
        assert_close(&merged(1.0), &golden.tensor("output"), golden.tolerance("output"), case);
        let base = predict(&golden, &adapted(&golden, None).0);
        assert_close(&merged(0.0), &base, 1e-6, case);
    }
}

#[test]
fn a_text_encoder_with_its_adapter_merged_equals_peft() {
    let (golden, base) =
        (Golden::load("models", "clip-text-lora"), Golden::load("models", "clip-text-legacy"));
    let config = ClipTextConfig::from_json(&base.config_json()).unwrap();
    let file = LoraFile::read(golden.path(FILE_NAME)).unwrap();
    let text = &file.text["text_encoder"];
    assert_eq!((text.ranks.rank, text.ranks.alpha), (3, 6.0));
    let layer = "text_model.encoder.layers.0.mlp.fc1";
    assert_eq!((text.ranks.rank(layer), text.ranks.alpha(layer)), (2, 1.0));
    assert_eq!(file.unet.layers().into_iter().collect::<Vec<_>>(), ["conv_in"]);

    let merged = text.merged(&base.weights(), 1.0).unwrap();
    let weights = Weights::from_source(merged, Role::Frozen, DType::F32, Device::Cpu);
    let network = ClipText::new(weights.root(), config);
    let found = network.forward(&golden.tensor("input_ids")).last_hidden_state;
    assert_close(
        &found,
        &golden.tensor("last_hidden_state"),
        golden.tolerance("output"),
        "last hidden state",
    );

    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE_NAME);
    file.write(&path).unwrap();
    let again = LoraFile::read(&path).unwrap();
    assert_eq!(again.text["text_encoder"].ranks, text.ranks);
    assert_same(&again.text["text_encoder"], text);
    assert_same(&again.unet, &file.unet);
    let bare = LoraFile::read(golden.path("without_metadata.safetensors")).unwrap();
    assert_eq!(bare.text["text_encoder"].ranks.alpha(layer), 2.0);
    let (_, text) = file.into_specs();
    assert!(text.keys().eq(&["text_encoder"]));
}

#[test]
fn without_metadata_alpha_equals_the_rank_of_the_factors() {
    for case in CASES {
        let golden = Golden::load("models", case);
        let (told, bare) = (unet(golden.path(FILE_NAME)), unet(golden.path("without_metadata.safetensors")));
        for layer in told.layers() {
            let rank = told.ranks.rank(&layer);
            assert_eq!((bare.ranks.rank(&layer), bare.ranks.alpha(&layer)), (rank, rank as f64), "{layer}");
        }
        assert_same(&bare, &told);
    }
}

#[test]
fn a_pickled_file_of_attention_processors_holds_the_same_adapter() {
    let golden = Golden::load("models", "unet-sd1-lora");
    let (told, legacy) = (unet(golden.path(FILE_NAME)), unet(golden.path("legacy.bin")));
    assert_eq!(legacy.ranks, Ranks::uniform(told.ranks.rank, told.ranks.rank as f64));
    assert_same(&legacy, &told);
}

#[track_caller]
fn assert_same(found: &LoraPart, wanted: &LoraPart) {
    assert!(found.tensors.keys().eq(wanted.tensors.keys()));
    assert!(found.tensors.iter().all(|(name, tensor)| tensor.equal(&wanted.tensors[name])));
}

#[test]
fn what_is_written_is_read_back_and_named_as_peft_names_it() {
    let folder = TempDir::new().unwrap();
    for case in CASES {
        let golden = Golden::load("models", case);
        let file = unet(golden.path(FILE_NAME));
        let path = folder.path().join(FILE_NAME);
        LoraFile::from(file).write(&path).unwrap();
        let file = unet(golden.path(FILE_NAME));
        let again = unet(&path);
        assert_eq!(again.ranks, file.ranks);
        assert_eq!(again.target_modules, file.target_modules);
        assert_same(&again, &file);

        let header = |path: &Path| Header::read(path).unwrap();
        let names = |header: &Header| header.tensors.iter().map(|t| t.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&header(&path)), names(&header(&golden.path("without_metadata.safetensors"))));
        // Every entry we write is one that diffusers writes, with the same value but for the spelling of patterns: we name
        // layers in full, and that they mean the same is above.
        let config = |header: &Header| -> Value {
            assert_eq!(header.metadata["format"], "pt");
            serde_json::from_str(&header.metadata["lora_adapter_metadata"]).unwrap()
        };
        let (ours, theirs) = (config(&header(&path)), config(&header(&golden.path(FILE_NAME))));
        for (key, value) in ours.as_object().unwrap() {
            match value.as_object().filter(|_| key.ends_with("_pattern")) {
                Some(names) => assert_eq!(names.is_empty(), theirs[key] == json!({}), "{key}"),
                None => assert_eq!(Some(value), theirs.get(key), "{key}"),
            }
        }
    }
}

/// A one-layer adapter with these tensors and this configuration.
fn written(folder: &TempDir, factors: &[(&str, &[i64])], config: Option<Value>) -> PathBuf {
    let path = folder.path().join(FILE_NAME);
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let named = factors.iter().map(|(name, shape)| ((*name).to_owned(), zeros(shape))).collect();
    let metadata = config.map(|config| ("lora_adapter_metadata".to_owned(), config.to_string()));
    tensors::write(&path, &named, &metadata.into_iter().collect()).unwrap();
    path
}

const DOWN: (&str, &[i64]) = ("unet.conv_in.lora_A.weight", &[2, 8, 3, 3]);
const UP: (&str, &[i64]) = ("unet.conv_in.lora_B.weight", &[8, 2, 1, 1]);

#[test]
fn factors_that_make_no_adapter_are_refused() {
    let folder = TempDir::new().unwrap();
    let found = |factors: &[(&str, &[i64])]| match LoraFile::read(written(&folder, factors, None)) {
        Err(ModelError::Store(StoreError::Malformed { found, .. })) => found,
        other => panic!("{other:?}"),
    };
    assert!(found(&[DOWN]).contains("`conv_in` with one factor of two"));
    assert!(found(&[DOWN, ("unet.conv_in.lora_B.weight", &[8, 3, 1, 1])]).contains("[8, 3, 1, 1]"));
    assert!(found(&[DOWN, UP, ("unet.conv_in.alpha", &[])]).contains("unet.conv_in.alpha"));
    assert!(found(&[DOWN, UP, ("unet.conv_in.lora.down.weight", DOWN.1)]).contains("1 tensors"));
    assert!(found(&[DOWN, UP, ("text_encoder.q.lora_A.weight", &[2, 8])]).contains("`q` with one factor"));
    assert!(found(&[DOWN, UP, ("text_encoder.q.alpha", &[])]).contains("text_encoder.q.alpha"));
    assert!(found(&[]).contains("no factors"));
}

#[test]
fn kinds_of_adapters_that_would_come_out_wrong_are_refused() {
    let folder = TempDir::new().unwrap();
    let read = |config: Value| LoraFile::read(written(&folder, &[DOWN, UP], Some(config)));
    for (key, value) in [
        ("unet.use_dora", json!(true)),
        ("unet.use_rslora", json!(true)),
        ("unet.alpha_pattern", json!({"conv.*": 4})),
        ("unet.alpha_pattern", json!(["conv_in"])),
        ("unet.rank_pattern", json!({"conv_in": 3})),
        ("unet.bias", json!("all")),
        ("unet.peft_type", json!("LOHA")),
        ("unet.r", json!(3)),
    ] {
        let error = read(json!({ key: value })).unwrap_err();
        assert!(matches!(error, ModelError::Config { .. }), "{error}");
        assert!(error.to_string().contains(key.trim_start_matches("unet.")), "{error}");
    }
    assert_eq!(read(json!({"unet.lora_alpha": 16, "unet.use_dora": false})).unwrap().unet.ranks.alpha, 16.0);
    // Of several keys that fit, the first counts, as in peft.
    let several =
        json!({"unet.lora_alpha": 16, "unet.alpha_pattern": {"nowhere": 9, "^conv_in": 4, "conv_in": 5}});
    assert_eq!(read(several).unwrap().unet.ranks.alpha("conv_in"), 4.0);
}

#[test]
fn a_damaged_file_is_an_error_that_names_it() {
    let golden = Golden::load("models", "unet-sd1-lora");
    let folder = TempDir::new().unwrap();
    let damages =
        [malformed::truncated, malformed::header_too_long, malformed::overlapping, malformed::wrong_dtype];
    for damage in damages {
        let path = damage(&golden.path(FILE_NAME), folder.path());
        let error = LoraFile::read(&path).unwrap_err();
        assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
    }
    let missing = LoraFile::read(folder.path().join("nothing.safetensors")).unwrap_err();
    assert!(matches!(missing, ModelError::Store(StoreError::Missing { .. })), "{missing:?}");
}
