//! Runs that are stopped, killed and gone on with, through the real program.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Bench, Said, files};
use tastemaker_run::{Event, read_events};
use tastemaker_store::sealed;
use tastemaker_testkit::TINY_RESOLUTION;
use tastemaker_torch::tensors::{self, Named};

/// Settings of every test: everything that has a state.
const STEPS: &str = "--max_train_steps 24 --held_out_fraction 0.4 --validation_steps 7 --use_ema --seed 1 \
                     --lr_scheduler cosine --lr_warmup_steps 4";

/// The kinds of runs whose state or files differ.
const KINDS: [&str; 8] = [
    "--method diffusion-dpo --validation_prompts fox --num_inference_steps 1 --num_validation_images 2",
    "--method diffusion-dpo --adapter_type full --reference precomputed --output_layout diffusers,original",
    "--method ddim-inpo --mixed_precision bf16 --checkpoints_total_limit 0",
    "--method ddim-inpo --set model=reference --reference precomputed --rank 2 --use_dora",
    "--method diffusion-dpo --base_precision nf4 --reference precomputed --use_dora",
    "--method mapo --adapter_type full --optimizer_type adafactor",
    "--method sft --no_cache --on_alarm keep-best --optimizer_type adamw8bit --gradient_accumulation_steps 2",
    "--method diffusion-dpo --mixed_precision fp16 --gradient_checkpointing --proportion_empty_prompts 0.3 --output_name named",
];

const LORA: &str = "pytorch_lora_weights.safetensors";

fn bench() -> Bench {
    let bench = Bench::new();
    bench.pairs("pairs", 12);
    bench
}

fn line(output: &str, more: &str) -> Vec<String> {
    let line = format!(
        "train --pretrained_model_name_or_path model --train_data_dir pairs --resolution {TINY_RESOLUTION} \
         --train_batch_size 2 --learning_rate 1e-3 --cache_to cached --output_dir {output} {STEPS} {more}"
    );
    line.split_whitespace().map(str::to_owned).collect()
}

fn train(bench: &Bench, output: &str, more: &str) -> Said {
    let line = line(output, more);
    bench.run(&line.iter().map(String::as_str).collect::<Vec<_>>())
}

fn start(bench: &Bench, output: &str, more: &str) -> Child {
    bench.start(&line(output, more))
}

fn result(bench: &Bench, output: &str, file: &str) -> Named {
    tensors::read(&bench.path(output).join(file)).unwrap()
}

#[track_caller]
fn assert_same(found: &Named, wanted: &Named, what: &str) {
    assert!(found.keys().eq(wanted.keys()), "{what}");
    for (name, tensor) in found {
        assert!(tensor.equal(&wanted[name]), "{what}: {name} differs");
    }
}

/// Losses by step, those of steps that were made again counted once.
fn losses(bench: &Bench, output: &str) -> Vec<(u64, f64)> {
    let events = read_events(bench.path(output).join("events.jsonl")).unwrap().events;
    let mut losses: Vec<(u64, f64)> = Vec::new();
    for event in events {
        match event {
            Event::Start(start) => losses.retain(|(step, _)| *step < start.step),
            Event::Step(step) => losses.push((step.step, step.loss)),
            _ => {}
        }
    }
    losses
}

fn checkpoints(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.contains("checkpoint")).collect();
    names.sort_unstable();
    names
}

/// Everything a run left, by its path: all files as they are, but for the log of events, of which the steps and validations count, each
/// as it was made last and without what measures time. TensorBoard's files repeat that log under the time of day.
fn left(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let kept = files(folder).into_iter().filter(|(path, _)| !path.starts_with("logs"));
    kept.map(
        |(path, bytes)| if path.ends_with("events.jsonl") { (path, timeless(&bytes)) } else { (path, bytes) },
    )
    .collect()
}

fn timeless(log: &[u8]) -> Vec<u8> {
    let mut events: BTreeMap<(String, u64), Value> = BTreeMap::new();
    for line in log.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let mut event: Value = serde_json::from_slice(line).unwrap();
        let (Some(kind), Some(step)) = (event["event"].as_str(), event["step"].as_u64()) else { continue };
        if !["step", "validation"].contains(&kind) {
            continue;
        }
        let key = (kind.to_owned(), step);
        let fields = event.as_object_mut().unwrap();
        fields.retain(|name, _| !["seconds", "pairs_per_second"].contains(&name.as_str()));
        events.insert(key, event);
    }
    assert!(!events.is_empty());
    events.into_values().map(|event| event.to_string() + "\n").collect::<String>().into_bytes()
}

