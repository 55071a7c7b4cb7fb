//! `tastemaker train`, end to end on the CPU: every method, LoRA and full.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;
use std::path::Path;

use support::{Bench, Said, files};
use tastemaker_models::adapters::{LoraFile, LoraPart};
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::Model;
use tastemaker_run::{Event, Outcome, Step, read_events};
use tastemaker_store::dtype::DType;
use tch::Device;

const METHODS: [&str; 4] = ["sft", "diffusion-dpo", "mapo", "ddim-inpo"];

fn steps(bench: &Bench, output: &str) -> Vec<Step> {
    let events = read_events(bench.path(output).join("events.jsonl")).unwrap().events;
    events
        .into_iter()
        .filter_map(|event| if let Event::Step(step) = event { Some(step) } else { None })
        .collect()
}

#[track_caller]
fn trained(said: Said) {
    assert_eq!(said.code, 0, "{}", said.stderr);
}

fn unet(
    bench: &Bench,
    folder: &str,
    lora: Option<LoraPart>,
) -> std::collections::BTreeMap<String, tch::Tensor> {
    let folder = Model::open(bench.path(folder)).unwrap();
    let lora = lora.map(LoraPart::into_spec);
    folder.unet(Role::Frozen, DType::F32, Device::Cpu, lora).unwrap().parameters
}

#[test]
fn every_method_trains_a_lora_that_loads_into_the_model() {
    let bench = Bench::new();
    for method in METHODS {
        trained(bench.train(method, &["--method", method]));
        let file = LoraFile::read(bench.path(method).join("pytorch_lora_weights.safetensors")).unwrap().unet;
        assert_eq!((file.ranks.rank, file.ranks.alpha), (8, 8.0), "{method}");
        let moved = |name: &str| file.tensors[name].abs().max().double_value(&[]) > 0.0;
        let ups: Vec<_> = file.tensors.keys().filter(|name| name.ends_with(".lora_B.weight")).collect();
        assert!(
            !ups.is_empty() && ups.iter().all(|name| moved(name)),
            "{method}: an up factor did not learn"
        );
        unet(&bench, "model", Some(file));
        assert_eq!(steps(&bench, method).len(), 2, "{method}");

        let card = fs::read_to_string(bench.path(method).join("README.md")).unwrap();
        assert!(card.starts_with("---\nlibrary_name: diffusers\n"), "{card}");
        assert!(
            card.contains(&format!("| method | {method} `{{")) && card.contains("| seed | 0 |"),
            "{card}"
        );
        assert!(!card.contains(bench.path("").to_str().unwrap()), "a place on this machine: {card}");
    }
}

#[test]
fn layers_may_have_ranks_and_alphas_of_their_own() {
    let bench = Bench::new();
    bench.write(
        "ranks.toml",
        "[adapter]\ntarget_modules = [\"to_q\", \"conv1\"]\nrank = 4\nrank_pattern = { conv1 = 2 }\n\
         alpha_pattern = { conv1 = 1.0 }\n",
    );
    trained(bench.train("out", &["ranks.toml", "--method", "mapo"]));
    let model = Model::open(bench.path("model")).unwrap();
    for name in ["pytorch_lora_weights.safetensors", "pytorch_lora_weights_kohya.safetensors"] {
        let file = LoraFile::read_for(bench.path("out").join(name), &model).unwrap().unet;
        for layer in file.layers() {
            let wanted = if layer.ends_with("conv1") { (2, 1.0) } else { (4, 4.0) };
            assert_eq!((file.ranks.rank(&layer), file.ranks.alpha(&layer)), wanted, "{name}: {layer}");
        }
        unet(&bench, "model", Some(file));
    }
    let card = fs::read_to_string(bench.path("out/README.md")).unwrap();
    assert!(
        card.contains("LoRA of rank 4, alpha 4, on to_q, conv1, rank 2 on conv1, alpha 1 on conv1"),
        "{card}"
    );

    bench.write("idle.toml", "[adapter]\nrank_pattern = { conv_in = 2 }\n");
    let refused = bench.train("idle", &["idle.toml", "--method", "mapo"]);
    assert!(refused.stderr.contains("adapter.rank_pattern is conv_in"), "{}", refused.stderr);
}

