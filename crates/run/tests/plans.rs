//! What follows from a plan, its JSON and its table.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its recipe should stop")]

mod support;

use std::fs;

use serde_json::json;
use support::{SHORTEST, parse, plan_of, shortest_with};
use tastemaker_run::{
    AdapterKind, AdapterSection, Overrides, Plan, ReferenceKind, RunDir, TrainSection, changes, lr_at,
    resolve,
};
use tastemaker_store::dtype::DType;

const LAUNCHER: &str = "[optimizer]\nlearning_rate = 1e-8\nscale_lr = true\n";

fn launcher() -> Plan {
    let text = shortest_with(LAUNCHER);
    let train = TrainSection {
        train_batch_size: Some(16),
        gradient_accumulation_steps: Some(128),
        ..Default::default()
    };
    resolve(parse(&text).unwrap(), Overrides { train, ..Default::default() }).unwrap()
}

#[test]
fn the_published_launcher_means_two_e_minus_five() {
    // 1e-8 scaled by 2048 pairs: methods of the DPO authors, whose paper states another number.
    let plan = launcher();
    assert_eq!(plan.effective_batch(), 2048);
    assert!((plan.effective_learning_rate() - 2.048e-5).abs() < 1e-18);
    assert_eq!(lr_at(0, &plan.schedule()), plan.effective_learning_rate());
}

#[test]
fn a_plan_survives_its_json() {
    for plan in [launcher().with_data(51_200), plan_of(SHORTEST)] {
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }
    let full = Overrides {
        adapter: AdapterSection { adapter_type: Some(AdapterKind::Full), ..Default::default() },
        ..Default::default()
    };
    let plan = resolve(parse(SHORTEST).unwrap(), full).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&serde_json::to_string(&plan).unwrap()).unwrap(), plan);
}

#[test]
fn more_than_a_hundred_thousand_pairs_are_cached_in_half_precision_unless_the_recipe_says_otherwise() {
    let cached = |plan: Plan, n_pairs| plan.with_cache_of(n_pairs).data.cache_dtype;
    assert_eq!(cached(plan_of(SHORTEST), 100_000), Some(DType::F32));
    assert_eq!(cached(plan_of(SHORTEST), 100_001), Some(DType::F16));
    let said = plan_of(&SHORTEST.replace("[data]", "[data]\ncache_dtype = \"fp32\""));
    assert_eq!(cached(said, 100_001), Some(DType::F32));
}

#[test]
fn a_plan_from_before_a_key_was_there_is_read() {
    let plan = plan_of(SHORTEST);
    let mut json = serde_json::to_value(&plan).unwrap();
    for (section, key) in [("model", "rescale_betas_zero_snr"), ("data", "time_ids"), ("train", "timesteps")]
    {
        assert!(json[section].as_object_mut().unwrap().remove(key).is_some(), "{key}");
    }
    assert!(json.as_object_mut().unwrap().remove("output").is_some());
    assert_eq!(serde_json::from_value::<Plan>(json).unwrap(), plan);
}

/// As version 1 wrote it.
fn earlier() -> serde_json::Value {
    json!({
        "format": 1,
        "model": {"pretrained_model_name_or_path": "models/tiny", "prediction_type": null},
        "data": {
            "train_data_dir": "pairs", "resolution": 64, "held_out_fraction": 0.05, "no_hflip": false,
            "proportion_empty_prompts": 0.0,
            "buckets": {"bucket_reso_steps": 32, "min_bucket_reso": 32, "max_bucket_reso": 128}, "augment": "joint",
            "cache_dtype": "float16",
        },
        "method": {"name": "diffusion-dpo", "settings": {"beta": 5000.0}},
        "adapter": {"kind": "lora", "rank": 4, "alpha": 8.0, "target_modules": ["to_q"]},
        "optimizer": {
            "kind": "adamw8bit", "learning_rate": 1e-5, "scale_lr": false, "adam_beta1": 0.9, "adam_beta2": 0.999,
            "adam_weight_decay": 0.01, "adam_epsilon": 1e-8, "max_grad_norm": 1.0, "lr_scheduler": "constant",
            "lr_warmup_steps": 0, "lr_num_cycles": 1,
        },
        "train": {
            "max_train_steps": 100, "train_batch_size": 1, "gradient_accumulation_steps": 1, "n_processes": 2,
            "mixed_precision": "no", "reference": "bank", "bank_to": "there", "timesteps": null, "seed": 0,
        },
        "validation": {"every": 5, "n_pairs": 8, "prompts": ["a fox"], "num_validation_images": 1},
        "logging": {"report_to": "none", "logging_dir": "logs", "tracker_name": "tastemaker", "rule": "keep-best"},
        "output": {"layout": ["diffusers"], "dtype": "float32"},
        "output_dir": "out",
        "n_pairs": 600,
    })
}

