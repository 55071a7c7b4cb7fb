//! Every setting, by its one declaration.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its recipe should stop")]

mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::{SHORTEST, parse, plan_of, shortest_with};
use tastemaker_run::{
    AdapterKind, AdapterSection, Overrides, RunError, Shape, Surroundings, Warning, keys, resolve,
};

#[test]
fn every_key_is_in_the_plan_and_has_a_default_or_may_be_missing() {
    let lora = serde_json::to_value(plan_of(&shortest_with(""))).unwrap();
    let adapter = AdapterSection { adapter_type: Some(AdapterKind::Full), ..Default::default() };
    let full = resolve(parse(SHORTEST).unwrap(), Overrides { adapter, ..Default::default() }).unwrap();
    assert_eq!(serde_json::to_value(full).unwrap()["adapter"], json!({ "adapter_type": "full" }));
    let mut names = BTreeSet::new();
    for key in keys() {
        let value = key.typed(&lora).unwrap_or_else(|| panic!("{} is not in the plan", key.path));
        assert!(key.default().is_none() || !value.is_null(), "{}", key.path);
        assert!(names.insert(key.name()), "two keys are called {}", key.name());
        assert!(
            !key.help.trim().ends_with('.') && key.value_name.to_uppercase() == key.value_name,
            "{}",
            key.path
        );
        if let (Some(check), Some(_)) = (key.check, key.default()) {
            assert!((check.holds)(value), "the default of {} is refused", key.path);
        }
    }
}

#[test]
fn names_of_earlier_versions_are_read_and_said_once() {
    for key in keys() {
        let Some(old) = key.old_key else { continue };
        let value = match key.shape {
            Shape::Repeated | Shape::List => json!([first_of(key.read)]),
            _ => first_of(key.read),
        };
        let typed = |name: &str| toml::to_string(&json!({ key.section(): { name: value.clone() } })).unwrap();
        let (before, now) = (parse(&typed(old)).unwrap(), parse(&typed(key.name())).unwrap());
        let said: Vec<String> = before.renamed.iter().map(ToString::to_string).collect();
        assert_eq!(said, [format!("{}.{old} -> {}", key.section(), key.name())]);
        assert_eq!(tastemaker_run::Recipe { renamed: Vec::new(), ..before }, now);
    }
}

#[test]
fn values_of_earlier_versions_are_read_and_said() {
    for (key, (old, new)) in keys().filter_map(|key| Some((key, key.old_value?))) {
        let typed = |value: &str| toml::to_string(&json!({ key.section(): { key.name(): value } })).unwrap();
        let (before, now) = (parse(&typed(old)).unwrap(), parse(&typed(new)).unwrap());
        let said: Vec<String> = before.renamed.iter().map(ToString::to_string).collect();
        assert_eq!(said, [format!("{} = \"{old}\" -> \"{new}\"", key.path)]);
        assert_eq!(tastemaker_run::Recipe { renamed: Vec::new(), ..before }, now);
    }
    assert!(keys().any(|key| key.renamed_value("bank") == Some("precomputed")));
}

#[test]
fn a_key_under_both_names_is_an_error_that_says_which_is_old() {
    let error = parse("[validation]\nevery = 2\nvalidation_steps = 3\n").unwrap_err().to_string();
    let wanted = "\"every\" is the old name of \"validation_steps\", which is there too: remove one";
    assert!(error.contains(wanted) && error.contains('2'), "{error}");
}

fn first_of(read: fn(&str) -> Result<Value, String>) -> Value {
    ["lora", "adamw", "unet", "float32", "warn", "counted", "1"]
        .into_iter()
        .find_map(|text| read(text).ok())
        .unwrap()
}

/// Keys that always change something: weights, results, what is kept or what is shown.
const ALWAYS: &[&str] = &[
    "max_token_length",
    "output_dir",
    "pretrained_model_name_or_path",
    "pretrained_vae_model_name_or_path",
    "unet_init",
    "prediction_type",
    "rescale_betas_zero_snr",
    "train_data_dir",
    "dataset_config_name",
    "dataset_split_name",
    "format",
    "columns",
    "exclude",
    "max_train_samples",
    "save_every_n_epochs",
    "resolution",
    "label_noise_prob",
    "held_out_fraction",
    "enable_bucket",
    "no_hflip",
    "random_crop",
    "proportion_empty_prompts",
    "no_cache",
    "dataloader_num_workers",
    "adapter_type",
    "optimizer_type",
    "learning_rate",
    "lr_scheduler",
    "adam_weight_decay",
    "max_grad_norm",
    "max_train_steps",
    "train_batch_size",
    "gradient_accumulation_steps",
    "mixed_precision",
    "gradient_checkpointing",
    "ema_decay",
    "beta_convention",
    "shift",
    "auto_beta",
    "timesteps",
    "sigmas",
    "seed",
    "checkpoints_total_limit",
    "report_to",
];

