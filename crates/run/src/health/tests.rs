//! Healthy curves raise nothing, failing ones soon raise what fits, and hearing a log again gives the same watch.

use proptest::prelude::*;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_math::objectives::{OBJECTIVES, Objective};

use super::*;
use crate::{Event, Probe, Start, Step};

const LN_2: f64 = std::f64::consts::LN_2;

/// A run around a reference error of 0.06, with noise as the embedded model's: the drifts of winners and losers at each step, and what
/// scatters around them.
struct Run {
    n: u64,
    every: u64,
    beta: f64,
    winner: fn(f64) -> f64,
    loser: fn(f64) -> f64,
    scatter: f64,
    seed: u64,
}

impl Run {
    /// Learns in the way of the demo's recipe: winners end at +0.7%, losers at +1%.
    fn healthy(seed: u64) -> Self {
        let (winner, loser) = (|t: f64| 4.2e-4 * t.min(1.0), |t: f64| 6.8e-4 * t.min(1.0));
        Self { n: 400, every: 20, beta: 5000.0, winner, loser, scatter: 1e-4, seed }
    }

    fn noise(&self, step: u64, draw: u64) -> f64 {
        Keyed::new(self.seed, Stream::Noise, step, draw).normal()
    }

    fn step(&self, step: u64) -> Step {
        let t = step as f64 / self.n as f64;
        let reference = 0.06 * (1.0 + 0.2 * self.noise(step, 0));
        let (winner, loser) = (
            (self.winner)(t) + self.scatter * self.noise(step, 1),
            (self.loser)(t) + self.scatter * self.noise(step, 2),
        );
        let margin = loser - winner;
        let logit = 0.5 * self.beta * margin;
        Step {
            step,
            loss: (-logit).exp().ln_1p(),
            winner_error: reference + winner,
            loser_error: Some(reference + loser),
            ref_winner: Some(reference),
            ref_loser: Some(reference),
            logit_mean: Some(logit),
            implicit_accuracy: Some((0.5 + 0.1 * logit).clamp(0.0, 1.0)),
            margin: Some(margin),
            grad_norm: 60.0 * (0.4 * self.noise(step, 3)).exp(),
            lr: 1e-5,
            pairs_per_second: 1.0,
            ..Step::default()
        }
    }

    fn probe(&self, step: u64) -> Probe {
        let t = step as f64 / self.n as f64;
        let (winner, loser) = ((self.winner)(t), (self.loser)(t));
        let accuracy = if step == 0 {
            0.5
        } else {
            0.5 + 0.25 * ((loser - winner) / 2e-4).tanh() + 0.02 * self.noise(step, 4)
        };
        Probe {
            step,
            n_pairs: 52,
            winner_error: 0.06 + winner,
            loser_error: Some(0.06 + loser),
            ref_winner: Some(0.06),
            ref_loser: Some(0.06),
            implicit_accuracy: Some(accuracy.clamp(0.0, 1.0)),
            margin: Some(loser - winner),
            winner_drift_se: Some(1e-4),
            ..Probe::default()
        }
        .with_interval()
    }

    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for step in 0..=self.n {
            if step % self.every == 0 || step == self.n {
                events.push(Event::Probe(self.probe(step)));
            }
            if step < self.n {
                events.push(Event::Step(self.step(step)));
            }
        }
        events
    }
}

fn alarms(events: &[Event]) -> Vec<Alarm> {
    let mut watch = Watch::new(Limits::default());
    events.iter().flat_map(|event| watch.event(event)).collect()
}

fn first(alarms: &[Alarm], name: &str, severity: Severity) -> Option<u64> {
    alarms.iter().find(|alarm| alarm.name() == name && alarm.severity() == severity).map(Alarm::step)
}

#[test]
fn none_of_a_hundred_healthy_runs_raises_an_alarm() {
    for seed in 0..100 {
        assert_eq!(alarms(&Run::healthy(seed).events()), [], "seed {seed}");
    }
}

