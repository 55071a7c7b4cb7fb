//! Models made up of other parts or lying in one file, and what a full fine-tune writes.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;

use insta::assert_snapshot;
use support::{Bench, WEIGHTS, bright_vae, copy, files, generating, mistake, read, same, tuned};
use tastemaker_run::{Event, Step, read_events};
use tastemaker_torch::tensors;
use tch::Kind;

fn first_step(bench: &Bench, output: &str) -> Step {
    let events = read_events(bench.path(output).join("events.jsonl")).unwrap().events;
    let step = |event| if let Event::Step(step) = event { Some(step) } else { None };
    events.into_iter().find_map(step).unwrap()
}

#[test]
fn another_vae_is_taken_from_wherever_it_lies() {
    let bench = Bench::new();
    bright_vae(&bench);
    let wanted = generating(&bench, "wanted", &["--model", "bright"]);
    assert!(wanted != generating(&bench, "plain", &["--model", "model"]));
    for vae in ["vae", "bright", "bright.safetensors", "alone.safetensors"] {
        let out = format!("with-{vae}");
        let with =
            generating(&bench, &out, &["--model", "model", "--pretrained-vae-model-name-or-path", vae]);
        assert!(with == wanted, "{vae}");
    }

    let full = ["--method", "mapo", "--adapter_type", "full", "--vae", "alone.safetensors"];
    let said = bench.train("full", &full);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let (ours, theirs) = (bench.path("full/model/vae"), bench.path("bright/vae"));
    assert!(same(&read(ours.join(WEIGHTS)), &read(theirs.join(WEIGHTS))), "the other VAE did not travel");
    assert!(fs::read(ours.join("config.json")).unwrap() == fs::read(theirs.join("config.json")).unwrap());
}

