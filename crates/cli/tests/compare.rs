//! `tastemaker compare`, through the real program.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use image::{Rgb, RgbImage};
use serde_json::Value;
use support::{Bench, Said, copy, files, mistake, read};

/// Captions of the embedded art, which the demo's judge knows.
const PROMPTS: &str = "prompt\tcategory\ngrinning face\tfaces\nred apple\tfood\ncat\tanimals\ndog\tanimals\n";
const QUICK: [&str; 6] = ["--num_inference_steps", "2", "--batch_size", "2", "--scorer", "nearest-art"];

/// A bench with a model, the same with another UNet, and prompts.
fn bench() -> Bench {
    let bench = Bench::new();
    copy(&bench.path("model"), &bench.path("other"));
    let path = bench.path("other/unet").join(support::WEIGHTS);
    let mut unet = read(&path);
    let bias = &unet["conv_out.bias"] + 0.3;
    unet.insert("conv_out.bias".into(), bias);
    tastemaker_torch::tensors::write(&path, &unet, &Default::default()).unwrap();
    bench.write("prompts.tsv", PROMPTS);
    bench
}

fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let common = ["compare", "--prompts", "prompts.tsv", "--out", "out"];
    [common.as_slice(), QUICK.as_slice(), more].concat()
}

#[track_caller]
fn compare(bench: &Bench, more: &[&str]) -> Said {
    bench.succeed(&args(more))
}

fn summary(bench: &Bench) -> Value {
    serde_json::from_slice(&fs::read(bench.path("out/summary.json")).unwrap()).unwrap()
}

/// What the images of a folder show, by name, sheets skipped.
fn pixels(folder: &Path) -> BTreeMap<PathBuf, RgbImage> {
    let images = files(folder).into_iter().filter(|(path, _)| !path.ends_with("image-grid.png"));
    images.map(|(path, bytes)| (path, image::load_from_memory(&bytes).unwrap().into_rgb8())).collect()
}

fn generated(bench: &Bench) -> BTreeMap<PathBuf, SystemTime> {
    let changed =
        |path: &Path| fs::metadata(bench.path("out/images").join(path)).unwrap().modified().unwrap();
    files(&bench.path("out/images")).into_iter().map(|(path, _)| (path.clone(), changed(&path))).collect()
}

#[test]
fn images_are_those_of_sample_and_nothing_is_made_twice() {
    let bench = bench();
    let said = compare(&bench, &["model", "other", "--seed", "7", "--num_images_per_prompt", "2"]);
    assert!(said.stdout.contains("win rates against model"), "{}", said.stdout);
    bench.write("prompts.txt", "grinning face\nred apple\ncat\ndog\n");
    let sample =
        ["sample", "--model", "other", "--prompts", "prompts.txt", "--seed", "7", "--out", "sampled"];
    let more = ["--num_images_per_prompt", "2", "--num_inference_steps", "2", "--batch_size", "2"];
    bench.succeed(&[sample.as_slice(), &more].concat());
    assert!(pixels(&bench.path("sampled")) == pixels(&bench.path("out/images/other")));

    let (before, first) = (generated(&bench), summary(&bench));
    let scores = fs::read(bench.path("out/scores.jsonl")).unwrap();
    assert_eq!(before.len(), 16);
    let again = compare(&bench, &["model", "other", "--seed", "7", "--num_images_per_prompt", "2"]);
    assert!(again.stdout.contains("nearest-art: all scores are cached"), "{}", again.stdout);
    assert_eq!((generated(&bench), summary(&bench)), (before.clone(), first));
    assert_eq!(fs::read(bench.path("out/scores.jsonl")).unwrap(), scores);

    // Only what is lost is generated again, to the last bit, and it keeps its score.
    let lost = bench.path("out/images/other/0002-8.png");
    let bytes = fs::read(&lost).unwrap();
    fs::remove_file(&lost).unwrap();
    compare(&bench, &["model", "other", "--seed", "7", "--num_images_per_prompt", "2"]);
    assert_eq!(fs::read(&lost).unwrap(), bytes);
    let now = generated(&bench);
    assert!(before.iter().filter(|(path, when)| now[*path] != **when).count() == 1);
    assert_eq!(fs::read(bench.path("out/scores.jsonl")).unwrap(), scores);
}