/// Winners +60%, losers +80% at the end; margin and accuracy grow all along.
fn ruinous(seed: u64) -> Run {
    Run { winner: |t| 0.036 * t, loser: |t| 0.048 * t, ..Run::healthy(seed) }
}

#[test]
fn a_run_that_ruins_both_images_raises_a_warning_then_a_critical_alarm_long_before_its_end() {
    for seed in 0..100 {
        let alarms = alarms(&ruinous(seed).events());
        let at = |name, severity| first(&alarms, name, severity).unwrap();
        assert_eq!(at("held-out-winners-worse", Severity::Warning), 20, "seed {seed}");
        assert_eq!(at("held-out-winners-worse", Severity::Critical), 120, "seed {seed}");
        assert!((20..40).contains(&at("winners-worse", Severity::Warning)), "seed {seed}");
        assert!((95..130).contains(&at("winners-worse", Severity::Critical)), "seed {seed}");
        assert!(alarms[0].to_string().contains("while the margin grows"), "{}", alarms[0]);
        let n_of = |name| alarms.iter().filter(|alarm| alarm.name() == name).count();
        assert_eq!((n_of("winners-worse"), n_of("held-out-winners-worse")), (2, 2), "seed {seed}");
    }
}

#[test]
fn a_rise_within_three_standard_errors_is_no_alarm() {
    let probe = |error| Probe { winner_drift_se: Some(error), ..ruinous(0).probe(40) };
    assert_eq!(Watch::new(Limits::default()).probe(&probe(0.0013)), []);
    assert_eq!(Watch::new(Limits::default()).probe(&probe(0.0011)).len(), 1);
}

#[test]
fn the_best_state_of_a_run_that_ruins_both_images_is_an_early_one() {
    let run = ruinous(1);
    let mut watch = Watch::new(Limits::default());
    let mut bests = Vec::new();
    for event in run.events() {
        watch.event(&event);
        if matches!(event, Event::Probe(_)) && watch.is_best() {
            bests.push(watch.best().unwrap().step);
        }
    }
    assert_eq!(bests, [0, 20]);
    assert!(watch.best().unwrap().quality > 0.5);
}

#[test]
fn the_best_state_of_a_healthy_run_beats_its_start_and_is_not_its_first() {
    for seed in 0..20 {
        let mut watch = Watch::new(Limits::default());
        Run::healthy(seed).events().iter().for_each(|event| drop(watch.event(event)));
        let best = watch.best().unwrap();
        assert!(best.step >= 100 && best.quality > 0.65, "{best:?}");
    }
}

#[test]
fn a_model_that_does_not_move_is_flat_once_warm_up_is_over() {
    let run = Run { winner: |_| 0.0, loser: |_| 0.0, every: 1000, ..Run::healthy(3) };
    let mut steps: Vec<Step> = (0..200).map(|step| run.step(step)).collect();
    let flat = |steps: &[Step]| {
        let mut watch = Watch::new(Limits::default());
        let raised: Vec<Alarm> = steps.iter().flat_map(|step| watch.step(step)).collect();
        raised.first().map(|alarm| (alarm.name(), alarm.step()))
    };
    for step in &mut steps {
        step.loss = LN_2 * (1.0 + 0.001 * (step.step % 3) as f64);
        step.logit_mean = Some(if step.step % 2 == 0 { 0.02 } else { -0.02 });
    }
    assert_eq!(flat(&steps), Some(("flat-loss", 59)));
    for step in &mut steps {
        step.lr = 1e-7 * (step.step.min(100) + 1) as f64;
    }
    assert_eq!(flat(&steps), Some(("flat-loss", 160)));
    steps.iter_mut().for_each(|step| step.logit_mean = Some(0.1));
    assert_eq!(flat(&steps), None);
}

