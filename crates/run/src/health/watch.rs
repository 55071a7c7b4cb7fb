//! Watching a run.

use std::collections::BTreeMap;

use super::alarm::{Alarm, Severity};
use super::limits::{Limits, WINDOW};
use super::quality::quality;
use super::window::{Window, mean_and_error};
use crate::{Event, Probe, Step};

/// Gradients whose median is the usual length, and how many of them there must be.
const USUAL_GRADIENTS: usize = 50;
const FEWEST_GRADIENTS: usize = 20;
const RECENT_GRADIENTS: usize = 5;

/// Losses that are looked at together before there are enough for a window.
const RECENT_LOSSES: usize = 5;

/// The best state so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// Optimizer steps made; 0 is the model as it was before the run.
    pub step: u64,
    /// Its [`quality`].
    pub quality: f64,
}

/// What has been seen of a run, in bounded memory, and which alarms stand.
///
/// An alarm is raised once, and again only after its cause was gone for [`WINDOW`] steps, or at a probe.
#[derive(Debug, Clone)]
pub struct Watch {
    limits: Limits,
    steps: Window<Step>,
    skipped: Window<bool>,
    gradients: Window<f64>,
    /// Sum and number of the first losses, at most [`WINDOW`].
    first_losses: (f64, usize),
    /// Steps since the learning rate last rose.
    settled: usize,
    last_probe: Option<Probe>,
    /// The probe with the highest accuracy.
    most_accurate: Option<Probe>,
    best: Option<(Best, Probe)>,
    /// Winners' error of the first step.
    first_error: Option<f64>,
    /// Lengths of outputs in the first steps, at most [`WINDOW`].
    first_norms: Vec<f64>,
    /// Alarms that stand, and the step at which each last held.
    standing: BTreeMap<(&'static str, Severity), u64>,
    /// Every alarm that was raised: as it first held, and as it last did.
    raised: BTreeMap<(&'static str, Severity), (Alarm, Alarm)>,
}

impl Watch {
    /// One that has seen nothing.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            steps: Window::new(limits.flat_steps.max(2 * WINDOW)),
            skipped: Window::new(WINDOW),
            gradients: Window::new(USUAL_GRADIENTS + RECENT_GRADIENTS),
            first_losses: (0.0, 0),
            settled: 0,
            last_probe: None,
            most_accurate: None,
            best: None,
            first_error: None,
            first_norms: Vec::new(),
            standing: BTreeMap::new(),
            raised: BTreeMap::new(),
        }
    }

    /// One that has seen a log, as it was when the run was last resumed: what an earlier process did beyond the step that a later
    /// one [started](crate::Start) from is skipped, and its validation at that step, which the later one makes again.
    pub fn replay(limits: Limits, events: &[Event]) -> Self {
        let mut kept = Vec::new();
        let mut from = u64::MAX;
        for event in events.iter().rev() {
            match event {
                Event::Start(start) => from = from.min(start.step),
                Event::Step(step) if step.step < from => kept.push(event),
                Event::Probe(probe) if probe.step < from => kept.push(event),
                _ => {}
            }
        }
        let mut watch = Self::new(limits);
        for event in kept.into_iter().rev() {
            watch.event(event);
        }
        watch
    }

    /// What it judges by.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes an event and says which alarms are new. Only steps and probes have any.
    pub fn event(&mut self, event: &Event) -> Vec<Alarm> {
        match event {
            Event::Step(step) => self.step(step),
            Event::Probe(probe) => self.probe(probe),
            _ => Vec::new(),
        }
    }

    /// Takes a step and says which alarms are new.
    pub fn step(&mut self, step: &Step) -> Vec<Alarm> {
        self.skipped.push(step.skipped);
        let mut held = Vec::new();
        if step.skipped {
            held.extend(self.steps_skipped(step.step));
        } else if let Some(alarm) = non_finite(step) {
            held.push(alarm);
        } else {
            self.keep(step);
            let judgments = [
                self.ruined(step).or_else(|| self.winners_worse(step.step)),
                self.norm_grows(step.step),
                self.loss_rises(step.step),
                self.gradient_explodes(step.step),
                self.flat_loss(step.step),
                self.saturated(step.step),
            ];
            held.extend(judgments.into_iter().flatten());
        }
        let new = self.raise(step.step, held);
        self.standing
            .retain(|(name, _), last| is_of_probe(name) || last.saturating_add(WINDOW as u64) > step.step);
        new
    }

