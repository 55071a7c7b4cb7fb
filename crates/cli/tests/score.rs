//! `tastemaker score` with tiny networks of random weights (`golden/scorers`).

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;

use image::{Rgb, RgbImage};
use support::{Bench, Said};
use tastemaker_testkit::golden_dir;

/// A bench with `clip/`, `hps/`, `image-reward/` and three images in `images/`, with the sheet that `sample` makes of them.
fn bench() -> Bench {
    let bench = Bench::empty();
    for case in ["clip", "hps", "image-reward"] {
        fs::create_dir_all(bench.path(case)).unwrap();
        for entry in fs::read_dir(golden_dir("scorers", case)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, bench.path(case).join(path.file_name().unwrap())).unwrap();
        }
    }
    fs::create_dir_all(bench.path("images")).unwrap();
    for n in 0..3u8 {
        let image =
            RgbImage::from_fn(40 + u32::from(n), 20, |x, y| Rgb([n * 90, (x * 6) as u8, (y * 12) as u8]));
        image.save(bench.path(&format!("images/000{n}-7.png"))).unwrap();
    }
    for grid in ["image-grid.png", "contact-sheet.png"] {
        RgbImage::new(8, 8).save(bench.path("images").join(grid)).unwrap();
    }
    bench
}

const ALL: [&str; 10] = [
    "--scorer",
    "pick-score=clip",
    "--scorer",
    "hps-v2.1=hps/HPS_v2.1_compressed.pt",
    "--scorer",
    "clip-score=clip",
    "--scorer",
    "aesthetic=clip/head.pth,clip",
    "--scorer",
    "image-reward=image-reward",
];

fn score(bench: &Bench, more: &[&str]) -> Said {
    let line = [&["score", "images"], more].concat();
    let hub = bench.path("hub");
    bench.run_in(&line, &[("HF_HUB_CACHE", hub.to_str().unwrap()), ("OMP_NUM_THREADS", "1")])
}

fn rows(bench: &Bench, name: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(bench.path(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_image_has_a_row_and_every_scorer_a_mean_and_a_median() {
    let bench = bench();
    bench.write("prompts.txt", "a fox\nred house\nx\n");
    for hidden in ["._0000-7.png", ".DS_Store", ".ipynb_checkpoints/0000-7.png", "odd.avif"] {
        bench.write(&format!("images/{hidden}"), b"none of ours");
    }
    let common = ["--prompts", "prompts.txt", "--batch_size", "2", "--out", "scores.jsonl"];
    let said = score(&bench, &[ALL.as_slice(), &common].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    let note = "note: images has images of formats that are not read: 1 .avif";
    assert!(said.stderr.contains(note), "{}", said.stderr);
    let names = ["pick-score", "hps-v2.1", "clip-score", "aesthetic", "image-reward"];
    let found = rows(&bench, "scores.jsonl");
    assert_eq!(found.len(), 3);
    for (line, name) in said.stdout.lines().skip(1).zip(names) {
        let mut scores: Vec<f64> = found.iter().map(|row| row[name].as_f64().unwrap()).collect();
        scores.sort_by(f64::total_cmp);
        let words: Vec<&str> = line.split_whitespace().take(4).collect();
        let mean = format!("{:.4}", scores.iter().sum::<f64>() / 3.0);
        assert_eq!(words, [name, "3", &mean, &format!("{:.4}", scores[1])]);
    }
    assert_eq!(found[1]["prompt"], "red house");

    let said =
        score(&bench, &[ALL.as_slice(), &["--prompts", "prompts.txt", "--out", "scores.csv"]].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    let table = fs::read_to_string(bench.path("scores.csv")).unwrap();
    assert!(
        table.starts_with("image,prompt,pick-score,hps-v2.1,clip-score,aesthetic,image-reward\n"),
        "{table}"
    );
    assert_eq!(table.lines().count(), 4);
}

#[test]
fn prompts_are_found_beside_images() {
    let bench = bench();
    let scorer = ["--scorer", "clipscore=clip", "--out", "scores.jsonl"];
    bench.write("images/0000-7.txt", "a fox\n");
    bench.write("images/metadata.jsonl", "{\"file_name\": \"0001-7.png\", \"text\": \"red house\"}\n");
    let said = score(&bench, &scorer);
    assert_eq!(said.code, 3, "{}", said.stderr);
    assert!(said.stderr.contains("0002-7.png has no prompt: give --prompt or --prompts"), "{}", said.stderr);
    bench.write("images/0002-7.caption", "x");
    assert_eq!(score(&bench, &scorer).code, 0);
    let prompts: Vec<_> = rows(&bench, "scores.jsonl").iter().map(|row| row["prompt"].clone()).collect();
    assert_eq!(prompts, ["a fox", "red house", "x"]);
    assert_eq!(score(&bench, &["--scorer", "aesthetic=clip/head.pth,clip"]).code, 0);
}

#[test]
fn what_is_missing_is_said_with_the_command_that_fetches_it() {
    let bench = bench();
    let refusal = |scorer: &str| {
        let said = score(&bench, &["--prompt", "a fox", "--scorer", scorer]);
        (said.code, said.stderr)
    };
    for (scorer, code, wanted) in [
        ("pick-score", 4, "tastemaker model fetch yuvalkirstain/PickScore_v1"),
        ("hps-v2", 4, "tastemaker model fetch xswu/HPSv2 --include HPS_v2_compressed.pt"),
        ("hpsv2.1", 4, "tastemaker model fetch xswu/HPSv2 --include HPS_v2.1_compressed.pt"),
        (
            "image-reward",
            4,
            "tastemaker model fetch THUDM/ImageReward --include ImageReward.pt --include med_config.json",
        ),
        ("aesthetic=clip/head.pth", 4, "tastemaker model fetch openai/clip-vit-large-patch14"),
        ("aesthetic", 2, "give aesthetic=FILE"),
        (
            "hps",
            2,
            "no scorer is called `hps`, did you mean \"hps-v2\"?; there are pick-score, hps-v2, hps-v2.1",
        ),
        ("pick-score:x", 2, "has no variants"),
        ("pick-score=", 2, "names no weights"),
        ("pick-score=nowhere.pt", 4, "nowhere.pt"),
        ("aesthetic=clip/model.safetensors,clip", 4, "no five linear layers"),
    ] {
        let (found, text) = refusal(scorer);
        assert!(text.contains(wanted), "{scorer}: {text}");
        assert_eq!(found, code, "{scorer}: {text}");
    }
}

#[test]
fn images_that_cannot_be_scored_and_lists_that_do_not_fit_are_named() {
    let bench = bench();
    bench.write("images/broken.png", b"no image");
    RgbImage::new(900, 2).save(bench.path("images/thread.png")).unwrap();
    let said = score(&bench, &["--prompt", "x", "--scorer", "clip-score=clip"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for wanted in
        ["skipped 2 of 5 images", "broken.png is malformed", "thread.png is 900 x 2 pixels; wanted sides"]
    {
        assert!(said.stderr.contains(wanted), "{}", said.stderr);
    }
    assert_eq!(said.stdout.split_whitespace().nth(6), Some("3"), "{}", said.stdout);
    bench.write("prompts.txt", "a fox\n");
    let said = score(&bench, &["--prompts", "prompts.txt", "--scorer", "clip-score=clip"]);
    assert_eq!(said.code, 3, "{}", said.stderr);
    assert!(said.stderr.contains("1 prompts for 5 images"), "{}", said.stderr);
}
