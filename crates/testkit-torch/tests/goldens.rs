//! Recorded cases load whole, and comparing them can fail.

use tastemaker_testkit_torch::{
    Golden, assert_close, assert_gradients, golden_dir, relative_error, tokenizer_prompts,
};
use tch::{Device, Kind, Tensor};

const NETWORKS: [&str; 16] = [
    "clip-text",
    "clip-text-legacy",
    "clip-text-lora",
    "clip-text-projection",
    "clip-vision",
    "unet-demo",
    "unet-sd1",
    "unet-sd1-dora",
    "unet-sd1-lora",
    "unet-sd1-lora-conv",
    "unet-sd1-lora-ranks",
    "unet-sd2v",
    "unet-sdxl",
    "vae",
    "vae-demo",
    "vae-flat",
];

#[test]
fn every_network_case_is_listed_and_complete() {
    let mut found: Vec<_> = std::fs::read_dir(golden_dir("models", ""))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("meta.toml").exists())
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    found.sort();
    assert_eq!(found, NETWORKS);
    // The last is other images for the network of "vae", recorded for their latents.
    for case in NETWORKS.into_iter().filter(|case| *case != "vae-flat") {
        let golden = Golden::load("models", case);
        assert!(golden.config_json().is_object(), "{case}");
        assert!(golden.tolerance("output") <= 1e-5 && golden.tolerance("gradient") <= 1e-4, "{case}");
        let gradients = golden.gradients();
        if case == "clip-text-lora" {
            continue; // recorded for its output
        }
        let trained = if case.contains("-lora") || case.contains("-dora") {
            let file = golden.path("without_metadata.safetensors");
            let factors = tastemaker_torch::tensors::read(&file).unwrap();
            factors.into_iter().map(|(k, v)| (k.strip_prefix("unet.").unwrap().to_owned(), v)).collect()
        } else {
            golden.weights()
        };
        assert_eq!(gradients.keys().collect::<Vec<_>>(), trained.keys().collect::<Vec<_>>(), "{case}");
        for (name, gradient) in &gradients {
            assert_eq!(gradient.size(), trained[name].size(), "{case}: {name}");
            assert!(golden.vanishes(name) || gradient.abs().max().double_value(&[]) > 0.0, "{case}: {name}");
        }
    }
}

#[test]
fn every_case_of_scorers_is_listed_and_complete() {
    for (case, names) in [
        ("clip", &["aesthetic", "clip-score", "pick-score"][..]),
        ("hps", &["hps-v2.1"]),
        ("image-reward", &["image-reward"]),
        ("pixels", &["cut", "cut_to_even", "pad"]),
    ] {
        let golden = Golden::load("scorers", case);
        assert!(golden.tolerance("output") <= 1e-5, "{case}");
        for name in names {
            assert_eq!(golden.tensor(name).size()[0], 50, "{case}: {name}");
        }
    }
}

#[test]
fn no_parameter_has_the_value_that_hides_a_missing_layer() {
    for case in NETWORKS {
        for (name, weight) in Golden::load("models", case).weights() {
            let spread = (&weight - weight.mean(Kind::Float)).abs().max().double_value(&[]);
            assert!(spread > 0.0, "{case}: {name} is constant");
        }
    }
}

#[test]
fn the_recorded_loss_is_the_mean_squared_distance_to_the_target() {
    let golden = Golden::load("models", "unet-sdxl");
    let distance = (golden.tensor("output") - golden.tensor("target")).square().mean(Kind::Double);
    assert_close(&distance, &golden.tensor("loss"), 1e-6, "loss");
}

#[test]
fn recorded_ids_are_rows_of_77_for_every_prompt() {
    let golden = Golden::load("tokenizer", "");
    let prompts = tokenizer_prompts();
    assert!(prompts.len() >= 200);
    for which in ["tokenizer", "tokenizer_2"] {
        assert_eq!(golden.tensor(&format!("{which}.input_ids")).size(), [prompts.len() as i64, 77]);
    }
}

#[test]
fn losses_follow_from_their_recorded_logits() {
    for (method, tolerance) in [("diffusion-dpo", 1e-12), ("ddim-inpo", 1e-12)] {
        let golden = Golden::load("losses", method);
        assert_close(&-golden.tensor("logit").log_sigmoid(), &golden.tensor("losses"), tolerance, method);
        assert_close(&golden.tensor("losses").mean(Kind::Double), &golden.tensor("loss"), tolerance, method);
    }
}

#[test]
fn an_installed_component_is_the_recorded_network() {
    let folder = tempfile::tempdir().unwrap();
    let golden = Golden::load("models", "unet-sd1-lora");
    let installed = golden.install(folder.path(), "diffusion_pytorch_model.safetensors");
    let (installed, wanted) = (tastemaker_torch::tensors::read(&installed).unwrap(), golden.weights());
    assert!(installed.keys().eq(wanted.keys()));
    assert!(installed.iter().all(|(name, tensor)| tensor.equal(&wanted[name])));
    assert!(folder.path().join("config.json").exists());
}

fn row(values: &[f64]) -> Tensor {
    Tensor::from_slice(values)
}

#[test]
fn relative_error_is_the_largest_difference_over_the_largest_wanted_value() {
    assert_eq!(relative_error(&row(&[1.0, 4.5]), &row(&[2.0, -4.0])), 8.5 / 4.0);
    assert_eq!(relative_error(&row(&[0.0]), &row(&[0.0])), 0.0);
    assert_eq!(relative_error(&row(&[1.0]), &row(&[0.0])), f64::INFINITY);
    assert!(relative_error(&row(&[f64::NAN]), &row(&[1.0])).is_nan());
    let empty = Tensor::zeros([0, 3], (Kind::Float, Device::Cpu));
    assert_eq!(relative_error(&empty, &empty), 0.0);
}

#[test]
#[should_panic(expected = "worst at [1, 0]: found 3.500000000e0, wanted 3.000000000e0")]
fn a_difference_is_reported_with_its_place_and_both_values() {
    assert_close(
        &row(&[1.0, 2.0, 3.5, 4.0]).view([2, 2]),
        &row(&[1.0, 2.0, 3.0, 4.0]).view([2, 2]),
        1e-3,
        "x",
    );
}

#[test]
#[should_panic(expected = "is above")]
fn nothing_is_close_to_a_nan() {
    assert_close(&row(&[f64::NAN]), &row(&[f64::NAN]), 1e9, "x");
}

#[test]
#[should_panic(expected = "wanted the right one")]
fn a_broadcastable_shape_is_not_the_wanted_shape() {
    assert_close(&row(&[1.0]), &row(&[1.0, 1.0]), 1e-3, "x");
}

#[test]
fn recorded_gradients_match_themselves_whatever_rounding_leaves_in_a_vanishing_one() {
    let golden = Golden::load("models", "vae");
    let mut gradients = golden.gradients();
    let noise = gradients.get_mut("encoder.mid_block.attentions.0.to_k.bias").unwrap();
    *noise = &*noise * -7.0;
    assert_gradients(&gradients, &golden, 1e-6);
}

#[test]
#[should_panic(expected = "gradient of decoder.conv_in.bias")]
fn one_wrong_gradient_is_named() {
    let golden = Golden::load("models", "vae");
    let mut gradients = golden.gradients();
    let wrong = gradients.get_mut("decoder.conv_in.bias").unwrap();
    *wrong = &*wrong * 1.001;
    assert_gradients(&gradients, &golden, 1e-4);
}
