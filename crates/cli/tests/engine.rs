//! Ways to run that must not change what a run does: the precomputed reference, recomputing, precision and optimizers, alarms and what they do.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::f64::consts::LN_2;
use std::fs;

use support::{Bench, Said};
use tastemaker_run::{Event, Outcome, Step, read_events};
use tastemaker_testkit::TINY_RESOLUTION;
use tastemaker_torch::tensors::{self, Named};

const LORA: &str = "pytorch_lora_weights.safetensors";
const FULL: &str = "model/unet/diffusion_pytorch_model.safetensors";

fn train(bench: &Bench, output: &str, more: &str) -> Said {
    let line = format!(
        "train --pretrained_model_name_or_path model --train_data_dir pairs --resolution {TINY_RESOLUTION} \
         --train_batch_size 2 --gradient_accumulation_steps 2 \
         --output_dir {output} {more}"
    );
    let steps = ["--max_train_steps", "8"].into_iter().filter(|_| !more.contains("--max_train_steps"));
    bench.run(&line.split_whitespace().chain(steps).collect::<Vec<_>>())
}

#[track_caller]
fn trained(bench: &Bench, output: &str, more: &str) -> Said {
    let said = train(bench, output, more);
    assert_eq!(said.code, 0, "{more}: {}", said.stderr);
    said
}

fn events(bench: &Bench, output: &str) -> Vec<Event> {
    read_events(bench.path(output).join("events.jsonl")).unwrap().events
}

fn steps(bench: &Bench, output: &str) -> Vec<Step> {
    let steps = events(bench, output).into_iter();
    steps.filter_map(|event| if let Event::Step(step) = event { Some(step) } else { None }).collect()
}

fn weights(bench: &Bench, output: &str, file: &str) -> Named {
    tensors::read(&bench.path(output).join(file)).unwrap()
}

#[track_caller]
fn assert_same(bench: &Bench, one: &str, other: &str, file: &str) {
    let (one_is, other_is) = (weights(bench, one, file), weights(bench, other, file));
    assert!(one_is.keys().eq(other_is.keys()), "{one}, {other}");
    let differs = one_is.iter().find(|(name, tensor)| !tensor.equal(&other_is[*name]));
    assert!(differs.is_none(), "{one}, {other}: {}", differs.unwrap().0);
    let losses = |output| steps(bench, output).into_iter().map(|step| step.loss).collect::<Vec<_>>();
    assert_eq!(losses(one), losses(other), "{one}, {other}");
}

fn bench() -> Bench {
    let bench = Bench::new();
    bench.pairs("pairs", 12);
    bench
}

