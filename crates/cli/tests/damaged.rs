//! Files that a command wrote and something else has damaged since: each is named, with what was found and what to do.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;

use serde_json::Value;
use support::{Bench, copy};
use tastemaker_testkit::TINY_RESOLUTION;

const LORA: &str = "run/pytorch_lora_weights.safetensors";

fn train(more: &str) -> Vec<String> {
    let line = format!(
        "train --method diffusion-dpo --pretrained_model_name_or_path model --train_data_dir pairs --resolution \
         {TINY_RESOLUTION} --train_batch_size 2 --cache_to cache --reference precomputed --reference_dir ref \
         --checkpointing_steps 2 --output_dir run --report_to none {more}"
    );
    line.split_whitespace().map(str::to_owned).collect()
}

/// A file, the commands that meet it, their exit code and what they say to do.
type Case<'a> = (&'a str, &'a [&'a Vec<String>], i32, &'a [&'a str]);

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// The file cut in its middle, without contents, as the web page of an error, and with the wrong type in a field.
fn damages(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut damages = vec![
        ("truncated", bytes[..bytes.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("html", b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n".to_vec()),
    ];
    let wrong = |value: &mut Value| match value {
        Value::Array(_) | Value::Object(_) => *value = Value::from(7),
        _ => *value = serde_json::json!([{ "a": 1 }]),
    };
    if let Ok(Value::Object(fields)) = serde_json::from_slice(bytes) {
        for at in 0..fields.len().min(2) {
            let mut fields = fields.clone();
            wrong(fields.values_mut().nth(at).unwrap());
            damages.push(("wrong type", serde_json::to_vec(&fields).unwrap()));
        }
    }
    damages
}

#[test]
fn a_damaged_file_of_a_run_has_the_documented_code_and_a_sentence_with_its_name_and_what_to_do() {
    let bench = Bench::new();
    let made = train("--max_train_steps 4");
    bench.succeed(&made.iter().map(String::as_str).collect::<Vec<_>>());
    let compare = "compare model run --prompts demo:style --n_prompts 1 --num_inference_steps 1 --scorer nearest-art --out cmp";
    bench.succeed(&compare.split(' ').collect::<Vec<_>>());
    let all = ["run", "cache", "ref", "cmp"];
    for folder in all {
        copy(&bench.path(folder), &bench.path("whole").join(folder));
    }
    let resume = train("--max_train_steps 6 --resume_from_checkpoint latest");
    let sample = words("sample --model run --prompt x --num_inference_steps 1 --out images");
    let merge = words("model merge model run merged");
    let accuracy = words("accuracy --model run --pairs pairs --draws 1 --resolution 32");
    let compare = words(compare);
    let cases: &[Case<'_>] = &[
        ("run/plan.json", &[&resume], 5, &["remove it, and", "--resume_from_checkpoint latest"]),
        ("run/plan.json", &[&sample, &accuracy], 4, &["remove it, and", "--resume_from_checkpoint latest"]),
        ("run/checkpoint-4/checkpoint.json", &[&resume], 5, &["resume from an earlier checkpoint"]),
        ("run/checkpoint-4/state.safetensors", &[&resume], 5, &["resume from an earlier checkpoint"]),
        (LORA, &[&sample, &merge], 4, &["wanted"]),
        ("cache/key.json", &[&resume], 3, &["remove the folder", "--cache_to"]),
        ("cache/index.json", &[&resume], 3, &["remove the file"]),
        ("ref/reference.json", &[&resume], 5, &["reference_dir"]),
        ("ref/steps-000000.safetensors", &[&resume], 5, &["remove it, and it is computed again"]),
        ("cmp/compare.json", &[&compare], 5, &["--out"]),
        ("cmp/scores.jsonl", &[&compare], 5, &["remove it"]),
    ];
    for (file, commands, code, advice) in cases {
        let whole =
            fs::read(bench.path("whole").join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        for (damage, bytes) in damages(&whole) {
            // A log is used as far as it is whole.
            if file.ends_with("scores.jsonl") && damage != "html" {
                continue;
            }
            fs::write(bench.path(file), bytes).unwrap();
            for command in *commands {
                let said = bench.run(&command.iter().map(String::as_str).collect::<Vec<_>>());
                let case = format!("{file}, {damage}, {}: {}", command[0], said.stderr);
                assert_eq!(said.code, *code, "{case}");
                let last = said.stderr.lines().last().unwrap();
                let folder = file.split('/').next().unwrap();
                assert!(last.starts_with("error: ") && last.contains(folder), "{case}");
                if damage == "empty" && file.ends_with("json") {
                    assert!(last.contains(file) && last.contains("the file is empty"), "{case}");
                }
                if damage == "html" && file.ends_with("json") {
                    assert!(last.contains(file) && last.contains("a web page"), "{case}");
                }
                assert!(advice.iter().all(|words| last.contains(words)), "{case}");
            }
            fs::write(bench.path(file), &whole).unwrap();
        }
    }
    // What is advised works.
    fs::remove_file(bench.path("run/plan.json")).unwrap();
    bench.succeed(&resume.iter().map(String::as_str).collect::<Vec<_>>());
    bench.succeed(&sample.iter().map(String::as_str).collect::<Vec<_>>());
}
