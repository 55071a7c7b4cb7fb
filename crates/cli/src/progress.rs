//! How a run goes, for the one who waits: a bar on a terminal, plain lines elsewhere.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tastemaker_run::{Event, Probe, Step};

/// Steps that one metric is the mean of: single steps are noise, for their timesteps differ.
const WINDOW: usize = 20;

/// Lines per run where there is no terminal.
const LINES: u64 = 20;

/// Least time between such lines.
const PAUSE: Duration = Duration::from_secs(2);

/// Shows events as they come, on standard error.
pub struct Progress {
    max_steps: u64,
    bar: Option<ProgressBar>,
    on_terminal: bool,
    recent: VecDeque<Step>,
    began: Instant,
    /// The first step of this process.
    first: u64,
    /// What was last said to be waited for.
    waits_for: Option<PathBuf>,
}

impl Progress {
    /// For a run of this many steps.
    pub fn new(max_steps: u64) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        Self {
            max_steps,
            bar: None,
            on_terminal,
            recent: VecDeque::new(),
            began: Instant::now(),
            first: 0,
            waits_for: None,
        }
    }

    /// Shows an event.
    pub fn on_event(&mut self, event: &Event) {
        match event {
            Event::Read(read) => {
                self.bar_for(read.n_pairs, "reading images {wide_bar} {pos}/{len} pairs, {eta} left");
                self.at(read.n_done, String::new());
                if read.n_done == read.n_pairs {
                    self.end();
                    self.line(&format!("read the images of {} pairs", read.n_pairs));
                }
            }
            Event::Waiting { path } => {
                if self.waits_for.as_ref() != Some(path) {
                    self.line(&format!("waiting for another process that makes {}", path.display()));
                    self.waits_for = Some(path.clone());
                }
            }
            Event::Encode(encode) => {
                let (done, all) = (encode.n_done, encode.n_pairs);
                self.bar_for(all, "encoding {wide_bar} {pos}/{len} pairs, {eta} left");
                self.at(done, String::new());
                if done == all {
                    self.end();
                    self.line(&format!("encoded {all} pairs, {} images", encode.n_images));
                }
            }
            Event::Reference(reference) => {
                self.bar_for(
                    reference.n_steps,
                    "computing the reference {wide_bar} {pos}/{len} steps, {eta} left",
                );
                self.at(reference.n_done, String::new());
                if reference.n_done == reference.n_steps {
                    self.end();
                    self.line(&format!("computed the reference of {} steps", reference.n_steps));
                }
            }
            Event::Skipped(row) => {
                self.line(&format!("skipped: pair {} ({}): {}", row.pair, row.place, row.detail));
            }
            Event::Start(start) => {
                self.began = Instant::now();
                self.first = start.step;
                if start.step > 0 {
                    self.line(&format!("resuming from step {}", start.step));
                }
                self.line(&format!(
                    "training with {} on {} pairs, {} held out ({})",
                    start.method, start.n_pairs, start.n_held_out, start.device
                ));
                self.bar_for(self.max_steps, "{wide_bar} {pos}/{len} {msg}");
            }
            Event::Step(step) => self.step(step),
            Event::Probe(probe) => self.line(&held_out(probe)),
            Event::Alarm(alarm) => self.line(&format!("alarm: {}", alarm.message)),
            Event::Checkpoint { step, path, best } => {
                let what = if *best { "best so far" } else { "saved" };
                self.line(&format!("step {step}: {what}, {}", path.display()));
            }
            Event::Images { step, paths } => self.line(&format!("step {step}: {} images", paths.len())),
            Event::Stopping { step, reason } => self.line(&format!("stopping after step {step}: {reason}")),
            Event::Note { text } => self.line(&format!("note: {text}")),
            Event::Finish(_) => self.end(),
        }
    }

    /// Takes the bar away.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn step(&mut self, step: &Step) {
        self.recent.push_back(step.clone());
        if self.recent.len() > WINDOW {
            self.recent.pop_front();
        }
        let n_done = step.step + 1;
        let pace = self.began.elapsed().as_secs_f64() / (n_done - self.first) as f64;
        let left = pace * (self.max_steps - n_done) as f64;
        let metrics = format!("{} {} left", metrics(&self.recent), duration(left));
        let every = (self.max_steps / LINES).max(1);
        if self.on_terminal {
            self.at(n_done, metrics);
        } else if step.step == 0 || n_done.is_multiple_of(every) || n_done == self.max_steps {
            eprintln!("step {n_done}/{}: {metrics}", self.max_steps);
        }
    }

    fn bar_for(&mut self, length: u64, template: &str) {
        if self.on_terminal && self.bar.is_none() {
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar = Some(ProgressBar::new(length).with_style(style));
        }
    }

    fn at(&self, position: u64, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(message);
            bar.set_position(position);
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }
}

