//! Runs that go wrong: ruined weights, closed pipes, signals, folders in use, and what they leave.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::{Bench, Said};
use tastemaker_run::{Event, read_events};
use tastemaker_store::lock::{FolderLock, Sharing};
use tastemaker_testkit::TINY_RESOLUTION;
use tastemaker_torch::tensors;

const LORA: &str = "pytorch_lora_weights.safetensors";
const KOHYA: &str = "pytorch_lora_weights_kohya.safetensors";

fn line(output: &str, more: &str) -> Vec<String> {
    let line = format!(
        "train --pretrained_model_name_or_path model --train_data_dir pairs --resolution {TINY_RESOLUTION} \
         --train_batch_size 2 --held_out_fraction 0 --cache_to cached --output_dir {output} {more}"
    );
    line.split_whitespace().map(str::to_owned).collect()
}

fn train(bench: &Bench, output: &str, more: &str) -> Said {
    let line = line(output, more);
    bench.run(&line.iter().map(String::as_str).collect::<Vec<_>>())
}

#[track_caller]
fn trained(bench: &Bench, output: &str, more: &str) -> Said {
    let said = train(bench, output, more);
    assert_eq!(said.code, 0, "{}", said.stderr);
    said
}

/// Starts the program, its output going nowhere or where `shell` leads it.
fn start(bench: &Bench, shell: &str, args: &[String]) -> Child {
    // Whoever started the tests may ignore what a hang-up sends.
    Command::new("env")
        .args(["--default-signal=HUP", "sh"])
        .args(["-c", &format!("{shell} exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_tastemaker")])
        .args(args)
        .current_dir(bench.path(""))
        .envs(support::NO_DEVICE)
        .env("OMP_NUM_THREADS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn steps_made(log: &Path) -> usize {
    fs::read_to_string(log).unwrap_or_default().matches("{\"event\":\"step\"").count()
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(120), "waited for {what}");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_the_last_update_ruined_is_no_result_and_no_checkpoint() {
    let bench = Bench::new();
    // Weights that overflow, and weights that are finite and predict nothing that is.
    for (output, more, words) in [
        (
            "overflow",
            "--method sft --learning_rate 1e39 --max_train_steps 1",
            "is not finite after the update",
        ),
        (
            "full",
            "--method sft --adapter_type full --learning_rate 1e39 --max_train_steps 1",
            "is not finite",
        ),
        (
            "predicts",
            "--method sft --adapter_type full --learning_rate 1e12 --max_train_steps 1",
            "the network predicts nothing finite after the update",
        ),
    ] {
        let said = train(&bench, output, &format!("{more} --use_ema"));
        assert_eq!(said.code, 6, "{output}: {}", said.stderr);
        assert!(said.stderr.contains(words), "{output}: {}", said.stderr);
        assert!(said.stderr.contains("lower the learning rate") && !said.stderr.contains("disk"));
        for name in ["model", LORA, KOHYA, "README.md", "checkpoint-1"] {
            assert!(!bench.path(output).join(name).exists(), "{output}: {name} is there");
        }
    }
}

#[test]
fn trained_weights_beyond_the_type_they_are_written_in_are_refused_by_name() {
    let bench = Bench::new();
    // What fp16 does not hold and f32 does, where it goes into no product: every prediction is a number.
    let path = bench.path("model/unet").join(support::WEIGHTS);
    let mut weights = tensors::read(&path).unwrap();
    let bias = weights["conv_out.bias"].full_like(7e4);
    weights.insert("conv_out.bias".into(), bias);
    tensors::write(&path, &weights, &Default::default()).unwrap();
    let more =
        "--method sft --adapter_type full --learning_rate 1e-6 --max_train_steps 1 --save_precision fp16";
    let said = train(&bench, "out", more);
    assert_eq!(said.code, 5, "{}", said.stderr);
    let words = "`conv_out.bias` has values beyond what fp16 holds; choose another save_precision";
    assert!(said.stderr.contains(words), "{}", said.stderr);
    assert!(!bench.path("out/model").exists(), "{}", said.stderr);
}

#[test]
fn a_ruined_run_says_so_in_its_last_line_and_in_its_card() {
    let bench = Bench::new();
    let more = "--method diffusion-dpo --adapter_type full --learning_rate 3e-2 --max_train_steps 4";
    let said = trained(&bench, "out", more);
    let last = said.stdout.lines().last().unwrap();
    assert!(last.starts_with("the result is likely ruined: step "), "{last}");
    assert!(last.contains(": the loss is ") && last.ends_with("(and 1 other alarm)"), "{last}");
    assert!(said.stderr.contains("alarm: step 1: the error on winners is "), "{}", said.stderr);
    let card = fs::read_to_string(bench.path("out/model/README.md")).unwrap();
    assert!(card.contains("> **Critical alarm:** step "), "{card}");

    let said = trained(&bench, "sound", "--method diffusion-dpo --learning_rate 1e-5 --max_train_steps 4");
    assert!(said.stdout.lines().count() == 1, "{}", said.stdout);
    assert!(!fs::read_to_string(bench.path("sound/README.md")).unwrap().contains("alarm"));
}

#[test]
fn the_card_and_the_kohya_file_say_what_was_really_done() {
    let bench = Bench::new();
    let more = "--method sft --use_adafactor --learning_rate 1e-4 --scale_lr --max_train_steps 2 \
                --gradient_accumulation_steps 2 --lr_scheduler linear";
    trained(&bench, "out", more);
    let metadata = tensors::read_with_metadata(&bench.path("out").join(KOHYA)).unwrap().1;
    for (key, wanted) in [
        ("ss_optimizer", "transformers.optimization.Adafactor"),
        ("ss_learning_rate", "0.0004"),
        ("ss_unet_lr", "0.0004"),
        ("ss_lr_scheduler", "linear"),
        ("ss_steps", "2"),
        ("ss_num_train_images", "6"),
        ("ss_total_batch_size", "4"),
        ("ss_num_processes", "1"),
    ] {
        assert_eq!(metadata.get(key).map(String::as_str), Some(wanted), "{key}");
    }
    let card = fs::read_to_string(bench.path("out/README.md")).unwrap();
    for row in [
        "| optimizer | Adafactor, learning rate 4e-4 |",
        "| steps | 2 optimizer steps, 4 pairs each |",
        "| pairs | 6 trained on",
    ] {
        assert!(card.contains(row), "{card}");
    }
}

#[test]
fn the_average_is_what_is_validated_kept_and_written() {
    let bench = Bench::new();
    bench.pairs("pairs", 12);
    let more = "--method diffusion-dpo --learning_rate 1e-3 --max_train_steps 40 --held_out_fraction 0.4 --seed 1 --validation_steps 20 \
                --report_to none --checkpointing_steps 20 --checkpoints_total_limit 0";
    let probes = |output: &str| -> Vec<f64> {
        let events = read_events(bench.path(output).join("events.jsonl")).unwrap().events;
        let error = |event| if let Event::Probe(probe) = event { Some(probe.winner_error) } else { None };
        events.into_iter().filter_map(error).collect()
    };
    trained(&bench, "raw", more);
    trained(&bench, "mean", &format!("{more} --ema_decay 0.5"));
    trained(&bench, "best", &format!("{more} --ema_decay 0.5 --on_alarm keep-best"));
    assert_eq!(probes("raw")[0], probes("mean")[0]);
    assert_ne!(probes("raw")[2], probes("mean")[2], "the raw weights were validated");
    let weights = |path: &str| tensors::read(&bench.path(path)).unwrap();
    let same = |one: &str, other: &str| {
        let (one, other) = (weights(one), weights(other));
        one.iter().all(|(name, tensor)| tensor.equal(&other[name]))
    };
    assert!(
        same(&format!("mean/{LORA}"), &format!("mean/checkpoint-40/{LORA}")),
        "a checkpoint has other weights"
    );
    assert!(!same(&format!("mean/{LORA}"), &format!("raw/{LORA}")));
    let best = read_events(bench.path("best/events.jsonl")).unwrap().events.into_iter().rev();
    let best = best.into_iter().find_map(|event| match event {
        Event::Checkpoint { step, best: true, .. } => Some(step),
        _ => None,
    });
    let best = best
        .filter(|step| *step > 0)
        .unwrap_or_else(|| panic!("the start is the best of {:?}", probes("best")));
    let kept = format!("mean/checkpoint-{best}/{LORA}");
    assert!(same(&format!("best/{LORA}"), &kept), "the average of step {best} was thrown away");
}

#[test]
fn a_reader_that_goes_ends_no_run() {
    let bench = Bench::new();
    let mut child = start(&bench, "", &line("out", "--method sft --max_train_steps 4"));
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(bench.path("out").join(LORA).exists());
    let sample = "sample --model model --prompt fox --prompt rain --num_inference_steps 1 --out images";
    let mut child = start(&bench, "", &sample.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(bench.path("images/0001-0.png").exists());
}

#[test]
fn a_terminal_that_goes_saves_the_run_unless_it_was_started_to_outlive_it() {
    let bench = Bench::new();
    let endless = "--method sft --max_train_steps 100000 --checkpointing_steps 0 --lr_scheduler constant";
    let hang_up = |child: &Child| {
        assert!(Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
    };
    let mut child = start(&bench, "exec >/dev/null 2>&1;", &line("out", endless));
    wait_for("a step", || steps_made(&bench.path("out/events.jsonl")) > 0);
    hang_up(&child);
    assert_eq!(child.wait().unwrap().code(), Some(129));
    let names = fs::read_dir(bench.path("out")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().any(|name| name.to_string_lossy().starts_with("checkpoint-")));

    let mut child = start(&bench, "trap '' HUP; exec >/dev/null 2>&1;", &line("nohup", endless));
    let log = bench.path("nohup/events.jsonl");
    wait_for("a step", || steps_made(&log) > 0);
    hang_up(&child);
    let before = steps_made(&log);
    wait_for("steps after the signal", || steps_made(&log) > before + 3);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_folder_in_use_is_refused_and_a_cache_in_the_making_waited_for() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("out")).unwrap();
    let more = "--method diffusion-dpo --max_train_steps 2";
    let lock = FolderLock::attempt(bench.path("out"), Sharing::Alone).unwrap();
    let said = train(&bench, "out", more);
    assert_eq!(said.code, 5);
    assert!(
        said.stderr.contains("out is in use by another process; wait until that has ended"),
        "{}",
        said.stderr
    );
    bench.write("prompts.txt", "fox\n");
    for command in [
        "sample --model model --prompt fox --num_inference_steps 1 --out out",
        "compare one=model two=model --prompts prompts.txt --num_inference_steps 1 --scorer nearest-art:quality --out out",
        "data pairs --model model --prompts prompts.txt --num_inference_steps 1 --out out",
    ] {
        let said = bench.run(&command.split_whitespace().collect::<Vec<_>>());
        assert_eq!(said.code, 5, "{command}: {}", said.stderr);
        assert!(said.stderr.contains("out is in use by another process"), "{command}: {}", said.stderr);
    }
    assert_eq!(fs::read_dir(bench.path("out")).unwrap().count(), 0);
    drop(lock);
    for (folder, kind) in [("cached", ""), ("errors", "--reference precomputed --reference_dir errors")] {
        fs::create_dir_all(bench.path(folder)).unwrap();
        let lock = FolderLock::attempt(bench.path(folder), Sharing::Alone).unwrap();
        let child = start(&bench, "", &line(folder, &format!("{more} {kind} --output_dir {folder}-run")));
        sleep(Duration::from_secs(3));
        drop(lock);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        assert_eq!(
            said.matches(&format!("waiting for another process that makes {folder}")).count(),
            1,
            "{said}"
        );
    }
}

#[test]
fn two_runs_at_once_on_one_cache_and_one_precomputed_reference_end_as_one_does() {
    let bench = Bench::new();
    let more = "--method diffusion-dpo --max_train_steps 3 --reference precomputed --reference_dir errors";
    let both = ["one", "two"].map(|output| start(&bench, "", &line(output, more)));
    for child in both {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    trained(&bench, "alone", &format!("{more} --cache_to other --reference_dir others"));
    let weights = |output: &str| tensors::read(&bench.path(output).join(LORA)).unwrap();
    let alone = weights("alone");
    for output in ["one", "two"] {
        assert!(weights(output).iter().all(|(name, tensor)| tensor.equal(&alone[name])), "{output}");
    }
}

#[test]
fn a_finished_run_can_be_made_longer_from_a_checkpoint_by_its_bare_name() {
    let bench = Bench::new();
    let steps =
        |n: u32, more: &str| format!("--method sft --learning_rate 1e-3 --max_train_steps {n} {more}");
    let said = trained(&bench, "out", &steps(2, "--resume_from_checkpoint latest"));
    assert!(
        said.stderr.contains("note: out holds no checkpoint; starting from the first step"),
        "{}",
        said.stderr
    );
    assert!(bench.path("out/checkpoint-2/state.safetensors").exists());
    let said = train(&bench, "out", &steps(4, "--resume_from_checkpoint checkpoint-3"));
    assert_eq!(said.code, 2);
    let words = "checkpoint-3 is no checkpoint; out holds checkpoint-2: give latest or one of them";
    assert!(said.stderr.contains(words), "{}", said.stderr);
    let said = trained(&bench, "out", &steps(4, "--dry-run"));
    assert!(said.stdout.contains("out holds checkpoint-2;"), "{}", said.stdout);
    trained(&bench, "out", &steps(4, "--resume_from_checkpoint checkpoint-2"));
    trained(&bench, "whole", &steps(4, ""));
    let weights = |output: &str| tensors::read(&bench.path(output).join(LORA)).unwrap();
    let whole = weights("whole");
    assert!(weights("out").iter().all(|(name, tensor)| tensor.equal(&whole[name])));
}

#[test]
fn a_run_stopped_at_a_step_with_images_makes_them_when_it_goes_on() {
    let bench = Bench::new();
    let more = "--method sft --max_train_steps 4 --checkpointing_steps 2 --checkpoints_total_limit 0 --validation_steps 2 \
                --validation_prompts fox --num_inference_steps 1 --lr_scheduler constant";
    trained(&bench, "out", more);
    let image = bench.path("out/images/step-000002/prompt-0-0.png");
    let wanted = fs::read(&image).unwrap();
    // As a signal between the checkpoint and the image leaves it.
    fs::remove_file(&image).unwrap();
    trained(&bench, "out", &format!("{more} --resume_from_checkpoint checkpoint-2"));
    assert!(fs::read(&image).unwrap() == wanted);
}
