//! Every command of the README and of the guide is run, in order, in a folder as its reader has it; those that are not say why.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{Bench, cached, copy};
use tastemaker_testkit::{golden_dir, tiny_sdxl_model};

/// What is done about a command that is not run as it stands.
enum Here {
    /// With these flags behind it, which make it short: pages are about models of real size.
    With(&'static str),
    /// Not at all, for this reason.
    Not(&'static str),
}

use Here::{Not, With};

const HUB: &str = "the hub: model_fetch.rs and remote_pairs.rs have one of their own";
const RANKS: &str = "several processes: ranks.rs starts them";
const DEMO: &str = "minutes of the demo";
const PEOPLE: &str = "it waits for people: voting.rs and the tests of pages have scripted ones";
const SHORT_RUN: &str = "--resolution 32 --max_train_steps 2 --train_batch_size 2 --gradient_accumulation_steps 1 --mixed_precision no";

/// By page, and by the beginning of the command.
const HERE: &[(&str, &str, Here)] = &[
    ("README.md", "cargo xtask", Not("the program is built, and these tests run")),
    ("devices.md", "cargo xtask", Not("downloads gigabytes")),
    ("README.md", "tastemaker train", With(SHORT_RUN)),
    ("README.md", "tastemaker compare", With("--num_inference_steps 2 --n_prompts 2")),
    (
        "ai-feedback.md",
        "tastemaker data pairs --model demo --prompts demo:train",
        With("--max_prompts 8 --num_inference_steps 2"),
    ),
    (
        "ai-feedback.md",
        "tastemaker train --pretrained_model_name_or_path demo --train_data_dir feedback",
        With("--max_train_steps 2 --train_batch_size 2"),
    ),
    (
        "ai-feedback.md",
        "tastemaker train --pretrained_model_name_or_path demo --train_data_dir style",
        With("--max_train_steps 2 --train_batch_size 2"),
    ),
    ("ai-feedback.md", "tastemaker compare demo", With("--n_prompts 2 --num_inference_steps 2")),
    (
        "ai-feedback.md",
        "tastemaker data pairs --model demo --winner_model",
        With("--max_prompts 4 --num_inference_steps 2"),
    ),
    ("ai-feedback.md", "tastemaker demo", Not(DEMO)),
    ("ai-feedback.md", "jq", Not(DEMO)),
    (
        "ai-feedback.md",
        "tastemaker train --pretrained_model_name_or_path demo --train_data_dir art/pairs",
        Not(DEMO),
    ),
    ("ai-feedback.md", "tastemaker model merge demo word", Not(DEMO)),
    ("ai-feedback.md", "tastemaker data pairs --model taught", Not(DEMO)),
    ("ai-feedback.md", "tastemaker train --pretrained_model_name_or_path taught", Not(DEMO)),
    ("ai-feedback.md", "tastemaker compare taught", Not(DEMO)),
    (
        "caching.md",
        "tastemaker data cache recipes",
        With("--model model --train_data_dir pairs --resolution 32 --mixed_precision no"),
    ),
    (
        "caching.md",
        "tastemaker train recipes",
        With(
            "--model model --train_data_dir pairs --resolution 32 --max_train_steps 2 --train_batch_size 2 --mixed_precision no",
        ),
    ),
    ("caching.md", "tastemaker data cache run.toml", With("--cache_to shards")),
    ("checking-pairs.md", "tastemaker train", With(SHORT_RUN)),
    ("comparing.md", "tastemaker compare base tuned", With("--num_inference_steps 2")),
    ("comparing.md", "cd demo-out", Not(DEMO)),
    ("comparing.md", "tastemaker compare base diffusion-dpo", Not(DEMO)),
    ("comparing.md", "tastemaker compare sd15=", Not("a reward model of published size")),
    (
        "data.md",
        "tastemaker train --train_data_dir pairs.parquet",
        Not("its columns are any: formats have tests of their own"),
    ),
    ("data.md", "tastemaker train", With(SHORT_RUN)),
    ("data.md", "tastemaker data pairs", With("--num_inference_steps 2")),
    ("curating.md", "", Not(PEOPLE)),
    ("devices.md", "tastemaker train run.toml --device cuda", Not("a second GPU")),
    ("devices.md", "torchrun", Not(RANKS)),
    ("many-processes.md", "", Not(RANKS)),
    ("models.md", "tastemaker model fetch stabilityai", Not(HUB)),
    ("remote-pairs.md", "", Not(HUB)),
    ("sampling.md", "tastemaker sample --model stabilityai", With("--height 64 --width 64")),
    ("sampling.md", "tastemaker sample", With("--num_inference_steps 2")),
    ("voting.md", "", Not(PEOPLE)),
    ("watching.md", "", Not(PEOPLE)),
];

/// Words that stand for something of the reader's, and what that is here.
const MEANT: [(&str, &str); 5] = [
    ("MODEL", "model"),
    ("SET", "set"),
    ("NAME", "nearest-art"),
    ("OTHER", "nearest-art:style"),
    ("...", "--model model --method mapo --held_out_fraction 0 --output_dir out"),
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Pages with commands, the README first.
fn pages() -> Vec<PathBuf> {
    let mut guide: Vec<PathBuf> =
        fs::read_dir(repository().join("docs/guide")).unwrap().map(|entry| entry.unwrap().path()).collect();
    guide.retain(|path| {
        path.extension().is_some_and(|ending| ending == "md") && !blocks(path, "sh").is_empty()
    });
    guide.sort();
    [vec![repository().join("README.md")], guide].concat()
}

/// The fenced blocks of a language.
fn blocks(page: &Path, language: &str) -> Vec<String> {
    let page = fs::read_to_string(page).unwrap();
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The commands of a page: lines joined where a backslash says so, comments left away.
fn commands(page: &Path) -> Vec<String> {
    let lines = blocks(page, "sh").join("").replace("\\\n", " ");
    let lines = lines.lines().map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
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

/// A folder with everything that pages speak of.
fn folder() -> Bench {
    let bench = Bench::new();
    copy(&repository().join("recipes"), &bench.path("recipes"));
    let first = blocks(&repository().join("docs/guide/training.md"), "toml").remove(0);
    bench.write("first.toml", &first);
    bench.write("run.toml", first.replace("runs/first", "runs/run"));
    bench.write("prompts.txt", "fox\nred apple\n");
    for name in ["anime", "concept-art", "paintings", "photo"] {
        bench.write(&format!("hpsv2/{name}.json"), r#"["a fox", "a red apple"]"#);
    }
    bench.write("PartiPrompts.tsv", "Prompt\tCategory\tChallenge\tNote\na fox\tAnimals\tBasic\t\n");
    for name in ["base", "tuned", "my-model"] {
        copy(&bench.path("model"), &bench.path(name));
    }
    let lora = bench.train("lora", &["--method", "mapo"]);
    assert_eq!(lora.code, 0, "{}", lora.stderr);
    for name in ["dpo-lora.safetensors", "npo-lora.safetensors"] {
        fs::copy(bench.path("lora/pytorch_lora_weights.safetensors"), bench.path(name)).unwrap();
    }
    fs::copy(bench.path("pairs/warm0.png"), bench.path("sketch.png")).unwrap();
    for (name, image) in ["0000-0", "0001-0"].iter().zip(["warm0", "warm1"]) {
        fs::create_dir_all(bench.path("images")).unwrap();
        fs::copy(bench.path(&format!("pairs/{image}.png")), bench.path(&format!("images/{name}.png")))
            .unwrap();
        bench.write(&format!("images/{name}.txt"), "fox");
    }
    for case in ["clip", "hps", "image-reward"] {
        copy(&golden_dir("scorers", case), &bench.path(case));
    }
    copy(&bench.path("clip"), &bench.path("PickScore_v1"));
    fs::copy(bench.path("clip/head.pth"), bench.path("sac+logos+ava1-l14-linearMSE.pth")).unwrap();
    fs::copy(bench.path("hps/HPS_v2.1_compressed.pt"), bench.path("HPS_v2.1_compressed.pt")).unwrap();
    tiny_sdxl_model(&bench.path("sdxl"));
    copy(&bench.path("model/unet"), &bench.path("only/unet"));
    for (folder, name) in [
        ("model", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("sdxl", "stabilityai/sdxl-turbo"),
        ("only", "mhdang/dpo-sd1.5-text2image-v1"),
        ("clip", "yuvalkirstain/PickScore_v1"),
        ("clip", "openai/clip-vit-large-patch14"),
        ("hps", "xswu/HPSv2"),
        ("image-reward", "THUDM/ImageReward"),
        ("image-reward", "google-bert/bert-base-uncased"),
    ] {
        cached(&bench, folder, name, "main");
    }
    bench
}

/// Runs the commands of a page.
fn follow(name: &str) {
    let page = pages().into_iter().find(|page| page.file_name().unwrap() == name).unwrap();
    let bench = folder();
    if name == "sampling.md" {
        // It makes images of its own.
        fs::remove_dir_all(bench.path("images")).unwrap();
    }
    let variables = [
        ("HF_HUB_CACHE", "cache"),
        ("HF_HUB_OFFLINE", "1"),
        ("XDG_CACHE_HOME", "own"),
        ("OMP_NUM_THREADS", "1"),
    ];
    for command in commands(&page) {
        let here = HERE.iter().find(|(page, start, _)| *page == name && command.starts_with(start));
        let more = match here {
            Some((.., Not(_))) => continue,
            Some((.., With(flags))) => *flags,
            None => "",
        };
        let mut typed = words(&command);
        typed.extend(words(more));
        for (word, meant) in MEANT {
            let meaning = |typed: String| -> Vec<String> {
                match typed == word {
                    true => words(meant),
                    false if word != "..." => vec![typed.replace(&format!("{word}="), &format!("{meant}="))],
                    false => vec![typed],
                }
            };
            typed = typed.into_iter().flat_map(meaning).collect();
        }
        assert_eq!(typed[0], "tastemaker", "{name}: {command}");
        let said = bench.run_in(&typed[1..].iter().map(String::as_str).collect::<Vec<_>>(), &variables);
        assert_eq!(said.code, 0, "{name}: {command}\n{}", said.stderr);
    }
}

macro_rules! pages {
    ($($test:ident $page:literal)*) => {
        $(#[test]
        fn $test() {
            follow($page);
        })*

        /// Pages that are followed.
        const FOLLOWED: &[&str] = &[$($page),*];
    };
}

pages! {
    the_commands_of_the_readme_work "README.md"
    the_commands_of_ai_feedback_work "ai-feedback.md"
    the_commands_of_caching_work "caching.md"
    the_commands_of_checking_pairs_work "checking-pairs.md"
    the_commands_of_comparing_work "comparing.md"
    the_commands_of_curating_work "curating.md"
    the_commands_of_data_work "data.md"
    the_commands_of_devices_work "devices.md"
    the_commands_of_many_processes_work "many-processes.md"
    the_commands_of_memory_work "memory.md"
    the_commands_of_models_work "models.md"
    the_commands_of_remote_pairs_work "remote-pairs.md"
    the_commands_of_resuming_work "resuming.md"
    the_commands_of_sampling_work "sampling.md"
    the_commands_of_scoring_work "scoring.md"
    the_commands_of_training_work "training.md"
    the_commands_of_voting_work "voting.md"
    the_commands_of_watching_work "watching.md"
}

#[test]
fn every_page_is_followed() {
    let found: Vec<String> =
        pages().iter().map(|page| page.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(found, FOLLOWED);
    for (page, start, here) in HERE {
        let page = pages().into_iter().find(|path| path.file_name().unwrap() == *page).unwrap();
        let is_there = commands(&page).iter().any(|command| command.starts_with(start));
        assert!(is_there, "{}: no command begins {start:?}", page.display());
        if let Not(reason) = here {
            assert!(!reason.is_empty());
        }
    }
}
