//! What changes with a run's own state: a reference that follows the policy, and a beta that follows margins.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod common;

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::{engine, options, pairs};
use image::{Rgb, RgbImage};
use serde_json::json;
use tastemaker_data::split::Split;
use tastemaker_data::{InMemoryPairs, PairSource, Ranking};
use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_models::nn::Trainable;
use tastemaker_models::pipeline::Model;
use tastemaker_run::{Event, Plan, Recipe, RunDir, Step, resolve};
use tastemaker_testkit_torch::{TINY_RESOLUTION, tiny_model};
use tastemaker_train::TrainError;
use tastemaker_train::checkpoint::Resume;
use tastemaker_train::data::{Order, feed};
use tastemaker_train::distributed::GradientExchange;
use tastemaker_train::optimizer::Exchange;
use tastemaker_train::reference::Reference;
use tastemaker_train::session::{Options, train};
use tastemaker_train::state::State;
use tastemaker_train::train_loop::TrainLoop;
use tch::{Kind, Tensor};

const N_STEPS: u64 = 6;

/// A folder with a tiny flow model.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    tiny_model(&model);
    let config = json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0});
    fs::write(model.join("scheduler/scheduler_config.json"), config.to_string()).unwrap();
    folder
}

fn source() -> InMemoryPairs {
    let image = |i: u32, tint: [u8; 3]| {
        let pixel = |x, y| Rgb(tint.map(|c| c.wrapping_add((8 * i + 3 * x + 5 * y) as u8 / 4)));
        Arc::new(RgbImage::from_fn(TINY_RESOLUTION, TINY_RESOLUTION, pixel))
    };
    let images = (0..4).flat_map(|i| [image(i, [180, 110, 40]), image(i, [40, 110, 180])]).collect();
    let ranking =
        |i: usize| Ranking { winner: 2 * i, loser: 2 * i + 1, caption: ["a fox", "rain"][i % 2].into() };
    InMemoryPairs::new(images, (0..4).map(ranking).collect()).unwrap()
}

/// `more` is TOML that comes after `[train]`.
fn plan(folder: &Path, output: &str, method: &str, more: &str) -> Plan {
    let text = format!(
        "output_dir = {output:?}\n[model]\npretrained_model_name_or_path = {model:?}\n\
         [data]\ntrain_data_dir = \"in memory\"\nresolution = {TINY_RESOLUTION}\nno_cache = true\n\
         [method]\n{method}\n[optimizer]\nlearning_rate = 1e-3\n\
         [train]\nmax_train_steps = {N_STEPS}\ntrain_batch_size = 2\nseed = 5\n{more}",
        output = folder.join(output),
        model = folder.join("model"),
    );
    resolve(Recipe::parse(Path::new("test.toml"), &text).unwrap(), Recipe::default()).unwrap()
}

