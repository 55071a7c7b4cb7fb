//! Events of this version and of earlier ones.

use std::fs;

use proptest::prelude::*;
use tastemaker_run::{AlarmRaised, Event, EventLog, Probe, Step, read_events};

/// As the version before wrote them.
const EARLIER: &str = r#"{"tastemaker_events":1}
{"event":"step","step":0,"loss":0.6931471805599453,"winner_error":0.2,"grad_norm":1.5,"lr":1e-5,"pairs_per_second":3.0}
{"event":"probe","step":0,"n_pairs":52,"winner_error":0.25,"ref_winner":0.2,"implicit_accuracy":0.5,"margin":0.0}
{"event":"alarm","step":39,"message":"step 39: the loss stays at 0.6931"}
"#;

#[test]
fn logs_of_earlier_versions_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    fs::write(&path, EARLIER).unwrap();
    let events = read_events(&path).unwrap().events;
    let [Event::Step(step), Event::Probe(probe), Event::Alarm(alarm)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((step.skipped, step.margin_by_quarter, step.loss_scale), (false, None, None));
    assert_eq!((probe.accuracy_low, probe.winner_drift_se), (None, None));
    assert!((probe.winner_rise().unwrap() - 0.25).abs() < 1e-12);
    assert_eq!(alarm.name, None);
}

#[test]
fn a_validation_is_logged_by_its_name() {
    let line = serde_json::to_string(&Event::Probe(Probe::default())).unwrap();
    assert!(line.starts_with(r#"{"event":"validation","#), "{line}");
}

#[test]
fn what_a_step_does_not_have_is_not_in_the_log() {
    let step = Step { winner_error: 0.2, grad_norm: 1.5, lr: 1e-5, ..Step::default() };
    let line = serde_json::to_string(&Event::Step(step)).unwrap();
    let wanted = r#"{"event":"step","step":0,"loss":0.0,"winner_error":0.2,"grad_norm":1.5,"lr":0.00001,"pairs_per_second":0.0}"#;
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(value(&line), value(wanted));
}

#[test]
fn quarters_are_four_numbers_words_or_nothing() {
    let step = Step {
        margin_by_quarter: Some([Some(0.5), None, Some(f64::NAN), Some(f64::NEG_INFINITY)]),
        ..Step::default()
    };
    let line = serde_json::to_string(&step).unwrap();
    assert!(line.contains(r#""margin_by_quarter":[0.5,null,"NaN","-inf"]"#), "{line}");
    let read: Step = serde_json::from_str(&line).unwrap();
    assert!(read.margin_by_quarter.unwrap()[2].unwrap().is_nan());
    for wrong in [r#"[0.5,null,1.0]"#, r#"[0.5,null,1.0,"much"]"#, "0.5"] {
        assert!(
            serde_json::from_str::<Step>(&line.replace(r#"[0.5,null,"NaN","-inf"]"#, wrong)).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn the_interval_of_a_probe_is_that_of_its_rate_and_number() {
    let probe =
        Probe { n_pairs: 263, implicit_accuracy: Some(81.0 / 263.0), ..Probe::default() }.with_interval();
    // Newcombe (1998), Statistics in Medicine 17, table I, method 3
    assert!(
        (probe.accuracy_low.unwrap() - 0.2553).abs() < 5e-5
            && (probe.accuracy_high.unwrap() - 0.3662).abs() < 5e-5
    );
    assert_eq!(Probe { implicit_accuracy: Some(0.5), ..Probe::default() }.with_interval().accuracy_low, None);
    assert_eq!(Probe { n_pairs: 9, ..Probe::default() }.with_interval().accuracy_low, None);
}

fn optional() -> impl Strategy<Value = Option<f64>> {
    prop::option::of(-1e6..1e6f64)
}

proptest! {
    #[test]
    fn new_events_and_figures_are_read_as_they_were_written(
        step in any::<u64>(), quarters in prop::option::of([optional(), optional(), optional(), optional()]),
        figures in [optional(), optional(), optional()], skipped: bool, best: bool, words in ".*",
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let [loss_scale, residual_factor, winner_drift_se] = figures;
        let events = vec![
            Event::Step(Step { step, margin_by_quarter: quarters, loss_scale, residual_factor, skipped, ..Step::default() }),
            Event::Probe(Probe { step, n_pairs: 52, implicit_accuracy: Some(0.75), winner_drift_se, ..Probe::default() }.with_interval()),
            Event::Checkpoint { step, path: "checkpoint-50".into(), best },
            Event::Images { step, paths: vec!["images/50/0-7.png".into(), words.clone().into()] },
            Event::Stopping { step, reason: words.clone() },
            Event::Alarm(AlarmRaised { step, name: Some("flat-loss".into()), message: words }),
        ];
        let mut log = EventLog::open(&path).unwrap();
        events.iter().for_each(|event| log.append(event).unwrap());
        prop_assert_eq!(read_events(&path).unwrap().events, events);
    }
}
