//! Schedules and DDIM steps: against diffusers, against closed forms, and there and back.

use proptest::prelude::*;
use serde::Deserialize;
use tastemaker_math::ddim::{
    InversionStep, Sampling, Spacing, inversion_exact, inversion_release, plan, previous_alpha_bar, step,
    timesteps,
};
use tastemaker_math::schedule::{BetaSchedule, Forward, NoiseSchedule, Prediction, ScheduleError};

fn golden<T: for<'de> Deserialize<'de>>(name: &str) -> Vec<T> {
    let path = format!("{}/../../golden/schedules/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let entries: Vec<T> = serde_json::from_str(&text).expect("a golden is JSON");
    assert!(!entries.is_empty());
    entries
}

fn stable_diffusion(prediction: Prediction) -> NoiseSchedule {
    NoiseSchedule::new(BetaSchedule::ScaledLinear, 1000, 0.00085, 0.012, prediction).expect("a good schedule")
}

#[derive(Deserialize)]
struct AlphaBars {
    beta_schedule: BetaSchedule,
    beta_start: f64,
    beta_end: f64,
    num_train_timesteps: usize,
    rescale_betas_zero_snr: bool,
    alpha_bars: Vec<f64>,
}

#[test]
fn alpha_bars_equal_diffusers() {
    for recorded in golden::<AlphaBars>("alpha_bars") {
        let AlphaBars { beta_schedule: kind, beta_start, beta_end, num_train_timesteps: n, .. } = recorded;
        let plain =
            NoiseSchedule::new(kind, n, beta_start, beta_end, Prediction::VPrediction).expect("recorded");
        let schedule =
            if recorded.rescale_betas_zero_snr { plain.rescale_zero_terminal_snr() } else { plain };
        assert_eq!(schedule.len(), recorded.alpha_bars.len());
        for (t, &theirs) in recorded.alpha_bars.iter().enumerate() {
            let ours = schedule.alpha_bar(t);
            assert!((ours - theirs).abs() <= 1e-6 + 3e-6 * theirs, "{kind:?} at {t}: {ours} or {theirs}");
        }
    }
}

#[derive(Deserialize)]
struct Timesteps {
    n_train: usize,
    spacing: Spacing,
    steps_offset: usize,
    timesteps: Vec<usize>,
}

#[test]
fn sampling_timesteps_equal_diffusers() {
    for recorded in golden::<Timesteps>("timesteps") {
        let n_steps = recorded.timesteps.len();
        let ours = timesteps(recorded.spacing, recorded.n_train, n_steps, recorded.steps_offset);
        assert_eq!(ours, recorded.timesteps, "{:?}, {n_steps} of {}", recorded.spacing, recorded.n_train);
    }
}

#[derive(Deserialize)]
struct RecordedStep {
    prediction: Prediction,
    eta: f64,
    alpha_bar_from: f64,
    alpha_bar_to: f64,
    coefficients: [f64; 3],
}

#[test]
fn step_coefficients_equal_diffusers_in_both_directions() {
    let recorded = ["sampling_steps", "inversion_steps"].into_iter().flat_map(golden::<RecordedStep>);
    for RecordedStep { prediction, eta, alpha_bar_from, alpha_bar_to, coefficients } in recorded {
        let ours = step(alpha_bar_from, alpha_bar_to, prediction, eta);
        for (ours, theirs) in [ours.sample, ours.prediction, ours.noise].into_iter().zip(coefficients) {
            let at = format!("{prediction:?} {alpha_bar_from} to {alpha_bar_to}, eta {eta}");
            assert!((ours - theirs).abs() <= 1e-12 + 1e-12 * theirs.abs(), "{at}: {ours} or {theirs}");
        }
    }
}

#[derive(Deserialize)]
struct RecordedPlan {
    prediction: Prediction,
    eta: f64,
    set_alpha_to_one: bool,
    zero_snr: bool,
    timestep: f64,
    n_steps: usize,
    coefficients: [f64; 3],
}

#[test]
fn a_whole_plan_equals_diffusers_step_by_step() {
    for recorded in golden::<RecordedPlan>("sampling_steps") {
        let plain = stable_diffusion(recorded.prediction);
        let schedule = if recorded.zero_snr { plain.rescale_zero_terminal_snr() } else { plain };
        let RecordedPlan { n_steps, set_alpha_to_one, eta, .. } = recorded;
        let sampling =
            Sampling { spacing: Spacing::Trailing, n_steps, set_alpha_to_one, eta, ..Sampling::default() };
        let plan = plan(&schedule, &sampling).expect("a good plan");
        let ours =
            plan.iter().find(|step| step.timestep == recorded.timestep).expect("the same timesteps").step;
        for (ours, theirs) in
            [ours.sample, ours.prediction, ours.noise].into_iter().zip(recorded.coefficients)
        {
            // The recorded table is single precision
            assert!(
                (ours - theirs).abs() <= 1e-4 * (1.0 + theirs.abs()),
                "{}: {ours} or {theirs}",
                recorded.timestep
            );
        }
    }
}

#[test]
fn stable_diffusion_levels_are_the_published_ones() {
    let schedule = stable_diffusion(Prediction::Epsilon);
    for (t, expected) in [(0, 0.999150), (499, 0.277670), (999, 0.004660)] {
        assert!((schedule.alpha_bar(t) - expected).abs() < 5e-7, "{t}: {}", schedule.alpha_bar(t));
        assert!((schedule.snr(t) - expected / (1.0 - expected)).abs() < 1e-3 * schedule.snr(t));
    }
}

#[test]
fn zero_terminal_snr_ends_at_exactly_zero_and_keeps_the_first_level() {
    let (before, after) = (
        stable_diffusion(Prediction::VPrediction),
        stable_diffusion(Prediction::VPrediction).rescale_zero_terminal_snr(),
    );
    assert_eq!(after.alpha_bar(999), 0.0);
    assert!((after.alpha_bar(0) - before.alpha_bar(0)).abs() < 1e-15);
    assert!((1..1000).all(|t| after.alpha_bar(t) < after.alpha_bar(t - 1)));
    let last = after.forward_coefficients(999);
    assert_eq!((last.clean, last.noise, after.snr(999)), (0.0, 1.0, 0.0));
}

#[test]
fn impossible_schedules_and_plans_are_refused() {
    let new = |n, start, end| NoiseSchedule::new(BetaSchedule::Linear, n, start, end, Prediction::Epsilon);
    assert_eq!(new(1, 0.1, 0.2), Err(ScheduleError::TooShort(1)));
    for (start, end) in [(0.0, 0.1), (0.2, 0.1), (0.1, 1.0), (f64::NAN, 0.1)] {
        assert!(matches!(new(10, start, end), Err(ScheduleError::BetaRange { .. })), "{start} {end}");
    }
    let flow = NoiseSchedule::new(BetaSchedule::Linear, 10, 0.1, 0.2, Prediction::Flow);
    assert_eq!(flow, Err(ScheduleError::FlowHasNoBetas));
    assert_eq!(NoiseSchedule::flow(10, 0.0), Err(ScheduleError::Shift(0.0)));

    let schedule = stable_diffusion(Prediction::Epsilon);
    let with = |n_steps, steps_offset| {
        let spacing = Spacing::Leading;
        plan(
            &schedule,
            &Sampling { spacing, n_steps, steps_offset, set_alpha_to_one: false, ..Sampling::default() },
        )
    };
    assert_eq!(with(0, 0), Err(ScheduleError::StepCount { n_steps: 0, n_train: 1000 }));
    assert_eq!(with(1001, 0), Err(ScheduleError::StepCount { n_steps: 1001, n_train: 1000 }));
    let beyond = ScheduleError::OffsetBeyondEnd { steps_offset: 1, timestep: 1000, last: 999 };
    assert_eq!(with(1000, 1), Err(beyond));
    assert!(with(50, 1).is_ok());
}

#[test]
fn another_prediction_keeps_the_levels_and_no_flow_becomes_anything_else() {
    let epsilon =
        NoiseSchedule::new(BetaSchedule::Linear, 10, 0.1, 0.2, Prediction::Epsilon).expect("a good schedule");
    let v = epsilon.clone().with_prediction(Prediction::VPrediction).expect("no flow");
    assert_eq!(v.prediction(), Prediction::VPrediction);
    assert_eq!(v.alpha_bar(7), epsilon.alpha_bar(7));
    assert_eq!(v.with_prediction(Prediction::Flow), Err(ScheduleError::FlowHasNoBetas));
    let flow = NoiseSchedule::flow(10, 1.0).expect("a good shift");
    assert_eq!(flow.clone().with_prediction(Prediction::Epsilon), Err(ScheduleError::FlowHasNoBetas));
    assert_eq!(flow.clone().with_prediction(Prediction::Flow), Ok(flow));
}

#[test]
fn trailing_spacing_has_as_many_steps_as_asked_for_at_every_count() {
    for n_steps in 1..=1000 {
        let timesteps = timesteps(Spacing::Trailing, 1000, n_steps, 0);
        assert_eq!((timesteps.len(), timesteps[0]), (n_steps, 999));
        assert!(timesteps.windows(2).all(|pair| pair[0] > pair[1]), "{n_steps}");
    }
}

#[test]
fn the_last_step_goes_to_one_or_to_the_first_level() {
    let schedule = stable_diffusion(Prediction::Epsilon);
    assert_eq!(previous_alpha_bar(&schedule, 1, 50, true), 1.0);
    assert_eq!(previous_alpha_bar(&schedule, 1, 50, false), schedule.alpha_bar(0));
    assert_eq!(previous_alpha_bar(&schedule, 21, 50, true), schedule.alpha_bar(1));
}

#[test]
fn config_words_are_those_of_diffusers() {
    let words = |json: &str| serde_json::from_str::<Vec<Prediction>>(json).expect("known words");
    assert_eq!(
        words(r#"["epsilon", "v_prediction", "flow_prediction"]"#),
        [Prediction::Epsilon, Prediction::VPrediction, Prediction::Flow]
    );
    let kinds: Vec<BetaSchedule> =
        serde_json::from_str(r#"["scaled_linear", "linear", "squaredcos_cap_v2"]"#).expect("known words");
    assert_eq!(kinds, [BetaSchedule::ScaledLinear, BetaSchedule::Linear, BetaSchedule::SquaredcosCapV2]);
    assert!(serde_json::from_str::<Spacing>(r#""Leading""#).is_err());
}

const PREDICTIONS: [Prediction; 3] = [Prediction::Epsilon, Prediction::VPrediction, Prediction::Flow];

/// The mixture a prediction type lives on, for a signal power.
fn mixture(prediction: Prediction, alpha_bar: f64) -> Forward {
    let circle = Forward::variance_preserving(alpha_bar);
    match prediction {
        Prediction::Flow => Forward::flow(circle.noise / (circle.clean + circle.noise)),
        _ => circle,
    }
}

proptest! {
    /// With a perfect model, x' must be the same z and e mixed at the new level, whichever way the step goes.
    #[test]
    fn a_perfect_model_stays_on_its_trajectory(from in 0.001..0.999_f64, to in 0.0..=1.0_f64, z in -2.0..2.0_f64, e in -2.0..2.0_f64) {
        for prediction in PREDICTIONS {
            let (here, there) = (mixture(prediction, from), mixture(prediction, to));
            let target = here.target(prediction);
            let weights = step(from, to, prediction, 0.0);
            let x = here.clean * z + here.noise * e;
            let moved = weights.sample * x + weights.prediction * (target.clean * z + target.noise * e);
            let expected = there.clean * z + there.noise * e;
            prop_assert!((moved - expected).abs() < 1e-12 / from, "{prediction:?}: {moved} or {expected}");
            prop_assert_eq!(weights.noise, 0.0);
        }
    }

    /// Towards the image, direction and fresh noise together hold exactly the noise of the new level.
    #[test]
    fn posterior_noise_keeps_the_total_noise_right(from in 0.001..0.9_f64, gain in 0.01..0.99_f64, eta in 0.0..=1.0_f64) {
        let to = from + gain * (1.0 - from);
        for prediction in PREDICTIONS {
            let (here, there) = (mixture(prediction, from), mixture(prediction, to));
            let weights = step(from, to, prediction, eta);
            let target = here.target(prediction);
            let clean = weights.sample * here.clean + weights.prediction * target.clean;
            let noise = weights.sample * here.noise + weights.prediction * target.noise;
            prop_assert!((clean - there.clean).abs() < 1e-10);
            prop_assert!((noise.hypot(weights.noise) - there.noise).abs() < 1e-10);
        }
    }

    /// A step there and a step back with the same model output is the identity.
    #[test]
    fn there_and_back_is_the_identity(one in 0.01..0.99_f64, other in 0.01..0.99_f64, x in -3.0..3.0_f64, output in -3.0..3.0_f64) {
        for prediction in [Prediction::Epsilon, Prediction::Flow] {
            let (there, back) = (step(one, other, prediction, 0.0), step(other, one, prediction, 0.0));
            let moved = there.sample * x + there.prediction * output;
            let returned = back.sample * moved + back.prediction * output;
            prop_assert!((returned - x).abs() < 1e-11 * (1.0 + x.abs() + output.abs()), "{prediction:?}: {returned} or {x}");
        }
    }

    #[test]
    fn implied_targets_equal_targets(t in 0..1000_usize, z in -2.0..2.0_f64, e in -2.0..2.0_f64, shift in 0.5..4.0_f64) {
        let flow = NoiseSchedule::flow(1000, shift).expect("a good shift");
        let predicting = [Prediction::Epsilon, Prediction::VPrediction].map(stable_diffusion);
        for schedule in predicting.into_iter().chain([flow]) {
            let (forward, target) = (schedule.forward_coefficients(t), schedule.target_coefficients(t));
            let implied = schedule.implied_target_coefficients(t);
            let x = forward.clean * z + forward.noise * e;
            let (direct, from_latent) = (target.clean * z + target.noise * e, implied.noisy * x + implied.clean * z);
            prop_assert!((direct - from_latent).abs() < 1e-9, "{schedule:?}", schedule = schedule.prediction());
        }
    }
}

#[test]
fn steps_from_pure_noise_are_finite_for_v_and_flow() {
    for prediction in [Prediction::VPrediction, Prediction::Flow] {
        for (from, to, eta) in [
            (0.0, 0.5, 0.0),
            (0.0, 0.5, 1.0),
            (0.5, 0.0, 0.0),
            (0.5, 0.0, 0.1),
            (0.0, 0.0, 1.0),
            (0.0, 1.0, 1.0),
        ] {
            let weights = step(from, to, prediction, eta);
            let finite = [weights.sample, weights.prediction, weights.noise].iter().all(|x| x.is_finite());
            assert!(finite, "{prediction:?} {from} to {to}: {weights:?}");
        }
    }
    // v = -z at pure noise: a deterministic step to a clean latent is minus the output
    let to_clean = step(0.0, 1.0, Prediction::VPrediction, 0.0);
    assert_eq!((to_clean.sample, to_clean.prediction), (0.0, -1.0));
    assert!(step(0.0, 0.5, Prediction::Epsilon, 0.0).sample.is_infinite());
    assert_eq!(step(0.5, 0.0, Prediction::Epsilon, 0.0).sample, 0.0);
}

#[test]
fn a_flow_step_is_eulers() {
    let schedule = NoiseSchedule::flow(10, 1.0).expect("a good shift");
    assert_eq!(schedule.forward_coefficients(9), Forward { clean: 0.0, noise: 1.0 });
    let weights = step(schedule.alpha_bar(6), schedule.alpha_bar(3), Prediction::Flow, 0.0);
    assert_eq!(weights.sample, 1.0);
    assert!((weights.prediction - (0.4 - 0.7)).abs() < 1e-15);
    assert!((schedule.snr(3) - 2.25).abs() < 1e-12);
}

#[test]
fn inversion_noise_is_added_on_top_of_the_deterministic_step() {
    let (cleaner, noisier) = (0.8, 0.3);
    let (plain, noised) =
        (step(cleaner, noisier, Prediction::Epsilon, 0.0), step(cleaner, noisier, Prediction::Epsilon, 0.1));
    assert_eq!((plain.sample, plain.prediction), (noised.sample, noised.prediction));
    let variance: f64 = (0.2 / 0.7) * (1.0 - 0.3 / 0.8);
    assert!((noised.noise - 0.1 * variance.sqrt()).abs() < 1e-15);
}

#[test]
fn exact_inversion_ends_at_every_timestep_and_steps_evenly() {
    for t in 0..1000 {
        let steps = inversion_exact(t, 10, 1000);
        assert_eq!(steps.len(), t.div_ceil(100));
        assert_eq!(steps.last().map_or(0, |step| step.to_level), t);
        assert_eq!(steps.first().map_or(0, |step| step.from_level), 0);
        assert!(steps.windows(2).all(|pair| pair[0].to_level == pair[1].from_level));
        assert!(steps.iter().all(|step| step.model_timestep == step.from_level as i64));
        assert!(steps.iter().all(|step| (1..=100).contains(&(step.to_level - step.from_level))), "{t}");
    }
    let levels = inversion_exact(250, 10, 1000).iter().map(|step| step.to_level).collect::<Vec<_>>();
    assert_eq!(levels, [83, 166, 250]);
}

#[test]
fn released_inversion_has_the_levels_and_costs_read_off_the_code() {
    let all: Vec<Vec<InversionStep>> = (0..1000).map(inversion_release).collect();
    let mean = |total: f64| total / 1000.0;
    assert!((mean(all.iter().map(|steps| steps.len() as f64).sum()) - 6.382).abs() < 1e-9);
    let mut misses = Vec::new();
    for (t, steps) in all.iter().enumerate() {
        let end = steps.last().expect("at least the step at -99").to_level;
        let expected = (t.saturating_sub(1).div_ceil(100) * 100 + 1).min(901);
        assert_eq!(end, expected, "{t}");
        misses.push(end as i64 - t as i64);
        assert_eq!(steps[0], InversionStep { model_timestep: -99, from_level: 0, to_level: 1 });
        assert!(steps[1..].iter().all(|step| step.model_timestep == step.from_level as i64));
        assert!(steps.windows(2).all(|pair| pair[0].to_level == pair[1].from_level));
    }
    assert_eq!((misses.iter().min(), misses.iter().max()), (Some(&-98), Some(&99)));
    assert!((mean(misses.iter().sum::<i64>() as f64) - 39.7).abs() < 0.05);
}

/// Trap: an inversion that follows the first pair's timestep for the whole batch.
#[test]
fn every_pair_of_a_batch_is_inverted_to_its_own_timestep() {
    let batch = [37, 512, 999, 0];
    let ends = batch.map(|t| inversion_exact(t, 10, 1000).last().map_or(0, |step| step.to_level));
    assert_eq!(ends, batch);
}