#[test]
fn a_killed_comparison_goes_on_where_it_was() {
    let whole = bench();
    compare(&whole, &["model", "other", "--num_images_per_prompt", "8"]);
    let bench = bench();
    let flags = args(&["model", "other", "--num_images_per_prompt", "8"]);
    let mut child = bench.start(&flags);
    let (begun, folder) = (Instant::now(), bench.path("out/images"));
    let n_generated = || {
        let of = |name: &str| fs::read_dir(folder.join(name)).map_or(0, Iterator::count);
        of("model") + of("other")
    };
    while n_generated() < 6 {
        assert!(begun.elapsed() < Duration::from_secs(300), "nothing is generated");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before: BTreeMap<_, _> = generated(&bench)
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|end| end == "png"))
        .collect();
    assert!((1..64).contains(&before.len()), "{}", before.len());
    bench.succeed(&flags);
    let now = generated(&bench);
    assert!(before.iter().all(|(path, when)| now[path] == *when), "an image was generated twice");
    for name in ["report.html", "summary.json", "scores.jsonl", "compare.json"] {
        let of = |bench: &Bench| fs::read(bench.path("out").join(name)).unwrap();
        assert!(of(&bench) == of(&whole), "{name}");
    }
}

#[test]
fn models_and_scorers_can_be_added_and_other_settings_are_refused() {
    let bench = bench();
    compare(&bench, &["model", "other"]);
    let before = generated(&bench);
    let said = compare(&bench, &["model", "other", "third=other", "--scorer", "nearest-art:style"]);
    let now = generated(&bench);
    assert!(before.iter().all(|(path, when)| now[path] == *when) && now.len() == 12);
    assert!(said.stdout.contains("nearest-art: scoring 4 images"), "{}", said.stdout);
    assert!(said.stdout.contains("nearest-art:style: scoring 12 images"), "{}", said.stdout);
    let n_win_rates = summary(&bench)["win_rates"].as_array().unwrap().len();
    assert_eq!(n_win_rates, 3 * 2 * 4, "three pairs, two scorers, three categories and all");

    let refused = [
        bench.run(&args(&["model", "other", "--num_inference_steps", "3"])),
        bench.run(&args(&["model", "other", "--seed", "1"])),
        bench.run(&args(&["other=model", "model"])),
        bench.run(&args(&["model", "other", "--prompts", "small"])),
    ];
    let refused = refused.iter().map(mistake).collect::<Vec<_>>().join("\n");
    let hashes = |text: &str| {
        let words = text.split("sha256 ").enumerate();
        words
            .map(|(i, part)| if i == 0 { part.to_owned() } else { format!("sha256 ..{}", &part[12..]) })
            .collect::<String>()
    };
    insta::assert_snapshot!(hashes(&refused));
    assert_eq!(generated(&bench), now);
}

#[test]
fn parts_go_on_a_model_and_folders_of_images_need_none() {
    let bench = bench();
    let train = ["--method", "mapo", "--adapter_type", "lora", "--learning_rate", "0.1"];
    let said = bench.train("lora", &train);
    assert_eq!(said.code, 0, "{}", said.stderr);
    fs::create_dir(bench.path("hps")).unwrap();
    for (number, shade) in [10, 90, 170, 250].into_iter().enumerate() {
        let image = RgbImage::from_pixel(40, 30, Rgb([shade; 3]));
        image.save(bench.path("hps").join(format!("{number:05}.jpg"))).unwrap();
    }
    compare(
        &bench,
        &["model", "model+lora/pytorch_lora_weights.safetensors", "dpo=other/unet", "hps", "--base", "model"],
    );
    let bytes = |path: &str| fs::read(bench.path("out/images").join(path)).unwrap();
    assert!(bytes("model/0000-0.png") != bytes("lora/0000-0.png"));
    assert!(bytes("model/0000-0.png") != bytes("dpo/0000-0.png"));
    assert!(!bench.path("out/images/hps").exists());
    let summary = summary(&bench);
    let names: Vec<&str> =
        summary["models"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["model", "lora", "dpo", "hps"]);
    assert_eq!(summary["win_rates"].as_array().unwrap().len(), 6 * 4);

    // A UNet of another model generates what the other model does.
    let more = ["--prompts", "prompts.tsv", "--out", "whole"];
    bench.succeed(&[["compare"].as_slice(), &QUICK, &["other", "model"], &more].concat());
    assert_eq!(bytes("dpo/0003-0.png"), fs::read(bench.path("whole/images/other/0003-0.png")).unwrap());
}