    /// Takes a probe and says which alarms are new.
    pub fn probe(&mut self, probe: &Probe) -> Vec<Alarm> {
        let probe = if probe.accuracy_low.is_some() { probe.clone() } else { probe.clone().with_interval() };
        let held = [
            non_finite_probe(&probe),
            self.held_out_winners_worse(&probe),
            self.accuracy_falls(&probe),
            self.overfitting(&probe),
        ];
        let new = self.raise(probe.step, held.into_iter().flatten().collect());
        self.standing.retain(|(name, _), last| !is_of_probe(name) || *last == probe.step);

        if let Some(quality) = quality(&probe, &self.limits)
            && self.best().is_none_or(|best| quality >= best.quality)
        {
            self.best = Some((Best { step: probe.step, quality }, probe.clone()));
        }
        if self.most_accurate.as_ref().is_none_or(|best| probe.implicit_accuracy >= best.implicit_accuracy) {
            self.most_accurate = Some(probe.clone());
        }
        self.last_probe = Some(probe);
        new
    }

    /// The state with the best [`quality`] so far, the later one of equals; `None` before the first probe that has one.
    pub fn best(&self) -> Option<Best> {
        self.best.as_ref().map(|(best, _)| *best)
    }

    /// The probe of a state, if that was the last or the best one.
    pub fn probe_of(&self, step: u64) -> Option<&Probe> {
        let best = self.best.as_ref().map(|(_, probe)| probe);
        self.last_probe.iter().chain(best).find(|probe| probe.step == step)
    }

    /// What was raised about a state: each alarm of the steps up to it as it last held, the worst first and none twice.
    pub fn raised_until(&self, step: u64) -> Vec<Alarm> {
        let known = self.raised.values().filter(|(first, _)| first.step() <= step);
        let known = known.map(|(first, last)| if last.step() <= step { last } else { first });
        let mut alarms: Vec<&Alarm> = known.collect();
        alarms.sort_by_key(|alarm| std::cmp::Reverse(alarm.severity()));
        let mut names = Vec::new();
        alarms.retain(|alarm| {
            let is_new = !names.contains(&alarm.name());
            names.push(alarm.name());
            is_new
        });
        alarms.into_iter().cloned().collect()
    }

    /// Whether the last probe is the best one.
    pub fn is_best(&self) -> bool {
        self.last_probe.as_ref().is_some_and(|last| self.best().is_some_and(|best| best.step == last.step))
    }

    fn keep(&mut self, step: &Step) {
        self.first_error.get_or_insert(step.winner_error);
        if self.first_norms.len() < WINDOW {
            self.first_norms.extend(step.prediction_norm);
        }
        if self.first_losses.1 < WINDOW {
            self.first_losses = (self.first_losses.0 + step.loss, self.first_losses.1 + 1);
        }
        let before = self.steps.last(1).and_then(|mut last| last.next()).map(|last| last.lr);
        self.settled = if before.is_some_and(|before| step.lr > before) { 0 } else { self.settled + 1 };
        self.gradients.push(step.grad_norm);
        self.steps.push(step.clone());
    }

    /// Alarms that did not stand before. A critical one stands for the warning of the same name, too.
    fn raise(&mut self, at: u64, held: Vec<Alarm>) -> Vec<Alarm> {
        let mut new = Vec::new();
        for alarm in held {
            let (name, severity) = (alarm.name(), alarm.severity());
            let raised = self.raised.entry((name, severity));
            raised.and_modify(|(_, last)| *last = alarm.clone()).or_insert((alarm.clone(), alarm.clone()));
            let advised = self.standing.insert((name, Severity::Warning), at).is_some();
            let stood = match severity {
                Severity::Warning => advised,
                Severity::Critical => self.standing.insert((name, severity), at).is_some(),
            };
            if !stood {
                new.push(alarm);
            }
        }
        new
    }

    /// Mean and standard error of a metric over the last steps; `None` unless there are so many and each has it.
    fn over(&self, n: usize, metric: impl Fn(&Step) -> Option<f64>) -> Option<(f64, f64)> {
        mean_and_error(self.steps.last(n)?.map(metric))
    }

    fn steps_skipped(&self, step: u64) -> Option<Alarm> {
        let n = self.skipped.last(WINDOW)?.filter(|skipped| **skipped).count();
        (2 * n > WINDOW).then_some(Alarm::StepsSkipped { step, n })
    }

