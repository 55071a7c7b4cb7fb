//! Whole ways from noise to image.

use super::{assert_near, golden, schedule};
use serde::Deserialize;
use tastemaker_math::ddim::{Sampling, Spacing};
use tastemaker_math::samplers::{Plan, SAMPLERS, Sampler, SamplerEntry, skipped_steps_on};
use tastemaker_math::schedule::{BetaSchedule, NoiseSchedule, Prediction, ScheduleError};

pub fn stable_diffusion() -> NoiseSchedule {
    NoiseSchedule::new(BetaSchedule::ScaledLinear, 1000, 0.00085, 0.012, Prediction::Epsilon)
        .expect("a good schedule")
}

fn steps(n_steps: usize) -> Sampling {
    Sampling { n_steps, ..Sampling::default() }
}

/// Those that are defined on a flow.
fn flow_samplers() -> impl Iterator<Item = &'static SamplerEntry> {
    SAMPLERS.iter().filter(|entry| !matches!(entry.sampler, Sampler::Lcm | Sampler::Tcd))
}

#[test]
fn samplers_of_models_distilled_on_a_table_are_refused_on_a_flow() {
    for sampler in [Sampler::Lcm, Sampler::Tcd] {
        let refused = sampler.plan(&schedule("sd3"), &steps(4), 0).expect_err("no plan").to_string();
        assert!(
            refused.ends_with("is not defined for flow_prediction: use euler, ddim or dpmpp-2m"),
            "{refused}"
        );
    }
}

/// Follows a plan on numbers: `network(timestep, x)`, `noise(step)`.
fn follow(
    plan: &Plan,
    start: f64,
    mut network: impl FnMut(f64, f64) -> f64,
    noise: impl Fn(usize) -> f64,
) -> f64 {
    let (mut x, mut before) = (start, [0.0; 2]);
    for (i, entry) in plan.steps.iter().enumerate() {
        let output = network(entry.timestep, x);
        let estimate = entry.estimate.map_or(0.0, |at| at.sample * x + at.prediction * output);
        let own = entry.step.sample * x + entry.step.prediction * output + entry.step.noise * noise(i);
        x = own + entry.previous[0] * before[0] + entry.previous[1] * before[1];
        before = [estimate, before[0]];
    }
    x
}

#[derive(Deserialize)]
struct Response {
    sampler: String,
    solver_order: usize,
    n_steps: usize,
    #[serde(default = "turbo")]
    family: String,
    sigmas: Vec<f64>,
    weights: Vec<f64>,
}

fn turbo() -> String {
    "z-image-turbo".to_owned()
}

#[test]
fn every_solver_weighs_noise_and_model_outputs_as_diffusers_does_on_a_flow() {
    for response in golden::<Response>("responses") {
        let Response { sampler, solver_order, n_steps, family, sigmas, weights } = response;
        let flow = schedule(&family);
        let entry: Sampler = sampler.parse().expect("recorded");
        let how = Sampling { solver_order, ..steps(n_steps) };
        let plan = entry.plan(&flow, &how, 0).expect("recorded");
        let case = format!("{sampler} of order {solver_order} in {n_steps} steps");
        let timesteps: Vec<f64> = plan.steps.iter().map(|one| one.timestep / 1000.0).collect();
        let n_calls = timesteps.len();
        assert_near(&timesteps, &sigmas[..n_calls], 4e-7, &case);
        let on = |axis: usize, place: usize| f64::from(u8::from(axis == place));
        let largest = weights.iter().fold(0.0_f64, |most, weight| most.max(weight.abs()));
        for (axis, theirs) in weights.iter().enumerate() {
            let mut asked = 0;
            let network = |_: f64, _: f64| {
                asked += 1;
                on(axis, asked)
            };
            let start = on(axis, 0) * plan.initial;
            let ours = follow(&plan, start, network, |i| on(axis, 1 + n_calls + i));
            assert!(
                (ours - theirs).abs() <= 1e-5 * largest,
                "{case}: axis {axis} weighs {ours}, wanted {theirs}"
            );
        }
    }
}