#[track_caller]
fn assert_left_the_same(bench: &Bench, kind: &str) {
    let (found, wanted) = (left(&bench.path("out")), left(&bench.path("whole")));
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&wanted), "{kind}");
    for (path, bytes) in &wanted {
        assert!(found[path] == *bytes, "{kind}: {} differs", path.display());
    }
}

/// Kills a run `n_kills` times, spread over the time a whole one takes, resumes each time, and compares everything it left.
fn killed(kind: &str, n_kills: u32) {
    let bench = bench();
    let more = format!("{kind} --checkpointing_steps 2 --resume_from_checkpoint latest");
    let began = Instant::now();
    let said = train(&bench, "out", &more);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let whole = began.elapsed();
    // In the same place, for plans and cards name it.
    fs::rename(bench.path("out"), bench.path("whole")).unwrap();
    for kill in 0..n_kills {
        let mut child = start(&bench, "out", &more);
        // The golden ratio spreads the moments evenly, in no order.
        let fraction = 0.05 + (f64::from(kill) * 0.618_033_988_7).fract();
        let end = Instant::now() + whole.mul_f64(fraction);
        while Instant::now() < end && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        // One that ended by itself made everything; one that was killed after its last file may have its log to write.
        if child.wait().unwrap().success() {
            assert_left_the_same(&bench, kind);
            fs::remove_dir_all(bench.path("out")).unwrap();
        }
    }
    let said = train(&bench, "out", &more);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_left_the_same(&bench, kind);
}

fn compare(bench: &Bench, file: &str, kind: &str) {
    assert_same(&result(bench, "killed", file), &result(bench, "whole", file), kind);
    assert_eq!(losses(bench, "killed"), losses(bench, "whole"), "{kind}");
}

#[test]
fn a_run_that_is_killed_again_and_again_leaves_the_same_files() {
    KINDS.into_iter().for_each(|kind| killed(kind, 2));
}

#[test]
#[ignore = "takes minutes"]
fn a_run_that_is_killed_at_eighty_moments_leaves_the_same_files() {
    KINDS.into_iter().zip([14, 12, 12, 12, 8, 12, 12]).for_each(|(kind, n_kills)| killed(kind, n_kills));
}

/// Steps in a log that may be in the middle of being written.
fn steps_made(log: &Path) -> usize {
    fs::read_to_string(log).unwrap_or_default().matches("{\"event\":\"step\"").count()
}

#[test]
#[cfg(unix)]
fn a_signal_ends_the_step_saves_and_leaves_with_its_code() {
    let bench = bench();
    let file = LORA;
    // Steps long enough to be stopped in.
    let kind = "--method diffusion-dpo --gradient_accumulation_steps 12";
    assert_eq!(train(&bench, "whole", kind).code, 0);
    let mut before = 0;
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let mut child = start(&bench, "killed", &format!("{kind} --resume_from_checkpoint latest"));
        while steps_made(&bench.path("killed/events.jsonl")) <= before {
            sleep(Duration::from_millis(2));
        }
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(code));
        before = steps_made(&bench.path("killed/events.jsonl"));
        assert_eq!(checkpoints(&bench.path("killed")).len(), if code == 143 { 1 } else { 2 });
    }
    let said = train(&bench, "killed", &format!("{kind} --resume_from_checkpoint latest"));
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("resuming from step"), "{}", said.stderr);
    compare(&bench, file, kind);
}

#[test]
fn old_checkpoints_go_and_the_newest_load_as_loras() {
    let bench = bench();
    let more = "--method diffusion-dpo --checkpointing_steps 5 --checkpoints_total_limit 3";
    assert_eq!(train(&bench, "out", more).code, 0);
    assert_eq!(checkpoints(&bench.path("out")), ["checkpoint-15", "checkpoint-20", "checkpoint-24"]);
    let model = tastemaker_models::pipeline::Model::open(bench.path("model")).unwrap();
    for name in ["pytorch_lora_weights.safetensors", "pytorch_lora_weights_kohya.safetensors"] {
        let path = bench.path("out/checkpoint-20").join(name);
        tastemaker_models::adapters::LoraFile::read_for(path, &model).unwrap();
    }
}

