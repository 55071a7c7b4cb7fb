//! How a run goes, for the one who waits: a bar on a terminal, plain lines elsewhere.

mod pace;
mod work;

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::PathBuf;

use tastemaker_run::{Event, Probe, Step};

use pace::{COLUMNS, Pace, brief, fitting, rate};
use work::Bar;
pub use work::Work;

/// Steps that one metric is the mean of: single steps are noise, for their timesteps differ.
const WINDOW: usize = 20;

/// Lines per run where there is no terminal.
const LINES: u64 = 20;

/// Shows events as they come, on standard error.
pub struct Progress {
    max_steps: u64,
    /// What is done before the first step.
    before: Option<Work>,
    bar: Option<Bar>,
    on_terminal: bool,
    recent: VecDeque<Step>,
    pace: Pace,
    /// What was last said to be waited for.
    waits_for: Option<PathBuf>,
}

impl Progress {
    /// For a run of this many steps.
    pub fn new(max_steps: u64) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        Self {
            max_steps,
            before: None,
            bar: None,
            on_terminal,
            recent: VecDeque::new(),
            pace: Pace::default(),
            waits_for: None,
        }
    }

    /// Shows an event.
    pub fn on_event(&mut self, event: &Event) {
        match event {
            Event::Read(read) => {
                let (done, all) = (read.n_done, read.n_pairs);
                self.before.get_or_insert_with(|| Work::new("reading images,", "pairs")).at(done, all);
                if done == all {
                    self.end();
                    self.line(&format!("read the images of {}", counted(all, "pair")));
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
                self.before.get_or_insert_with(|| Work::new("encoding", "pairs")).at(done, all);
                if done == all {
                    self.end();
                    let images = counted(encode.n_images, "image");
                    self.line(&format!("encoded {}, {images}", counted(all, "pair")));
                }
            }
            Event::Reference(reference) => {
                let (done, all) = (reference.n_done, reference.n_steps);
                self.before
                    .get_or_insert_with(|| Work::new("computing the reference,", "steps"))
                    .at(done, all);
                if done == all {
                    self.end();
                    self.line(&format!("computed the reference of {}", counted(all, "step")));
                }
            }
            Event::Skipped(row) => {
                self.line(&format!("skipped: pair {} ({}): {}", row.pair, row.place, row.detail));
            }
            Event::Start(start) => {
                self.end();
                if start.step > 0 {
                    self.line(&format!("resuming from step {}", start.step));
                }
                self.line(&format!(
                    "training with {} on {}, {} held out ({})",
                    start.method,
                    counted(start.n_pairs, "pair"),
                    start.n_held_out,
                    start.device
                ));
            }
            Event::Step(step) => self.step(step),
            Event::Probe(probe) => self.line(&held_out(probe)),
            Event::Alarm(alarm) => self.line(&format!("alarm: {}", alarm.message)),
            Event::Checkpoint { step, path, best } => {
                let what = if *best { "best so far" } else { "saved" };
                self.line(&format!("step {step}: {what}, {}", path.display()));
            }
            Event::Images { step, paths } => {
                let folder = paths.first().and_then(|path| path.parent()).map(|folder| folder.display());
                let place = folder.map_or(String::new(), |folder| format!(" in {folder}/"));
                self.line(&format!("step {step}: {}{place}", counted(paths.len() as u64, "image")));
            }
            Event::Stopping { step, reason } => self.line(&format!("stopping after step {step}: {reason}")),
            Event::Note { text } => self.line(&format!("note: {text}")),
            Event::Finish(_) => self.end(),
        }
    }

    /// Takes the bar away.
    pub fn end(&mut self) {
        self.bar = None;
        self.before = None;
    }

    fn step(&mut self, step: &Step) {
        self.recent.push_back(step.clone());
        if self.recent.len() > WINDOW {
            self.recent.pop_front();
        }
        let n_done = step.step + 1;
        let left = self.pace.at(n_done, self.max_steps);
        let mut parts = metrics(&self.recent);
        parts.extend(left.map(|(_, left)| (1, format!("{} left", brief(left)))));
        let every = (self.max_steps / LINES).max(1);
        if self.on_terminal {
            parts.insert(0, (0, format!("{n_done}/{}", self.max_steps)));
            self.bar.get_or_insert_with(Bar::new).show(&parts, n_done as f64 / self.max_steps.max(1) as f64);
        } else if step.step == 0 || n_done.is_multiple_of(every) || n_done == self.max_steps {
            parts.insert(0, (0, format!("step {n_done}/{}:", self.max_steps)));
            eprintln!("{}", fitting(&parts, COLUMNS));
        }
    }

    fn line(&self, text: &str) {
        match (&self.bar, &self.before) {
            (Some(bar), _) => bar.above(|| eprintln!("{text}")),
            (None, Some(work)) => work.note(text),
            (None, None) => eprintln!("{text}"),
        }
    }
}

/// Loss, accuracy, drift against the reference (or errors, where there is none) and rate, each with its rank in a line.
fn metrics(steps: &VecDeque<Step>) -> Vec<(u8, String)> {
    let mean = |metric: fn(&Step) -> Option<f64>| {
        let values: Option<Vec<f64>> = steps.iter().map(metric).collect();
        values.map(|values| values.iter().sum::<f64>() / values.len() as f64)
    };
    let mut parts = Vec::new();
    let mut add = |rank: u8, part: Option<String>| parts.extend(part.map(|part| (rank, part)));
    add(0, mean(|s| Some(s.loss)).map(|loss| format!("loss {loss:.4}")));
    add(2, mean(|s| s.implicit_accuracy).map(|accuracy| format!("accuracy {:.0}%", 100.0 * accuracy)));
    let winner = (mean(|s| Some(s.winner_error)), mean(|s| s.ref_winner));
    let loser = (mean(|s| s.loser_error), mean(|s| s.ref_loser));
    add(3, error("winner", winner.0, winner.1));
    add(4, error("loser", loser.0, loser.1));
    add(5, mean(|s| Some(s.pairs_per_second)).map(|per_second| rate(per_second, "pairs")));
    parts
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
    let pairs = counted(probe.n_pairs, "pair");
    format!("validation at step {} ({pairs}): {}", probe.step, metrics.join(" "))
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

/// A number of things: `1 image`, `2 images`.
pub fn counted(n: u64, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
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
        let text = fitting(&metrics(&[step(Some(1.0))].into()), 100);
        assert_eq!(text, "loss 0.5000 accuracy 75% winner -1.00% loser +2.00% 2.5 pairs/s");
    }

    #[test]
    fn without_a_reference_errors_stand_alone() {
        let text = fitting(&metrics(&[step(None)].into()), 100);
        assert_eq!(text, "loss 0.5000 accuracy 75% winner 0.9900 loser 1.0200 2.5 pairs/s");
    }

    #[test]
    fn lines_of_steps_fit_eighty_columns() {
        let mut parts = metrics(&[step(Some(1.0))].into());
        parts.insert(0, (0, "step 1000/2000:".to_owned()));
        parts.push((1, "10m05s left".to_owned()));
        let line = fitting(&parts, COLUMNS);
        assert_eq!(line, "step 1000/2000: loss 0.5000 accuracy 75% winner -1.00% loser +2.00% 10m05s left");
        assert!(line.len() <= COLUMNS);
    }

    #[test]
    fn durations_read_as_people_say_them() {
        let said = [4.4, 185.0, 7620.0].map(duration);
        assert_eq!(said, ["4 s", "3 min 05 s", "2 h 07 min"]);
    }
}