#[test]
fn prompts_without_an_image_are_skipped_only_when_asked() {
    let bench = bench();
    fs::create_dir_all(bench.path("closed")).unwrap();
    let mut list = String::new();
    for (file, prompt) in [("a.png", "cat"), ("b.png", "grinning face")] {
        RgbImage::from_pixel(64, 64, Rgb([200, 180, 40])).save(bench.path("closed").join(file)).unwrap();
        list += &format!("{{\"file_name\": \"{file}\", \"prompt\": \"{prompt}\"}}\n");
    }
    bench.write("closed/metadata.jsonl", list);
    let refused = mistake(&bench.run(&args(&["model", "closed"])));
    insta::assert_snapshot!(refused);
    compare(&bench, &["model", "closed", "--skip_missing"]);
    let summary = summary(&bench);
    assert_eq!((&summary["n_prompts"], &summary["win_rates"][0]["n"]), (&2.into(), &2.into()));
    let names: Vec<PathBuf> = files(&bench.path("out/images")).into_iter().map(|(path, _)| path).collect();
    assert_eq!(names, [PathBuf::from("model/0000-0.png"), PathBuf::from("model/0002-0.png")]);
}

#[test]
fn categories_and_counts_choose_prompts_and_keep_their_numbers() {
    let bench = bench();
    compare(&bench, &["model", "other", "--category", "animals", "--n_prompts", "1"]);
    let names: Vec<PathBuf> =
        files(&bench.path("out/images/other")).into_iter().map(|(path, _)| path).collect();
    assert_eq!(names, [PathBuf::from("0002-0.png")]);
    let before = generated(&bench);
    compare(&bench, &["model", "other"]);
    let now = generated(&bench);
    assert!(before.iter().all(|(path, when)| now[path] == *when) && now.len() == 8);
}

#[test]
fn what_cannot_be_compared_is_a_mistake_that_says_why() {
    let bench = bench();
    bench.write("empty/notes.txt", "");
    let refused: Vec<String> = [
        &["model"] as &[&str],
        &["model", "model"],
        &["model", "nowhere"],
        &["model", "a/b=other"],
        &["model", "other/unet"],
        &["model", "model+other"],
        &["model", "empty"],
        &["model", "other", "--category", "plants"],
        &["model", "other", "--prompts", "none.txt"],
        &["model", "other", "--prompts", "demo:nothing"],
        &["model", "other", "--prompts", "demo:style", "--num_images_per_prompt", "2"],
        &["model", "other", "--prompts", "small"],
        &["model", "other", "--scorer", "nearest-art"],
        &["model", "other", "--scorer", "taste"],
        &["model", "other", "--guidance_scale", "nan"],
        &["model", "other", "--batch_size", "0"],
    ]
    .into_iter()
    .map(|more| format!("> {}\n{}", more.join(" "), mistake(&bench.run(&args(more)))))
    .collect();
    insta::assert_snapshot!(refused.join("\n"));
    assert!(!bench.path("out/images").exists());
}

#[test]
fn help_of_compare() {
    insta::assert_snapshot!(Bench::empty().succeed(&["compare", "--help"]).stdout);
}
