//! From images to the noise a flow makes them of.

use super::schedule;
use tastemaker_math::ddim::{Sampling, inverse_plan, inversion_to, plan};
use tastemaker_math::flow::step;
use tastemaker_math::level::Level;
use tastemaker_math::objectives::Grid;

fn level(sigma: f64) -> Level {
    Level::flow(sigma, 1000)
}

/// The velocity `x / 2 - s` at the level a step starts from, which the network itself could not be asked at level 0.
fn inverted(sigma: f64, n_steps: usize) -> f64 {
    let steps = inversion_to(&schedule("z-image"), Grid::Exact, level(sigma), n_steps, 0.0);
    let n = steps.len() as f64;
    steps
        .iter()
        .enumerate()
        .fold(1.0, |x, (k, one)| one.step.sample * x + one.step.prediction * (0.5 * x - k as f64 / n * sigma))
}

#[test]
fn explicit_inversion_of_a_known_velocity_ends_where_it_was_computed_by_hand() {
    for (sigma, n_steps, x, tau, target) in [
        (0.5, 4, 1.203125, 1.40625, 0.40625),
        (0.5, 2, 1.25, 1.5, 0.5),
        (0.5, 8, 1.176_712_036_132_812_5, 1.353_424_072_265_625, 0.353_424_072_265_625),
        (1.0, 4, 1.194_580_078_125, 1.194_580_078_125, 0.194_580_078_125),
    ] {
        let found = inverted(sigma, n_steps);
        assert!((found - x).abs() < 1e-15, "{sigma} in steps of 1 / {n_steps}: {found}");
        let implied = level(sigma).implied_target(tastemaker_math::Prediction::Flow);
        let found_target = implied.noisy * found + implied.clean;
        assert!((found_target - target).abs() < 1e-14, "{found_target}");
        assert!((found_target + 1.0 - tau).abs() < 1e-14, "the target is the implied noise less the image");
    }
}

#[test]
fn an_inversion_ends_at_its_own_level_and_never_asks_at_no_noise() {
    let flow = schedule("z-image");
    for (sigma, n_steps, calls) in [(0.002, 10, 1), (0.1, 10, 1), (0.31, 10, 4), (1.0, 10, 10), (0.5, 1, 1)] {
        let steps = inversion_to(&flow, Grid::Exact, level(sigma), n_steps, 0.0);
        assert_eq!(steps.len(), calls, "{sigma}");
        let moved: f64 = steps.iter().map(|one| one.step.prediction).sum();
        assert!((moved - sigma).abs() < 1e-12 && steps.iter().all(|one| one.step.sample == 1.0));
        assert!(steps[0].timestep > 0.0 && steps.iter().all(|one| one.timestep <= 1000.0 * sigma + 1e-9));
        assert!(
            calls < 2 || steps[0].timestep == steps[1].timestep,
            "the first is asked where the second is"
        );
    }
}

#[test]
fn posterior_noise_on_the_way_keeps_the_noise_of_every_level() {
    let (z, e) = (0.8, -0.6);
    for (from, to) in [(0.2, 0.7), (0.7, 0.2), (0.5, 1.0), (1.0, 0.25)] {
        for eta in [0.0, 0.1, 0.6, 1.0] {
            let weights = step(from, to, eta);
            let x = (1.0 - from) * z + from * e;
            let moved = weights.sample * x + weights.prediction * (e - z);
            let kept = (1.0_f64 - eta * eta).sqrt() * to;
            assert!((moved - ((1.0 - to) * z + kept * e)).abs() < 1e-12, "{from} to {to}, eta {eta}");
            assert!((kept.hypot(weights.noise) - to).abs() < 1e-12, "{from} to {to}, eta {eta}");
        }
    }
}

#[test]
fn every_step_of_the_inverse_plan_undoes_its_twin_and_refinements_close_the_gap() {
    for name in ["z-image-turbo", "sd3"] {
        let (flow, how) = (schedule(name), Sampling { n_steps: 8, ..Sampling::default() });
        let (forth, back) = (plan(&flow, &how).expect("a plan"), inverse_plan(&flow, &how).expect("a plan"));
        for (there, here) in forth.iter().zip(back.iter().rev()) {
            assert_eq!(there.timestep, here.timestep);
            assert_eq!(here.guess, here.undo, "the velocity weighs the same at both ends");
        }
        let velocity = |timestep: f64, x: f64| 0.5 * (2.0 * x).sin() - timestep / 1000.0;
        let there_and_back = |refinements: usize| {
            let noise = back.iter().fold(0.4, |x, one| {
                let moved = |at: f64| one.undo.sample * x + one.undo.prediction * velocity(one.timestep, at);
                (0..refinements).fold(moved(x), |found, _| moved(found))
            });
            forth
                .iter()
                .fold(noise, |x, one| one.step.sample * x + one.step.prediction * velocity(one.timestep, x))
        };
        let misses = [0, 1, 3, 30].map(|refinements| (there_and_back(refinements) - 0.4_f64).abs());
        assert!(misses.windows(2).all(|two| two[1] < two[0]), "{name}: {misses:?}");
        assert!(misses[3] < 1e-12, "{name}: {misses:?}");
    }
}
