//! Alarms that a flow model needs: growing outputs, and errors of velocities.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

use tastemaker_math::objectives::objective;
use tastemaker_run::Step;
use tastemaker_run::health::{Alarm, Limits, Severity, WINDOW, Watch};

fn limits(is_flow: bool) -> Limits {
    Limits::of(&objective("diffusion-dpo", &serde_json::Value::Null).unwrap(), is_flow)
}

/// A step whose winner error is this much above the reference's, and whose outputs are so much longer.
fn step(number: u64, rise: f64, growth: f64, has_reference: bool) -> Step {
    // Steps differ by their timesteps.
    let scatter = 1.0 + 0.02 * ((number * 7 % 10) as f64 - 4.5) / 4.5;
    let (reference, norm) = (0.6 * scatter, 1.1 * scatter);
    Step {
        step: number,
        loss: std::f64::consts::LN_2,
        winner_error: reference * (1.0 + rise),
        loser_error: Some(reference * (1.0 + rise)),
        ref_winner: has_reference.then_some(reference),
        ref_loser: has_reference.then_some(reference),
        logit_mean: Some(0.0),
        margin: has_reference.then_some(0.0),
        prediction_norm: Some(norm * (1.0 + growth)),
        ref_norm: has_reference.then_some(norm),
        grad_norm: 1.0,
        lr: 1e-5,
        ..Step::default()
    }
}

fn raised(watch: &mut Watch, steps: impl Iterator<Item = Step>) -> Vec<Alarm> {
    steps.flat_map(|step| watch.step(&step)).filter(|alarm| alarm.name() != "flat-loss").collect()
}

#[test]
fn growing_outputs_are_told_with_and_without_a_reference() {
    let window = WINDOW as u64;
    for (growth, wanted) in
        [(0.0, None), (0.04, None), (0.08, Some(Severity::Warning)), (0.4, Some(Severity::Critical))]
    {
        for has_reference in [true, false] {
            let mut watch = Watch::new(limits(true));
            // Without a reference, what they have grown beyond is their own length in the first steps.
            let start = (0..window).map(|n| step(n, 0.0, 0.0, has_reference));
            assert_eq!(raised(&mut watch, start), []);
            let rest = (window..3 * window).map(|n| step(n, 0.0, growth, has_reference));
            let found = raised(&mut watch, rest);
            let worst = found.iter().max_by_key(|alarm| alarm.severity());
            assert_eq!(worst.map(Alarm::severity), wanted, "{growth} {has_reference}: {found:?}");
            assert!(found.iter().all(|alarm| alarm.name() == "norm-grows"), "{found:?}");
            let text = worst.map(ToString::to_string).unwrap_or_default();
            let whose = if has_reference { "the reference's" } else { "those of the first steps" };
            assert!(wanted.is_none() || text.contains(whose), "{text}");
        }
    }
}

#[test]
fn on_a_flow_a_winner_error_a_fifth_above_the_references_is_critical() {
    for (is_flow, rise, wanted) in [
        (true, 0.03, None),
        (true, 0.1, Some(Severity::Warning)),
        (true, 0.19, Some(Severity::Warning)),
        (true, 0.21, Some(Severity::Critical)),
        (false, 0.03, Some(Severity::Warning)),
        (false, 0.19, Some(Severity::Critical)),
    ] {
        let mut watch = Watch::new(limits(is_flow));
        let found = raised(&mut watch, (0..40).map(|n| step(n, rise, 0.0, true)));
        let worst = found.iter().map(Alarm::severity).max();
        assert_eq!(worst, wanted, "{is_flow} {rise}: {found:?}");
        assert!(found.iter().all(|alarm| alarm.name() == "winners-worse"), "{found:?}");
    }
}

#[test]
fn an_error_that_explodes_on_a_flow_is_critical_before_a_window_is_full() {
    let mut watch = Watch::new(limits(true));
    let rises = [0.0, 0.05, 0.2, 0.6, 1.5];
    let found = raised(&mut watch, rises.iter().zip(0..).map(|(rise, n)| step(n, *rise, 0.0, true)));
    assert!(found.iter().any(|alarm| alarm.severity() == Severity::Critical), "{found:?}");
}

#[test]
fn a_loss_on_the_scale_of_errors_is_not_called_saturated() {
    for (name, wanted) in [("linear-dpo", false), ("diffusion-dpo", true)] {
        let objective = objective(name, &serde_json::Value::Null).unwrap();
        let mut watch = Watch::new(Limits::of(&objective, true));
        let won = |n| Step {
            loss: 1e-4,
            implicit_accuracy: Some(1.0),
            logit_mean: Some(9.0),
            margin: Some(0.01),
            ..step(n, -0.01, 0.0, true)
        };
        let found = raised(&mut watch, (0..40).map(won));
        assert_eq!(found.iter().any(|alarm| alarm.name() == "saturated"), wanted, "{name}: {found:?}");
    }
}
