//! The recipes in the repository: each resolves, and what it makes is what its source states.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::Bench;
use tastemaker_math::objectives::OBJECTIVES;
use tastemaker_models::original::{Layout, Preset};
use tastemaker_models::pipeline::Model;
use tastemaker_run::{Adapter, Augment, OptimizerKind, Overrides, Plan, Recipe, resolve};
use tastemaker_train::estimate;

fn recipes() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let mut recipes: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    recipes.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    recipes.sort();
    assert!(!recipes.is_empty());
    recipes
}

fn plan(name: &str) -> Plan {
    let path = recipes().into_iter().find(|path| path.file_stem().unwrap() == name).unwrap();
    resolve(Recipe::read(path).unwrap(), Overrides::default()).unwrap()
}

#[test]
fn every_recipe_resolves_without_a_warning() {
    for path in recipes() {
        let plan = resolve(Recipe::read(&path).unwrap(), Overrides::default());
        let plan = plan.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(plan.warnings, [], "{}", path.display());
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(name.contains(&plan.method.name), "{name} is not named after {}", plan.method.name);
        assert_eq!(plan.output_dir, Path::new("runs").join(name));
    }
}

#[test]
fn every_recipe_dry_runs_where_neither_model_nor_data_are() {
    let bench = Bench::empty();
    for path in recipes() {
        let said = bench.succeed(&["train", path.to_str().unwrap(), "--dry-run"]);
        assert!(said.stdout.starts_with("model "), "{}", said.stdout);
        // Whoever runs it reads in what it is another run than the published one; some have no source to differ from.
        let differs = Recipe::read(&path).unwrap().differs;
        let has_no_source = std::fs::read_to_string(&path).unwrap().contains("# Source: none of the papers");
        assert_eq!(differs.is_none(), has_no_source, "{}", path.display());
        if let Some(differs) = &differs {
            let words = format!("note: {} differs from its source: {differs}\n", path.display());
            assert!(said.stderr.contains(&words), "{}", said.stderr);
        }
        let n_notes = 2 + usize::from(differs.is_some());
        assert_eq!(said.stderr.matches("note: ").count(), n_notes, "{}", said.stderr);
        assert!(!bench.path("runs").exists(), "a dry run wrote something");
    }
}

#[test]
fn every_recipe_is_in_the_table() {
    let table = include_str!("../../../recipes/README.md");
    for path in recipes() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(table.contains(&format!("({name})")), "{name} is not in recipes/README.md");
    }
}