#[test]
fn a_network_that_knows_the_image_generates_it_from_noise_and_from_an_image() {
    let (z, e) = (0.7, -1.3);
    for name in ["z-image-turbo", "z-image", "sd3"] {
        let flow = schedule(name);
        for entry in SAMPLERS.iter().filter(|entry| !entry.is_stochastic) {
            for skipped in [0, 5] {
                let plan = entry.sampler.plan(&flow, &steps(20), skipped).expect("a plan");
                assert_eq!(plan.steps.len(), entry.n_calls * (19 - skipped) + 1);
                assert_eq!(plan.initial, 1.0, "noise comes as it is");
                let sigma = plan.steps[0].timestep / 1000.0;
                assert!((plan.mixture.noise - sigma).abs() < 1e-12);
                let start = plan.mixture.clean * z + plan.mixture.noise * e;
                let end = follow(&plan, start, |_, _| e - z, |_| 0.0);
                assert!((end - z).abs() < 1e-9, "{} {name}: {end}", entry.name);
            }
        }
    }
}

/// Relative error of the standard deviation that images of standard deviation 0.5 come out with, noise having gone through the exact network.
fn error_of(sampler: Sampler, n_steps: usize) -> f64 {
    const SPREAD: f64 = 0.5;
    let flow = schedule("z-image-turbo");
    let plan = sampler.plan(&flow, &steps(n_steps), 0).expect("a plan");
    let velocity = |timestep: f64, x: f64| {
        let s = timestep / 1000.0;
        let power = ((1.0 - s) * SPREAD).powi(2) + s * s;
        (s - (1.0 - s) * SPREAD * SPREAD) * x / power
    };
    let at = plan.mixture;
    let start = ((at.clean * SPREAD).powi(2) + at.noise.powi(2)).sqrt();
    (follow(&plan, start, velocity, |_| 0.0) / SPREAD - 1.0).abs()
}

#[test]
fn the_second_order_sampler_gains_more_by_twice_the_steps() {
    let gain = |sampler| error_of(sampler, 10) / error_of(sampler, 20);
    let (first, second) = (gain(Sampler::Euler), gain(Sampler::Dpmpp2m));
    assert!((1.6..2.4).contains(&first) && second > 3.0, "{first} and {second}");
    assert!(error_of(Sampler::Dpmpp2m, 20) < error_of(Sampler::Euler, 20) / 4.0);
    let heun = gain(Sampler::Heun);
    assert!(heun > 3.0 && error_of(Sampler::Heun, 20) < error_of(Sampler::Euler, 20) / 2.0, "{heun}");
    assert_eq!(error_of(Sampler::Euler, 20), error_of(Sampler::Ddim, 20), "DDIM without noise is Euler's");
}

#[test]
fn a_dynamic_shift_takes_the_size_of_the_image() {
    let flow = schedule("flux-2-klein");
    for entry in flow_samplers() {
        assert_eq!(entry.sampler.plan(&flow, &steps(4), 0), Err(ScheduleError::Tokens), "{}", entry.name);
        let how = Sampling { image_tokens: Some(4096), ..steps(4) };
        assert!(entry.sampler.plan(&flow, &how, 0).is_ok(), "{}", entry.name);
    }
}

#[test]
fn spacings_of_tables_change_nothing_on_a_flow() {
    let flow = schedule("sd3");
    for entry in flow_samplers() {
        let plan = |spacing| {
            let how = Sampling { spacing, steps_offset: 1, set_alpha_to_one: false, ..steps(8) };
            entry.sampler.plan(&flow, &how, 2).expect("a plan")
        };
        assert_eq!(plan(Spacing::Leading), plan(Spacing::Linspace), "{}", entry.name);
        assert_eq!(plan(Spacing::Leading), plan(Spacing::Trailing), "{}", entry.name);
    }
}

#[test]
fn starting_from_an_image_skips_what_the_flow_pipelines_skip() {
    let flow = schedule("sd3");
    for (n_steps, strength, wanted) in
        [(28, 0.6, 11), (28, 1.0, 0), (28, 0.01, 27), (50, 0.58, 21), (4, 0.5, 2)]
    {
        assert_eq!(skipped_steps_on(&flow, n_steps, strength), Ok(wanted), "{n_steps} steps, {strength}");
    }
    for strength in [0.0, -0.5, 1.5, f64::NAN] {
        let refused = skipped_steps_on(&flow, 28, strength);
        assert!(matches!(refused, Err(ScheduleError::Strength { .. })), "{strength}");
    }
    // On a table of betas it is the other rule, rounded the other way.
    assert_eq!(skipped_steps_on(&stable_diffusion(), 28, 0.6), Ok(12));
}