/// Recipes in which keys change nothing, and those keys.
const IDLE: &[(&str, &[&str])] = &[
    (
        "[data]\nno_cache = true\ncache_to = \"there\"\ncache_dtype = \"float16\"",
        &["cache_to", "cache_dtype"],
    ),
    (
        "[data]\nbucket_reso_steps = 32\nmin_bucket_reso = 256\nmax_bucket_reso = 1024",
        &["bucket_reso_steps", "min_bucket_reso", "max_bucket_reso"],
    ),
    ("[data]\nno_hflip = true\naugment = \"joint\"", &["augment"]),
    (
        "[adapter]\nadapter_type = \"full\"\nrank = 4\nalpha = 8.0\ntarget_modules = [\"to_q\"]\nuse_dora = true\n\
         rank_pattern = { conv1 = 2 }\nalpha_pattern = { conv1 = 2.0 }\ntext_encoder_target_modules = [\"q_proj\"]\n\
         network_weights = \"there\"",
        &[
            "rank",
            "alpha",
            "target_modules",
            "rank_pattern",
            "alpha_pattern",
            "use_dora",
            "text_encoder_target_modules",
            "network_weights",
        ],
    ),
    ("[optimizer]\ntext_encoder_lr = 1e-6", &["text_encoder_lr"]),
    ("[data]\nheld_out_fraction = 0.0\nheld_out_choice = \"drawn\"", &["held_out_choice"]),
    ("[checkpoint]\nsave_every_n_epochs = 1\ncheckpointing_steps = 5", &["checkpointing_steps"]),
    ("[optimizer]\nlr_warmup_steps = 5", &["lr_warmup_steps"]),
    (
        "[optimizer]\nlr_scheduler = \"cosine\"\nlr_num_cycles = 2\nlr_power = 2.0",
        &["lr_num_cycles", "lr_power"],
    ),
    ("[train]\nmax_train_steps = 5\nnum_train_epochs = 2", &["num_train_epochs"]),
    (
        "[train]\nsigmas = [1.0, 0.9]\ntimestep_density = \"mode\"\nmode_scale = 0.8",
        &["timestep_density", "mode_scale"],
    ),
    (
        "[train]\ntimestep_density = \"mode\"\nlogit_mean = 0.5\nlogit_std = 2.0\nsigmoid_scale = 2.0\n\
         discrete_flow_shift = 3.0",
        &["logit_mean", "logit_std", "sigmoid_scale", "discrete_flow_shift"],
    ),
    ("[method]\nname = \"ddim-inpo\"\n[train]\nnoise_offset = 0.1", &["noise_offset"]),
    ("[adapter]\nadapter_type = \"full\"\n[train]\nbase_precision = \"int8\"", &["base_precision"]),
    ("[adapter]\nadapter_type = \"full\"\n[output]\noutput_name = \"mine\"", &["output_name"]),
    (
        "[optimizer]\noptimizer_type = \"adafactor\"\nadam_beta1 = 0.8\nadam_beta2 = 0.9\nadam_epsilon = 1e-6",
        &["adam_beta1", "adam_beta2", "adam_epsilon"],
    ),
    (
        "[method]\nname = \"sft\"\n[train]\nreference = \"precomputed\"\nreference_dir = \"there\"",
        &["reference", "reference_dir"],
    ),
    ("[method]\nname = \"sft\"\n[train]\nreference_ema_decay = 0.9", &["reference_ema_decay"]),
    (
        "[train]\nauto_beta_target_gf = 0.3\nauto_beta_decay = 0.9\nauto_beta_min = 10.0\nauto_beta_max = 100.0",
        &["auto_beta_target_gf", "auto_beta_decay", "auto_beta_min", "auto_beta_max"],
    ),
    ("[train]\nreference_dir = \"there\"", &["reference_dir"]),
    ("[validation]\nvalidation_prompts = [\"a fox\"]", &["validation_prompts"]),
    (
        "[validation]\nvalidation_steps = 5\nnum_validation_images = 2\nnum_inference_steps = 3\nguidance_scale = 2.0",
        &["num_validation_images", "num_inference_steps", "guidance_scale"],
    ),
    ("[validation]\nvalidation_pairs = 5", &["validation_pairs"]),
    (
        "[data]\nheld_out_fraction = 0.0\n[validation]\nvalidation_steps = 5\nvalidation_pairs = 5",
        &["validation_pairs", "validation_steps"],
    ),
    ("[logging]\non_alarm = \"keep-best\"", &["on_alarm"]),
    ("[checkpoint]\nsave_every_n_epochs = 2\ncheckpointing_steps = 5", &["checkpointing_steps"]),
    (
        "[data]\nheld_out_fraction = 0.0\n[validation]\nvalidation_steps = 5\nvalidation_prompts = [\"a fox\"]\n\
         [logging]\non_alarm = \"keep-best\"",
        &["on_alarm"],
    ),
    (
        "[logging]\nreport_to = \"none\"\nlogging_dir = \"there\"\ntracker_name = \"mine\"",
        &["logging_dir", "tracker_name"],
    ),
    ("[output]\noutput_layout = \"unet\"\nsave_precision = \"fp16\"", &["output_layout", "save_precision"]),
];

