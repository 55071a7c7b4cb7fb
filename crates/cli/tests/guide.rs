//! Every command that the guide shows is run, in order, with the recipe that the guide shows.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;
use std::path::Path;

use support::Bench;

/// The fenced blocks of a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The words of a line, those in double quotes whole.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    parts
        .flat_map(|(i, part)| {
            let quoted = i % 2 == 1;
            if quoted { vec![part.to_owned()] } else { part.split_whitespace().map(str::to_owned).collect() }
        })
        .collect()
}

#[test]
fn the_commands_of_the_training_guide_work() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/training.md");
    let page = fs::read_to_string(path).unwrap();
    let bench = Bench::new();
    bench.write("first.toml", &blocks(&page, "toml")[0]);
    bench.write("prompts.txt", "a fox\nrain over the sea\n");

    let commands: Vec<String> = blocks(&page, "sh")
        .iter()
        .flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in &commands {
        let words = words(command);
        assert_eq!(words[0], "tastemaker", "{command}");
        let args: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let said = bench.run(&args);
        assert_eq!(said.code, 0, "{command}\n{}", said.stderr);
    }
    for result in [
        "runs/first/pytorch_lora_weights.safetensors",
        "runs/mapo/pytorch_lora_weights.safetensors",
        "runs/full/model/model_index.json",
        "images/full/0001-1.png",
    ] {
        assert!(bench.path(result).is_file(), "{result} is not there");
    }
}