    /// A step so far off that no window is needed to be sure. The first one is that of the untouched model.
    fn ruined(&self, step: &Step) -> Option<Alarm> {
        let limits = &self.limits;
        let (before, is_ruined) = match step.ref_winner {
            Some(reference) => {
                let (error, drift) = (step.winner_error, step.winner_error - reference);
                let is_twice = drift > limits.ruined_drift && drift > limits.ruined_rise * reference;
                let is_noise = error > limits.ruined_error && drift > 0.5 * limits.ruined_rise * reference;
                (reference, is_twice || is_noise)
            }
            None => {
                let first = self.first_error?;
                let error = step.winner_error;
                (first, error > limits.ruined_error && error > limits.ruined_factor * first)
            }
        };
        let margin_grows = step.margin.is_some_and(|margin| margin > 0.0);
        let rise = step.winner_error / before - 1.0;
        let has_reference = step.ref_winner.is_some();
        let alarm =
            Alarm::WinnersWorse { step: step.step, rise, has_reference, margin_grows, critical: true };
        (is_ruined && step.step > 0).then_some(alarm)
    }

    fn winners_worse(&self, step: u64) -> Option<Alarm> {
        let (drift, error) = self.over(WINDOW, |s| Some(s.winner_error - s.ref_winner?))?;
        let (reference, _) = self.over(WINDOW, |s| s.ref_winner)?;
        let rise = drift / reference;
        let is_sure = drift > self.limits.standard_errors * error;
        let margin = self.over(WINDOW, |s| s.margin).map_or(0.0, |(mean, _)| mean);
        let longer = self.over(2 * WINDOW, |s| s.margin).map_or(0.0, |(mean, _)| mean);
        let critical = rise > self.limits.winner_critical;
        let margin_grows = margin > longer.max(0.0);
        (is_sure && rise > self.limits.winner_warning).then_some(Alarm::WinnersWorse {
            step,
            rise,
            has_reference: true,
            margin_grows,
            critical,
        })
    }

    /// Beside the reference's outputs on the same latents; without them beside those of the first steps, whose latents were others.
    fn norm_grows(&self, step: u64) -> Option<Alarm> {
        let has_reference = self.steps.last(1)?.all(|last| last.ref_norm.is_some());
        let (growth, error) = if has_reference {
            self.over(WINDOW, Step::norm_growth)?
        } else if self.steps.len() < 2 * WINDOW {
            // The two windows would overlap.
            return None;
        } else {
            let (first, first_error) = mean_and_error(self.first_norms.iter().copied().map(Some))?;
            let (now, error) = self.over(WINDOW, |s| s.prediction_norm)?;
            (now / first - 1.0, error.hypot(first_error) / first)
        };
        let critical = growth > self.limits.norm_critical;
        let is_sure = growth > self.limits.standard_errors * error;
        let alarm = Alarm::NormGrows { step, growth, has_reference, critical };
        (is_sure && growth > self.limits.norm_warning).then_some(alarm)
    }

    fn loss_rises(&self, step: u64) -> Option<Alarm> {
        let start = std::f64::consts::LN_2;
        // Where no reference is, a loss has no natural start.
        if self.steps.len() < WINDOW {
            return self.loss_ruined(step);
        }
        self.over(WINDOW, |s| s.ref_winner.and(s.logit_mean))?;
        let (loss, error) = self.over(WINDOW, |s| Some(s.loss))?;
        let is_sure = loss - start > self.limits.standard_errors * error;
        let critical = loss > self.limits.loss_critical * start;
        let alarm = Alarm::LossRises { step, loss, start, critical };
        (is_sure && loss > self.limits.loss_warning * start).then_some(alarm)
    }

    /// A loss so high in the first steps that no window is needed to be sure. The very first one is that of the untouched model.
    fn loss_ruined(&self, step: u64) -> Option<Alarm> {
        let start = std::f64::consts::LN_2;
        let n = self.steps.len().checked_sub(1)?.min(RECENT_LOSSES);
        let (loss, _) = self.over(n, |s| s.ref_winner.and(s.logit_mean).and(Some(s.loss)))?;
        let is_ruined = n > 0 && loss > self.limits.loss_ruined * start;
        is_ruined.then_some(Alarm::LossRises { step, loss, start, critical: true })
    }

    fn gradient_explodes(&self, step: u64) -> Option<Alarm> {
        let n = self.gradients.len();
        if n < FEWEST_GRADIENTS + RECENT_GRADIENTS {
            return None;
        }
        let norm = median(self.gradients.last(RECENT_GRADIENTS)?.copied())?;
        let usual = median(self.gradients.last(n)?.take(n - RECENT_GRADIENTS).copied())?;
        (usual > 0.0 && norm > self.limits.gradient_factor * usual).then_some(Alarm::GradientExplodes {
            step,
            norm,
            usual,
        })
    }