/// Also one with feed-forward layers, as kohya's scripts make them.
fn text_layers_of_a_lora_are_trained_or_kept_as_asked(bench: &Bench, lora: &str) {
    let wide = [
        "--method",
        "mapo",
        "--learning_rate",
        "1e-3",
        "--text_encoder_target_modules",
        "q_proj,k_proj,v_proj,out_proj,fc1",
    ];
    // The shorthand is a start, and the list beside it stands.
    trained(bench.train("wide", &[&wide[..], &["--train_text_encoder"]].concat()));
    let model = Model::open(bench.path("model")).unwrap();
    let read = |file: &str| LoraFile::read_for(bench.path(file), &model).unwrap();
    for (flags, said, learns) in [
        ("", "they are trained", true),
        ("--train_text_encoder", "they are trained", true),
        ("--network_train_unet_only", "they stay as they are", false),
        ("--network_train_unet_only --text_encoder_lr 1e-3", "they stay as they are", false),
    ] {
        for start in [lora, "wide/pytorch_lora_weights_kohya.safetensors"] {
            let line =
                ["--method", "mapo", "--learning_rate", "1e-3", "--overwrite", "--network_weights", start];
            let more =
                bench.train("kept", &line.into_iter().chain(flags.split_whitespace()).collect::<Vec<_>>());
            let n_layers: usize = read(start).text.values().map(|part| part.layers().len()).sum();
            assert!(
                more.stderr.contains(&format!("this LoRA has {n_layers} text encoder layers; {said}")),
                "{}",
                more.stderr
            );
            trained(more);
            let (before, after) = (read(start), read("kept/pytorch_lora_weights.safetensors"));
            for (component, part) in &before.text {
                let now = &after.text[component].tensors;
                assert!(part.tensors.keys().eq(now.keys()), "{flags}");
                let same = part.tensors.iter().all(|(name, tensor)| now[name].equal(tensor));
                assert_eq!(same, !learns, "{flags} {component} of {start}");
            }
            assert!(before.unet.tensors.iter().any(|(name, tensor)| !after.unet.tensors[name].equal(tensor)));
        }
    }
    let refused =
        bench.train("none", &["--method", "mapo", "--train_text_encoder", "--network_train_unet_only"]);
    assert!(
        refused.stderr.contains("optimizer.text_encoder_lr is 0, wanted a positive number"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_lora_goes_on_being_trained_from_where_it_is() {
    let bench = Bench::new();
    trained(
        bench.train("first", &["--method", "mapo", "--rank", "2", "--alpha", "3", "--learning_rate", "0.1"]),
    );
    let model = Model::open(bench.path("model")).unwrap();
    let read = |file: &str| LoraFile::read_for(bench.path(file), &model).unwrap().unet;
    let start = read("first/pytorch_lora_weights.safetensors");
    for name in ["pytorch_lora_weights.safetensors", "pytorch_lora_weights_kohya.safetensors"] {
        let file = format!("first/{name}");
        for precision in ["no", "bf16"] {
            let output = format!("{name}-{precision}");
            let more =
                ["--method", "diffusion-dpo", "--network_weights", &file, "--mixed_precision", precision];
            trained(bench.train(&output, &more));
            let steps = steps(&bench, &output);
            assert_eq!((steps[0].logit_mean, steps[0].loss), (Some(0.0), std::f64::consts::LN_2), "{output}");
            assert_ne!(steps[1].logit_mean, Some(0.0), "{output} did not learn");
            let result = read(&format!("{output}/pytorch_lora_weights.safetensors"));
            assert_eq!(result.ranks, start.ranks);
            assert!(result.tensors.keys().eq(start.tensors.keys()));
            assert!(
                start.tensors.iter().all(|(name, tensor)| !tensor.equal(&result.tensors[name])),
                "{output}"
            );
        }
        let card = fs::read_to_string(bench.path(&format!("{name}-no/README.md"))).unwrap();
        assert!(card.contains(&format!("| started from | LoRA `{name}`, sha256 `")), "{card}");
        assert!(card.contains("LoRA of rank 2, alpha 3"), "{card}");
    }
    // Base and LoRA are what the first step sees: its winner error is that of the same step on the merged model.
    let lora = "first/pytorch_lora_weights.safetensors";
    trained(bench.run(&["model", "merge", "model", lora, "merged"]));
    fs::rename(bench.path("model"), bench.path("base")).unwrap();
    fs::rename(bench.path("merged"), bench.path("model")).unwrap();
    trained(bench.train("on-merged", &["--method", "diffusion-dpo"]));
    fs::rename(bench.path("model"), bench.path("merged")).unwrap();
    fs::rename(bench.path("base"), bench.path("model")).unwrap();
    let error = |output: &str| steps(&bench, output)[0].winner_error;
    let (found, merged) = (error("pytorch_lora_weights.safetensors-no"), error("on-merged"));
    assert!((found / merged - 1.0).abs() < 1e-4, "{found} {merged}");

    let more = ["--method", "mapo", "--network_weights", lora, "--rank", "4", "--target_modules", "to_q"];
    let refused = bench.train("refused", &more);
    for said in
        ["adapter.rank is 4 for ", "but 2 in network_weights", "adapter.target_modules is to_q, but to_k, "]
    {
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
    }
    trained(
        bench.train("same", &["--method", "mapo", "--network_weights", lora, "--rank", "2", "--dry-run"]),
    );
}

#[test]
fn dora_starts_at_the_reference_and_can_be_gone_on_with_merged_and_generated() {
    let bench = Bench::new();
    let targets = ["--target_modules", "to_q,conv1,proj_in"];
    let dora = ["--method", "diffusion-dpo", "--use_dora"];
    for precision in ["no", "bf16"] {
        trained(bench.train(precision, &[&dora[..], &targets, &["--mixed_precision", precision]].concat()));
        let steps = steps(&bench, precision);
        assert_eq!((steps[0].logit_mean, steps[0].loss), (Some(0.0), std::f64::consts::LN_2), "{precision}");
        assert_ne!(steps[1].logit_mean, Some(0.0), "{precision} did not learn");
    }
    let model = Model::open(bench.path("model")).unwrap();
    let read = |file: &str| LoraFile::read_for(bench.path(file), &model).unwrap().unet;
    let file = read("no/pytorch_lora_weights.safetensors");
    assert!(file.is_dora() && read("no/pytorch_lora_weights_kohya.safetensors").is_dora());
    let before = unet(&bench, "model", None);
    let magnitudes = file.tensors.iter().filter(|(name, _)| name.ends_with(".lora_magnitude_vector"));
    for (name, magnitude) in magnitudes {
        let rows = before[&name.replace("lora_magnitude_vector", "weight")].flatten(1, -1);
        let lengths = rows.norm_scalaropt_dim(2.0, [1i64], false).reshape(magnitude.size());
        assert!(!magnitude.equal(&lengths), "{name} did not learn");
    }

    let kohya = "no/pytorch_lora_weights_kohya.safetensors";
    trained(bench.train("on", &["--method", "diffusion-dpo", "--network_weights", kohya]));
    assert_eq!(steps(&bench, "on")[0].loss, std::f64::consts::LN_2);
    assert!(read("on/pytorch_lora_weights.safetensors").is_dora());
    let card = fs::read_to_string(bench.path("on/README.md")).unwrap();
    assert!(card.contains("DoRA of rank 8"), "{card}");

    trained(bench.run(&["model", "merge", "model", kohya, "merged"]));
    let inspected = bench.run(&["model", "inspect", "no/pytorch_lora_weights.safetensors"]);
    assert!(inspected.stdout.contains("DoRA"), "{}{}", inspected.stdout, inspected.stderr);
}

#[test]
fn every_method_trains_a_whole_network_that_loads_as_a_model() {
    let bench = Bench::new();
    let before = unet(&bench, "model", None);
    for method in METHODS {
        trained(bench.train(method, &["--method", method, "--adapter_type", "full"]));
        let after = unet(&bench, &format!("{method}/model"), None);
        assert!(before.keys().eq(after.keys()));
        let still: Vec<_> = before.iter().filter(|(name, tensor)| after[*name].equal(tensor)).collect();
        assert!(still.is_empty(), "{method}: {} of {} parameters did not learn", still.len(), before.len());
        for part in ["vae", "text_encoder", "tokenizer", "scheduler"] {
            let (ours, theirs) = (format!("{method}/model/{part}"), format!("model/{part}"));
            assert_eq!(files(&bench.path(&ours)), files(&bench.path(&theirs)), "{part} did not travel");
        }
    }
}

#[test]
fn at_step_zero_every_logit_is_zero_and_every_loss_is_ln_two() {
    let bench = Bench::new();
    for method in ["diffusion-dpo", "ddim-inpo"] {
        for adapter in ["lora", "full"] {
            for precision in ["no", "bf16"] {
                let output = format!("{method}-{adapter}-{precision}");
                let more = ["--method", method, "--adapter_type", adapter, "--mixed_precision", precision];
                trained(bench.train(&output, &more));
                let steps = steps(&bench, &output);
                assert_eq!(steps[0].logit_mean, Some(0.0), "{output}");
                assert_eq!(steps[0].loss, std::f64::consts::LN_2, "{output}");
                assert_ne!(steps[1].logit_mean, Some(0.0), "{output} did not learn");
            }
        }
    }
}

#[test]
fn sdxl_trains_by_every_method_and_as_turbo() {
    let bench = Bench::sdxl();
    for method in METHODS {
        for (kind, more) in [("plain", &["--time_ids", "real"][..]), ("turbo", &["--is_turbo"])] {
            let output = format!("{method}-{kind}");
            let args = [&["--method", method, "--proportion_empty_prompts", "0.5"], more].concat();
            trained(bench.train(&output, &args));
            let steps = steps(&bench, &output);
            assert!(steps[1].grad_norm > 0.0, "{output}");
            if ["diffusion-dpo", "ddim-inpo"].contains(&method) {
                assert_eq!(
                    (steps[0].logit_mean, steps[0].loss),
                    (Some(0.0), std::f64::consts::LN_2),
                    "{output}"
                );
            }
            let file = LoraFile::read(bench.path(&output).join("pytorch_lora_weights.safetensors")).unwrap();
            unet(&bench, "model", Some(file.unet));
            assert!(bench.path(&output).join("pytorch_lora_weights_kohya.safetensors").is_file());
        }
    }
}

#[test]
fn text_encoders_learn_beside_the_unet() {
    for (bench, components) in
        [(Bench::new(), &["text_encoder"][..]), (Bench::sdxl(), &["text_encoder", "text_encoder_2"])]
    {
        for method in METHODS {
            for precision in ["no", "bf16"] {
                let output = format!("{method}-{precision}");
                let line = "--proportion_empty_prompts 0.5 --train_text_encoder --text_encoder_lr 1e-4";
                let more = line.split(' ').chain(["--method", method, "--mixed_precision", precision]);
                trained(bench.train(&output, &more.collect::<Vec<_>>()));
                let first = &steps(&bench, &output)[0];
                if ["diffusion-dpo", "ddim-inpo"].contains(&method) {
                    let start = (Some(0.0), std::f64::consts::LN_2);
                    assert_eq!((first.logit_mean, first.loss), start, "{output}");
                }
                let read = |name: &str| {
                    let model = Model::open(bench.path("model")).unwrap();
                    LoraFile::read_for(bench.path(&output).join(name), &model).unwrap()
                };
                let file = read("pytorch_lora_weights.safetensors");
                assert!(file.text.keys().eq(components), "{output}");
                let twin = read("pytorch_lora_weights_kohya.safetensors");
                for (component, part) in &file.text {
                    let ups = part.tensors.iter().filter(|(name, _)| name.ends_with("lora_B.weight"));
                    // SDXL reads the states before the last layer: without a projection that one does not learn.
                    let learned = ups.filter(|(_, up)| up.abs().max().double_value(&[]) > 0.0).count();
                    assert!(learned >= 4, "{output}: {learned} factors learned");
                    let there = |name: &String| &twin.text[component].tensors[name];
                    assert!(part.tensors.iter().all(|(name, tensor)| there(name).equal(tensor)), "{output}");
                }
            }
        }
        // The result can be generated with, merged, and trained on.
        let lora = "mapo-no/pytorch_lora_weights_kohya.safetensors";
        let generate = |model: &str, more: &[&str], out: &str| {
            let line = ["sample", "--prompt", "a fox", "--num_inference_steps", "2", "--model", model];
            bench.succeed(&[&line[..], more, &["--out", out]].concat());
            let folder = bench.path(out);
            let image = files(&folder).into_iter().find(|(path, _)| path.extension().unwrap() == "png");
            image::load_from_memory(&image.unwrap().1).unwrap().to_rgb8().into_raw()
        };
        bench.succeed(&["model", "merge", "model", lora, "merged"]);
        let (adapted, merged) = (generate("model", &["--lora", lora], "a"), generate("merged", &[], "b"));
        let far = adapted.iter().zip(&merged).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(far <= 2, "merged and adapted model generate {far} apart");
        let again = ["--method", "diffusion-dpo", "--train_text_encoder", "--network_weights", lora];
        trained(bench.train("again", &again));
        let first = &steps(&bench, "again")[0];
        assert_eq!((first.logit_mean, first.loss), (Some(0.0), std::f64::consts::LN_2));
        text_layers_of_a_lora_are_trained_or_kept_as_asked(&bench, lora);
    }
}

#[test]
fn what_sdxl_is_told_about_sizes_matters() {
    let bench = Bench::sdxl();
    let first_error = |kind: &str| {
        trained(bench.train(kind, &["--method", "mapo", "--time_ids", kind]));
        steps(&bench, kind)[0].winner_error
    };
    assert_ne!(first_error("constant"), first_error("real"));
}

#[test]
fn two_runs_with_one_seed_give_identical_files() {
    let bench = Bench::new();
    for adapter in ["lora", "full"] {
        let more = [
            "--method",
            "ddim-inpo",
            "--adapter_type",
            adapter,
            "--seed",
            "5",
            "--proportion_empty_prompts",
            "0.5",
        ];
        // Results carry the name of their folder as a title, so both runs go to one.
        let runs = [(); 2].map(|()| {
            trained(bench.train(adapter, &more));
            let results = files(&bench.path(adapter)).into_iter();
            let kept = |path: &Path| path.extension().is_some_and(|end| end == "safetensors" || end == "md");
            let kept: Vec<_> = results.filter(|(path, _)| kept(path)).collect();
            fs::remove_dir_all(bench.path(adapter)).unwrap();
            kept
        });
        assert!(!runs[0].is_empty());
        assert!(runs[0] == runs[1], "{adapter}");
    }
}

#[test]
fn another_seed_gives_another_result() {
    let bench = Bench::new();
    let results = ["1", "2"].map(|seed| {
        trained(bench.train(seed, &["--method", "diffusion-dpo", "--adapter_type", "full", "--seed", seed]));
        fs::read(bench.path(seed).join("model/unet/diffusion_pytorch_model.safetensors")).unwrap()
    });
    assert!(results[0] != results[1]);
}

#[test]
fn a_run_made_again_replaces_its_log_and_its_result_when_asked() {
    let bench = Bench::new();
    let more = ["--method", "mapo", "--adapter_type", "full"];
    trained(bench.train("out", &more));
    let result = bench.path("out/model/unet/diffusion_pytorch_model.safetensors");
    let first = fs::read(&result).unwrap();
    fs::write(&result, "damaged").unwrap();
    let said = bench.train("out", &more);
    assert_eq!(said.code, 5, "{}", said.stderr);
    let message = "out already exists and holds a run; choose another --output_dir";
    assert!(said.stderr.contains(message), "{}", said.stderr);
    assert_eq!(fs::read(&result).unwrap(), b"damaged");
    trained(bench.train("out", &[more.as_slice(), &["--overwrite"]].concat()));
    assert!(fs::read(&result).unwrap() == first);
    assert_eq!(steps(&bench, "out").len(), 2);
}

#[test]
fn the_log_tells_the_whole_run() {
    let bench = Bench::new();
    bench.pairs("pairs", 30);
    let more =
        ["--method", "diffusion-dpo", "--held_out_fraction", "0.5", "--validation_steps", "1", "--seed", "1"];
    trained(bench.train("out", &more));
    let events = read_events(bench.path("out/events.jsonl")).unwrap().events;
    let names: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Encode(_) => "encode",
            Event::Skipped(_) => "skipped",
            Event::Start(_) => "start",
            Event::Step(_) => "step",
            Event::Probe(_) => "probe",
            Event::Alarm(_) => "alarm",
            Event::Finish(_) => "finish",
            _ => "another",
        })
        .collect();
    assert_eq!(names, ["encode", "start", "probe", "step", "probe", "step", "another", "probe", "finish"]);
    let Some(Event::Finish(finish)) = events.last() else { panic!("the log ends otherwise") };
    assert_eq!((finish.step, &finish.outcome), (2, &Outcome::Completed));
    assert!(finish.seconds > 0.0);
    if cfg!(target_os = "linux") {
        assert!(finish.peak_memory_bytes.is_some_and(|bytes| bytes > 1 << 20));
    }
}

#[test]
fn no_more_pairs_are_trained_on_than_asked_for() {
    let bench = Bench::new();
    trained(bench.train("out", &["--method", "mapo", "--max_train_samples", "2"]));
    let events = read_events(bench.path("out/events.jsonl")).unwrap().events;
    let start =
        events.iter().find_map(|event| if let Event::Start(start) = event { Some(start) } else { None });
    assert_eq!(start.unwrap().n_pairs, 2);
    let other = bench.train("out", &["--method", "mapo", "--resume_from_checkpoint", "latest"]);
    assert!(other.stderr.contains("data.max_train_samples: 2 there, null here"), "{}", other.stderr);
}

#[test]
fn published_flags_are_accepted_and_said_to_be_ignored() {
    let bench = Bench::new();
    let more = ["--method", "diffusion-dpo", "--push-to-hub", "--enable_xformers_memory_efficient_attention"];
    let said = bench.train("out", &more);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for flag in ["--push_to_hub is ignored", "--enable_xformers_memory_efficient_attention is ignored"] {
        assert!(said.stderr.contains(flag), "{}", said.stderr);
    }
}

#[test]
fn a_run_that_does_not_move_raises_one_alarm_and_goes_on() {
    let bench = Bench::new();
    let still = ["--learning_rate", "1e-12", "--max_train_steps", "80", "--train_batch_size", "1"];
    let said = bench.train("out", &[&["--method", "diffusion-dpo"], still.as_slice()].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(said.stderr.matches("alarm: step 59: the loss stays at 0.693").count(), 1, "{}", said.stderr);
    let events = read_events(bench.path("out/events.jsonl")).unwrap().events;
    let alarms: Vec<_> = events.iter().filter(|event| matches!(event, Event::Alarm(_))).collect();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
}
