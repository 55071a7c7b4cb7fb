//! Runs too short for a window are watched, too.

use tastemaker_run::Step;
use tastemaker_run::health::{Alarm, Limits, Severity, Watch};

fn step(number: u64, loss: f64) -> Step {
    let (reference, drift) = (0.06, 1e-5 * number as f64);
    Step {
        step: number,
        loss,
        winner_error: reference + drift,
        loser_error: Some(reference - drift),
        ref_winner: Some(reference),
        ref_loser: Some(reference),
        logit_mean: Some(-loss),
        implicit_accuracy: Some(0.5),
        margin: Some(-2.0 * drift),
        grad_norm: 1.0,
        lr: 1e-5,
        ..Step::default()
    }
}

#[test]
fn a_loss_far_above_its_start_is_critical_from_the_second_step_of_a_short_run() {
    for (losses, ruined_at) in [
        // Twelve steps at a rate of 3e-2, as a newcomer ran them.
        (&[0.69, 0.8, 1.4, 2.9, 3.6, 5.0, 4.4, 6.1, 5.5, 7.0, 6.2, 7.39][..], Some(4)),
        (&[0.69, 7.39], Some(1)),
        // A single pair each: the loss of one is noise.
        (&[0.69, 0.7, 0.66, 0.72, 0.5, 1.1, 0.4, 1.3, 0.9, 0.6, 0.7, 1.0], None),
        // What the untouched model says is nobody's fault.
        (&[4.0, 0.7], None),
    ] {
        let mut watch = Watch::new(Limits::default());
        let mut raised = losses.iter().zip(0..).flat_map(|(loss, number)| watch.step(&step(number, *loss)));
        let found = raised.find(|alarm| alarm.severity() == Severity::Critical);
        assert_eq!(found.as_ref().map(Alarm::step), ruined_at, "{losses:?}: {found:?}");
        let name = found.as_ref().map(Alarm::name);
        assert!(name.is_none_or(|name| name == "loss-rises"), "{name:?}");
    }
}
