//! Every method there is, from a model on disk to a result that loads.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

use std::path::Path;
use std::sync::Arc;

use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use tastemaker_data::split::Split;
use tastemaker_data::{self as data, DataError, InMemoryPairs, PairId, PairSource, Ranking, Side};
use tastemaker_math::flow::Shift;
use tastemaker_math::objectives::{OBJECTIVES, Objective, objective};
use tastemaker_models::adapters::LoraFile;
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::Model;
use tastemaker_run::{Adapter, Event, Plan, Recipe, Step, resolve};
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{TINY_RESOLUTION, tiny_model};
use tastemaker_train::session::{Options, sources, train};
use tch::Device;

const N_STEPS: usize = 12;

/// Warm images against cold ones, with scores; or each of them alone, warm ones liked.
struct Images {
    pairs: InMemoryPairs,
    are_single: bool,
}

impl Images {
    fn new(are_single: bool) -> Self {
        let image = |i: u32, tint: [u8; 3]| {
            let pixel = |x, y| Rgb(tint.map(|c| c.wrapping_add((8 * i + 3 * x + 5 * y) as u8 / 4)));
            Arc::new(RgbImage::from_fn(TINY_RESOLUTION, TINY_RESOLUTION, pixel))
        };
        let images = (0..4).flat_map(|i| [image(i, [180, 110, 40]), image(i, [40, 110, 180])]).collect();
        let ranking = |i| Ranking {
            winner: if are_single { i } else { 2 * i },
            loser: if are_single { i } else { 2 * i + 1 },
            caption: ["a fox", "rain"][i % 2].into(),
        };
        let n = if are_single { 8 } else { 4 };
        Self { pairs: InMemoryPairs::new(images, (0..n).map(ranking).collect()).unwrap(), are_single }
    }
}

impl PairSource for Images {
    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn image(&self, position: usize, side: Side) -> Result<RgbImage, DataError> {
        self.pairs.image(position, side)
    }

    fn caption(&self, position: usize) -> &str {
        self.pairs.caption(position)
    }

    fn id(&self, position: usize) -> PairId {
        self.pairs.id(position)
    }

    fn soft_label(&self, _: usize) -> Option<f64> {
        Some(0.7)
    }

    fn label(&self, position: usize) -> Option<data::Label> {
        let label = if position.is_multiple_of(2) { data::Label::Liked } else { data::Label::Disliked };
        self.are_single.then_some(label)
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.pairs.fingerprint()
    }
}

/// Every image in every step, at one timestep.
fn plan(method: &str, folder: &Path, output: &str) -> Plan {
    plan_at("timesteps = [400]", method, folder, output)
}

/// Every image in every step, at the levels that this line of `[train]` says.
fn plan_at(levels: &str, method: &str, folder: &Path, output: &str) -> Plan {
    let text = format!(
        "output_dir = {output:?}\n[model]\npretrained_model_name_or_path = {model:?}\n\
         [data]\ntrain_data_dir = \"in memory\"\nresolution = {TINY_RESOLUTION}\nno_cache = true\nno_hflip = true\n\
         [method]\nname = {method:?}\n[adapter]\nkind = \"lora\"\n[optimizer]\nlearning_rate = 2e-3\n\
         [train]\nmax_train_steps = {N_STEPS}\ntrain_batch_size = 4\n{levels}\nseed = 5\n",
        output = folder.join(output),
        model = folder.join("model"),
    );
    resolve(Recipe::parse(Path::new("test.toml"), &text).unwrap(), Recipe::default()).unwrap()
}

/// The steps of a run by this method, whose result was read back.
fn run(method: &str, are_single: bool, folder: &Path) -> Vec<Step> {
    let source = Images::new(are_single);
    let split = Split { train: (0..source.len()).collect(), held_out: vec![] };
    let mut steps = Vec::new();
    let output = if are_single { format!("{method}-single") } else { method.to_owned() };
    let plan = plan(method, folder, &output);
    let trained = train(&plan, &source, &split, Options::default(), &mut |event| {
        if let Event::Step(step) = event {
            steps.push(step.clone());
        }
        Ok(())
    });
    assert_eq!(trained.unwrap().steps, N_STEPS as u64, "{method}");

    let lora = LoraFile::read(plan.output_dir.join("pytorch_lora_weights.safetensors")).unwrap().unet;
    let ups: Vec<_> = lora.tensors.iter().filter(|(name, _)| name.ends_with(".lora_B.weight")).collect();
    assert!(!ups.is_empty(), "{method}");
    for (name, up) in ups {
        let (largest, is_finite) = (up.abs().max().double_value(&[]), up.isfinite().all().int64_value(&[]));
        assert!(largest > 0.0 && is_finite == 1, "{method}: {name} was not trained: {largest}");
    }
    let model = Model::open(folder.join("model")).unwrap();
    model.unet(Role::Frozen, DType::F32, Device::Cpu, Some(lora.into_spec())).unwrap();
    steps
}

