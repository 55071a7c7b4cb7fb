//! `tastemaker model`, through the real program.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;

use insta::assert_snapshot;
use support::{Bench, Said, mistake};
use tastemaker_models::adapters::LoraFile;
use tastemaker_models::nn::Ranks;
use tastemaker_testkit::Golden;
use tastemaker_torch::tensors::{self, Named};
use tch::{Device, Kind, Tensor};

fn said(bench: &Bench, args: &[&str]) -> Said {
    let said = bench.run(args);
    assert_eq!(said.code, 0, "{}", said.stderr);
    said
}

/// A bench with an adapter trained on the tiny model.
fn adapted() -> Bench {
    let bench = Bench::new();
    let said = bench
        .train("lora", &["--method", "mapo", "--adapter", "lora", "--learning_rate", "0.1", "--rank", "2"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    bench
}

fn picture(bench: &Bench, out: &str, more: &[&str]) -> Vec<u8> {
    let quick = ["sample", "--num_inference_steps", "2", "--prompt", "a fox", "--out", out];
    said(bench, &[&quick, more].concat());
    image::open(bench.path(out).join("0000-0.png")).unwrap().into_rgb8().into_raw()
}

#[test]
fn both_files_of_an_adapter_and_the_merged_model_paint_the_same() {
    let bench = adapted();
    let [diffusers, kohya] =
        ["lora/pytorch_lora_weights.safetensors", "lora/pytorch_lora_weights_kohya.safetensors"];
    let with = picture(&bench, "one", &["--model", "model", "--lora", diffusers]);
    assert_eq!(with, picture(&bench, "two", &["--model", "model", "--lora", kohya]));
    assert_ne!(with, picture(&bench, "none", &["--model", "model"]));

    said(&bench, &["model", "merge", "model", kohya, "merged"]);
    let merged = picture(&bench, "three", &["--model", "merged"]);
    let apart = with.iter().zip(&merged).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(apart <= 1, "{apart} of 255");
    said(&bench, &["model", "merge", "model", diffusers, "unmerged", "--weight", "0"]);
    let read = |model: &str| {
        tensors::read(&bench.path(model).join("unet/diffusion_pytorch_model.safetensors")).unwrap()
    };
    let (before, after) = (read("model"), read("unmerged"));
    assert!(before.iter().all(|(name, tensor)| after[name].equal(tensor)));
}

#[test]
fn a_model_becomes_a_single_file() {
    let bench = Bench::new();
    let converted = said(&bench, &["model", "convert", "model", "single.safetensors"]);
    assert_snapshot!(converted.stdout, @"wrote single.safetensors, a single-file checkpoint of SD1.x");
    let single = said(&bench, &["model", "inspect", "single.safetensors"]);
    assert_snapshot!(single.stdout);
    assert_snapshot!(said(&bench, &["model", "inspect", "model"]).stdout);
    // Its layers are narrower than those of any published model, and a single file carries no configuration.
    assert_snapshot!(mistake(&bench.run(&["model", "convert", "single.safetensors", "back"])));
    assert!(!bench.path("back/model_index.json").exists());
}

#[test]
fn an_adapter_goes_from_diffusers_to_kohya_and_back() {
    let bench = Bench::empty();
    let layer = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k";
    let filled = |shape: [i64; 2], value: f64| Tensor::full(shape, value, (Kind::Float, Device::Cpu));
    // The text width of SD2.x
    let tensors: Named = [
        (format!("{layer}.lora_A.weight"), filled([4, 1024], 0.25)),
        (format!("{layer}.lora_B.weight"), filled([1280, 4], -0.5)),
    ]
    .into();
    let file = LoraFile { ranks: Ranks::uniform(4, 2.0), target_modules: vec!["attn2.to_k".into()], tensors };
    file.write(bench.path("a.safetensors")).unwrap();

    let refused = bench.run(&["model", "convert", "a.safetensors", "b.safetensors"]);
    assert_snapshot!(mistake(&refused));
    let flag = ["--prediction_type", "v_prediction"];
    said(&bench, &[&["model", "convert", "a.safetensors", "b.safetensors"], flag.as_slice()].concat());
    assert_snapshot!(said(&bench, &["model", "inspect", "b.safetensors"]).stdout);
    said(&bench, &["model", "convert", "b.safetensors", "c.safetensors"]);
    let back = LoraFile::read(bench.path("c.safetensors")).unwrap();
    assert_eq!((back.ranks.rank, back.ranks.alpha), (4, 2.0));
    assert!(file.tensors.iter().all(|(name, tensor)| back.tensors[name].equal(tensor)));
}

#[test]
fn what_diffusers_recorded_is_computed_again() {
    let bench = Bench::new(); // its UNet is that of the golden
    let golden = Golden::load("models", "unet-demo");
    let mut reference = Named::new();
    for (ours, recorded) in [
        ("sample", "sample"),
        ("timestep", "timestep"),
        ("encoder_hidden_states", "encoder_hidden_states"),
        ("noise_pred", "output"),
    ] {
        reference.insert(ours.to_owned(), golden.tensor(recorded));
    }
    let path = bench.path("reference.safetensors");
    let verify = |reference: &Named| {
        tensors::write(&path, reference, &Default::default()).unwrap();
        bench.run(&[
            "model",
            "verify",
            "model",
            "--reference",
            "reference.safetensors",
            "--tolerance",
            "1e-5",
        ])
    };
    let agrees = verify(&reference);
    assert_eq!(agrees.code, 0, "{}", agrees.stderr);
    assert!(agrees.stdout.starts_with("noise_pred "), "{}", agrees.stdout);

    let mut reference = reference;
    let other = reference["noise_pred"].shallow_clone() * 1.001;
    reference.insert("noise_pred".into(), other);
    assert_snapshot!(mistake(&verify(&reference)));
    reference.insert("timestep".into(), Tensor::from_slice(&[1i64]));
    assert_snapshot!(mistake(&verify(&reference)));
    reference.remove("sample");
    assert_snapshot!(mistake(&verify(&reference)));
}

#[test]
fn what_cannot_be_converted_is_a_mistake_that_says_why() {
    let bench = adapted();
    fs::create_dir(bench.path("there")).unwrap();
    let convert = |from: &str, to: &str| mistake(&bench.run(&["model", "convert", from, to]));
    assert_snapshot!(convert("model", "there"));
    assert_snapshot!(convert("model", "folder"));
    assert_snapshot!(convert("lora/pytorch_lora_weights.safetensors", "kohya.safetensors"));
    assert_snapshot!(convert("nothing.safetensors", "out.safetensors"));
    bench.write("text.safetensors", "this is not a safetensors file at all");
    assert_snapshot!(convert("text.safetensors", "out"));
}