/// Steps and result of a run, which goes on from its last checkpoint if it `resumes`, and is stopped after `stop` steps.
fn run(plan: &Plan, resumes: bool, stop: Option<u64>) -> (Vec<Step>, Option<Vec<u8>>) {
    let source = source();
    let split = Split { train: (0..source.len()).collect(), held_out: vec![] };
    let (mut steps, done) = (Vec::new(), Cell::new(0));
    let asks = || stop.filter(|stop| done.get() == *stop).map(|_| 2);
    let options = Options { resume: resumes.then_some(&Resume::Latest), stop: &asks, ..Options::default() };
    let ended = train(plan, &source, &split, options, &mut |event| {
        if let Event::Step(step) = event {
            done.set(step.step + 1);
            steps.push(Step { pairs_per_second: 0.0, ..step.clone() });
        }
        Ok(())
    });
    match ended {
        Ok(trained) => {
            let result = &trained.results[0];
            let whole = result.join("unet/diffusion_pytorch_model.safetensors");
            (steps, Some(fs::read(if result.is_dir() { &whole } else { result }).unwrap()))
        }
        Err(TrainError::Stopped { .. }) => (steps, None),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_follows_the_run_is_resumed_bit_for_bit() {
    let folder = folder();
    let linear = "name = \"linear-dpo\"\nbeta = 500.0";
    for (i, (method, more)) in [
        (linear, "reference_ema_decay = 0.9"),
        (linear, "reference_ema_decay = 0.9\n[adapter]\nadapter_type = \"full\""),
        ("name = \"diffusion-dpo\"", "auto_beta = true\nauto_beta_decay = 0.9\nauto_beta_min = 1.0"),
        (
            "name = \"ddim-inpo\"\nsteps = 3\nmodel = \"reference\"",
            "auto_beta = true\nauto_beta_min = 1.0\nreference_ema_decay = 0.5",
        ),
        (
            linear,
            "reference_ema_decay = 0.9\n[adapter]\ntext_encoder_target_modules = [\"q_proj\", \"v_proj\"]",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let whole = plan(folder.path(), &format!("whole-{i}"), method, more);
        let (wanted, result) = run(&whole, false, None);
        let cut = plan(folder.path(), &format!("cut-{i}"), method, more);
        let (mut found, none) = run(&cut, false, Some(3));
        assert!(none.is_none() && found.len() == 3);
        let (rest, resumed) = run(&cut, true, None);
        found.extend(rest);
        assert!(
            found == wanted,
            "{method} {more}: {:?}",
            found.iter().zip(&wanted).find(|(one, other)| one != other)
        );
        assert!(result == resumed, "{method} {more}");
        assert_eq!(wanted[0].logit_mean, Some(0.0), "policy and reference agree before the first step");
        assert!(wanted[5].logit_mean != Some(0.0));
    }
}

#[test]
fn a_reference_that_follows_is_nearer_to_the_policy_and_needs_no_copy_of_it() {
    let folder = folder();
    let drift = |more: &str, output: &str| {
        let (steps, _) =
            run(&plan(folder.path(), output, "name = \"linear-dpo\"\nbeta = 500.0", more), false, None);
        let last = &steps[5];
        (last.winner_error - last.ref_winner.unwrap()).abs()
    };
    for kind in ["lora", "full"] {
        let adapter = format!("[adapter]\nadapter_type = \"{kind}\"");
        let [still, follows, near] =
            ["", "reference_ema_decay = 0.9\n", "reference_ema_decay = 0.1\n"].map(|decay| {
                drift(
                    &format!("{decay}{adapter}"),
                    &format!("{kind}-{}", decay.len() + decay.contains("0.1") as usize),
                )
            });
        assert!(near < follows && follows < still, "{kind}: {near} {follows} {still}");
    }
}

#[test]
fn beta_follows_the_margins_of_the_steps_before() {
    let folder = folder();
    for typical in [0.2_f64, 0.4] {
        let more = format!(
            "auto_beta = true\nauto_beta_decay = 0.5\nauto_beta_min = 1e-3\nauto_beta_max = 1e9\nauto_beta_target_gf = {typical}"
        );
        let plan =
            plan(folder.path(), &format!("auto-{typical}"), "name = \"diffusion-dpo\"\nbeta = 300.0", &more);
        // One pair in a step: the mean of margins' absolute values is that of its margin.
        let plan =
            Plan { train: tastemaker_run::TrainPlan { train_batch_size: 1, ..plan.train.clone() }, ..plan };
        let (steps, _) = run(&plan, false, None);
        let (mut scale, mut n_adapted) = (None, 0);
        for step in &steps {
            let wanted = scale.map_or(300.0, |scale: f64| 2.0 * ((1.0 - typical) / typical).ln() / scale);
            let beta = step.beta.unwrap();
            assert!((beta / wanted - 1.0).abs() < 1e-9, "step {}: {beta}, not {wanted}", step.step);
            let margin = step.margin.unwrap();
            assert!(
                (step.logit_mean.unwrap() - 0.5 * beta * margin).abs() < 1e-9,
                "the step is taken with it"
            );
            if margin != 0.0 {
                scale = Some(scale.map_or(margin.abs(), |scale| 0.5 * scale + 0.5 * margin.abs()));
                n_adapted += 1;
            }
        }
        assert!(n_adapted >= 4, "{steps:?}");
    }
    let (still, _) = run(&plan(folder.path(), "still", "name = \"diffusion-dpo\"", ""), false, None);
    assert!(still.iter().all(|step| step.beta.is_none()));
}

#[test]
fn a_run_by_a_beta_of_sums_is_that_of_the_same_beta_of_means_and_its_plan_says_means() {
    let folder = folder();
    let vae = Model::open(folder.path().join("model")).unwrap().vae_config().unwrap();
    let n = vae.latent_channels * (i64::from(TINY_RESOLUTION) / vae.downsampling()).pow(2);
    let (mut results, mut starts) = (Vec::new(), Vec::new());
    for (output, beta, convention) in [("means", 512.0, "mean"), ("sums", 512.0 / n as f64, "sum")] {
        let (method, more) = (
            format!("name = \"diffusion-dpo\"\nbeta = {beta}"),
            format!("beta_convention = \"{convention}\""),
        );
        let plan = plan(folder.path(), output, &method, &more);
        results.push(run(&plan, false, None));
        let (dir, plan) = RunDir::open(&plan.output_dir).unwrap();
        assert_eq!(
            (&plan.method.settings["beta"], plan.train.beta_convention.name()),
            (&json!(512.0), "mean")
        );
        let events = tastemaker_run::read_events(dir.events_path()).unwrap().events;
        starts.extend(events.into_iter().filter_map(|event| match event {
            Event::Start(start) => Some(start.betas),
            _ => None,
        }));
    }
    assert_eq!(results[0].0, results[1].0);
    assert!(results[0].1 == results[1].1, "the results differ");
    assert_eq!((starts[0]["no-half"], starts[0]["sum"]), (256.0, 512.0 / n as f64));
    assert_eq!(starts[0], starts[1]);
}

/// The velocity field `w x`, which remembers the latents it was asked about.
struct Linear {
    w: Tensor,
    asked: RefCell<Vec<Tensor>>,
}

impl Denoiser for Linear {
    fn predict(&self, x: &Tensor, _: &Tensor, _: &Conditioning) -> Tensor {
        self.asked.borrow_mut().push(x.copy());
        x * &self.w
    }
}

fn number(tensor: &Tensor) -> f64 {
    tensor.to_kind(Kind::Double).double_value(&[])
}

#[test]
fn the_reference_takes_in_the_policy_before_every_optimizer_step() {
    let (pairs, schedule) = (pairs(), NoiseSchedule::flow(1000, 3.0).unwrap());
    let plan = common::plan("linear-dpo", 5, "train_batch_size = 6\nreference_ema_decay = 0.75\n");
    let objective = plan.method.objective().unwrap();
    let policy = Linear { w: Tensor::from(0.5f32).set_requires_grad(true), asked: RefCell::default() };
    let trainable = [Trainable { name: "w".into(), tensor: policy.w.shallow_clone() }];
    let mut state = State::new(&trainable, 0, vec![true], &plan);
    let exchange = Exchange::of(state.reference.as_ref().unwrap(), &trainable);
    let reference = Reference::Following { policy: &policy, exchange };
    let order = Order::new(&plan, vec![0, 1, 2, 3, 4, 5], vec![], true);
    let task = TrainLoop {
        plan: &plan,
        engine: engine(&policy, &reference, &objective, &schedule),
        trainable: &trainable,
        order: &order,
        held_out: &[],
        precomputed: None,
        exchange: GradientExchange::default(),
    };
    let mut weights = Vec::new();
    let mut batches = feed(&pairs, order.clone(), options(true));
    task.run(&mut state, &mut batches, &mut |event: &Event| {
        let Event::Step(step) = event else { return Ok(()) };
        // It is asked as the reference, then as the policy, about the same latents.
        let asked = policy.asked.borrow();
        let two: Vec<_> = asked.iter().rev().take(2).collect();
        assert!(two[0].equal(two[1]));
        let length = number(&two[0].square().mean(Kind::Float)).sqrt();
        weights.push([step.prediction_norm.unwrap() / length, step.ref_norm.unwrap() / length]);
        Ok(())
    })
    .unwrap();
    assert!((weights[0][0] - 0.5).abs() < 1e-5 && (weights[0][1] - 0.5).abs() < 1e-5);
    for two in weights.windows(2) {
        let [[policy, reference], [next, follows]] = [two[0], two[1]];
        assert!((policy - next).abs() > 3e-5, "it is trained: {weights:?}");
        assert!((follows - (0.75 * reference + 0.25 * policy)).abs() < 1e-5, "{weights:?}");
    }
    assert!((number(&policy.w) - weights[4][0]).abs() > 3e-5, "the policy is as it was after the last step");
}