#[test]
fn a_loss_above_its_start_is_a_warning_and_twice_that_critical() {
    let with_loss = |loss: f64| {
        let mut watch = Watch::new(Limits::default());
        let steps =
            (0..40).map(|step| Step { loss: loss + 0.01 * (step % 2) as f64, ..Run::healthy(5).step(step) });
        steps
            .flat_map(|step| watch.step(&step))
            .map(|alarm| (alarm.name(), alarm.severity(), alarm.step()))
            .collect::<Vec<_>>()
    };
    assert_eq!(with_loss(0.7), []);
    assert_eq!(with_loss(0.9), [("loss-rises", Severity::Warning, 19)]);
    assert_eq!(with_loss(1.5), [("loss-rises", Severity::Critical, 19)]);
}

#[test]
fn an_accuracy_that_falls_beyond_noise_is_critical_and_by_less_is_none() {
    let probe = |step, rate| {
        Probe { step, implicit_accuracy: Some(rate), ..Run::healthy(0).probe(0) }.with_interval()
    };
    let mut watch = Watch::new(Limits::default());
    assert_eq!(watch.probe(&probe(10, 0.85)), []);
    assert_eq!(watch.probe(&probe(20, 0.75)), []);
    assert_eq!(watch.probe(&probe(30, 0.65)), [], "once may be noise");
    let raised = watch.probe(&probe(40, 0.64));
    assert_eq!(raised, [Alarm::AccuracyFalls { step: 40, accuracy: 0.64, best: 0.85, best_step: 10 }]);
    assert_eq!(watch.probe(&probe(50, 0.63)), [], "it stands already");
    assert_eq!(watch.probe(&probe(60, 0.8)), []);
    assert_eq!(
        [watch.probe(&probe(70, 0.6)).len(), watch.probe(&probe(80, 0.6)).len()],
        [0, 1],
        "it was gone in between"
    );
}

#[test]
fn overfitting_is_raised_where_accuracies_can_be_compared() {
    let raised = |limits: Limits| {
        let mut watch = Watch::new(limits);
        (0..20).for_each(|i| {
            drop(watch.step(&Step { implicit_accuracy: Some(0.97), ..Run::healthy(0).step(i) }))
        });
        watch.probe(&Probe { implicit_accuracy: Some(0.67), ..Run::healthy(0).probe(20) }.with_interval())
    };
    assert_eq!(raised(Limits::default())[0].name(), "overfitting");
    let of = |name: &str| OBJECTIVES.iter().find(|entry| entry.name == name).unwrap();
    for (name, n) in [("diffusion-dpo", 1), ("ddim-inpo", 0), ("mapo", 0), ("sft", 0)] {
        let objective = Objective::new(of(name), &serde_json::json!({})).unwrap();
        assert_eq!(raised(Limits::of(&objective, false)).len(), n, "{name}");
    }
}

#[test]
fn gradients_that_explode_are_told_and_a_single_long_one_is_not() {
    let mut watch = Watch::new(Limits::default());
    let mut step_of = |step, norm| watch.step(&Step { grad_norm: norm, ..Run::healthy(0).step(step) });
    (0..60).for_each(|step| assert_eq!(step_of(step, if step % 7 == 0 { 900.0 } else { 1.0 }), []));
    assert_eq!((step_of(60, 50.0), step_of(61, 60.0)), (vec![], vec![]));
    assert_eq!(step_of(62, 70.0), [Alarm::GradientExplodes { step: 62, norm: 50.0, usual: 1.0 }]);
}

#[test]
fn certainty_about_every_pair_leaves_nothing_to_learn() {
    let mut watch = Watch::new(Limits::default());
    let steps = (0..30).map(|i| Step { loss: 1e-4, implicit_accuracy: Some(1.0), ..Run::healthy(0).step(i) });
    let raised: Vec<Alarm> = steps.flat_map(|step| watch.step(&step)).collect();
    assert_eq!(raised, [Alarm::Saturated { step: 19, loss: raised_loss(&raised), accuracy: 1.0 }]);
}

