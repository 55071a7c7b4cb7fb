//! What works for SDXL works for models with a transformer, or is refused in words: `docs/guide/models.md`.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

#[path = "../../models/tests/sd3/bench.rs"]
mod sd3;
mod support;
#[path = "../../models/tests/zimage/bench.rs"]
mod zimage;

use std::fs;

use support::{Bench, Said, WEIGHTS, copy, read, same};
use tastemaker_testkit_torch::Golden;
use tastemaker_torch::tensors::{self, Named};

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

/// What is recorded of the pipeline of a family, under the names that `model verify` knows.
fn reference(bench: &Bench, family: &str) {
    let golden = Golden::load(if family == "SD3" { "sd3" } else { "zimage" }, "pipeline");
    let mut recorded = Named::new();
    for name in
        ["prompt_embeds", "prompt_embeds.0", "prompt_embeds.1", "pooled_prompt_embeds", "latents", "decoded"]
    {
        recorded.extend(golden.get(name).map(|tensor| (name.to_owned(), tensor)));
    }
    if let Some(velocity) = golden.get("lora.output") {
        for (name, tensor) in [("noise_pred", &velocity), ("sample", &golden.tensor("noise"))] {
            recorded.insert(name.to_owned(), tensor.narrow(0, 0, 1));
        }
        recorded.insert("timestep".to_owned(), golden.tensor("timestep").narrow(0, 0, 1));
        recorded.insert("encoder_hidden_states".to_owned(), golden.tensor("prompt_embeds.0").unsqueeze(0));
        fs::copy(golden.path(LORA), bench.path("recorded.safetensors")).unwrap();
    }
    let prompts = golden.note("prompts").unwrap().to_owned();
    tensors::write(
        &bench.path("reference.safetensors"),
        &recorded,
        &[("prompts".to_owned(), prompts)].into(),
    )
    .unwrap();
}

#[test]
fn models_and_adapters_are_sampled_compared_judged_merged_converted_and_verified() {
    for (family, size, bench) in benches() {
        let run = |line: &str| succeed(&bench, line);
        assert!(run("model inspect model").contains(family), "{family}");
        train(&bench, size, "lora", "--method diffusion-dpo --max_train_steps 2 --learning_rate 1e-2");
        assert!(run("model inspect lora").contains("layers of transformer"), "{family}");
        let quick = format!("--num_inference_steps 2 --height {size} --width {size}");
        let sample = |out: &str, more: &str| {
            run(&format!("sample --prompt fox --negative_prompt blurry --out {out} {quick} {more}"));
            image::open(bench.path(out).join("0000-0.png")).unwrap().into_rgb8().into_raw()
        };
        let plain = sample("plain", "--model model");
        let adapted = sample("adapted", "--model model --lora lora");
        assert_ne!(adapted, plain, "{family}");
        let twin = "lora/pytorch_lora_weights_kohya.safetensors";
        assert_eq!(sample("twin", &format!("--model model --lora {twin}")), adapted, "{family}");
        run("model merge model lora merged");
        run("model merge model lora merged.safetensors");
        run("model convert model whole.safetensors");
        run("model inspect whole.safetensors");
        run("model convert whole.safetensors back --model_config model");
        let files = |name: &str| read(bench.path(name).join("transformer").join(WEIGHTS));
        assert!(same(&files("back"), &files("model")), "{family}: there and back");
        let merged = sample("merged-images", "--model merged");
        assert_eq!(
            sample("single-images", "--model merged.safetensors --model_config model"),
            merged,
            "{family}"
        );
        reference(&bench, family);
        let adapter =
            if bench.path("recorded.safetensors").is_file() { "--lora recorded.safetensors" } else { "" };
        run(&format!("model verify model --reference reference.safetensors --tolerance 1e-5 {adapter}"));
        let wrong = support::mistake(&run_any(
            &bench,
            "model verify merged --reference reference.safetensors --tolerance 1e-5",
        ));
        assert!(adapter.is_empty() || wrong.contains("noise_pred"), "{wrong}");
        run(&format!("accuracy --model model --lora lora --pairs pairs --draws 1 --resolution {size}"));
        bench.write("prompts.txt", "fox\nred apple\n");
        let quick = "--prompts prompts.txt --num_inference_steps 2";
        run(&format!("data pairs --model model --scorer nearest-art:style --out made {quick}"));
        run(&format!("compare --scorer nearest-art --out compared {quick} model merged"));
    }
}

#[test]
fn what_a_family_has_not_is_refused_in_words() {
    let [_, (_, _, bench)] = benches();
    for (line, wanted) in [
        ("--text_encoder_target_modules q_proj", "adapter.text_encoder_target_modules is q_proj"),
        ("--max_token_length 150", "reads 512 in one"),
        ("--mixed_precision fp16", "bf16"),
        ("--prediction_type epsilon", "flow"),
        ("--resolution 136", "of at most 128"),
    ] {
        let line = format!(
            "train --pretrained_model_name_or_path model --train_data_dir pairs --method sft \
             --max_train_steps 1 --output_dir refused {line}"
        );
        for line in [line.clone(), format!("{line} --dry-run")] {
            let said = run_any(&bench, &line);
            assert!(said.code > 1, "{line}: {} {}", said.code, said.stderr);
            assert!(said.stderr.contains(wanted), "{line}: {}", said.stderr);
        }
    }
}
