//! `tastemaker model`, through the real program.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;

use insta::assert_snapshot;
use support::{Bench, Said, mistake};
use tastemaker_models::adapters::{LoraFile, LoraPart};
use tastemaker_models::nn::{Ranks, TensorSource};
use tastemaker_models::pipeline::Model;
use tastemaker_testkit_torch::Golden;
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
    let said = bench.train(
        "lora",
        &["--method", "mapo", "--adapter_type", "lora", "--learning_rate", "0.1", "--rank", "2"],
    );
    assert_eq!(said.code, 0, "{}", said.stderr);
    bench
}

fn image(bench: &Bench, out: &str, more: &[&str]) -> Vec<u8> {
    let quick = ["sample", "--num_inference_steps", "2", "--prompt", "a fox", "--out", out];
    said(bench, &[&quick, more].concat());
    image::open(bench.path(out).join("0000-0.png")).unwrap().into_rgb8().into_raw()
}

#[test]
fn a_lora_of_a_model_that_predicts_something_else_is_said_by_every_command() {
    let bench = adapted();
    let weights = tensors::read(&bench.path("lora/pytorch_lora_weights.safetensors")).unwrap();
    let quick = "--num_inference_steps 1 --prompt fox --out";
    let commands = [
        format!("sample --model model --lora LORA {quick} images"),
        "model merge model LORA merged".to_owned(),
        "compare model model+LORA --scorer nearest-art --prompts prompts.txt --num_inference_steps 1 --out compared"
            .to_owned(),
        "accuracy --model model --lora LORA --pairs pairs --without_reference --draws 1 --resolution 32".to_owned(),
        format!("data pairs --model model --lora LORA {quick} set --num_images_per_prompt 2"),
        "train --pretrained_model_name_or_path model --train_data_dir pairs --method mapo --resolution 32 \
         --held_out_fraction 0 --max_train_steps 1 --network_weights LORA --output_dir out"
            .to_owned(),
    ];
    bench.write("prompts.txt", "fox\n");
    let trained = bench.path("lora/pytorch_lora_weights.safetensors");
    let predicted = Model::open(bench.path("model")).unwrap().schedule().unwrap().schedule.prediction();
    assert_eq!(LoraFile::stated_prediction(trained), Some(predicted));
    for (key, value, is_other) in [
        ("modelspec.prediction_type", "v", true),
        ("ss_v_parameterization", "True", true),
        ("ss_base_model_version", "sd_v2_v", true),
        ("modelspec.prediction_type", "epsilon", false),
        ("ss_base_model_version", "sd_v1", false),
    ] {
        let header = [(key.to_owned(), value.to_owned())].into();
        tensors::write(&bench.path("LORA.safetensors"), &weights, &header).unwrap();
        let commands = if key == "modelspec.prediction_type" { &commands[..] } else { &commands[..1] };
        for command in commands {
            let line = command.replace("LORA", "LORA.safetensors");
            let said = said(&bench, &line.split_whitespace().collect::<Vec<_>>());
            let words = "warning: LORA.safetensors was trained on a model that predicts v_prediction, as its header says";
            assert_eq!(said.stderr.contains(words), is_other, "{command}: {}", said.stderr);
            for out in ["images", "merged", "compared", "set", "out"] {
                let _ = fs::remove_dir_all(bench.path(out));
            }
        }
    }
}

#[test]
fn an_adapter_trained_on_other_noise_than_its_model_says_is_used_on_that_noise() {
    let bench = adapted();
    let train = "train --pretrained_model_name_or_path model --train_data_dir pairs --method mapo --resolution 32 --held_out_fraction 0 \
                 --max_train_steps 1 --prediction_type v_prediction --rescale_betas_zero_snr";
    let line = |more: &str| format!("{train} {more}");
    for more in ["--output_dir v", "--output_dir full --adapter_type full --output_layout unet"] {
        said(&bench, &line(more).split_whitespace().collect::<Vec<_>>());
    }
    let of_run = image(&bench, "run", &["--model", "v"]);
    let epsilon = ["--lora", "v/pytorch_lora_weights.safetensors", "--prediction_type", "epsilon"];
    assert_ne!(of_run, image(&bench, "epsilon", &[&["--model", "model"], &epsilon[..]].concat()));
    for name in ["pytorch_lora_weights.safetensors", "pytorch_lora_weights_kohya.safetensors"] {
        let (moved, merged) = (format!("moved-{name}"), name.replace(".safetensors", "-merged"));
        fs::copy(bench.path("v").join(name), bench.path(&moved)).unwrap();
        assert_eq!(
            of_run,
            image(&bench, &format!("of-{name}"), &["--model", "model", "--lora", &moved]),
            "{name}"
        );
        said(&bench, &["model", "merge", "model", &moved, &merged]);
        let text = fs::read_to_string(bench.path(&merged).join("scheduler/scheduler_config.json")).unwrap();
        let scheduler: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(scheduler["prediction_type"], "v_prediction", "{name}");
        assert_eq!(scheduler["rescale_betas_zero_snr"], true, "{name}");
    }
    let full = image(&bench, "full-run", &["--model", "full"]);
    assert_eq!(full, image(&bench, "full-unet", &["--model", "model", "--unet_init", "full"]));
}