fn check(objective: &Objective, steps: &[Step]) {
    let name = objective.name();
    for step in steps {
        let numbers = [step.loss, step.grad_norm, step.winner_error, step.logit_mean.unwrap_or_default()];
        assert!(numbers.iter().all(|number| number.is_finite()), "{name}: {step:?}");
    }
    let first = &steps[0];
    // Later ones may be 0: a hinge that every pair is beyond asks for nothing.
    assert!(first.grad_norm > 0.0, "{name}: {first:?}");
    if objective.needs().reference {
        assert_eq!(first.logit_mean, Some(0.0), "{name}: the policy starts as the reference");
        assert_eq!(Some(first.winner_error), first.ref_winner, "{name}");
        assert_eq!(first.loser_error, first.ref_loser, "{name}");
    }
}

#[test]
fn every_method_trains_on_pairs() {
    let folder = tempfile::tempdir().unwrap();
    tiny_model(&folder.path().join("model"));
    for entry in OBJECTIVES {
        let objective = objective(entry.name, &Value::Null).unwrap();
        check(&objective, &run(entry.name, false, folder.path()));
    }
}

#[test]
fn every_method_of_single_images_trains_on_them() {
    let folder = tempfile::tempdir().unwrap();
    tiny_model(&folder.path().join("model"));
    let objectives = OBJECTIVES.iter().map(|entry| objective(entry.name, &Value::Null).unwrap());
    let unpaired: Vec<Objective> = objectives.filter(Objective::is_unpaired).collect();
    assert!(!unpaired.is_empty());
    for objective in unpaired {
        check(&objective, &run(objective.name(), true, folder.path()));
    }
}

/// Turns the model of a folder into one of a flow.
fn make_flow(folder: &Path) {
    let config = json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0});
    std::fs::write(folder.join("model/scheduler/scheduler_config.json"), config.to_string()).unwrap();
}

#[test]
fn every_method_trains_a_flow_model_whatever_its_error_is_of() {
    let folder = tempfile::tempdir().unwrap();
    tiny_model(&folder.path().join("model"));
    make_flow(folder.path());
    let (source, split) = (Images::new(false), Split { train: vec![0, 1, 2, 3], held_out: vec![] });
    let plain = OBJECTIVES.iter().map(|entry| (entry.name, json!({})));
    let ours = [
        ("mapo", json!({"scored_error": "noise"})),
        ("mapo", json!({"form": "paper", "scored_error": "noise"})),
        ("ddim-inpo", json!({"steps": 3, "eta": 0.0, "model": "reference"})),
        ("mapo", json!({"anchor_weight": 1.0})),
        ("linear-dpo", json!({"beta": 500.0, "anchor_weight": 1.0, "sft_weight": 0.1})),
    ];
    for (i, (method, settings)) in plain.chain(ours).enumerate() {
        let mut plan = plan_at("sigmas = [1.0, 0.75, 0.3]", method, folder.path(), &format!("flow-{i}"));
        plan.train.max_train_steps = 4;
        let objective = objective(method, &settings).unwrap();
        plan.method.settings = objective.settings().clone();
        let mut steps = Vec::new();
        let trained = train(&plan, &source, &split, Options::default(), &mut |event| {
            if let Event::Step(step) = event {
                steps.push(step.clone());
            }
            Ok(())
        });
        assert_eq!(trained.unwrap().steps, 4, "{method} {settings}");
        let (first, last) = (&steps[0], &steps[3]);
        let [loss, winner] = [first.loss - last.loss, first.winner_error - last.winner_error];
        assert!(loss != 0.0 && loss.is_finite() && winner != 0.0, "{method} {settings}: {steps:?}");
        if objective.needs().reference {
            assert!(
                first.ref_norm == first.prediction_norm && last.ref_norm != last.prediction_norm,
                "{method}"
            );
            let reference = first.ref_winner.unwrap();
            assert!((first.winner_error / reference - 1.0).abs() < 1e-6, "{method}: they start alike");
        }
    }
    // Levels of the released inversion are timesteps of a table.
    let mut plan = plan_at("", "ddim-inpo", folder.path(), "release");
    plan.method.settings["grid"] = json!("release");
    let refused = train(&plan, &source, &split, Options::default(), &mut |_| Ok(())).unwrap_err().to_string();
    assert!(refused.contains("method.grid") && refused.contains("exact"), "{refused}");
}

