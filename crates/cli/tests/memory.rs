//! What the dry run says a run will take, and what it takes.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]
#![cfg(target_os = "linux")]

mod support;

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use support::{Bench, WEIGHTS};
use tastemaker_models::original::unet_shapes;
use tastemaker_models::pipeline::Model;
use tastemaker_run::{Event, read_events};
use tastemaker_torch::tensors::{self, Named};
use tch::{Device, Kind, Tensor};

/// A bench whose UNet has these widths, and so many layers in each block.
fn bench(widths: &[i64], layers: i64) -> Bench {
    let bench = Bench::new();
    let path = bench.path("model/unet/config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let n = widths.len();
    config["block_out_channels"] = json!(widths);
    config["layers_per_block"] = json!(layers);
    config["attention_head_dim"] = json!(8);
    config["norm_num_groups"] = json!(32);
    let attends = |i: usize| if i + 1 < n { "CrossAttnDownBlock2D" } else { "DownBlock2D" };
    config["down_block_types"] = (0..n).map(attends).collect();
    let attends = |i: usize| if i > 0 { "CrossAttnUpBlock2D" } else { "UpBlock2D" };
    config["up_block_types"] = (0..n).map(attends).collect();
    fs::write(&path, config.to_string()).unwrap();
    let shapes = unet_shapes(&Model::open(bench.path("model")).unwrap().unet_config().unwrap());
    let weights: Named = shapes
        .iter()
        .map(|(name, shape)| {
            let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
            let tensor = Tensor::full(&shape, 0.01, (Kind::Float, Device::Cpu));
            (name.clone(), if shape.len() == 1 { tensor + 0.99 } else { tensor })
        })
        .collect();
    tensors::write(&bench.path("model/unet").join(WEIGHTS), &weights, &BTreeMap::new()).unwrap();
    bench
}

/// The number before ` MiB` after these words.
#[track_caller]
fn mebibytes(text: &str, words: &str) -> f64 {
    let rest = text.split_once(words).unwrap_or_else(|| panic!("{words}: {text}")).1;
    rest.split_once(" MiB").unwrap().0.trim().parse().unwrap()
}

/// The most that a run held, as the kernel counted it until training began and from then on.
fn taken(bench: &Bench, output: &str) -> f64 {
    let events = read_events(bench.path(output).join("events.jsonl")).unwrap().events;
    let peak = |event: &Event| match event {
        Event::Start(start) => start.peak_memory_bytes,
        Event::Finish(finish) => finish.peak_memory_bytes,
        _ => None,
    };
    events.iter().filter_map(peak).max().unwrap() as f64 / f64::from(1 << 20)
}

/// Widths and layers of a network, and what is trained.
type Case = (&'static [i64], i64, &'static [&'static str]);

const LORA: &str = "--method diffusion-dpo";
const FULL: &str = "--method diffusion-dpo --adapter_type full";
const BF16: &str = "--method diffusion-dpo --mixed_precision bf16";
const AGAIN: &str = "--method diffusion-dpo --gradient_checkpointing";

#[test]
fn the_dry_run_states_what_a_run_takes_within_a_tenth() {
    let cases: &[Case] = &[
        (&[64, 128], 1, &[LORA, FULL, BF16]),
        (&[96, 192, 384], 2, &[LORA, FULL, BF16, AGAIN]),
        (&[160, 320, 640, 640], 2, &[LORA]),
    ];
    let (mut off, mut table) = (Vec::new(), String::new());
    for &(widths, layers, kinds) in cases {
        let bench = bench(widths, layers);
        for (number, kind) in kinds.iter().enumerate() {
            let output = format!("out{number}");
            let more: Vec<&str> = kind.split_whitespace().chain(["--resolution", "128"]).collect();
            let dry = bench.train(&output, &[more.as_slice(), &["--dry-run"]].concat());
            assert_eq!(dry.code, 0, "{}", dry.stderr);
            let real = bench.train(&output, &more);
            assert_eq!(real.code, 0, "{}", real.stderr);
            let (stated, taken) = (mebibytes(&dry.stdout, "needs about "), taken(&bench, &output));
            let most = dry.stdout.lines().find(|line| line.contains("most of it")).unwrap_or_default();
            let ratio = stated / taken;
            table += &format!("{widths:?} {kind}: stated {stated}, taken {taken:.0}, {ratio:.2};{most}\n");
            off.push((ratio - 1.0).abs());
        }
    }
    off.sort_by(f64::total_cmp);
    // Kernels and their workspaces differ between processors: a single case may be further off on another one.
    assert!(off[off.len() / 2] < 0.1 && off[off.len() - 1] < 0.25, "{table}");
    println!("{table}");
}

#[test]
fn a_run_that_does_not_fit_is_told_the_settings_with_which_it_would() {
    let bench = Bench::new();
    let stated = |more: &str| {
        let more: Vec<&str> = more.split_whitespace().chain(["--resolution", "256", "--dry-run"]).collect();
        let said = bench.train("out", &more);
        assert_eq!(said.code, 0, "{}", said.stderr);
        said.stdout
    };
    let fits = stated("--method diffusion-dpo");
    assert!(fits.contains(" MiB, free ") && !fits.contains("does not fit"), "{fits}");
    let large = stated("--method diffusion-dpo --train_batch_size 65536");
    let line = large.lines().find(|line| line.contains("does not fit")).unwrap_or_else(|| panic!("{large}"));
    let (_, flags) = line.split_once("--train_batch_size ").unwrap_or_else(|| panic!("{large}"));
    let (flags, _) = flags.split_once(" needs about ").unwrap();
    // What is recommended does fit, and takes as many pairs at each step.
    let smaller = stated(&format!("--method diffusion-dpo --train_batch_size {flags}"));
    assert!(!smaller.contains("does not fit") && smaller.contains(" 65536 ("), "{smaller}");
}
