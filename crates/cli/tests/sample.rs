//! `tastemaker sample`, through the real program.

mod support;

use std::fs;

use insta::assert_snapshot;
use support::{Bench, files, mistake};
use tastemaker_testkit::golden_dir;

const QUICK: [&str; 4] = ["--num_inference_steps", "2", "--model", "model"];

fn sample(bench: &Bench, more: &[&str]) -> support::Said {
    bench.run(&[&["sample"], QUICK.as_slice(), more].concat())
}

#[track_caller]
fn painted(bench: &Bench, more: &[&str]) {
    let said = sample(bench, more);
    assert_eq!(said.code, 0, "{}", said.stderr);
}

#[test]
fn every_prompt_is_painted_with_every_seed_under_a_name_that_says_so() {
    let bench = Bench::new();
    bench.write("prompts.txt", "rain over the sea\n\n  a red house  \n");
    let more =
        ["--prompt", "a fox", "--prompts", "prompts.txt", "--seed", "41", "--num_images_per_prompt", "2"];
    painted(&bench, &[more.as_slice(), &["--out", "out"]].concat());
    let names: Vec<_> = files(&bench.path("out")).into_iter().map(|(path, _)| path).collect();
    let wanted = ["0000-41.png", "0000-42.png", "0001-41.png", "0001-42.png", "0002-41.png", "0002-42.png"];
    assert_eq!(names, wanted.map(std::path::PathBuf::from));
    let picture = image::open(bench.path("out/0001-42.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (32, 32));
}

#[test]
fn a_picture_depends_on_prompt_and_seed_and_not_on_its_neighbours() {
    let bench = Bench::new();
    painted(&bench, &["--prompt", "a fox", "--prompt", "rain", "--out", "both", "--batch_size", "1"]);
    painted(&bench, &["--prompt", "rain", "--out", "one"]);
    let read = |path: &str| fs::read(bench.path(path)).unwrap();
    assert!(read("both/0001-0.png") == read("one/0000-0.png"));
    assert!(read("both/0000-0.png") != read("both/0001-0.png"));
}

#[test]
fn what_was_trained_can_be_painted_with() {
    let bench = Bench::new();
    let train = |output: &str, adapter: &str| {
        let said = bench.train(output, &["--method", "mapo", "--adapter", adapter, "--learning_rate", "0.1"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
    };
    train("full", "full");
    train("lora", "lora");
    painted(&bench, &["--prompt", "a fox", "--out", "base"]);
    painted(
        &bench,
        &["--prompt", "a fox", "--out", "with-lora", "--lora", "lora/pytorch_lora_weights.safetensors"],
    );
    painted(&bench, &["--prompt", "a fox", "--out", "with-full", "--model", "full/model"]);
    let read = |folder: &str| fs::read(bench.path(folder).join("0000-0.png")).unwrap();
    assert!(read("base") != read("with-lora"));
    assert!(read("base") != read("with-full"));
}

#[test]
fn nothing_to_paint_is_a_mistake() {
    assert_snapshot!(mistake(&sample(&Bench::new(), &["--out", "out"])));
}

#[test]
fn a_file_of_prompts_that_is_not_utf8_is_a_mistake() {
    let bench = Bench::new();
    bench.write("prompts.txt", b"un r\xeanard");
    assert_snapshot!(mistake(&sample(&bench, &["--prompts", "prompts.txt", "--out", "out"])));
}

#[test]
fn a_lora_of_another_network_is_a_mistake() {
    let bench = Bench::new();
    let other = golden_dir("models", "unet-sd1-lora").join("pytorch_lora_weights.safetensors");
    bench.write("lora.safetensors", fs::read(other).unwrap());
    let said = sample(&bench, &["--prompt", "a fox", "--out", "out", "--lora", "lora.safetensors"]);
    assert_snapshot!(mistake(&said));
}

#[test]
fn too_many_steps_are_a_mistake() {
    let said = sample(&Bench::new(), &["--prompt", "a fox", "--out", "out", "--num_inference_steps", "1001"]);
    assert_snapshot!(mistake(&said));
}

#[test]
fn pictures_that_cannot_be_written_are_noticed_before_painting() {
    let bench = Bench::new();
    bench.write("file", "a file where a folder should be");
    assert_snapshot!(mistake(&sample(&bench, &["--prompt", "a fox", "--out", "file/out"])));
}