#[test]
fn what_cannot_be_gone_on_with_is_refused_with_the_reason() {
    let bench = bench();
    let kind = "--method diffusion-dpo --checkpointing_steps 10 --checkpoints_total_limit 3";
    assert_eq!(train(&bench, "out", kind).code, 0);
    let refused = |more: &str, code: i32, words: &str| {
        let said = train(&bench, "out", &format!("{kind} {more}"));
        assert_eq!(said.code, code, "{}", said.stderr);
        assert!(said.stderr.contains(words), "{more}: {}", said.stderr);
    };
    refused(
        "",
        5,
        "out already exists and holds a run; choose another --output_dir, --resume_from_checkpoint latest or --overwrite",
    );
    let latest = "--resume_from_checkpoint latest";
    refused(&format!("{latest} --beta_dpo 4000"), 5, "method.settings.beta: 5000.0 there, 4000.0 here");
    refused(&format!("{latest} --max_grad_norm 2"), 5, "optimizer.max_grad_norm: 1.0 there, 2.0 here");
    refused("--resume_from_checkpoint nowhere", 2, "nowhere is no checkpoint");

    let state = bench.path("out/checkpoint-24/state.safetensors");
    let mut bytes = fs::read(&state).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&state, bytes).unwrap();
    refused(
        latest,
        5,
        "checkpoint-24: state.safetensors is not what was written; resume from an earlier checkpoint",
    );
    let earlier = "--resume_from_checkpoint out/checkpoint-10";
    let said = train(&bench, "out", &format!("{kind} {earlier}"));
    assert_eq!(said.code, 0, "{}", said.stderr);

    bench.pairs("pairs", 11);
    refused(earlier, 5, "the pairs changed since");
}

#[test]
fn a_longer_run_goes_on_where_the_rate_allows_it() {
    let bench = bench();
    let train = |output: &str, steps: u32, more: &str| {
        let line = format!(
            "train --pretrained_model_name_or_path model --train_data_dir pairs --resolution {TINY_RESOLUTION} \
             --method sft --max_train_steps {steps} --cache_to cached --checkpointing_steps 2 --output_dir {output} {more}"
        );
        bench.succeed(&line.split_whitespace().collect::<Vec<_>>())
    };
    train("whole", 6, "");
    train("longer", 4, "");
    train("longer", 6, "--resume_from_checkpoint latest");
    let file = "pytorch_lora_weights.safetensors";
    assert_same(&result(&bench, "longer", file), &result(&bench, "whole", file), "six steps");
}

#[test]
fn a_run_with_buckets_keeps_the_order_it_began_with_and_one_of_an_earlier_version_its_own() {
    let bench = bench();
    for i in (0..12).step_by(2) {
        for side in ["warm", "cold"] {
            let path = bench.path(&format!("pairs/{side}{i}.png"));
            let image = image::open(&path).unwrap();
            let wide =
                image.resize_exact(2 * image.width(), image.height(), image::imageops::FilterType::Triangle);
            wide.save(path).unwrap();
        }
    }
    let kind = "--method diffusion-dpo --enable_bucket --bucket_reso_steps 16 --checkpointing_steps 8 --checkpoints_total_limit 0";
    assert_eq!(train(&bench, "whole", kind).code, 0);
    assert_eq!(train(&bench, "out", kind).code, 0);
    let manifest = |step: u32| bench.path(&format!("out/checkpoint-{step}/checkpoint.json"));
    let drawn_in = |step| sealed::read(manifest(step)).unwrap().value.get("drawn_in").cloned();
    assert_eq!(drawn_in(8), Some(2.into()));
    let resumed = |more: &str| {
        let said = train(&bench, "out", &format!("{kind} --resume_from_checkpoint out/checkpoint-8 {more}"));
        assert_eq!(said.code, 0, "{}", said.stderr);
        said.stderr.contains("drawn one by one")
    };
    assert!(!resumed(""));
    assert_same(&result(&bench, "out", LORA), &result(&bench, "whole", LORA), "resumed");
    // Another split of the same pairs.
    assert!(!resumed("--train_batch_size 1 --gradient_accumulation_steps 2"));
    assert_eq!(drawn_in(16), Some(2.into()));

    let mut value = sealed::read(manifest(8)).unwrap().value;
    value.as_object_mut().unwrap().remove("drawn_in");
    sealed::write(manifest(8), &value).unwrap();
    assert!(resumed(""));
    assert_eq!(drawn_in(16), None);
    let losses = losses(&bench, "out");
    assert!(resumed(""));
    assert_eq!(self::losses(&bench, "out"), losses);
}

#[test]
fn an_output_folder_that_vanishes_is_an_error_that_names_it() {
    let bench = bench();
    let mut child = start(&bench, "out", "--method diffusion-dpo --checkpointing_steps 1");
    while !bench.path("out/checkpoint-1").exists() {
        sleep(Duration::from_millis(1));
    }
    let _ = fs::rename(bench.path("out"), bench.path("moved"));
    let code = child.wait().unwrap().code();
    // It may have been through already.
    assert!(code == Some(5) || bench.path("moved/README.md").exists(), "{code:?}");
    assert!(!checkpoints(&bench.path("moved")).is_empty());
}