#[test]
fn policy_and_reference_start_from_another_unet() {
    let bench = tuned(&[]);
    let wanted = generating(&bench, "wanted", &["--model", "full/model"]);
    for unet in ["full", "full/unet", "full/model"] {
        let with = generating(
            &bench,
            &format!("with-{}", unet.replace('/', "-")),
            &["--model", "model", "--unet_init", unet],
        );
        assert!(with == wanted, "{unet}");
    }
    // So small a step changes no f32.
    let still = ["--learning_rate", "1e-30", "--unet_init", "full/unet", "--method", "diffusion-dpo"];
    let said = bench.train("again", &[still.as_slice(), &["--adapter_type", "full"]].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    let unet = |model: &str| read(bench.path(model).join("unet").join(WEIGHTS));
    assert!(same(&unet("again/model"), &unet("full/model")));
    let first = first_step(&bench, "again");
    assert_eq!((first.logit_mean, first.loss), (Some(0.0), std::f64::consts::LN_2));
}

#[test]
fn parts_that_do_not_fit_or_are_not_there_are_mistakes() {
    let bench = Bench::new();
    let sample = |more: &[&str]| {
        mistake(&bench.run(
            &[["sample", "--model", "model", "--prompt", "a", "--out", "out"].as_slice(), more].concat(),
        ))
    };
    copy(&bench.path("model/vae"), &bench.path("vae"));
    let config = fs::read_to_string(bench.path("vae/config.json")).unwrap();
    bench.write("vae/config.json", config.replace("\"latent_channels\": 4", "\"latent_channels\": 16"));
    let mut said = sample(&["--vae", "vae"]);
    for more in [
        ["--vae", "pairs"],
        ["--unet_init", "nowhere"],
        ["--unet_init", "model/unet/diffusion_pytorch_model.safetensors"],
        ["--variant", "fp16"],
        ["--variant", "../x"],
        ["--revision", "main"],
        ["--model_config", "model"],
    ] {
        said += &sample(&more);
    }
    assert_snapshot!(said);
}

#[test]
fn the_chosen_variant_is_read() {
    let bench = Bench::new();
    copy(&bench.path("model"), &bench.path("tuned"));
    let path = bench.path("tuned/unet").join(WEIGHTS);
    let mut unet = read(&path);
    let bias = &unet["conv_out.bias"] + 0.5;
    unet.insert("conv_out.bias".into(), bias);
    tensors::write(&path, &unet, &Default::default()).unwrap();
    fs::copy(&path, bench.path("model/unet/diffusion_pytorch_model.ema.safetensors")).unwrap();
    let wanted = generating(&bench, "wanted", &["--model", "tuned"]);
    assert!(wanted == generating(&bench, "variant", &["--model", "model", "--variant", "ema"]));
    assert!(wanted != generating(&bench, "plain", &["--model", "model"]));
}

#[test]
fn a_single_file_generates_and_trains_as_the_folder_it_was_made_from() {
    let bench = Bench::new();
    bench.succeed(&["model", "convert", "model", "single.safetensors"]);
    let single = ["--model", "single.safetensors", "--model_config", "model"];
    assert!(generating(&bench, "one", &single) == generating(&bench, "two", &["--model", "model"]));

    bench.succeed(&["model", "convert", "single.safetensors", "back", "--model_config", "model"]);
    for part in ["unet", "vae"] {
        let weights = |root: &str| read(bench.path(root).join(part).join(WEIGHTS));
        assert!(same(&weights("back"), &weights("model")), "{part}");
    }

    let train = |more: &[&str]| {
        let said = bench.train("out", &[["--method", "ddim-inpo", "--seed", "3"].as_slice(), more].concat());
        assert_eq!(said.code, 0, "{}", said.stderr);
        let results = files(&bench.path("out")).into_iter();
        let kept = results.filter(|(path, _)| path.extension().is_some_and(|end| end == "safetensors"));
        let kept: Vec<_> = kept.collect();
        fs::remove_dir_all(bench.path("out")).unwrap();
        kept
    };
    let from_file = ["--pretrained_model_name_or_path", "single.safetensors", "--model_config", "model"];
    for adapter in
        [["--adapter_type", "lora"].as_slice(), &["--adapter_type", "full", "--output_layout", "original"]]
    {
        let folder = train(adapter);
        assert!(!folder.is_empty() && folder == train(&[adapter, &from_file].concat()), "{adapter:?}");
    }
    // Out of a single file into a whole folder.
    let full = ["--method", "mapo", "--adapter_type", "full"];
    let said = bench.train("whole", &[full.as_slice(), &from_file].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    let said = bench.train("wanted", &full);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for part in ["unet", "vae", "text_encoder"] {
        let weights = if part.starts_with("text") { "model.safetensors" } else { WEIGHTS };
        let weights = |root: &str| read(bench.path(root).join("model").join(part).join(weights));
        assert!(same(&weights("whole"), &weights("wanted")), "{part}");
    }
    for part in ["tokenizer", "scheduler"] {
        let part = |root: &str| files(&bench.path(root).join("model").join(part));
        assert_eq!(part("whole"), part("wanted"));
    }
}

#[test]
fn a_full_fine_tune_is_written_in_every_layout_and_type() {
    for (flag, kind) in [("float", Kind::Float), ("fp16", Kind::Half), ("bf16", Kind::BFloat16)] {
        let bench = tuned(&["--save_precision", flag]);
        let unet = read(bench.path("full/unet").join(WEIGHTS));
        assert!(unet.values().all(|tensor| tensor.kind() == kind), "{flag}");
        assert!(same(&unet, &read(bench.path("full/model/unet").join(WEIGHTS))));
        let original = read(bench.path("full/model.safetensors"));
        let bias = &unet["conv_in.bias"];
        assert!(original.values().any(|tensor| tensor.size() == bias.size() && tensor.equal(bias)), "{flag}");
        // What was not trained keeps its type.
        let vae = original.iter().find(|(name, _)| name.ends_with(".decoder.conv_out.bias")).unwrap().1;
        assert_eq!(vae.kind(), Kind::Float);
        let from_folder = generating(&bench, "folder", &["--model", "full/model"]);
        let file = ["--model", "full/model.safetensors", "--model_config", "model"];
        assert!(from_folder == generating(&bench, "file", &file), "{flag}");

        let card = fs::read_to_string(bench.path("full/README.md")).unwrap();
        for part in
            ["from_pretrained(\"path/to/this/folder/model\")", "subfolder=\"unet\"", "from_single_file("]
        {
            assert!(card.contains(part), "{part} in {card}");
        }
    }
}

#[test]
fn one_layout_alone_is_one_result() {
    let bench = Bench::new();
    let full =
        ["--method", "mapo", "--adapter_type", "full", "--output_layout", "unet", "--report_to", "none"];
    let said = bench.train("out", &full);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.starts_with("wrote out/unet: 2 steps"), "{}", said.stdout);
    let names: Vec<_> = files(&bench.path("out")).into_iter().map(|(path, _)| path).collect();
    let wanted = [
        "README.md",
        "checkpoint-2/checkpoint.json",
        "checkpoint-2/state.safetensors",
        "events.jsonl",
        "plan.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ];
    assert_eq!(names, wanted.map(std::path::PathBuf::from));

    let said =
        bench.train("lora", &["--method", "mapo", "--output_layout", "original", "--save_precision", "fp16"]);
    assert_eq!(said.stderr.matches("has no effect: a LoRA is always").count(), 2, "{}", said.stderr);
    assert_snapshot!(mistake(&bench.train("out2", &["--method", "mapo", "--output_layout", "kohya"])));
}

#[test]
fn every_layout_of_a_run_is_taken_by_the_name_of_the_run() {
    let bench = support::tuned(&[]);
    let wanted = support::generating(&bench, "whole", &["--model", "full/model"]);
    let full = ["--method", "mapo", "--adapter_type", "full", "--learning_rate", "0.1", "--output_layout"];
    for layout in ["unet", "original"] {
        let said = bench.train(layout, &[full.as_slice(), &[layout]].concat());
        assert_eq!(said.code, 0, "{}", said.stderr);
        let found = support::generating(&bench, &format!("of-{layout}"), &["--model", layout]);
        assert!(found == wanted, "{layout}");
        bench.succeed(&[
            "accuracy",
            "--model",
            layout,
            "--reference",
            "model",
            "--pairs",
            "pairs",
            "--resolution",
            "32",
        ]);
        let more = [
            "--scorer",
            "nearest-art",
            "--prompts",
            "demo",
            "--n_prompts",
            "2",
            "--num_inference_steps",
            "1",
        ];
        let out = format!("compared-{layout}");
        bench.succeed(&[&["compare", "model", layout, "--out", &out], more.as_slice()].concat());
    }
    // A single file is gone on from, too.
    let said = bench.train("further", &["--method", "mapo", "--model", "original"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    bench.succeed(&["model", "convert", "original", "folder"]);
}