#[test]
fn a_shift_of_the_users_is_trained_at_and_is_the_results() {
    let folder = tempfile::tempdir().unwrap();
    tiny_model(&folder.path().join("model"));
    let (source, split) = (Images::new(false), Split { train: vec![0, 1, 2, 3], held_out: vec![] });
    let mut plan = plan_at("", "sft", folder.path(), "shifted");
    (plan.model.shift, plan.adapter, plan.train.max_train_steps) = (Some(6.0), Adapter::Full {}, 1);
    let run = |plan: &Plan| train(plan, &source, &split, Options::default(), &mut |_| Ok(()));
    let refused = run(&plan).map(drop).unwrap_err();
    let refused = std::iter::successors(Some(&refused as &dyn std::error::Error), |error| error.source());
    let refused = refused.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    assert!(refused.contains("moves the noise levels of flow models"), "{refused}");
    for config in [json!({"shift": 3.0}), json!({"use_dynamic_shifting": true, "shift": 3.0})] {
        let mut config = config;
        config["_class_name"] = json!("FlowMatchEulerDiscreteScheduler");
        std::fs::write(folder.path().join("model/scheduler/scheduler_config.json"), config.to_string())
            .unwrap();
        let asked = Model::from_sources(&sources(&plan.model)).unwrap().schedule().unwrap().schedule;
        assert_eq!(asked.as_flow().unwrap().shift, Shift::Static(6.0));
        // The noisiest but one of a table of 1000 levels.
        assert!((asked.level(998).sigma() - 6.0 * 0.999 / (1.0 + 5.0 * 0.999)).abs() < 1e-12);
        let result = run(&plan).unwrap().results[0].clone();
        assert_eq!(Model::open(result).unwrap().schedule().unwrap().schedule, asked, "its copy says so");
        std::fs::remove_dir_all(&plan.output_dir).unwrap();
    }
}

#[test]
fn a_flow_model_trains_by_density_or_at_given_noise_levels_and_no_other_model_does() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    tiny_model(&model);
    let (source, options) = (Images::new(false), Options::default);
    let split = Split { train: (0..source.len()).collect(), held_out: vec![] };
    let by_density = "timestep_density = \"logit_normal\"\nlogit_mean = -0.5";
    for (levels, key) in [(by_density, "train.timestep_density"), ("sigmas = [0.9, 0.3]", "train.sigmas")] {
        let plan = plan_at(levels, "diffusion-dpo", folder.path(), "table");
        let refused = train(&plan, &source, &split, options(), &mut |_| Ok(())).unwrap_err().to_string();
        assert!(refused.contains(key) && refused.contains("a model that is no flow"), "{refused}");
    }
    make_flow(folder.path());
    for (i, levels) in [by_density, "sigmas = [0.9, 0.3]", ""].into_iter().enumerate() {
        let plan = plan_at(levels, "diffusion-dpo", folder.path(), &format!("flow-{i}"));
        let mut steps = Vec::new();
        let trained = train(&plan, &source, &split, options(), &mut |event| {
            if let Event::Step(step) = event {
                steps.push(step.clone());
            }
            Ok(())
        });
        assert_eq!(trained.unwrap().steps, N_STEPS as u64, "{levels}");
        check(&objective("diffusion-dpo", &Value::Null).unwrap(), &steps);
        let middle = steps
            .iter()
            .any(|step| step.margin_by_quarter.is_some_and(|by| by[0].is_some() || by[2].is_some()));
        assert_eq!(middle, !levels.starts_with("sigmas"), "levels 0.9 and 0.3 lie in two quarters of four");
    }
}