#[test]
fn a_full_disk_is_an_error_that_leaves_the_last_checkpoint_whole() {
    let bench = bench();
    let file = "pytorch_lora_weights.safetensors";
    assert_eq!(train(&bench, "whole", "--method mapo").code, 0);
    let often = "--method mapo --checkpointing_steps 2";
    let mut child = start(&bench, "out", often);
    while !bench.path("out/checkpoint-2").exists() {
        sleep(Duration::from_millis(1));
    }
    let _ = child.kill();
    let _ = child.wait();
    let last = checkpoints(&bench.path("out")).len();
    let sizes = fs::read_dir(bench.path("out/checkpoint-2")).unwrap();
    let largest = sizes.map(|entry| entry.unwrap().metadata().unwrap().len()).max().unwrap();

    let resumed = format!("{often} --resume_from_checkpoint latest");
    let said = bench.run_on_a_full_disk(&line("out", &resumed), largest / 2);
    assert_eq!(said.code, 5, "{}", said.stderr);
    assert!(said.stderr.contains("checkpoint-") && said.stderr.contains("too large"), "{}", said.stderr);
    assert_eq!(checkpoints(&bench.path("out")).len(), last, "a checkpoint was added or lost");

    assert_eq!(train(&bench, "out", &resumed).code, 0);
    assert_same(&result(&bench, "out", file), &result(&bench, "whole", file), "after a full disk");
}

#[test]
fn images_of_an_earlier_version_move_to_the_folder_of_now_when_a_run_resumes() {
    let bench = Bench::new();
    let run = |more: &[&str]| {
        let line = [&["--method", "mapo", "--save_every_n_steps", "1"], more].concat();
        let said = bench.train("out", &line);
        assert_eq!(said.code, 0, "{}", said.stderr);
    };
    run(&["--max_train_steps", "1"]);
    bench.write("out/pictures/step-1/0000-0.png", "an image");
    run(&["--max_train_steps", "2", "--resume_from_checkpoint", "latest"]);
    assert!(bench.path("out/images/step-1/0000-0.png").is_file() && !bench.path("out/pictures").exists());
}

#[test]
fn files_of_a_user_in_a_checkpoint_stay_when_it_makes_room_for_newer_ones() {
    let bench = Bench::new();
    let more = ["--method", "mapo", "--checkpointing_steps", "1", "--output_name", "fox"];
    let keeping = |limit: &'static str, steps: &'static str| {
        [more.as_slice(), &["--checkpoints_total_limit", limit, "--max_train_steps", steps]].concat()
    };
    assert_eq!(bench.train("out", &keeping("0", "3")).code, 0);
    bench.write("out/checkpoint-1/notes.txt", "mine");
    bench.write("out/checkpoint-2/tests/1.png", "mine");
    bench.write("out/checkpoint-2/merged.safetensors", "mine");
    let resumed = [keeping("1", "4"), vec!["--resume_from_checkpoint", "latest"]].concat();
    let said = bench.train("out", &resumed);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("stays, though that checkpoint is removed"), "{}", said.stderr);
    let kept: Vec<String> = files(&bench.path("out"))
        .into_iter()
        .map(|(path, _)| path.display().to_string())
        .filter(|path| path.starts_with("checkpoint-") && !path.starts_with("checkpoint-4/"))
        .collect();
    assert_eq!(
        kept,
        ["checkpoint-1/notes.txt", "checkpoint-2/merged.safetensors", "checkpoint-2/tests/1.png"]
    );
    // The same step again, where somebody keeps something beside it.
    bench.write("out/checkpoint-4/notes.txt", "mine");
    let whole = files(&bench.path("out/checkpoint-4"));
    fs::rename(bench.path("out/checkpoint-4"), bench.path("aside")).unwrap();
    support::copy(&bench.path("aside"), &bench.path("out/checkpoint-4"));
    fs::remove_file(bench.path("out/checkpoint-4/checkpoint.json")).unwrap();
    let said = bench.train("out", &resumed);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let names = |files: Vec<(std::path::PathBuf, Vec<u8>)>| {
        files.into_iter().map(|(path, _)| path).collect::<Vec<_>>()
    };
    assert_eq!(names(files(&bench.path("out/checkpoint-4"))), names(whole));
}