    fn flat_loss(&self, step: u64) -> Option<Alarm> {
        let n = self.limits.flat_steps;
        let is_ranked = |probe: &Probe| probe.accuracy_low.is_some_and(|low| low > 0.5);
        if self.settled < n || self.last_probe.as_ref().is_some_and(is_ranked) {
            return None;
        }
        let (loss, _) = self.over(n, |s| Some(s.loss))?;
        let (square, _) = self.over(n, |s| s.ref_winner.and(s.logit_mean).map(|logit| logit * logit))?;
        let start = self.first_losses.0 / self.first_losses.1 as f64;
        let is_still = (loss - start).abs() <= self.limits.flat_change * start.abs();
        (is_still && square.sqrt() <= self.limits.flat_logit).then_some(Alarm::FlatLoss { step, loss })
    }

    fn saturated(&self, step: u64) -> Option<Alarm> {
        self.over(WINDOW, |s| s.ref_winner)?;
        let (loss, _) = self.over(WINDOW, |s| Some(s.loss))?;
        let (accuracy, _) = self.over(WINDOW, |s| s.implicit_accuracy)?;
        let is_saturated = loss < self.limits.saturated? * std::f64::consts::LN_2 && accuracy > 0.99;
        is_saturated.then_some(Alarm::Saturated { step, loss, accuracy })
    }

    fn held_out_winners_worse(&self, probe: &Probe) -> Option<Alarm> {
        let rise = probe.winner_rise()?;
        let drift = probe.winner_error - probe.ref_winner?;
        let before = self.last_probe.as_ref();
        let critical = rise > self.limits.winner_critical;
        let half = 0.5 * self.limits.winner_warning;
        // Without a standard error, it has to be much, or the probe before has to have shown the half of it.
        let is_sure = match probe.winner_drift_se {
            Some(error) => drift > self.limits.standard_errors * error,
            None => critical || before.and_then(Probe::winner_rise).is_some_and(|rise| rise > half),
        };
        let earlier = before.and_then(|before| before.margin).unwrap_or(0.0).max(0.0);
        let margin_grows = probe.margin.is_some_and(|margin| margin > earlier);
        let alarm = Alarm::HeldOutWinnersWorse { step: probe.step, rise, margin_grows, critical };
        (is_sure && rise > self.limits.winner_warning).then_some(alarm)
    }

    fn accuracy_falls(&self, probe: &Probe) -> Option<Alarm> {
        let most = self.most_accurate.as_ref().filter(|most| most.step > 0)?;
        let (best, low) = (most.implicit_accuracy?, most.accuracy_low?);
        let accuracy = probe.implicit_accuracy?;
        // One probe below is often noise, for the best one was picked among several.
        let has_fallen = accuracy < low && self.last_probe.as_ref()?.implicit_accuracy? < low;
        let alarm = Alarm::AccuracyFalls { step: probe.step, accuracy, best, best_step: most.step };
        has_fallen.then_some(alarm)
    }

    fn overfitting(&self, probe: &Probe) -> Option<Alarm> {
        let (trained, _) = self.over(WINDOW, |s| s.ref_winner.and(s.implicit_accuracy))?;
        let held_out = probe.implicit_accuracy?;
        let alarm = Alarm::Overfitting { step: probe.step, trained, held_out };
        (trained > self.limits.overfitting? && probe.accuracy_high? < trained).then_some(alarm)
    }
}

/// Whether an alarm is judged at probes.
fn is_of_probe(name: &str) -> bool {
    ["held-out-winners-worse", "accuracy-falls", "overfitting"].contains(&name)
}

fn non_finite(step: &Step) -> Option<Alarm> {
    first_non_finite(
        step.step,
        [
            ("loss", Some(step.loss)),
            ("winner_error", Some(step.winner_error)),
            ("loser_error", step.loser_error),
            ("ref_winner", step.ref_winner),
            ("ref_loser", step.ref_loser),
            ("logit_mean", step.logit_mean),
            ("margin", step.margin),
            ("grad_norm", Some(step.grad_norm)),
        ],
    )
}

fn non_finite_probe(probe: &Probe) -> Option<Alarm> {
    let metrics =
        [("held-out winner_error", Some(probe.winner_error)), ("held-out loser_error", probe.loser_error)];
    first_non_finite(probe.step, metrics)
}

fn first_non_finite<const N: usize>(step: u64, metrics: [(&'static str, Option<f64>); N]) -> Option<Alarm> {
    let is_wrong = |(_, value): &(_, Option<f64>)| value.is_some_and(|value| !value.is_finite());
    let (metric, value) = metrics.into_iter().find(is_wrong)?;
    Some(Alarm::NonFinite { step, metric, value: value? })
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    tastemaker_math::intervals::median(&values.collect::<Vec<_>>())
}