#[test]
fn a_plan_of_the_version_before_is_read_and_its_run_can_be_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    fs::write(&path, earlier().to_string()).unwrap();
    let (_, plan) = RunDir::open(folder.path()).unwrap();
    assert_eq!((plan.format, plan.n_processes), (Plan::FORMAT, 2));
    assert_eq!(plan.train.reference, ReferenceKind::Precomputed);
    assert_eq!(plan.train.reference_dir.as_deref(), Some("there".as_ref()));
    let buckets = plan.data.buckets().unwrap();
    assert_eq!((buckets.step, buckets.min, buckets.max), (32, 32, 128));
    assert_eq!(plan.validation.validation_prompts, ["a fox"]);

    let typed = r#"
        output_dir = "out"
        [model]
        pretrained_model_name_or_path = "models/tiny"
        [data]
        train_data_dir = "pairs"
        resolution = 64
        enable_bucket = true
        bucket_reso_steps = 32
        min_bucket_reso = 32
        max_bucket_reso = 128
        cache_dtype = "float16"
        held_out_fraction = 0.05 # what a run that is resumed takes from its plan
        held_out_choice = "drawn"
        [method]
        name = "diffusion-dpo"
        [adapter]
        rank = 4
        alpha = 8.0
        target_modules = ["to_q"]
        [optimizer]
        optimizer_type = "adamw8bit"
        [train]
        max_train_steps = 100
        reference = "precomputed"
        [validation]
        validation_pairs = 8
    "#;
    let same = Plan { n_processes: 2, ..plan_of(typed).with_data(600) };
    assert_eq!(changes(&earlier(), &serde_json::to_value(&same).unwrap()), Vec::<String>::new());
    RunDir::create(folder.path(), &same).unwrap();
    let other = plan_of(&typed.replace("alpha = 8.0", "alpha = 4.0"));
    let found = changes(&earlier(), &serde_json::to_value(&other).unwrap());
    assert!(found.contains(&"adapter.alpha: 8.0 there, 4.0 here".to_owned()), "{found:?}");
}

#[test]
fn pairs_are_a_path_an_address_or_a_name_and_stay_as_typed() {
    for pairs in ["pairs", "s3://bucket/a set/pairs-{000..010}.tar", "org/name@refs/pr/1"] {
        let plan = plan_of(&SHORTEST.replace("\"pairs\"", &format!("{pairs:?}")));
        let json = serde_json::to_value(&plan).unwrap();
        assert_eq!(json["data"]["train_data_dir"], pairs);
        assert!(json["data"]["dataset_split_name"].is_null());
        assert!(plan.to_string().contains(pairs), "{plan}");
    }
}

#[test]
fn the_table_shows_every_value_that_acts_and_what_follows_from_them() {
    let table = launcher().with_data(51_200).to_string();
    assert_eq!(
        table,
        "\
model       pretrained_model_name_or_path  models/tiny
            max_token_length               75
            rescale_betas_zero_snr         no
data        train_data_dir                 pairs
            resolution                     512
            held_out_fraction              0
            enable_bucket                  no
            no_hflip                       no
            random_crop                    no
            augment                        independent
            proportion_empty_prompts       0
            label_noise_prob               0
            time_ids                       constant
            no_cache                       no
            dataloader_num_workers         0
method      name                           diffusion-dpo
            beta                           5000
adapter     adapter_type                   lora
            rank                           8
            alpha                          8
            target_modules                 to_k, to_q, to_v, to_out.0
            use_dora                       no
optimizer   optimizer_type                 adamw
            shard_optimizer                no
            offload_optimizer              no
            learning_rate                  1e-8
            scale_lr                       yes
            lr_scheduler                   constant
            lr_warmup_steps                0
            lr_num_cycles                  1
            adam_beta1                     0.9
            adam_beta2                     0.999
            adam_weight_decay              0.01
            adam_epsilon                   1e-8
            max_grad_norm                  1
train       max_train_steps                100
            train_batch_size               16
            gradient_accumulation_steps    128
            mixed_precision                fp32
            gradient_checkpointing         no
            reference                      live
            beta_convention                mean
            auto_beta                      no
            noise_offset                   0
            timestep_density               uniform
            seed                           0
validation  validation_steps               0
checkpoint  checkpointing_steps            500
            checkpoints_total_limit        2
logging     report_to                      tensorboard
            logging_dir                    logs
            tracker_name                   tastemaker
            on_alarm                       warn
output      output_dir                     out
in effect   pairs per step                 2048 (16 x 128 accumulated)
            learning rate                  2.048e-5
            beta, mean                     5000 (half of it times mean errors, as here, in diffusers and in flow_grpo)
            beta, no-half                  2500 (times mean errors, as in OneTrainer and PNAPO)
            pairs to train on              51200 at most (those whose images cannot be read are skipped)
            steps per epoch                25.0 (4.0 epochs in all)
"
    );
}
