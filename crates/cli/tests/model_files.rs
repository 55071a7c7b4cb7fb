//! Models, runs and LoRAs however they are named, and files that hold what no weights can be, through the real program.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Bench, Said, WEIGHTS, cached, copy, generating, read};
use tastemaker_torch::tensors;
use tch::Tensor;

const LORA: &str = "pytorch_lora_weights.safetensors";
const LORA_RUN: [&str; 8] =
    ["--method", "mapo", "--adapter_type", "lora", "--learning_rate", "0.1", "--rank", "2"];

/// A bench with a LoRA trained on its model, in `lora`.
fn adapted() -> Bench {
    let bench = Bench::new();
    let said = bench.train("lora", &LORA_RUN);
    assert_eq!(said.code, 0, "{}", said.stderr);
    bench
}

/// What a command that is refused says.
#[track_caller]
fn refused(bench: &Bench, args: &[&str], code: i32, words: &[&str]) {
    let Said { code: found, stderr, .. } = bench.run(args);
    assert_eq!(found, code, "{args:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{args:?}: {word} in {stderr}");
    }
}

#[test]
fn a_run_stands_for_what_it_made_on_the_model_of_its_plan_in_every_command() {
    let bench = adapted();
    let file = format!("lora/{LORA}");
    let wanted = generating(&bench, "one", &["--model", "model", "--lora", &file]);
    assert_eq!(generating(&bench, "two", &["--model", "lora"]), wanted);
    assert_eq!(generating(&bench, "three", &["--model", &file]), wanted, "the plan lies beside the file");
    assert_eq!(generating(&bench, "four", &["--model", "model", "--lora", "lora"]), wanted);
    assert_ne!(generating(&bench, "five", &["--model", "lora", "--lora_weight", "0"]), wanted);
    let quick = ["--pairs", "pairs", "--draws", "1", "--resolution", "32"];
    bench.succeed(&[&["accuracy", "--model", "lora"], &quick[..]].concat());
    let tail = [
        "--prompts",
        "demo:style",
        "--n_prompts",
        "1",
        "--num_inference_steps",
        "1",
        "--scorer",
        "nearest-art",
    ];
    let said = bench.run(&[&["compare", "model", "lora", "--out", "compared"], &tail[..]].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    bench.succeed(&["model", "merge", "model", "lora", "merged.safetensors"]);
    let inspected = bench.succeed(&["model", "inspect", "lora"]).stdout;
    assert!(inspected.contains("a LoRA in diffusers format"), "{inspected}");
    refused(
        &bench,
        &["sample", "--model", "lora", "--lora", "lora", "--prompt", "x", "--out", "o"],
        2,
        &["second"],
    );
    let said = bench.train("on", &["--method", "mapo", "--pretrained_model_name_or_path", "lora"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("--network_weights"), "{}", said.stderr);
    let said =
        bench.train("further", &["--method", "mapo", "--adapter_type", "lora", "--network_weights", "lora"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    // Its model moved away: the message says what the plan says.
    fs::rename(bench.path("model"), bench.path("elsewhere")).unwrap();
    refused(
        &bench,
        &["sample", "--model", "lora", "--prompt", "x", "--out", "o"],
        4,
        &["model does not exist"],
    );
}

#[test]
fn a_lora_is_found_in_its_folder_or_repository_whatever_its_name() {
    let bench = adapted();
    let wanted = generating(&bench, "one", &["--model", "lora"]);
    fs::create_dir_all(bench.path("loras")).unwrap();
    fs::copy(bench.path("lora").join(LORA), bench.path("loras/my_style.safetensors")).unwrap();
    let twin = "lora/pytorch_lora_weights_kohya.safetensors";
    fs::copy(bench.path(twin), bench.path("loras/my_style_kohya.safetensors")).unwrap();
    assert_eq!(generating(&bench, "two", &["--model", "model", "--lora", "loras"]), wanted);
    cached(&bench, "loras", "org/style", "main");
    let cache = bench.path("cache");
    let variables = [("HF_HUB_CACHE", cache.to_str().unwrap()), ("OMP_NUM_THREADS", "1")];
    for lora in ["org/style", "org/style/my_style.safetensors"] {
        let quick =
            ["sample", "--num_inference_steps", "2", "--prompt", "a fox", "--model", "model", "--lora", lora];
        let said = bench.run_in(&[&quick[..], &["--out", "three"]].concat(), &variables);
        assert_eq!(said.code, 0, "{lora}: {}", said.stderr);
        let image = image::open(bench.path("three/0000-0.png")).unwrap().into_rgb8().into_raw();
        assert_eq!(image, wanted, "{lora}");
        fs::remove_dir_all(bench.path("three")).unwrap();
    }
    let missing = ["model", "inspect", "org/style/other.safetensors"];
    let said = bench.run_in(&missing, &variables);
    assert_eq!(said.code, 4, "{}", said.stderr);
    assert!(said.stderr.contains("fetch org/style --include other.safetensors"), "{}", said.stderr);

    fs::copy(bench.path("lora").join(LORA), bench.path("loras/other.safetensors")).unwrap();
    let several = ["model", "merge", "model", "loras", "merged"];
    refused(&bench, &several, 2, &["my_style.safetensors", "other.safetensors"]);
}

/// Writes a file of weights again, one tensor of it with a number that is none.
fn spoil(path: &Path, name: &str, value: f64) {
    let mut stored = read(path);
    let header = tastemaker_weights::safetensors::Header::read(path).unwrap().metadata;
    let tensor = stored.get_mut(name).unwrap();
    let shape = tensor.size();
    let flat = tensor.reshape([-1]).copy();
    drop(flat.get(flat.size()[0] - 1).fill_(value));
    *tensor = flat.reshape(shape);
    tensors::write(path, &stored, &header).unwrap();
}

#[test]
fn numbers_that_are_none_are_refused_by_the_tensors_name_wherever_weights_are_read() {
    let bench = adapted();
    let kohya = "lora/pytorch_lora_weights_kohya.safetensors";
    let name = |file: &str, end: &str| {
        read(bench.path(file)).keys().find(|name| name.ends_with(end)).unwrap().clone()
    };
    let cases = [
        (kohya.to_owned(), name(kohya, ".alpha"), f64::NAN),
        (kohya.to_owned(), name(kohya, ".lora_up.weight"), f64::INFINITY),
        (format!("lora/{LORA}"), name(&format!("lora/{LORA}"), ".lora_A.weight"), f64::NEG_INFINITY),
    ];
    for (file, tensor, value) in cases {
        let before = fs::read(bench.path(&file)).unwrap();
        spoil(&bench.path(&file), &tensor, value);
        refused(&bench, &["model", "merge", "model", &file, "merged"], 4, &[&tensor]);
        refused(&bench, &["model", "convert", &file, "converted.safetensors"], 4, &[&tensor]);
        refused(&bench, &["model", "inspect", &file], 4, &[&tensor]);
        let sample = ["sample", "--model", "model", "--lora", &file, "--prompt", "x", "--out", "out"];
        refused(&bench, &sample, 4, &[&tensor]);
        fs::write(bench.path(&file), before).unwrap();
    }
    bench.succeed(&["model", "convert", "model", "single.safetensors"]);
    for component in ["unet", "vae", "text_encoder"] {
        let stem = if component == "text_encoder" { "model.safetensors" } else { WEIGHTS };
        let file = bench.path("model").join(component).join(stem);
        let before = fs::read(&file).unwrap();
        let tensor = read(&file).keys().next().unwrap().clone();
        spoil(&file, &tensor, f64::NAN);
        refused(&bench, &["sample", "--model", "model", "--prompt", "x", "--out", "out"], 4, &[&tensor]);
        refused(&bench, &["model", "convert", "model", "again.safetensors"], 4, &["NaN"]);
        // Also where the part is only copied beside what is merged.
        refused(&bench, &["model", "merge", "model", "lora", "merged"], 4, &[&tensor]);
        assert!(!bench.path("merged").exists());
        fs::write(&file, before).unwrap();
    }
    // Finite numbers that are none in the type they are written in.
    let file = format!("lora/{LORA}");
    let tensor = name(&file, ".lora_B.weight");
    let huge =
        Tensor::full(read(bench.path(&file))[&tensor].size(), 1e7, (tch::Kind::Float, tch::Device::Cpu));
    let mut stored = read(bench.path(&file));
    let header = tastemaker_weights::safetensors::Header::read(bench.path(&file)).unwrap().metadata;
    stored.insert(tensor.clone(), huge);
    tensors::write(&bench.path(&file), &stored, &header).unwrap();
    let layer = tensor.trim_start_matches("unet.").trim_end_matches(".lora_B.weight");
    refused(&bench, &["model", "merge", "model", &file, "merged", "--dtype", "fp16"], 4, &[layer, "fp16"]);
    assert!(!bench.path("merged").exists());
}

#[test]
fn numbers_of_an_adapter_beyond_all_use_are_refused_before_anything_is_written() {
    let bench = adapted();
    let kohya = "lora/pytorch_lora_weights_kohya.safetensors".to_owned();
    let own = format!("lora/{LORA}");
    let cases = [
        (&kohya, ".alpha", 3e38, "alpha 3.00e38"),
        (&kohya, ".alpha", -3e38, "alpha -3.00e38"),
        (&kohya, ".alpha", 2e6, "wanted a number from -1e6 to 1e6"),
        (&kohya, ".lora_down.weight", 3e38, "factors up to 3.0e38"),
        (&own, ".lora_B.weight", -3e38, "3.0e38 at alpha"),
    ];
    for (file, end, value, words) in cases {
        let before = fs::read(bench.path(file)).unwrap();
        let tensor = read(bench.path(file)).keys().find(|name| name.ends_with(end)).unwrap().clone();
        spoil(&bench.path(file), &tensor, value);
        let convert = ["model", "convert", file, "out.safetensors"];
        let inspect = ["model", "inspect", file];
        let merge = ["model", "merge", "model", file, "out"];
        let sample = ["sample", "--model", "model", "--lora", file, "--prompt", "x", "--out", "out"];
        // Without its model, a kohya file is one of published sizes.
        let alone: &[&[&str]] = if *file == own { &[&convert, &inspect] } else { &[] };
        for args in [&merge[..], &sample].iter().chain(alone) {
            refused(&bench, args, 4, &[words, "_blocks"]);
            assert!(!bench.path("out").exists() && !bench.path("out.safetensors").exists(), "{args:?}");
        }
        fs::write(bench.path(file), before).unwrap();
    }
    // What peft's header says, a rank that is none and an alpha that is too much.
    let header = tastemaker_weights::safetensors::Header::read(bench.path(&own)).unwrap().metadata;
    let stored = read(bench.path(&own));
    let key = "lora_adapter_metadata";
    let before = header[key].clone();
    for (name, value, words) in [
        ("unet.lora_alpha", json!(3e38), "alpha 3.00e38"),
        ("unet.lora_alpha", json!(-3e38), "alpha -3.00e38"),
        ("unet.r", json!(-4), "rank -4"),
        ("unet.r", json!(i64::MIN), "rank -9223372036854775808"),
        ("unet.r", json!(3e38), "`r` is 3e"),
        ("unet.rank_pattern", json!({"to_q": 2.5}), "whole numbers from 1 on"),
        ("unet.rank_pattern", json!({"to_q": -2}), "whole numbers from 1 on"),
        ("unet.alpha_pattern", json!({"to_q": 3e38}), "alpha 3.00e38"),
    ] {
        let mut settings: Value = serde_json::from_str(&before).unwrap();
        settings[name] = value;
        let header = [(key.to_owned(), settings.to_string())].into();
        tensors::write(&bench.path(&own), &stored, &header).unwrap();
        refused(&bench, &["model", "merge", "model", &own, "out"], 4, &[words]);
        assert!(!bench.path("out").exists(), "{name}");
    }
    tensors::write(&bench.path(&own), &stored, &header).unwrap();
    for weight in ["nan", "inf", "-1e300"] {
        refused(
            &bench,
            &["model", "merge", "model", &own, "out", "--weight", weight],
            2,
            &["the weight of a LoRA"],
        );
        let typed = format!("{own}:{weight}");
        let sample = ["sample", "--model", "model", "--lora", &typed, "--prompt", "x", "--out", "out"];
        refused(&bench, &sample, 2, &["the weight of a LoRA"]);
    }
    // And what a model's own configuration says.
    for (file, name, value) in [
        ("model/vae/config.json", "scaling_factor", json!(3e38)),
        ("model/vae/config.json", "scaling_factor", json!(0)),
        ("model/vae/config.json", "shift_factor", json!(-1e30)),
        ("model/unet/config.json", "norm_eps", json!(-1)),
        ("model/text_encoder/config.json", "layer_norm_eps", json!(1e300)),
    ] {
        let before = fs::read_to_string(bench.path(file)).unwrap();
        let mut config: Value = serde_json::from_str(&before).unwrap();
        config[name] = value;
        fs::write(bench.path(file), config.to_string()).unwrap();
        let sample = ["sample", "--model", "model", "--prompt", "x", "--out", "out"];
        refused(&bench, &sample, 4, &[name, "wanted a number from"]);
        fs::write(bench.path(file), before).unwrap();
    }
}

#[test]
fn a_folder_that_a_killed_merge_did_not_finish_is_not_there_and_its_remains_are_swept() {
    let bench = adapted();
    let merge = ["model", "merge", "model", "lora", "merged"];
    let full = bench.run_on_a_full_disk(&merge, 64 << 10);
    assert_eq!(full.code, 5, "{}", full.stderr);
    let remains = || {
        let names = fs::read_dir(bench.path("")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".tastemaker-")).count()
    };
    assert!(!bench.path("merged").exists());
    assert_eq!(remains(), 0);
    // Killed as soon as there is something beside its place.
    let mut child = bench.start(&merge);
    let started = Instant::now();
    while remains() == 0 && child.try_wait().unwrap().is_none() && started.elapsed() < Duration::from_secs(60)
    {
    }
    child.kill().unwrap();
    child.wait().unwrap();
    if bench.path("merged").exists() {
        fs::remove_dir_all(bench.path("merged")).unwrap();
    }
    bench.succeed(&merge);
    assert!(bench.path("merged/model_index.json").is_file());
    assert_eq!(remains(), 0);
}

/// Sets keys of the model's scheduler.
fn schedule(bench: &Bench, keys: &[(&str, Value)]) {
    let path = bench.path("model/scheduler/scheduler_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in keys {
        config[*key] = value.clone();
    }
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn turbo_models_are_drawn_as_their_family_is_in_validation_and_their_noise_is_recorded() {
    let bench = Bench::sdxl();
    schedule(
        &bench,
        &[
            ("_class_name", json!("EulerAncestralDiscreteScheduler")),
            ("timestep_spacing", json!("trailing")),
            ("prediction_type", json!("epsilon")),
        ],
    );
    let line = [
        "--method",
        "diffusion-dpo",
        "--is_turbo",
        "--adapter_type",
        "full",
        "--validation_prompts",
        "a fox",
    ];
    let more = ["--validation_steps", "2", "--output_layout", "diffusers,original"];
    let said = bench.train("turbo", &[&line[..], &more].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    let path = bench.path("turbo/model/scheduler/scheduler_config.json");
    let config: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(config["rescale_betas_zero_snr"], json!(true));
    assert_eq!(config["timestep_spacing"], json!("trailing"));
    let stored = read(bench.path("turbo/model.safetensors"));
    assert!(stored.contains_key("ztsnr") && !stored.contains_key("v_pred"));
    // Neither sampler nor steps nor guidance are typed.
    let said = bench.succeed(&["sample", "--model", "turbo", "--prompt", "a fox", "--out", "drawn"]);
    assert!(said.stdout.contains("0000-0.png"), "{}", said.stdout);
    let text = fs::read(bench.path("drawn/0000-0.png")).unwrap();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("Steps: 4, Sampler: Euler a, CFG scale: 0"), "as the family is drawn");
    let ddim = ["sample", "--model", "turbo", "--sampler", "ddim", "--num_inference_steps", "4"];
    refused(&bench, &[&ddim[..], &["--prompt", "x", "--out", "o"]].concat(), 2, &["use euler"]);
}

#[test]
fn a_vae_that_fp16_would_ruin_stays_in_f32_in_every_command_and_fp16_is_offered() {
    let bench = adapted();
    copy(&bench.path("model"), &bench.path("kept"));
    for (force, same) in [(true, true), (false, false)] {
        let path = bench.path("model/vae/config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["force_upcast"] = json!(force);
        fs::write(&path, config.to_string()).unwrap();
        let model = tastemaker_models::pipeline::Model::open(bench.path("model")).unwrap();
        let vae = model
            .vae(tastemaker_models::nn::Role::Frozen, tastemaker_store::dtype::DType::F16, tch::Device::Cpu)
            .unwrap();
        let kind = vae.parameters.values().next().unwrap().kind();
        assert_eq!(kind == tch::Kind::Float, same, "force_upcast {force}");
    }
    for command in [&["sample"][..], &["compare"], &["data", "pairs"], &["score"], &["accuracy"]] {
        let help = bench.succeed(&[command, &["--help"]].concat()).stdout;
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains("no (fp32), bf16 or fp16"), "{command:?}: {help}");
    }
    generating(&bench, "half", &["--model", "model", "--mixed_precision", "fp16"]);
}
