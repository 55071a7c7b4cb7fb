//! What a user who made a mistake sees: the message and the exit code, word for word.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;

use insta::assert_snapshot;
use support::{Bench, mistake};
use tastemaker_math::objectives::OBJECTIVES;
use tastemaker_testkit::malformed;

const UNET: &str = "model/unet/diffusion_pytorch_model.safetensors";

const RECIPE: &str = "\
output_dir = \"out\"

[model]
pretrained_model_name_or_path = \"model\"

[data]
train_data_dir = \"pairs\"
resolution = 32

[method]
name = \"diffusion-dpo\"

[train]
max_train_steps = 2
";

/// Trains by the recipe with `more` behind it, and says what the user sees.
fn train(bench: &Bench, more: &[&str]) -> String {
    bench.write("run.toml", RECIPE);
    mistake(&bench.run(&[&["train", "run.toml"], more].concat()))
}

/// Replaces the UNet's weights by what `damage` makes of them.
fn damage(bench: &Bench, damage: impl Fn(&std::path::Path, &std::path::Path) -> std::path::PathBuf) {
    let aside = bench.path("aside");
    fs::create_dir_all(&aside).unwrap();
    let damaged = damage(&bench.path(UNET), &aside);
    fs::rename(damaged, bench.path(UNET)).unwrap();
}

#[test]
fn a_missing_recipe() {
    let bench = Bench::empty();
    assert_snapshot!(mistake(&bench.run(&["train", "dpo.toml"])));
}

#[test]
fn a_missing_model() {
    let bench = Bench::new();
    assert_snapshot!(train(&bench, &["--pretrained_model_name_or_path", "models/sd15"]));
}

#[test]
fn a_missing_weights_file() {
    let bench = Bench::new();
    fs::remove_file(bench.path(UNET)).unwrap();
    assert_snapshot!(train(&bench, &[]));
}

#[test]
fn missing_pairs() {
    let bench = Bench::new();
    assert_snapshot!(train(&bench, &["--train_data_dir", "nowhere"]));
}

#[test]
fn images_that_are_all_missing() {
    let bench = Bench::new();
    for i in 0..6 {
        fs::remove_file(bench.path(&format!("pairs/warm{i}.png"))).unwrap();
    }
    assert_snapshot!(train(&bench, &[]));
}

#[test]
fn images_of_which_none_decodes() {
    let bench = Bench::new();
    for i in 0..6 {
        bench.write(&format!("pairs/warm{i}.png"), "no image");
    }
    assert_snapshot!(train(&bench, &[]));
    assert!(!bench.path("out").exists(), "a run that never began is in the way of the corrected one");
}

#[test]
fn truncated_weights() {
    let bench = Bench::new();
    damage(&bench, malformed::truncated);
    assert_snapshot!(train(&bench, &[]));
}

#[test]
fn weights_of_another_shape() {
    let bench = Bench::new();
    damage(&bench, malformed::wrong_shape);
    assert_snapshot!(train(&bench, &[]));
}

#[test]
fn weights_under_another_name() {
    let bench = Bench::new();
    damage(&bench, |source, folder| malformed::renamed(source, folder, "conv_in.wieght"));
    assert_snapshot!(train(&bench, &[]));
}

#[test]
fn an_unknown_key_in_the_recipe() {
    let bench = Bench::new();
    bench.write("run.toml", RECIPE.replace("max_train_steps", "max_trian_steps"));
    assert_snapshot!(mistake(&bench.run(&["train", "run.toml"])));
}

#[test]
fn an_unknown_setting_of_the_method() {
    let bench = Bench::new();
    assert_snapshot!(train(&bench, &["--set", "bata=3"]));
}

#[test]
fn an_unknown_method() {
    let bench = Bench::new();
    let names: Vec<&str> = OBJECTIVES.iter().map(|entry| entry.name).collect();
    assert_snapshot!(train(&bench, &["--method", "difusion-dpo"]).replace(&names.join(", "), "[METHODS]"));
}

#[test]
fn an_unknown_key_in_the_models_config() {
    let bench = Bench::new();
    let config = fs::read_to_string(bench.path("model/unet/config.json")).unwrap();
    bench.write("model/unet/config.json", config.replacen('{', "{\"use_quantum_attention\": true,", 1));
    assert_snapshot!(train(&bench, &[]));
}

#[test]
fn a_caption_file_that_is_not_utf8() {
    let bench = Bench::new();
    for (side, image) in [("w", "warm0.png"), ("l", "cold0.png")] {
        let bytes = fs::read(bench.path("pairs").join(image)).unwrap();
        bench.write(&format!("folders/{side}/fox.png"), bytes);
    }
    bench.write("folders/w/fox.txt", b"un r\xeanard");
    assert_snapshot!(train(&bench, &["--train_data_dir", "folders"]));
}

#[test]
fn an_output_that_cannot_be_written() {
    let bench = Bench::new();
    bench.write("file", "a file where a folder should be");
    assert_snapshot!(train(&bench, &["--output_dir", "file/out"]));
}

#[test]
fn an_output_that_holds_something_else() {
    let bench = Bench::new();
    bench.write("out/thesis.txt", "precious");
    assert_snapshot!(train(&bench, &[]));
    assert!(bench.path("out/thesis.txt").is_file());
}

#[test]
fn an_output_that_holds_another_run() {
    let bench = Bench::new();
    assert!(train(&bench, &[]).starts_with("exit code 0"));
    assert_snapshot!(train(&bench, &["--learning_rate", "1e-6", "--seed", "7"]));
}

#[test]
fn every_pair_held_out() {
    let bench = Bench::new();
    assert_snapshot!(train(&bench, &["--held_out_fraction", "0.9999999"]));
}

#[test]
fn values_that_cannot_be_are_named_all_at_once() {
    let bench = Bench::new();
    assert_snapshot!(train(
        &bench,
        &["--resolution", "33", "--learning_rate", "-1", "--max_train_steps", "0"]
    ));
}

#[test]
fn an_adapter_for_layers_that_do_not_exist() {
    let bench = Bench::new();
    assert_snapshot!(train(&bench, &["--target_modules", "to_q,to_x"]));
}

#[test]
fn a_learning_rate_that_blows_up() {
    let bench = Bench::new();
    let more = [
        "--adapter_type",
        "full",
        "--learning_rate",
        "1e30",
        "--max_train_steps",
        "3",
        "--held_out_fraction",
        "0",
    ];
    let seen = train(&bench, &more);
    let (code, last) = (seen.lines().next().unwrap(), seen.lines().last().unwrap());
    assert_snapshot!(format!("{code}\n{last}"));
}

#[test]
fn a_published_flag_that_would_change_the_result() {
    let bench = Bench::new();
    assert_snapshot!(train(&bench, &["--use_adafactor", "--snr_gamma", "5"]));
}

#[test]
fn a_setting_under_another_methods_name() {
    let bench = Bench::new();
    assert_snapshot!(train(&bench, &["--beta_mapo", "0.1"]));
}

#[test]
fn an_unknown_flag() {
    let bench = Bench::empty();
    assert_snapshot!(mistake(&bench.run(&["train", "--learnin_rate", "1e-5"])));
}

#[test]
fn a_precision_we_do_not_have() {
    let bench = Bench::empty();
    assert_snapshot!(mistake(&bench.run(&["train", "--mixed_precision", "fp8"])));
}