/// Recipes in which keys change nothing where they meet what stands beside, and those keys.
const IDLE_THERE: &[(&str, Surroundings, &str)] = &[
    ("[data]\ntime_ids = \"real\"", Surroundings { has_time_ids: false, ..ROOMY }, "time_ids"),
    ("[optimizer]\noffload_optimizer = true", Surroundings { on_host: true, ..ROOMY }, "offload_optimizer"),
    ("[optimizer]\nshard_optimizer = true", ROOMY, "shard_optimizer"),
    ("[optimizer]\nscale_lr = true", ROOMY, "scale_lr"),
    ("[model]\nmodel_config = \"there\"", ROOMY, "model_config"),
    ("[model]\nvariant = \"fp16\"", Surroundings { is_file: true, ..ROOMY }, "variant"),
    ("[model]\nrevision = \"main\"", Surroundings { is_fetched: false, ..ROOMY }, "revision"),
    ("[validation]\nvalidation_steps = 5", Surroundings { n_held_out: 0, ..ROOMY }, "validation_steps"),
];

/// Where as much as may be changes something.
const ROOMY: Surroundings =
    Surroundings { on_host: false, has_time_ids: true, is_file: false, is_fetched: true, n_held_out: 5 };

/// The shortest recipe with this laid over it, which may name its sections again.
fn laid_over(text: &str) -> tastemaker_run::Plan {
    let (shortest, more) = (parse(SHORTEST).unwrap(), parse(text).unwrap());
    resolve(shortest, more).unwrap()
}

fn idle(warnings: &[Warning]) -> BTreeSet<&'static str> {
    let key = |warning: &Warning| match warning {
        Warning::NoEffect { key, .. } => key.rsplit('.').next(),
        _ => None,
    };
    warnings.iter().filter_map(key).collect()
}

#[test]
fn every_setting_that_can_do_nothing_says_so_where_it_does() {
    let listed = IDLE.iter().flat_map(|(_, keys)| keys.iter().copied());
    let listed: BTreeSet<&str> = listed.chain(IDLE_THERE.iter().map(|(.., key)| *key)).collect();
    for key in keys() {
        let (does, can_be_idle) = (ALWAYS.contains(&key.name()), listed.contains(key.name()));
        assert!(does != can_be_idle, "{}: in which recipe does it do nothing?", key.path);
    }
    for (text, wanted) in IDLE {
        assert_eq!(idle(&laid_over(text).warnings), wanted.iter().copied().collect(), "{text}");
    }
    for (text, there, key) in IDLE_THERE {
        let plan = laid_over(text);
        assert_eq!(idle(&plan.warnings), BTreeSet::new(), "{text}");
        assert_eq!(idle(&plan.idle_in(there)), [*key].into(), "{text}");
    }
    assert_eq!(laid_over("").idle_in(&ROOMY), []);
}

#[test]
fn numbers_that_nobody_can_mean_are_refused_by_name() {
    for key in keys() {
        let is_count = (key.read)("1").is_ok_and(|value| value.is_u64()) && (key.read)("1.5").is_err();
        let unbounded =
            ["seed", "max_train_samples", "validation_pairs", "validation_steps", "lr_warmup_steps"];
        let others = ["checkpointing_steps", "checkpoints_total_limit", "lr_num_cycles"];
        if !is_count
            || key.shape != Shape::One
            || unbounded.contains(&key.name())
            || others.contains(&key.name())
        {
            continue;
        }
        let text =
            format!("[data]\nenable_bucket = true\n[{}]\n{} = {}", key.section(), key.name(), u32::MAX);
        let text = if key.section() == "data" { text.replacen("\n[data]", "", 1) } else { text };
        match resolve(parse(SHORTEST).unwrap(), parse(&text).unwrap()) {
            Err(RunError::Invalid(problems)) => {
                assert!(problems.iter().any(|problem| problem.key() == key.path), "{text}: {problems:?}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let text = "[train]\ntrain_batch_size = 65536\ngradient_accumulation_steps = 65536";
    let error = resolve(parse(SHORTEST).unwrap(), parse(text).unwrap()).unwrap_err().to_string();
    assert!(error.contains("gradient_accumulation_steps is 4294967296, wanted at most 1048576"), "{error}");
}
