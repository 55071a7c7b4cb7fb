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
fn mebibytes(text: &str, words: &str) -> f64 {
    let rest = text.split_once(words).unwrap_or_else(|| panic!("{words}: {text}")).1;
    rest.split_once(" MiB").unwrap().0.trim().parse().unwrap()
}

type Size = (&'static [i64], i64, &'static str);

/// Stated over taken for each kind of run, worst of these sizes; with a table of all.
fn apart(sizes: &[Size]) -> (f64, String) {
    let (mut worst, mut table) = (0.0f64, String::new());
    for &(widths, layers, resolution) in sizes {
        let bench = bench(widths, layers);
        for (output, more) in [
            ("lora", "--method diffusion-dpo"),
            ("bf16", "--method diffusion-dpo --mixed_precision bf16"),
            ("full", "--method diffusion-dpo --adapter_type full"),
        ] {
            let more: Vec<&str> = more.split_whitespace().chain(["--resolution", resolution]).collect();
            let dry = bench.train(output, &[more.as_slice(), &["--dry-run"]].concat());
            assert_eq!(dry.code, 0, "{}", dry.stderr);
            let real = bench.train(output, &more);
            assert_eq!(real.code, 0, "{}", real.stderr);
            let (stated, taken) = (mebibytes(&dry.stdout, "about "), mebibytes(&real.stdout, "at most "));
            let line = dry.stdout.lines().find(|line| line.contains("about ")).unwrap_or_default();
            let ratio = stated / taken;
            table += &format!("{widths:?} {output}: stated {stated}, taken {taken}, {ratio:.2}; {line}\n");
            worst = worst.max((ratio - 1.0).abs());
        }
    }
    eprintln!("{table}");
    (worst, table)
}

#[test]
fn the_dry_run_is_within_a_tenth_of_what_a_run_takes() {
    let (worst, table) =
        apart(&[(&[64, 128], 1, "128"), (&[96, 192, 384], 2, "128"), (&[160, 320, 640, 640], 2, "128")]);
    assert!(worst < 0.1, "{table}");
}

#[test]
#[ignore = "takes 16 GiB"]
fn the_dry_run_is_within_a_tenth_at_published_size() {
    let (worst, table) = apart(&[(&[320, 640, 1280, 1280], 2, "128")]);
    assert!(worst < 0.1, "{table}");
}