/// Work on many of a kind, as it goes.
pub struct Work {
    doing: &'static str,
    things: &'static str,
    on_terminal: bool,
    bar: Option<ProgressBar>,
    began: Instant,
    said: (u64, Instant),
}

impl Work {
    /// `checking`, `pairs`.
    pub fn new(doing: &'static str, things: &'static str) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let began = Instant::now();
        Self { doing, things, on_terminal, bar: None, began, said: (0, began) }
    }

    /// Shows how much is done.
    pub fn at(&mut self, done: u64, of: u64) {
        if self.on_terminal {
            let bar = self.bar.get_or_insert_with(|| bar(self.doing, self.things, of));
            bar.set_position(done);
            return;
        }
        let lines = done * LINES / of.max(1);
        if lines > self.said.0 && self.said.1.elapsed() >= PAUSE {
            self.said = (lines, Instant::now());
            let seconds = self.began.elapsed().as_secs_f64();
            let left = seconds / done as f64 * (of - done) as f64;
            let rate = done as f64 / seconds.max(1e-9);
            let (doing, things) = (self.doing, self.things);
            eprintln!("{doing} {done}/{of} {things}: {rate:.0} {things}/s, {} left", duration(left));
        }
    }

    /// Takes the bar away.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(doing: &str, things: &str, of: u64) -> ProgressBar {
    let template = format!("{doing} {{wide_bar}} {{pos}}/{{len}} {things}, {{per_sec}}, {{eta}} left");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(of).with_style(style)
}

/// Loss, accuracy, drift against the reference (or errors, where there is none) and rate.
fn metrics(steps: &VecDeque<Step>) -> String {
    let mean = |metric: fn(&Step) -> Option<f64>| {
        let values: Option<Vec<f64>> = steps.iter().map(metric).collect();
        values.map(|values| values.iter().sum::<f64>() / values.len() as f64)
    };
    let mut parts = Vec::new();
    parts.extend(mean(|s| Some(s.loss)).map(|loss| format!("loss {loss:.4}")));
    parts.extend(mean(|s| s.implicit_accuracy).map(|accuracy| format!("accuracy {:.0}%", 100.0 * accuracy)));
    let winner = (mean(|s| Some(s.winner_error)), mean(|s| s.ref_winner));
    let loser = (mean(|s| s.loser_error), mean(|s| s.ref_loser));
    parts.extend(error("winner", winner.0, winner.1));
    parts.extend(error("loser", loser.0, loser.1));
    parts.extend(mean(|s| Some(s.pairs_per_second)).map(|rate| format!("{rate:.2} pairs/s,")));
    parts.join(" ")
}

/// An error as drift from the reference's, or itself without one.
fn error(whose: &str, error: Option<f64>, reference: Option<f64>) -> Option<String> {
    Some(match (error?, reference) {
        (error, Some(reference)) => format!("{whose} {:+.2}%", 100.0 * (error / reference - 1.0)),
        (error, None) => format!("{whose} {error:.4}"),
    })
}

fn held_out(probe: &Probe) -> String {
    let accuracy =
        probe.implicit_accuracy.map(|accuracy| format!("accuracy {:.0}%", 100.0 * accuracy)).into_iter();
    let winner = error("winner", Some(probe.winner_error), probe.ref_winner);
    let loser = error("loser", probe.loser_error, probe.ref_loser);
    let metrics: Vec<String> = accuracy.chain(winner).chain(loser).collect();
    format!("held out at step {} ({} pairs): {}", probe.step, probe.n_pairs, metrics.join(" "))
}

/// Seconds in words: `42 s`, `3 min 05 s`, `2 h 07 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Bytes in words.
pub fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(ref_winner: Option<f64>) -> Step {
        Step {
            step: 3,
            loss: 0.5,
            winner_error: 0.99,
            loser_error: Some(1.02),
            ref_winner,
            ref_loser: ref_winner,
            logit_mean: None,
            implicit_accuracy: Some(0.75),
            margin: None,
            grad_norm: 1.0,
            lr: 1e-5,
            pairs_per_second: 2.5,
            ..Step::default()
        }
    }

    #[test]
    fn drift_is_a_fraction_of_the_references_error() {
        let text = metrics(&[step(Some(1.0))].into());
        assert_eq!(text, "loss 0.5000 accuracy 75% winner -1.00% loser +2.00% 2.50 pairs/s,");
    }

    #[test]
    fn without_a_reference_errors_stand_alone() {
        let text = metrics(&[step(None)].into());
        assert_eq!(text, "loss 0.5000 accuracy 75% winner 0.9900 loser 1.0200 2.50 pairs/s,");
    }

    #[test]
    fn durations_read_as_people_say_them() {
        let said = [4.4, 185.0, 7620.0].map(duration);
        assert_eq!(said, ["4 s", "3 min 05 s", "2 h 07 min"]);
    }
}