fn raised_loss(raised: &[Alarm]) -> f64 {
    if let [Alarm::Saturated { loss, .. }] = raised { *loss } else { f64::NAN }
}

#[test]
fn the_first_non_finite_figure_is_named_and_judged_alone() {
    let mut watch = Watch::new(Limits::default());
    let raised = watch.step(&Step { grad_norm: f64::INFINITY, loss: 9.0, ..Run::healthy(0).step(31) });
    assert_eq!(raised, [Alarm::NonFinite { step: 31, metric: "grad_norm", value: f64::INFINITY }]);
    assert!(raised[0].to_string().starts_with("step 31: grad_norm is inf"));
    assert!(Rule::Stop.ends(&raised[0]) && !Rule::Warn.ends(&raised[0]) && !Rule::KeepBest.ends(&raised[0]));
}

#[test]
fn a_skipped_step_is_no_alarm_and_most_of_a_window_is_one() {
    let mut watch = Watch::new(Limits::default());
    let mut step_of = |i: u64, skipped| {
        watch.step(&Step {
            skipped,
            grad_norm: if skipped { f64::NAN } else { 1.0 },
            ..Run::healthy(0).step(i)
        })
    };
    (0..40).for_each(|i| assert_eq!(step_of(i, i % 2 == 0), []));
    let raised: Vec<Alarm> = (40..50).flat_map(|i| step_of(i, true)).collect();
    assert_eq!(raised, [Alarm::StepsSkipped { step: 41, n: 11 }]);
}

#[test]
fn a_method_without_reference_is_judged_by_its_probes_alone() {
    let bare =
        |step: u64| Step { step, loss: 0.9, winner_error: 0.5, grad_norm: 1.0, lr: 1e-5, ..Step::default() };
    let mut watch = Watch::new(Limits::default());
    (0..100).for_each(|step| assert_eq!(watch.step(&bare(step)), []));
    let run = ruinous(1);
    assert_eq!(watch.probe(&run.probe(200))[0].name(), "held-out-winners-worse");
}

#[test]
fn a_ruined_step_is_critical_from_the_second_one_on() {
    let step = |step: u64, reference, winner_error| Step {
        step,
        loss: 0.5,
        winner_error,
        ref_winner: reference,
        grad_norm: 1.0,
        lr: 3e-2,
        ..Step::default()
    };
    // Error of the reference, if there is one, and of winners at the first steps; steps that raise the alarm.
    let runs: [(Option<f64>, &[f64], &[u64]); 8] = [
        (Some(0.06), &[0.06, 0.52, 0.6], &[1]),
        (Some(0.9), &[0.9, 2.0], &[1]),
        // Worse than predicting nothing.
        (Some(1.3), &[1.3, 2.3, 2.3], &[1]),
        (Some(1.3), &[1.3, 1.6], &[]),
        // Where hardly any noise is, an error of nearly nothing doubles by itself.
        (Some(0.002), &[0.002, 0.006, 0.007], &[]),
        (Some(0.06), &[0.06, 0.1, 0.08], &[]),
        (None, &[0.2, 8.0], &[1]),
        // Timesteps differ, so errors of steps do.
        (None, &[0.01, 0.9, 0.3, 1.2], &[]),
    ];
    for (reference, errors, wanted) in runs {
        let mut watch = Watch::new(Limits::default());
        let steps = errors.iter().zip(0..).map(|(&error, i)| step(i, reference, error));
        let raised: Vec<Alarm> = steps.flat_map(|step| watch.step(&step)).collect();
        let critical = raised.iter().filter(|alarm| alarm.severity() == Severity::Critical);
        assert_eq!(critical.map(Alarm::step).collect::<Vec<_>>(), wanted, "{errors:?}");
        assert_eq!(watch.raised_until(0), []);
        let last = watch.raised_until(u64::MAX);
        assert_eq!(last.iter().map(Alarm::name).collect::<Vec<_>>(), vec!["winners-worse"; wanted.len()]);
        assert!(last.iter().all(|alarm| alarm.step() == errors.len() as u64 - 1), "{last:?}");
    }
}

