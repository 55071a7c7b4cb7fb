//! What works for SDXL works for models with a transformer, or is refused in words: `docs/guide/models.md`.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

#[path = "../../models/tests/sd3/bench.rs"]
mod sd3;
mod support;
#[path = "../../models/tests/zimage/bench.rs"]
mod zimage;

use support::{Bench, Said, copy, read, same};
use tastemaker_testkit_torch::Golden;

const LORA: &str = "pytorch_lora_weights.safetensors";

/// A model of each family, what the family is called, and a size that the model has positions for.
fn benches() -> [(&'static str, u32, Bench); 2] {
    let made = |model: tempfile::TempDir| {
        let bench = Bench::empty();
        copy(model.path(), &bench.path("model"));
        bench.pairs("pairs", 6);
        bench
    };
    [
        ("SD3", 8, made(sd3::folder(&Golden::load("sd3", "pipeline"), true))),
        ("Z-Image", 24, made(zimage::folder(&Golden::load("zimage", "pipeline")))),
    ]
}

fn run_any(bench: &Bench, line: &str) -> Said {
    bench.run(&line.split_whitespace().collect::<Vec<_>>())
}

#[track_caller]
fn succeed(bench: &Bench, line: &str) -> String {
    let said = run_any(bench, line);
    assert_eq!(said.code, 0, "{line}: {}", said.stderr);
    said.stdout + &said.stderr
}

/// A run of steps of two pairs.
fn train(bench: &Bench, size: u32, output: &str, more: &str) -> String {
    let line = format!(
        "train --pretrained_model_name_or_path model --train_data_dir pairs --resolution {size} --held_out_fraction 0.34 \
         --train_batch_size 2 --learning_rate 1e-3 --seed 3 --output_dir {output} {more}"
    );
    succeed(bench, &line)
}

#[test]
fn training_goes_through_cache_buckets_reference_and_resuming() {
    for (family, size, bench) in benches() {
        let train = |output: &str, more: &str| train(&bench, size, output, more);
        let dpo = "--method diffusion-dpo --rank 2 --proportion_empty_prompts 0.3";
        let steps = |n: u32, more: &str| {
            format!("{dpo} --max_train_steps {n} --validation_steps 2 --checkpointing_steps 2 {more}")
        };
        train("whole", &steps(4, "--cache_to cached"));
        let result = |output: &str| read(bench.path(output).join(LORA));
        train("precomputed", &steps(4, "--cache_to cached --reference precomputed"));
        assert!(same(&result("precomputed"), &result("whole")), "{family}: a precomputed reference");
        train("parts", &steps(2, "--cache_to cached"));
        train("parts", &steps(4, "--cache_to cached --resume_from_checkpoint latest"));
        assert!(same(&result("parts"), &result("whole")), "{family}: resumed");
        for (output, more) in [
            ("live", "--method diffusion-dpo --no_cache"),
            ("buckets", "--method dmpo --enable_bucket --bucket_reso_steps 8 --cache_to other"),
            (
                "nf4",
                "--method ipo --base_precision nf4 --use_dora --gradient_checkpointing --cache_to cached",
            ),
            (
                "bf16",
                "--method kto --mixed_precision bf16 --validation_prompts fox --validation_steps 1 --num_inference_steps 1",
            ),
            ("inpo", "--method ddim-inpo --cache_to cached"),
            (
                "full",
                "--method sft --adapter_type full --output_layout diffusers,unet,original --cache_to cached",
            ),
        ] {
            train(output, &format!("{more} --max_train_steps 1"));
        }
    }
}
