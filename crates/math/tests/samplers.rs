//! What every entry of `SAMPLERS` owes, and all of them against diffusers (`golden/sampler/responses`).

use serde::Deserialize;
use std::collections::BTreeSet;
use tastemaker_math::ddim::{self, Sampling, Spacing};
use tastemaker_math::samplers::{Plan, SAMPLERS, Sampler, SamplerEntry, skipped_steps};
use tastemaker_math::schedule::{BetaSchedule, Forward, NoiseSchedule, Prediction, ScheduleError};

fn stable_diffusion(prediction: Prediction) -> NoiseSchedule {
    NoiseSchedule::new(BetaSchedule::ScaledLinear, 1000, 0.00085, 0.012, prediction).expect("a good schedule")
}

fn sampling(spacing: Spacing, n_steps: usize) -> Sampling {
    Sampling { spacing, n_steps, steps_offset: 1, set_alpha_to_one: false, ..Sampling::default() }
}

const SPACINGS: [Spacing; 3] = [Spacing::Leading, Spacing::Trailing, Spacing::Linspace];

/// Follows a plan on numbers: `network(step, timestep, x)`, `noise(step)`.
fn follow(
    plan: &Plan,
    start: f64,
    network: impl Fn(usize, f64, f64) -> f64,
    noise: impl Fn(usize) -> f64,
) -> f64 {
    let (mut x, mut before) = (start, [0.0; 2]);
    for (i, entry) in plan.steps.iter().enumerate() {
        let output = network(i, entry.timestep, x);
        let estimate = entry.estimate.map_or(0.0, |at| at.sample * x + at.prediction * output);
        let own = entry.step.sample * x + entry.step.prediction * output + entry.step.noise * noise(i);
        let looked_back = entry.previous[0] * before[0] + entry.previous[1] * before[1];
        (x, before) = (own + looked_back, [estimate, before[0]]);
    }
    x
}

#[derive(Deserialize)]
struct Response {
    sampler: String,
    prediction: Prediction,
    spacing: Spacing,
    #[serde(default)]
    use_karras_sigmas: bool,
    #[serde(default = "second")]
    solver_order: usize,
    n_steps: usize,
    timesteps: Vec<f64>,
    sigmas: Vec<f64>,
    weights: Vec<f64>,
}

fn second() -> usize {
    2
}

impl Response {
    fn sampling(&self) -> Sampling {
        let Self { use_karras_sigmas, solver_order, .. } = *self;
        Sampling { use_karras_sigmas, solver_order, ..sampling(self.spacing, self.n_steps) }
    }
}