#[test]
fn a_held_out_error_that_is_no_number_is_an_alarm_and_no_tie() {
    let mut watch = Watch::new(Limits::default());
    let probe =
        Probe { winner_error: f64::NAN, implicit_accuracy: Some(f64::NAN), ..Run::healthy(1).probe(20) };
    assert_eq!(watch.probe(&probe)[0].name(), "non-finite");
    assert_eq!(watch.best(), None);
}

#[test]
fn without_a_standard_error_the_probe_before_has_to_agree() {
    let run = ruinous(1);
    let probe = |step| Probe { winner_drift_se: None, ..run.probe(step) };
    let mut watch = Watch::new(Limits::default());
    assert_eq!(watch.probe(&probe(0)), []);
    assert_eq!(watch.probe(&probe(20)), []);
    assert_eq!(watch.probe(&probe(40)).len(), 1);
}

fn start(step: u64) -> Event {
    let (version, method, device) = ("0".into(), "diffusion-dpo".into(), "cpu".into());
    Event::Start(Start {
        version,
        libtorch: None,
        method,
        device,
        n_pairs: 9,
        n_held_out: 1,
        n_ties: 0,
        n_skipped: 0,
        betas: Default::default(),
        step,
        peak_memory_bytes: None,
    })
}

proptest! {
    #[test]
    fn a_log_read_again_gives_the_same_watch(cut in 1u64..399, lost in 1u64..60, seed in 0u64..1000) {
        let run = ruinous(seed);
        let whole = run.events();
        let mut straight = Watch::new(Limits::default());
        whole.iter().for_each(|event| drop(straight.event(event)));

        // Killed at `cut`, saved `lost` steps before, gone on from there, where a validation of that step is made again.
        let saved = cut.saturating_sub(lost);
        let is_before = |event: &&Event, end: u64| match event {
            Event::Step(step) => step.step < end,
            Event::Probe(probe) => probe.step < end,
            _ => true,
        };
        let mut log = vec![start(0)];
        log.extend(whole.iter().filter(|event| is_before(event, cut + 1)).cloned());
        log.push(start(saved));
        log.extend(whole.iter().filter(|event| !is_before(event, saved)).cloned());
        let replayed = Watch::replay(Limits::default(), &log);
        prop_assert_eq!(replayed.best(), straight.best());
        prop_assert_eq!(format!("{replayed:?}"), format!("{straight:?}"));
    }

    #[test]
    fn no_figures_whatever_make_it_panic_and_alarms_are_listed(
        metrics in prop::collection::vec(prop::array::uniform6(prop::num::f64::ANY), 0..80),
    ) {
        let mut watch = Watch::new(Limits::default());
        for (i, [a, b, c, d, e, f]) in metrics.into_iter().enumerate() {
            let step = Step {
                step: i as u64, loss: a, winner_error: b, ref_winner: Some(c), margin: Some(d), grad_norm: e, lr: f,
                skipped: a > b, ..Step::default()
            };
            let probe = Probe { step: i as u64, winner_error: a, ref_winner: Some(b), implicit_accuracy: Some(c), ..Probe::default() };
            for alarm in [watch.step(&step), watch.probe(&probe)].concat() {
                prop_assert!(ALARMS.iter().any(|entry| entry.name == alarm.name()));
            }
        }
    }
}