#[test]
fn every_preference_method_has_a_recipe() {
    let recipes = recipes();
    let has =
        |name: &str| recipes.iter().any(|path| path.file_stem().unwrap().to_str().unwrap().ends_with(name));
    // The control has none: it is a step on the way to another method.
    let missing: Vec<_> =
        OBJECTIVES.iter().map(|entry| entry.name).filter(|&name| name != "sft" && !has(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Side of the images, for recipes of families that predict a flow.
fn of_a_flow(name: &str) -> Option<u32> {
    match name {
        "sd35-diffusion-dpo-lora" => Some(512),
        "sd35-diffusion-dpo" | "zimage-diffusion-dpo-lora-24gb" => Some(1024),
        "zimage-diffusion-dpo-lora-16gb" => Some(768),
        "zimage-diffusion-dpo-lora-12gb" => Some(512),
        _ => None,
    }
}

#[test]
fn recipes_train_as_the_published_runs_of_their_family_did() {
    for path in recipes() {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let plan = plan(name);
        // No published run held captions out or validated on them.
        assert_eq!((plan.data.held_out_fraction, plan.validation.validation_steps), (0.0, 0), "{name}");
        if let Some(size) = of_a_flow(name) {
            let is_lora = plan.adapter != Adapter::Full {};
            let augment = if is_lora { Augment::Joint } else { Augment::Independent };
            let drops = if is_lora { 0.0 } else { 0.2 };
            let data = &plan.data;
            assert_eq!(
                (data.resolution, data.augment, data.proportion_empty_prompts),
                (size, augment, drops),
                "{name}"
            );
            assert_eq!(plan.optimizer.optimizer_type, OptimizerKind::AdamW8bit, "{name}");
            // The trainers whose runs ended well clip, and no rate above theirs is recommended.
            assert_eq!(plan.optimizer.max_grad_norm, 1.0, "{name}");
            assert!(plan.effective_learning_rate() <= 5e-5, "{name}");
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains("\n# Time: not measured.\n") && text.contains("\n# Source: "), "{name}");
            continue;
        }
        let is_xl = name.starts_with("sdxl");
        // Hugging Face's scripts and MaPO's flip and crop both images of an SDXL pair alike, and drop no captions.
        let is_lora = plan.adapter != Adapter::Full {};
        let is_mapo = plan.method.name == "mapo";
        let augment = if is_mapo || (is_xl && is_lora) { Augment::Joint } else { Augment::Independent };
        assert_eq!(plan.data.augment, augment, "{name}");
        let drops = !(is_mapo || is_lora || name.contains("turbo"));
        assert_eq!(plan.data.proportion_empty_prompts, if drops { 0.2 } else { 0.0 }, "{name}");
        let optimizer = match plan.method.name.as_str() {
            "mapo" | "kto" => OptimizerKind::AdamW8bit,
            _ if is_lora => OptimizerKind::AdamW8bit,
            _ if is_xl => OptimizerKind::Adafactor,
            _ => OptimizerKind::AdamW,
        };
        assert_eq!(plan.optimizer.optimizer_type, optimizer, "{name}");
        let resolution = match () {
            () if name.contains("turbo") || name.starts_with("sd15") => 512,
            () if name.starts_with("sd21") => 768,
            () => 1024,
        };
        assert_eq!(plan.data.resolution, resolution, "{name}");
    }
}

#[test]
fn pairs_and_rates_in_effect_are_the_published_ones() {
    for (name, pairs, rate) in [
        ("sd15-diffusion-dpo", 2048, 2.048e-5),
        ("sdxl-diffusion-dpo", 2048, 2.048e-6),
        ("sdxl-mapo", 2048, 1e-7),
        ("sd15-ddim-inpo", 1024, 1.024e-5),
        ("sdxl-ddim-inpo", 1024, 1.024e-5),
        ("sdxl-turbo-diffusion-dpo", 2048, 2.048e-5),
        ("sd15-diffusion-dpo-lora", 32, 1e-5),
        ("sdxl-diffusion-dpo-lora", 16, 1e-5),
        ("sdxl-mapo-lora", 16, 1e-5),
        ("sdxl-mapo-style", 128, 1e-7),
        ("sd15-sft", 2048, 2.048e-6),
        ("sd15-diffusion-dpo-safeguard", 2048, 2.048e-5),
        ("sd15-ipo", 32, 1e-5),
        ("sd15-hinge", 32, 1e-5),
        ("sd15-cdpo", 32, 1e-5),
        ("sd15-dmpo", 2048, 2.048e-5),
        ("sd15-smpo", 1024, 1.024e-5),
        ("sd15-kto", 2048, 1e-7),
        ("sd35-diffusion-dpo", 128, 1e-6),
        ("sd35-diffusion-dpo-lora", 32, 1e-5),
        ("zimage-diffusion-dpo-lora-12gb", 32, 1e-5),
    ] {
        let plan = plan(name);
        assert_eq!(plan.effective_batch(), pairs, "{name}");
        assert!((plan.effective_learning_rate() / rate - 1.0).abs() < 1e-12, "{name}");
    }
}

/// What published folders have that single files come without: text encoders of language models.
fn beside_the_preset(layout: Layout) -> Vec<(String, Value)> {
    let sd3 = Preset::published(Layout::Sd3).configs;
    let more = match layout {
        Layout::Sd3 => {
            let mut index = sd3["model_index"].clone();
            index["text_encoder_3"] = json!(["transformers", "T5EncoderModel"]);
            index["tokenizer_3"] = json!(["transformers", "T5TokenizerFast"]);
            let t5 = json!({
                "d_model": 4096, "d_kv": 64, "num_heads": 64, "d_ff": 10240, "num_layers": 24, "vocab_size": 32128,
                "feed_forward_proj": "gated-gelu", "model_type": "t5",
            });
            vec![("model_index", index), ("text_encoder_3", t5)]
        }
        Layout::ZImage => {
            let index = json!({
                "_class_name": "ZImagePipeline", "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
                "text_encoder": ["transformers", "Qwen3Model"], "tokenizer": ["transformers", "Qwen2Tokenizer"],
                "transformer": ["diffusers", "ZImageTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"],
            });
            let qwen = json!({
                "architectures": ["Qwen3ForCausalLM"], "vocab_size": 151_936, "hidden_size": 2560, "intermediate_size": 9728,
                "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
                "rms_norm_eps": 1e-6, "rope_theta": 1_000_000, "hidden_act": "silu", "attention_bias": false,
                "tie_word_embeddings": true, "model_type": "qwen3",
            });
            let mut vae = sd3["vae"].clone();
            vae["scaling_factor"] = json!(0.3611);
            vae["shift_factor"] = json!(0.1159);
            let scheduler = json!({
                "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 6.0,
                "use_dynamic_shifting": false,
            });
            vec![("model_index", index), ("text_encoder", qwen), ("vae", vae), ("scheduler", scheduler)]
        }
        _ => Vec::new(),
    };
    more.into_iter().map(|(name, config)| (name.to_owned(), config)).collect()
}

/// The configurations of the model that a recipe is for, as published, without weights: what a run takes is counted from them.
fn configurations(bench: &Bench, name: &str) -> Model {
    let layout = match name {
        _ if name.starts_with("sdxl") => Layout::Sdxl,
        _ if name.starts_with("sd21") => Layout::Sd2,
        _ if name.starts_with("sd35") => Layout::Sd3,
        _ if name.starts_with("zimage") => Layout::ZImage,
        _ => Layout::Sd1,
    };
    let mut configs = Preset::published(layout).configs;
    configs.extend(beside_the_preset(layout));
    for (component, config) in configs {
        let path = match component.as_str() {
            "model_index" => "model_index.json".to_owned(),
            "scheduler" => "scheduler/scheduler_config.json".to_owned(),
            _ => format!("{component}/config.json"),
        };
        bench.write(&format!("{name}/{path}"), config.to_string());
    }
    Model::open(bench.path(name)).unwrap()
}

#[test]
fn every_recipe_states_the_memory_it_takes_by_the_dry_run_and_fits_the_card_it_names() {
    let bench = Bench::empty();
    let mut wrong = Vec::new();
    for path in recipes() {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let model = configurations(&bench, name);
        let estimate = estimate::memory(&plan(name), &model, false, None).unwrap();
        let taken = estimate.total() as f64 / f64::from(1 << 30);
        let text = std::fs::read_to_string(&path).unwrap();
        let stated = text.lines().find_map(|line| {
            let (memory, card) =
                line.strip_prefix("# Device memory: ")?.split_once(" GiB by --dry-run; a GPU with ")?;
            Some((memory.parse::<f64>().ok()?, card.split_once(" GB")?.0.parse::<f64>().ok()?))
        });
        let Some((memory, card)) = stated else {
            wrong.push(format!("{name} does not state {taken:.1}"));
            continue;
        };
        // A device's context and fragmentation are not in the estimate, and a card of 24 GB offers 22.
        let fits = 1.1 * memory + 0.5 < card * 0.93;
        if (memory - taken).abs() > 0.06 || !fits {
            wrong.push(format!("{name} states {memory} GiB on {card} GB, it takes {taken:.1}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