fn responses() -> Vec<Response> {
    let path = format!("{}/../../golden/sampler/responses/responses.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).expect("a golden is JSON")
}

#[test]
fn timesteps_and_sigmas_equal_diffusers() {
    for response in responses() {
        let how = response.sampling();
        let Response { sampler, prediction, timesteps, sigmas, .. } = response;
        let (entry, schedule) = (sampler.parse::<Sampler>().expect("recorded"), stable_diffusion(prediction));
        let case = format!("{sampler} {prediction:?} {how:?}");
        for (i, &theirs) in timesteps.iter().enumerate() {
            let plan = entry.plan(&schedule, &how, i.div_ceil(entry.entry().n_calls)).expect("recorded");
            let (ours, theirs) = (plan.steps[0].timestep as f32, theirs as f32);
            // Karras' timesteps follow from sigmas that diffusers keeps in f32.
            let slack = if how.use_karras_sigmas { 1e-3 } else { 0.0 };
            assert!((ours - theirs).abs() <= slack, "{case}: timestep {i} is {ours}, wanted {theirs}");
            let Some(theirs) = sigmas.get(i) else { continue };
            let ours = plan.mixture.noise / plan.mixture.clean;
            assert!((ours - theirs).abs() <= 1e-6 * theirs, "{case}: sigma {i} is {ours}, wanted {theirs}");
        }
    }
}

#[test]
fn every_solver_weighs_noise_and_model_outputs_as_diffusers_does() {
    let mut seen = BTreeSet::new();
    for response in responses() {
        let how = response.sampling();
        let Response { sampler, prediction, weights, .. } = response;
        let entry = sampler.parse::<Sampler>().expect("recorded");
        let plan = entry.plan(&stable_diffusion(prediction), &how, 0).expect("a recorded plan");
        let largest = weights.iter().fold(0.0_f64, |most, weight| most.max(weight.abs()));
        let on = |axis: usize, place: usize| f64::from(u8::from(axis == place));
        let n_calls = plan.steps.len();
        for (axis, theirs) in weights.iter().enumerate() {
            let start = on(axis, 0) * plan.initial;
            let ours = follow(&plan, start, |i, _, _| on(axis, 1 + i), |i| on(axis, 1 + n_calls + i));
            assert!(
                (ours - theirs).abs() <= 1e-5 * largest,
                "{sampler} {prediction:?} {how:?}: axis {axis} weighs {ours}, wanted {theirs}"
            );
        }
        seen.insert(entry.name());
    }
    assert_eq!(seen, SAMPLERS.iter().map(|entry| entry.name).collect(), "every sampler is recorded");
}

#[test]
fn names_are_unique_and_parse_back_however_they_are_spelled() {
    let mut names = BTreeSet::new();
    for entry in SAMPLERS {
        let SamplerEntry { sampler, name, aliases, label, .. } = entry;
        assert!(
            name.chars()
                .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
        );
        assert!(std::ptr::eq(sampler.entry(), entry), "{name}");
        assert!(!entry.summary.is_empty() && !entry.source.is_empty(), "{name}");
        let underscored = name.replace('-', "_");
        for typed in aliases.iter().chain([name, label, &underscored.as_str()]) {
            assert_eq!(typed.parse::<Sampler>().as_ref(), Ok(sampler), "{typed}");
        }
        assert!(aliases.iter().chain([name]).all(|name| names.insert(*name)), "{name} is taken");
    }
    let error = "eular".parse::<Sampler>().expect_err("no sampler").to_string();
    assert_eq!(
        error,
        "found sampler \"eular\", wanted one of ddim, euler, euler-ancestral, heun, dpmpp-2m, dpmpp-2m-karras, lcm, tcd, \
         did you mean \"euler\"?"
    );
}

#[test]
fn plans_are_finite_and_go_down_in_time() {
    for entry in SAMPLERS {
        for prediction in [Prediction::Epsilon, Prediction::VPrediction] {
            for spacing in SPACINGS {
                for n_steps in [1, 2, 3, 4, 30, 100] {
                    let plan =
                        entry.sampler.plan(&stable_diffusion(prediction), &sampling(spacing, n_steps), 0);
                    if matches!(entry.sampler, Sampler::Lcm | Sampler::Tcd) && n_steps > 50 {
                        assert!(matches!(plan, Err(ScheduleError::Distilled { most: 50, .. })), "{plan:?}");
                        continue;
                    }
                    let plan = plan.expect("a plan");
                    assert_eq!(plan.steps.len(), entry.n_calls * (n_steps - 1) + 1);
                    let finite = plan.steps.iter().all(|one| {
                        let step = one.step;
                        [step.sample, step.prediction, step.noise]
                            .iter()
                            .chain(&one.previous)
                            .all(|w| w.is_finite())
                    });
                    assert!(finite && plan.initial.is_finite(), "{} {spacing:?} {n_steps}", entry.name);
                    assert!(plan.steps.windows(2).all(|two| two[0].timestep >= two[1].timestep));
                    let draws = plan.steps.iter().any(|one| one.step.noise != 0.0);
                    assert_eq!(draws, entry.is_stochastic && n_steps > 1, "{}", entry.name);
                }
            }
        }
    }
}

#[test]
fn a_network_that_knows_the_image_generates_it() {
    let (z, e) = (0.7, -1.3);
    for entry in SAMPLERS.iter().filter(|entry| !entry.is_stochastic) {
        for prediction in [Prediction::Epsilon, Prediction::VPrediction] {
            let schedule = stable_diffusion(prediction);
            for spacing in SPACINGS {
                let clean = Sampling { set_alpha_to_one: true, ..sampling(spacing, 20) };
                let plan = entry.sampler.plan(&schedule, &clean, 5).expect("a plan");
                let start = plan.mixture.clean * z + plan.mixture.noise * e;
                // The level at each step is that of the plan that starts there.
                let answer = |i: usize, _: f64, _: f64| {
                    let level: Forward = entry
                        .sampler
                        .plan(&schedule, &clean, 5 + i.div_ceil(entry.n_calls))
                        .expect("a plan")
                        .mixture;
                    let target = level.target(prediction);
                    target.clean * z + target.noise * e
                };
                let end = follow(&plan, start, answer, |_| 0.0);
                // DDIM's levels are a whole stride apart whatever the grid, so on other grids it lands beside it.
                let close = if entry.sampler == Sampler::Ddim { 0.2 } else { 1e-9 };
                assert!((end - z).abs() < close, "{} {prediction:?} {spacing:?}: {end}", entry.name);
            }
        }
    }
}

/// Relative error of the standard deviation that images of standard deviation 0.5 come out with, noise having gone through the exact network.
fn error_of(sampler: Sampler, n_steps: usize) -> f64 {
    const SPREAD: f64 = 0.5;
    let schedule = stable_diffusion(Prediction::Epsilon);
    let how = sampling(Spacing::Linspace, n_steps);
    let plan = sampler.plan(&schedule, &how, 0).expect("a plan");
    let n_calls = sampler.entry().n_calls;
    let level = |i: usize| sampler.plan(&schedule, &how, i.div_ceil(n_calls)).expect("a plan").mixture;
    let power = |at: Forward| (at.clean * SPREAD).powi(2) + at.noise.powi(2);
    let end =
        follow(&plan, power(plan.mixture).sqrt(), |i, _, x| level(i).noise * x / power(level(i)), |_| 0.0);
    (end / SPREAD - 1.0).abs()
}

#[test]
fn twice_the_steps_halve_the_error_of_first_order_and_quarter_that_of_second() {
    let gain = |sampler| error_of(sampler, 10) / error_of(sampler, 20);
    let (first, second) = (gain(Sampler::Euler), gain(Sampler::Dpmpp2mKarras));
    assert!((1.6..2.4).contains(&first) && (3.5..5.0).contains(&second), "{first} and {second}");
    assert!(error_of(Sampler::Dpmpp2mKarras, 20) < error_of(Sampler::Euler, 20) / 5.0);
    assert!(error_of(Sampler::Dpmpp2m, 20) < error_of(Sampler::Euler, 20));
    let heun = gain(Sampler::Heun);
    assert!(heun > 3.0 && error_of(Sampler::Heun, 10) < error_of(Sampler::Euler, 20), "{heun}");
}

#[test]
fn ddim_says_what_to_use_where_pure_noise_is_predicted_from_pure_noise() {
    let schedule = stable_diffusion(Prediction::Epsilon).rescale_zero_terminal_snr();
    for entry in SAMPLERS {
        let plan = entry.sampler.plan(&schedule, &sampling(Spacing::Trailing, 4), 0);
        match entry.sampler {
            Sampler::Ddim => assert_eq!(plan, Err(ScheduleError::NoSignal { timestep: 999 })),
            _ => assert!(
                follow(&plan.expect("a plan"), 1.0, |_, _, x| x, |_| 1.0).is_finite(),
                "{}",
                entry.name
            ),
        }
        assert!(entry.sampler.plan(&schedule, &sampling(Spacing::Leading, 4), 0).is_ok(), "{}", entry.name);
    }
}

#[test]
fn zero_terminal_snr_is_served_where_the_network_predicts_velocity() {
    let schedule = stable_diffusion(Prediction::VPrediction).rescale_zero_terminal_snr();
    for entry in SAMPLERS {
        let plan = entry.sampler.plan(&schedule, &sampling(Spacing::Trailing, 10), 0).expect("a plan");
        assert_eq!(plan.steps[0].timestep, 999.0, "{}", entry.name);
        let end = follow(&plan, plan.initial, |_, _, x| x, |_| 1.0);
        assert!(end.is_finite(), "{}: {end}", entry.name);
    }
}

#[test]
fn starting_from_an_image_takes_the_last_steps() {
    assert_eq!(skipped_steps(50, 0.8), Ok(10));
    assert_eq!(
        skipped_steps(50, 0.58),
        Ok(22),
        "50 x 0.58 is a little below 29 in floating point, as in Python"
    );
    assert_eq!(skipped_steps(4, 1.0), Ok(0));
    for strength in [0.0, 0.01, -0.5, 1.5, f64::NAN] {
        assert!(matches!(skipped_steps(50, strength), Err(ScheduleError::Strength { .. })), "{strength}");
    }
    let schedule = stable_diffusion(Prediction::Epsilon);
    for entry in SAMPLERS {
        let plan = |skipped| entry.sampler.plan(&schedule, &sampling(Spacing::Leading, 20), skipped);
        let (whole, part) = (plan(0).expect("a plan"), plan(12).expect("a plan"));
        let times = |plan: &Plan| plan.steps.iter().map(|one| one.timestep).collect::<Vec<_>>();
        assert_eq!(times(&whole)[12 * entry.n_calls..], times(&part), "{}", entry.name);
        assert_eq!(part.steps[0].previous, [0.0; 2], "{}: nothing lies before the first step", entry.name);
        assert!(plan(20).is_err(), "{}", entry.name);
    }
}

#[test]
fn eta_is_for_ddim_alone() {
    let schedule = stable_diffusion(Prediction::Epsilon);
    for entry in SAMPLERS {
        let noisy = Sampling { eta: 0.5, ..sampling(Spacing::Leading, 10) };
        let plan = entry.sampler.plan(&schedule, &noisy, 0);
        assert_eq!(plan.is_ok(), entry.sampler == Sampler::Ddim, "{}", entry.name);
    }
}

#[test]
fn every_step_of_the_inverse_plan_undoes_its_twin() {
    for prediction in [Prediction::Epsilon, Prediction::VPrediction] {
        for spacing in SPACINGS {
            let (schedule, how) = (stable_diffusion(prediction), sampling(spacing, 10));
            let forth = ddim::plan(&schedule, &how).expect("a plan");
            let back = ddim::inverse_plan(&schedule, &how).expect("a plan");
            for (there, here) in forth.iter().zip(back.iter().rev()) {
                assert_eq!(there.timestep, here.timestep);
                let (x, output) = (1.7, -0.4);
                let noisy = here.undo.sample * x + here.undo.prediction * output;
                let clean = there.step.sample * noisy + there.step.prediction * output;
                assert!((clean - x).abs() < 1e-12, "{prediction:?} {spacing:?}: {clean}");
                let alike = (here.guess.prediction - here.undo.prediction).abs() < 1e-12;
                assert_eq!(alike, prediction == Prediction::Epsilon || here.undo.prediction == 0.0);
            }
        }
    }
}