#[test]
fn the_guide_lists_exactly_these_alarms() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/reading-a-run.md");
    let guide = std::fs::read_to_string(path).unwrap();
    let listed: Vec<_> =
        ALARMS.iter().map(|alarm| format!("| `{}` | {} |", alarm.name, alarm.summary)).collect();
    let rows: Vec<_> = guide
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|row| row.rsplitn(2, " | ").last().unwrap())
        .collect();
    let rows: Vec<_> = rows.iter().map(|row| format!("{row} |")).collect();
    assert_eq!(rows, listed, "the first two columns of the table in docs/guide/reading-a-run.md");
}

/// What the embedded model's held-out pairs showed: step, rise of winners and of losers in percent, pairs of 52 ranked rightly.
type Seen = (u64, f64, f64, u64);

const RECIPE: &[Seen] = &[
    (0, 0.0, 0.0, 26),
    (6, 0.06, 0.2, 32),
    (12, 0.44, 0.79, 37),
    (18, 0.6, 1.01, 36),
    (24, 0.71, 1.1, 34),
    (30, 0.72, 1.09, 35),
    (36, 0.7, 1.05, 36),
    (42, 0.69, 1.04, 37),
    (48, 0.7, 1.05, 37),
    (50, 0.7, 1.05, 37),
];
const MAPO: &[Seen] = &[
    (0, 0.0, 0.0, 26),
    (6, 0.17, 0.51, 36),
    (12, 0.51, 1.05, 37),
    (18, 0.58, 1.38, 39),
    (24, 0.64, 1.32, 41),
    (30, 0.64, 1.16, 37),
    (36, 0.61, 1.22, 39),
    (42, 0.59, 1.26, 41),
    (48, 0.58, 1.25, 42),
    (50, 0.58, 1.25, 42),
];
/// Diffusion-DPO at fifteen and at thirty times the recipe's rate.
const FIFTEEN: &[Seen] = &[
    (0, 0.0, 0.0, 26),
    (4, 1.48, 1.83, 33),
    (8, 11.18, 11.68, 32),
    (12, 41.92, 46.3, 36),
    (16, 61.95, 69.05, 37),
    (20, 78.19, 90.78, 38),
    (24, 79.06, 94.45, 40),
    (28, 119.64, 142.41, 44),
];
const THIRTY: &[Seen] =
    &[(0, 0.0, 0.0, 26), (10, 117.69, 123.2, 38), (20, 288.72, 302.17, 38), (30, 428.79, 449.93, 45)];

fn watched(seen: &[Seen]) -> (Vec<(Severity, u64)>, Option<u64>) {
    let mut watch = Watch::new(Limits::default());
    let mut raised = Vec::new();
    for &(step, winner, loser, n_right) in seen {
        let (winner_error, loser_error) = (0.0594 * (1.0 + winner / 100.0), 0.0642 * (1.0 + loser / 100.0));
        let probe = Probe {
            step,
            n_pairs: 52,
            winner_error,
            loser_error: Some(loser_error),
            ref_winner: Some(0.0594),
            ref_loser: Some(0.0642),
            implicit_accuracy: Some(n_right as f64 / 52.0),
            margin: Some((loser_error - winner_error) - (0.0642 - 0.0594)),
            ..Probe::default()
        };
        raised.extend(watch.probe(&probe).iter().map(|alarm| (alarm.severity(), alarm.step())));
    }
    (raised, watch.best().map(|best| best.step))
}

#[test]
fn recorded_runs_that_beat_their_base_raise_nothing_and_keep_their_end() {
    assert_eq!(watched(RECIPE), (vec![], Some(50)));
    assert_eq!(watched(MAPO), (vec![], Some(50)));
}

#[test]
fn recorded_runs_that_are_ruined_raise_a_critical_alarm_within_an_eighth_of_their_steps_and_keep_an_early_state()
 {
    assert_eq!(watched(FIFTEEN), (vec![(Severity::Warning, 8), (Severity::Critical, 12)], Some(4)));
    assert_eq!(watched(THIRTY), (vec![(Severity::Critical, 10)], Some(0)));
}
