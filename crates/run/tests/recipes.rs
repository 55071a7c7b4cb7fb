//! From TOML and flags to a plan: what is filled in, what is refused, in which words.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its recipe should stop")]

use std::collections::BTreeMap;
use std::error::Error;

use proptest::prelude::*;
use tastemaker_math::Prediction;
use tastemaker_run::{
    Adapter, AdapterKind, AdapterSection, DataSection, LoraPlan, LrScheduler, MethodSection, ModelSection,
    OptimizerSection, OutputLayout, OutputPlan, Overrides, Plan, Recipe, RunError, TrainSection, Warning,
    resolve,
};
use tastemaker_store::StoreError;
use tastemaker_store::dtype::DType;

mod support;

use support::{SHORTEST, parse, plan_of, shortest_with};

fn lora(rank: u32, alpha: f64, targets: &[&str]) -> Adapter {
    Adapter::Lora(LoraPlan {
        rank,
        alpha,
        target_modules: targets.iter().map(|&name| name.to_owned()).collect(),
        rank_pattern: BTreeMap::new(),
        alpha_pattern: BTreeMap::new(),
        use_dora: false,
        text_encoder_target_modules: Vec::new(),
        network_weights: None,
    })
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

mod parsing {
    use super::*;

    #[test]
    fn every_key_is_understood() {
        let recipe = parse(
            r#"
            output_dir = "out"
            [model]
            pretrained_model_name_or_path = "m"
            pretrained_vae_model_name_or_path = "org/vae"
            unet_init = "org/unet"
            model_config = "described"
            variant = "fp16"
            revision = "refs/pr/1"
            prediction_type = "v_prediction"
            [output]
            output_layout = ["unet", "diffusers", "unet"]
            save_precision = "bfloat16"
            [data]
            train_data_dir = "d"
            resolution = 64
            held_out_fraction = 0.2
            no_hflip = true
            proportion_empty_prompts = 0.1
            [method]
            name = "ddim-inpo"
            beta = 2000
            grid = "release"
            [adapter]
            adapter_type = "lora"
            rank = 4
            alpha = 8
            target_modules = ["to_q"]
            [optimizer]
            learning_rate = 1e-4
            scale_lr = true
            adam_beta1 = 0.8
            adam_beta2 = 0.99
            adam_weight_decay = 0
            adam_epsilon = 1e-6
            max_grad_norm = 2
            lr_scheduler = "cosine_with_restarts"
            lr_warmup_steps = 5
            lr_num_cycles = 3
            [train]
            max_train_steps = 50
            train_batch_size = 2
            gradient_accumulation_steps = 4
            mixed_precision = "bf16"
            seed = 7
            [validation]
            validation_steps = 10
            validation_pairs = 16
            "#,
        )
        .unwrap();
        let plan = resolve(recipe, Overrides::default()).unwrap();
        assert_eq!(plan.model.prediction_type, Some(Prediction::VPrediction));
        assert_eq!(plan.model.unet_init.as_deref(), Some("org/unet"));
        let idle: Vec<String> = plan.warnings.iter().map(ToString::to_string).collect();
        assert!(
            idle.len() == 2 && idle.iter().all(|text| text.contains("a LoRA is always written")),
            "{idle:?}"
        );
        assert_eq!(plan.method.settings["beta"], 2000.0);
        assert_eq!(plan.method.settings["grid"], "release");
        assert_eq!(plan.adapter, lora(4, 8.0, &["to_q"]));
        assert_eq!(plan.optimizer.lr_scheduler, LrScheduler::CosineWithRestarts);
        assert_eq!(plan.train.mixed_precision, DType::Bf16);
        assert_eq!((plan.effective_batch(), plan.train.seed, plan.validation.validation_steps), (8, 7, 10));
    }

    #[test]
    fn an_unknown_key_is_refused_with_line_and_nearest_match() {
        let text = "[optimizer]\nlearning_rate = 1e-5\nlr_warmup_step = 5\n";
        let message = refusal(text);
        assert!(
            message.starts_with(
                "dpo.toml, line 3: unknown key \"lr_warmup_step\", did you mean \"lr_warmup_steps\"?; known are optimizer_type, shard_optimizer, offload_optimizer, "
            ),
            "{message}"
        );
    }

    #[test]
    fn a_full_fine_tune_is_written_in_one_layout_or_in_several() {
        let output = |text: &str| {
            let text = shortest_with(&format!("[adapter]\nadapter_type = \"full\"\n[output]\n{text}\n"));
            resolve(parse(&text).unwrap(), Overrides::default()).map(|plan| plan.output)
        };
        assert_eq!(output("").unwrap(), OutputPlan::default());
        let both = OutputPlan {
            output_layout: vec![OutputLayout::Diffusers, OutputLayout::Original],
            save_precision: DType::F16,
            output_name: None,
        };
        assert_eq!(
            output("output_layout = [\"original\", \"diffusers\", \"original\"]\nsave_precision = \"fp16\"")
                .unwrap(),
            both
        );
        assert_eq!(output("output_layout = \"unet\"").unwrap().output_layout, [OutputLayout::Unet]);
        assert!(
            output("output_layout = []").unwrap_err().to_string().contains("output.output_layout is nothing")
        );
        for layout in ["\"diffuser\"", "[\"unet\", \"diffuser\"]"] {
            let message = refusal(&format!("[output]\noutput_layout = {layout}\n"));
            assert!(message.contains("did you mean \"diffusers\"?"), "{message}");
        }
    }

    #[test]
    fn an_unknown_section_is_refused_too() {
        let message = refusal("output_dir = \"o\"\n\n[optimiser]\nlearning_rate = 1e-5\n");
        assert!(
            message.contains("line 3: unknown key \"optimiser\", did you mean \"optimizer\"?"),
            "{message}"
        );
    }

    #[test]
    fn an_unknown_word_is_refused_with_the_nearest() {
        let message = refusal("[train]\nmixed_precision = \"fp8\"\n");
        assert_eq!(
            message,
            "dpo.toml, line 2: unknown value \"fp8\", did you mean \"fp32\"?; known are fp32, fp16, bf16"
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_with_its_line() {
        for (line, complaint) in [
            ("max_train_steps = \"many\"", "invalid type: string \"many\""),
            ("max_train_steps = 1.5", "invalid type: floating point"),
            ("train_batch_size = -1", "-1"),
            ("seed = ", ""),
            ("seed = 1\nseed = 2", "duplicate key"),
        ] {
            let message = refusal(&format!("\n[train]\n{line}\n"));
            assert!(message.contains(", line ") && message.contains(complaint), "{message}");
            assert!(!message.contains("line 1:") && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn missing_and_non_utf8_files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dpo.toml");
        assert!(matches!(Recipe::read(&path), Err(RunError::Store(StoreError::Missing { .. }))));
        std::fs::write(&path, b"output_dir = \"caf\xe9\"").unwrap();
        assert!(matches!(Recipe::read(&path), Err(RunError::Store(StoreError::NotUtf8 { offset: 17, .. }))));
        std::fs::write(&path, SHORTEST).unwrap();
        assert_eq!(Recipe::read(&path).unwrap(), parse(SHORTEST).unwrap());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[\\PC\\n\\[\\]=\"`]{0,60}") {
            let _ = parse(&text);
        }
    }
}

mod resolving {
    use super::*;

    #[test]
    fn what_is_not_typed_has_the_documented_default() {
        let plan = plan_of(SHORTEST);
        assert_eq!(plan.adapter, lora(8, 8.0, &["to_k", "to_q", "to_v", "to_out.0"]));
        // Nothing is held out where nothing is validated.
        assert_eq!((plan.data.resolution, plan.data.held_out_fraction), (512, 0.0));
        let validated = plan_of(&format!("{SHORTEST}\n[validation]\nvalidation_steps = 5"));
        assert_eq!(validated.data.held_out_fraction, 0.05);
        assert_eq!((plan.optimizer.learning_rate, plan.optimizer.adam_weight_decay), (1e-5, 0.01));
        assert_eq!(plan.train.mixed_precision, DType::F32);
        assert_eq!(plan.method.settings["beta"], 5000.0);
        assert_eq!(plan.n_pairs, None);
    }

    #[test]
    fn a_tilde_in_a_place_is_the_home_folder() {
        let text = SHORTEST.replace("[method]", "[validation]\nvalidation_prompts = [\"~/x\"]\n[method]");
        let recipe = parse(&text).unwrap();
        let typed = Recipe {
            output_dir: Some("~/out".into()),
            data: DataSection {
                train_data_dir: Some("~/pairs".into()),
                exclude: Some("a/~/b".into()),
                ..recipe.data.clone()
            },
            model: ModelSection {
                pretrained_model_name_or_path: Some("~user/m".into()),
                ..recipe.model.clone()
            },
            ..recipe
        };
        let at_home = typed.clone().at_home(std::path::Path::new("/h"));
        assert_eq!(at_home.output_dir.as_deref(), Some(std::path::Path::new("/h/out")));
        assert_eq!(at_home.data.train_data_dir.as_deref(), Some("/h/pairs"));
        let unmoved = (at_home.data.exclude, at_home.model, at_home.validation, at_home.method);
        assert_eq!(unmoved, (typed.data.exclude, typed.model, typed.validation, typed.method));
    }

    #[test]
    fn an_empty_recipe_is_told_everything_it_lacks_at_once() {
        let error = resolve(Recipe::default(), Overrides::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "missing --method (for example diffusion-dpo); missing --output_dir (for example aligned); \
             missing --pretrained_model_name_or_path (for example stable-diffusion-v1-5/stable-diffusion-v1-5); \
             missing --train_data_dir (for example pairs); missing --max_train_steps (for example 1000)"
        );
    }

    #[test]
    fn every_impossible_value_is_named() {
        let recipe = parse(
            r#"
            output_dir = "o"
            [model]
            pretrained_model_name_or_path = "m"
            [data]
            train_data_dir = "d"
            resolution = 500
            held_out_fraction = 1
            proportion_empty_prompts = -0.1
            [method]
            name = "mapo"
            [adapter]
            rank = 0
            alpha = nan
            target_modules = []
            [optimizer]
            learning_rate = 0
            adam_beta1 = 1
            adam_beta2 = -1
            adam_weight_decay = -1
            adam_epsilon = 0
            max_grad_norm = inf
            lr_num_cycles = 0
            [train]
            max_train_steps = 0
            train_batch_size = 0
            gradient_accumulation_steps = 0
            [validation]
            validation_pairs = 0
            "#,
        )
        .unwrap();
        let RunError::Invalid(problems) = resolve(recipe, Overrides::default()).unwrap_err() else {
            panic!()
        };
        let keys: Vec<&str> =
            problems.iter().map(|problem| problem.key().split('.').next_back().unwrap()).collect();
        assert_eq!(
            keys,
            [
                "resolution",
                "held_out_fraction",
                "proportion_empty_prompts",
                "rank",
                "alpha",
                "target_modules",
                "learning_rate",
                "lr_num_cycles",
                "adam_beta1",
                "adam_beta2",
                "adam_weight_decay",
                "adam_epsilon",
                "max_grad_norm",
                "max_train_steps",
                "train_batch_size",
                "gradient_accumulation_steps",
                "validation_pairs",
            ]
        );
    }

    #[test]
    fn an_unknown_method_or_setting_is_refused_with_the_nearest() {
        for (text, complaint) in [
            (SHORTEST.replace("diffusion-dpo", "difusion-dpo"), "did you mean \"diffusion-dpo\"?"),
            (SHORTEST.replace("[train]", "betta = 1\n[train]"), "did you mean \"beta\"?"),
            (SHORTEST.replace("[train]", "beta = -1\n[train]"), "\"beta\" must be a positive number"),
        ] {
            let error = resolve(parse(&text).unwrap(), Overrides::default()).unwrap_err();
            assert!(matches!(error, RunError::Method(_)), "{error:?}");
            assert!(error.source().unwrap().to_string().contains(complaint), "{error:?}");
        }
    }

    #[test]
    fn flags_override_the_recipe() {
        let recipe = parse(&SHORTEST.replace("[train]", "beta = 2000\n[train]\nseed = 3")).unwrap();
        let mut flags = Overrides {
            optimizer: OptimizerSection { learning_rate: Some(2e-4), ..Default::default() },
            train: TrainSection { seed: Some(9), ..Default::default() },
            ..Default::default()
        };
        flags.method.settings.insert("beta".into(), 500.into());
        let plan = resolve(recipe, flags).unwrap();
        assert_eq!(
            (plan.optimizer.learning_rate, plan.train.seed, plan.train.max_train_steps),
            (2e-4, 9, 100)
        );
        assert_eq!(plan.method.settings["beta"], 500.0);
    }

    #[test]
    fn another_method_does_not_inherit_the_recipes_settings() {
        let recipe = parse(&SHORTEST.replace("[train]", "beta = 2000\n[train]")).unwrap();
        let method = MethodSection { name: Some("mapo".into()), ..Default::default() };
        let plan = resolve(recipe, Overrides { method, ..Default::default() }).unwrap();
        assert_eq!(plan.method.name, "mapo");
        assert_ne!(plan.method.settings["beta"], 2000.0);
        assert_eq!(
            plan.warnings[0].to_string(),
            "the recipe's settings are for diffusion-dpo and were skipped, because the method is mapo"
        );
    }

    #[test]
    fn beta_outside_its_range_is_a_warning_and_not_changed() {
        for (name, beta, warns) in [
            ("diffusion-dpo", 1.0, true),
            ("diffusion-dpo", 5000.0, false),
            ("diffusion-dpo", 50000.0, true),
            ("ddim-inpo", 1.0, true),
            ("mapo", 0.1, false),
        ] {
            let text = SHORTEST.replace("\"diffusion-dpo\"", &format!("\"{name}\"\nbeta = {beta:.1}"));
            let plan = plan_of(&text);
            assert_eq!(plan.method.settings["beta"], beta);
            assert_eq!(plan.warnings.iter().any(|w| matches!(w, Warning::Method(_))), warns, "{name} {beta}");
        }
    }

    #[test]
    fn keys_without_effect_are_said_to_have_none() {
        let full =
            AdapterSection { adapter_type: Some(AdapterKind::Full), rank: Some(4), ..Default::default() };
        let optimizer =
            OptimizerSection { lr_warmup_steps: Some(5), lr_num_cycles: Some(2), ..Default::default() };
        let flags = Overrides { adapter: full, optimizer, ..Default::default() };
        let plan = resolve(parse(SHORTEST).unwrap(), flags).unwrap();
        let keys: Vec<&str> = plan
            .warnings
            .iter()
            .map(|warning| match warning {
                Warning::NoEffect { key, .. } => *key,
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(keys, ["adapter.rank", "optimizer.lr_warmup_steps", "optimizer.lr_num_cycles"]);
        assert_eq!(plan.adapter, Adapter::Full {});
    }

    #[test]
    fn ranks_of_single_layers_are_in_the_plan_and_in_its_table() {
        let text = shortest_with(
            "[adapter]\nrank_pattern = { conv1 = 2, \"^conv_in\" = 3 }\nalpha_pattern = { conv1 = 0.5 }\n",
        );
        let plan = plan_of(&text);
        let Adapter::Lora(lora) = &plan.adapter else { panic!("{:?}", plan.adapter) };
        assert_eq!(lora.rank_pattern, [("conv1".to_owned(), 2), ("^conv_in".to_owned(), 3)].into());
        assert_eq!(lora.alpha_pattern, [("conv1".to_owned(), 0.5)].into());
        assert_eq!(serde_json::from_str::<Plan>(&serde_json::to_string(&plan).unwrap()).unwrap(), plan);
        let table = plan.to_string();
        assert!(table.contains("rank_pattern                   ^conv_in 3, conv1 2\n"), "{table}");
        for (line, found) in [
            ("rank_pattern = { conv1 = 0 }", "`conv1` with 0"),
            ("rank_pattern = { \"conv.*\" = 2 }", "`conv.*` with 2"),
            ("alpha_pattern = { conv1 = -1.0 }", "`conv1` with -1"),
        ] {
            let recipe = parse(&shortest_with(&format!("[adapter]\n{line}\n"))).unwrap();
            let error = resolve(recipe, Overrides::default()).unwrap_err().to_string();
            assert!(error.contains(found) && error.contains("not expressions"), "{error}");
        }
    }

    #[test]
    fn a_lora_to_start_from_says_what_it_is_when_it_is_read() {
        let plan = plan_of(&shortest_with("[adapter]\nnetwork_weights = \"there.safetensors\"\nrank = 4\n"));
        let asked = AdapterSection { rank: Some(4), ..Default::default() };
        assert_eq!(plan.adapter, Adapter::Continued { network_weights: "there.safetensors".into(), asked });
        let table = plan.to_string();
        assert!(table.contains("network_weights                there.safetensors\n"), "{table}");
        assert!(!table.contains("target_modules"), "{table}");
        assert_eq!(serde_json::from_str::<Plan>(&serde_json::to_string(&plan).unwrap()).unwrap(), plan);
    }

    #[test]
    fn warm_up_as_long_as_training_is_a_warning() {
        let text = shortest_with("[optimizer]\nlr_scheduler = \"linear\"\nlr_warmup_steps = 100\n");
        assert_eq!(plan_of(&text).warnings, [Warning::WarmupNeverEnds { warmup: 100, training: 100 }]);
    }

    #[test]
    fn a_recipe_without_an_end_or_with_endless_levels_is_refused_in_a_few_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        let refused = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Recipe::read(&path).unwrap_err().to_string()
        };
        assert!(refused(&"#".repeat((1 << 20) + 1)).ends_with("wanted at most 1048576 bytes"));
        for text in [format!("a = {}", "[".repeat(500_000)), format!("a{} = 1", ".a".repeat(500_000))] {
            let said = refused(&text);
            assert!(said.contains("recur") && said.len() < 2000, "{} characters", said.len());
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_is_not_utf8_is_refused() {
        use std::os::unix::ffi::OsStrExt;
        let output_dir = Some(std::ffi::OsStr::from_bytes(b"caf\xe9").into());
        let error =
            resolve(parse(SHORTEST).unwrap(), Overrides { output_dir, ..Default::default() }).unwrap_err();
        assert!(error.to_string().ends_with("wanted a path in UTF-8"), "{error}");
    }
}