#[test]
fn both_files_of_an_adapter_and_the_merged_model_generate_the_same() {
    let bench = adapted();
    let [diffusers, kohya] =
        ["lora/pytorch_lora_weights.safetensors", "lora/pytorch_lora_weights_kohya.safetensors"];
    let with = image(&bench, "one", &["--model", "model", "--lora", diffusers]);
    assert_eq!(with, image(&bench, "two", &["--model", "model", "--lora", kohya]));
    assert_ne!(with, image(&bench, "none", &["--model", "model"]));

    said(&bench, &["model", "merge", "model", kohya, "merged"]);
    let merged = image(&bench, "three", &["--model", "merged"]);
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
    let part = LoraPart { ranks: Ranks::uniform(4, 2.0), target_modules: vec!["attn2.to_k".into()], tensors };
    let file = LoraFile::from(part);
    file.write(bench.path("a.safetensors")).unwrap();

    let refused = bench.run(&["model", "convert", "a.safetensors", "b.safetensors"]);
    assert_snapshot!(mistake(&refused));
    let flag = ["--prediction_type", "v_prediction"];
    said(&bench, &[&["model", "convert", "a.safetensors", "b.safetensors"], flag.as_slice()].concat());
    assert_snapshot!(said(&bench, &["model", "inspect", "b.safetensors"]).stdout);
    said(&bench, &["model", "convert", "b.safetensors", "c.safetensors"]);
    let back = LoraFile::read(bench.path("c.safetensors")).unwrap();
    assert_eq!((back.unet.ranks.rank, back.unet.ranks.alpha), (4, 2.0));
    assert!(file.unet.tensors.iter().all(|(name, tensor)| back.unet.tensors[name].equal(tensor)));
    // What the model predicts goes along, so that it need not be said again.
    let stated = LoraFile::stated_prediction(bench.path("c.safetensors"));
    assert_eq!(stated, Some(tastemaker_math::Prediction::VPrediction));
    said(&bench, &["model", "convert", "c.safetensors", "d.safetensors"]);
}

#[test]
fn a_text_encoders_adapter_is_inspected_merged_and_generated_with() {
    let bench = Bench::new();
    let model = Model::open(bench.path("model")).unwrap();
    let layer = "text_model.encoder.layers.0.mlp.fc1";
    let name = format!("{layer}.weight");
    let before = model.stored("text_encoder").unwrap().read(&name).unwrap();
    let ones = |shape: [i64; 2]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
    let (rows, columns) = before.size2().unwrap();
    let tensors: Named = [
        (format!("{layer}.lora_A.weight"), ones([1, columns])),
        (format!("{layer}.lora_B.weight"), ones([rows, 1])),
    ]
    .into();
    let part = LoraPart { ranks: Ranks::uniform(1, 0.5), target_modules: vec!["mlp.fc1".into()], tensors };
    let nothing = LoraPart { ranks: Ranks::uniform(1, 1.0), target_modules: vec![], tensors: Named::new() };
    LoraFile {
        unet: nothing,
        component: "unet",
        text: [("text_encoder", part)].into(),
        noise: Default::default(),
    }
    .write(bench.path("a.safetensors"))
    .unwrap();

    let inspected = said(&bench, &["model", "inspect", "a.safetensors"]).stdout;
    assert!(inspected.contains("1 layers of text_encoder"), "{inspected}");
    said(&bench, &["model", "convert", "a.safetensors", "kohya.safetensors"]);
    for (lora, merged) in [("a.safetensors", "one"), ("kohya.safetensors", "two")] {
        said(&bench, &["model", "merge", "model", lora, merged]);
        let folder = Model::open(bench.path(merged)).unwrap();
        let after = folder.stored("text_encoder").unwrap().read(&name).unwrap();
        assert!(((&after - &before) - 0.5).abs().max().double_value(&[]) < 1e-6, "{lora}");
    }
    let merged = image(&bench, "with", &["--model", "one"]);
    assert_ne!(merged, image(&bench, "without", &["--model", "model"]));
    let adapted = image(&bench, "adapted", &["--model", "model", "--lora", "a.safetensors"]);
    assert_ne!(adapted, image(&bench, "without-again", &["--model", "model"]));
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
fn gradients_that_peft_recorded_are_computed_again() {
    let bench = Bench::new();
    let golden = Golden::load("models", "unet-sd1-lora");
    golden.install(&bench.path("model/unet"), "diffusion_pytorch_model.safetensors");
    let output = golden.tensor("output");
    // The recorded gradients are those of a mean squared error.
    let weights = (&output - golden.tensor("target")) * (2.0 / output.numel() as f64);
    let mut reference: Named = golden
        .gradients()
        .into_iter()
        .filter(|(name, _)| !golden.vanishes(name))
        .map(|(name, gradient)| (format!("gradient.{name}"), gradient))
        .chain([("noise_pred".to_owned(), output), ("noise_pred_weights".to_owned(), weights)])
        .collect();
    for name in ["sample", "timestep", "encoder_hidden_states"] {
        reference.insert(name.to_owned(), golden.tensor(name));
    }
    fs::copy(golden.path("pytorch_lora_weights.safetensors"), bench.path("lora.safetensors")).unwrap();
    let path = bench.path("reference.safetensors");
    let verify = |reference: &Named| {
        tensors::write(&path, reference, &Default::default()).unwrap();
        let line = "model verify model --reference reference.safetensors --lora lora.safetensors";
        bench.run(&line.split(' ').collect::<Vec<_>>())
    };
    let agrees = verify(&reference);
    assert_eq!(agrees.code, 0, "{}", agrees.stderr);
    assert!(agrees.stdout.contains(" gradients "), "{}", agrees.stdout);

    let name = reference.keys().find(|name| name.starts_with("gradient.")).unwrap().clone();
    let other = reference[&name].shallow_clone() * 1.01;
    reference.insert(name, other);
    assert_eq!(verify(&reference).code, 4);
    reference
        .insert("gradient.conv_in.weight".into(), Tensor::zeros([1], (tch::Kind::Float, tch::Device::Cpu)));
    let refused = verify(&reference);
    assert!(refused.code != 0 && refused.stderr.contains("`gradient.conv_in.weight`"), "{}", refused.stderr);
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