#[test]
fn a_precomputed_reference_equals_the_live_one_bit_for_bit_and_serves_other_runs() {
    let bench = bench();
    for (kind, file) in [
        ("--adapter_type full", FULL),
        ("--rank 4", LORA),
        ("--adapter_type full --mixed_precision bf16", FULL),
    ] {
        let name = kind.replace(' ', "");
        let more =
            format!("--method diffusion-dpo --learning_rate 1e-4 --proportion_empty_prompts 0.3 {kind}");
        let (live, precomputed) = (format!("live{name}"), format!("precomputed{name}"));
        trained(&bench, &live, &more);
        let said = trained(
            &bench,
            &precomputed,
            &format!("{more} --reference precomputed --reference_dir errors{name}"),
        );
        assert!(said.stderr.contains("computed the reference of"), "{}", said.stderr);
        assert_same(&bench, &live, &precomputed, file);
        assert_eq!(steps(&bench, &precomputed)[0].loss, LN_2);
        // A longer run adds what is missing.
        let said = trained(
            &bench,
            &format!("longer{name}"),
            &format!("{more} --reference precomputed --reference_dir errors{name} --max_train_steps 11"),
        );
        assert!(said.stderr.contains("computed the reference of 11 steps"), "{}", said.stderr);
        let other = format!("--method hinge --learning_rate 2e-4 --proportion_empty_prompts 0.3 {kind}");
        let said = trained(
            &bench,
            &format!("other{name}"),
            &format!("{other} --reference precomputed --reference_dir errors{name}"),
        );
        assert!(!said.stderr.contains("computed the reference of"), "{}", said.stderr);
    }
    let said = train(
        &bench,
        "mistaken",
        "--method diffusion-dpo --learning_rate 1e-4 --adapter_type full --reference precomputed --reference_dir errors--adapter_typefull",
    );
    assert_eq!(said.code, 5);
    assert!(
        said.stderr.contains("holds the precomputed reference of another run (draws differ)"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_damaged_precomputed_reference_is_named_and_recomputed() {
    let bench = bench();
    let more = "--method diffusion-dpo --learning_rate 1e-4 --reference precomputed --reference_dir errors";
    trained(&bench, "whole", more);
    let shard = bench.path("errors/steps-000000.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&shard, bytes).unwrap();
    let said = train(&bench, "damaged", more);
    assert_eq!(said.code, 5, "{}", said.stderr);
    assert!(said.stderr.contains("steps-000000.safetensors is damaged or of other draws"), "{}", said.stderr);
    fs::remove_file(shard).unwrap();
    trained(&bench, "again", more);
    assert_same(&bench, "whole", "again", LORA);
}

#[test]
fn latents_that_the_policy_inverts_are_not_precomputed() {
    let said = train(&bench(), "out", "--method ddim-inpo --reference precomputed");
    assert_eq!(said.code, 2, "{}", said.stderr);
    let wanted = "train.reference is precomputed, wanted live, or model = \"reference\" under [method]";
    assert!(said.stderr.contains(wanted), "{}", said.stderr);
}

#[test]
fn latents_that_the_reference_inverts_are_precomputed_with_its_errors() {
    let bench = bench();
    for (kind, file) in [("--adapter_type full", FULL), ("--rank 4 --mixed_precision bf16", LORA)] {
        let name = kind.replace(' ', "");
        let more = format!(
            "--method ddim-inpo --set model=reference --learning_rate 1e-4 --proportion_empty_prompts 0.3 {kind}"
        );
        let (live, precomputed) = (format!("live{name}"), format!("precomputed{name}"));
        trained(&bench, &live, &more);
        let more = format!("{more} --reference precomputed --reference_dir inverted{name}");
        let said = trained(&bench, &precomputed, &more);
        assert!(said.stderr.contains("computed the reference of"), "{}", said.stderr);
        assert_same(&bench, &live, &precomputed, file);
        // Other inversions are other latents.
        let said = train(&bench, "other", &format!("{more} --set steps=3"));
        assert!(
            said.stderr.contains("holds the precomputed reference of another run (draws differ)"),
            "{}",
            said.stderr
        );
        let said =
            train(&bench, "forward", &more.replace("ddim-inpo --set model=reference", "diffusion-dpo"));
        assert!(said.stderr.contains("holds the precomputed reference of another run"), "{}", said.stderr);
    }
}

#[test]
fn recomputed_activations_change_no_bit() {
    let bench = bench();
    for (kind, file) in [("--adapter_type full --mixed_precision bf16", FULL), ("--use_dora", LORA)] {
        let name = kind.replace(' ', "");
        let more = format!("--method mapo --learning_rate 1e-4 {kind}");
        let (plain, again) = (format!("plain{name}"), format!("again{name}"));
        trained(&bench, &plain, &more);
        trained(&bench, &again, &format!("{more} --gradient_checkpointing"));
        assert_same(&bench, &plain, &again, file);
    }
}

#[test]
fn an_optimizer_on_the_host_changes_no_bit() {
    let bench = bench();
    for kind in
        ["--adapter_type full --optimizer_type adamw", "--rank 4 --optimizer_type adamw8bit --use_ema"]
    {
        let more = format!("--method mapo --learning_rate 1e-4 {kind}");
        let (there, here) = (format!("there{}", more.len()), format!("here{}", more.len()));
        trained(&bench, &there, &more);
        trained(&bench, &here, &format!("{more} --offload_optimizer"));
        assert_same(&bench, &there, &here, if kind.contains("full") { FULL } else { LORA });
    }
}

#[test]
fn a_device_that_is_not_there_is_refused_before_anything_is_read() {
    let bench = Bench::empty();
    let said = train(&bench, "out", "--method mapo --device cuda:99");
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("cuda:99 cannot be used: "), "{}", said.stderr);
    assert!(said.stderr.contains("--device cpu"), "{}", said.stderr);
}

#[test]
fn half_precision_scales_its_loss_and_starts_where_others_do() {
    let bench = bench();
    // So slow that gradients of all steps are those of the start.
    let more = "--method diffusion-dpo --learning_rate 1e-12";
    trained(&bench, "narrow", &format!("{more} --mixed_precision fp16"));
    trained(&bench, "wide", more);
    let (narrow, wide) = (steps(&bench, "narrow"), steps(&bench, "wide"));
    assert_eq!((narrow[0].loss, narrow[0].loss_scale), (LN_2, Some(65536.0)));
    // This network's gradients overflow at first; the scale falls until they do not.
    let (skipped, made): (Vec<_>, Vec<_>) = narrow.iter().zip(&wide).partition(|(step, _)| step.skipped);
    assert!(!skipped.is_empty() && skipped.len() < 8, "{} skipped", skipped.len());
    assert_eq!(narrow[7].loss_scale, Some(65536.0 / f64::from(1 << skipped.len())));
    for (narrow, wide) in made {
        let ratio = narrow.grad_norm / wide.grad_norm;
        assert!((ratio - 1.0).abs() < 0.05, "step {}: {ratio}", narrow.step);
    }
}

#[test]
fn eight_bits_of_state_and_rows_and_columns_follow_adamw() {
    let bench = bench();
    let more = "--method sft --adapter_type full --learning_rate 1e-4";
    trained(&bench, "adamw", more);
    let start = tensors::read(&bench.path("model/unet/diffusion_pytorch_model.safetensors")).unwrap();
    let wanted = weights(&bench, "adamw", FULL);
    for (flag, within) in [("--use_8bit_adam", 0.1), ("--use_adafactor", 1.0)] {
        let output = flag.trim_start_matches('-');
        trained(&bench, output, &format!("{more} {flag}"));
        let found = weights(&bench, output, FULL);
        let (mut apart, mut moved) = (0.0, 0.0);
        for (name, tensor) in &found {
            apart += (tensor - &wanted[name]).square().sum(tch::Kind::Double).double_value(&[]);
            moved += (&wanted[name] - &start[name]).square().sum(tch::Kind::Double).double_value(&[]);
        }
        let fraction = (apart / moved).sqrt();
        assert!(fraction < within && fraction > 0.0, "{flag}: {fraction}");
    }
}

/// A rate at which the tiny model is ruined within a few steps.
const RUINOUS: &str = "--method diffusion-dpo --adapter_type full --learning_rate 3e-2 --held_out_fraction 0.4 --seed 1 \
                       --validation_steps 1";

#[test]
fn a_critical_alarm_ends_the_run_where_it_shall_and_its_state_is_saved() {
    let bench = bench();
    let said = train(&bench, "out", &format!("{RUINOUS} --on_alarm stop"));
    assert_eq!(said.code, 6, "{}", said.stderr);
    assert!(said.stderr.contains("by an alarm:"), "{}", said.stderr);
    let events = events(&bench, "out");
    let Some(Event::Finish(finish)) = events.last() else { panic!("{events:?}") };
    assert_eq!(finish.outcome, Outcome::Stopped);
    assert!(finish.step < 8);
    assert!(bench.path(&format!("out/checkpoint-{}", finish.step)).exists());
}

#[test]
fn the_best_state_is_the_result_where_it_shall_be() {
    let bench = bench();
    trained(&bench, "out", &format!("{RUINOUS} --on_alarm keep-best"));
    let best = events(&bench, "out").into_iter().rev().find_map(|event| match event {
        Event::Checkpoint { step, best: true, .. } => Some(step),
        _ => None,
    });
    let best = best.unwrap();
    assert!(best < 8, "the ruined state is the best");
    let (kept, result) = (weights(&bench, "out", "best.safetensors"), weights(&bench, "out", FULL));
    assert!(kept.iter().all(|(name, tensor)| tensor.equal(&result[name])));
}

#[test]
fn metrics_go_to_tensorboard_unless_switched_off() {
    let bench = bench();
    trained(&bench, "out", "--method mapo --learning_rate 1e-4 --tracker_name mine");
    let files: Vec<_> = fs::read_dir(bench.path("out/logs/mine")).unwrap().collect();
    assert_eq!(files.len(), 1);
    trained(&bench, "silent", "--method mapo --learning_rate 1e-4 --report_to none");
    assert!(!bench.path("silent/logs").exists());
}

#[test]
fn fixed_prompts_are_generated_from_fixed_noise_on_the_way() {
    let bench = bench();
    let prompts = "--validation_steps 4 --held_out_fraction 0 --validation_prompts fox --validation_prompts rain --num_validation_images 2";
    trained(&bench, "out", &format!("--method sft --learning_rate 1e-2 {prompts}"));
    let generated: Vec<_> = events(&bench, "out")
        .into_iter()
        .filter_map(
            |event| if let Event::Images { step, paths } = event { Some((step, paths)) } else { None },
        )
        .collect();
    assert_eq!(
        generated.iter().map(|(step, paths)| (*step, paths.len())).collect::<Vec<_>>(),
        [(0, 4), (4, 4), (8, 4)]
    );
    let image = |step: usize, i: usize| fs::read(bench.path("out").join(&generated[step].1[i])).unwrap();
    assert_ne!(image(0, 0), image(2, 0), "training changes the image");
    assert_ne!(image(0, 0), image(0, 1), "two images of a prompt are the same");
    trained(&bench, "plain", "--method sft --learning_rate 1e-2");
    assert_same(&bench, "out", "plain", LORA);
    trained(&bench, "slow", &format!("--method sft --learning_rate 1e-12 {prompts}"));
    let of_start = fs::read(bench.path("slow/images/step-000000/prompt-1-0.png")).unwrap();
    assert_eq!(of_start, image(0, 2));
    let board = fs::read_dir(bench.path("out/logs/tastemaker")).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(board).unwrap();
    let tag = b"validation/rain #2";
    assert!(bytes.windows(tag.len()).any(|window| window == tag));
}
