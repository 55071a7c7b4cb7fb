//! Work on many of a kind, as it goes: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressStyle};

use super::mebibytes;
use super::pace::{COLUMNS, Pace, brief, fitting, rate, with_bar};

/// Lines per work where there is no terminal.
const LINES: u64 = 20;

/// Least time between such lines.
const PAUSE: Duration = Duration::from_secs(2);

/// The columns of the terminal that standard error is.
pub fn columns() -> usize {
    Term::stderr().size_checked().map_or(COLUMNS, |(_, columns)| usize::from(columns).saturating_sub(1))
}

/// A line at the bottom of a terminal that is drawn anew.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// An empty one.
    pub fn new() -> Self {
        let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(ProgressBar::no_length().with_style(style))
    }

    /// Draws the parts that fit, with a bar of this fraction before them.
    pub fn show(&self, parts: &[(u8, String)], fraction: f64) {
        let columns = columns();
        self.0.set_message(with_bar(&fitting(parts, columns), fraction, columns));
        self.0.tick();
    }

    /// Prints above it.
    pub fn above(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Work on many of a kind.
pub struct Work {
    doing: &'static str,
    /// `None` for bytes.
    things: Option<&'static str>,
    /// What is worked on now.
    now: String,
    bar: Option<Bar>,
    on_terminal: bool,
    pace: Pace,
    said: (u64, Instant),
}

impl Work {
    /// `checking`, `pairs`.
    pub fn new(doing: &'static str, things: &'static str) -> Self {
        Self { things: Some(things), ..Self::of_bytes(doing) }
    }

    /// `fetching`.
    pub fn of_bytes(doing: &'static str) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let said = (0, Instant::now());
        Self { doing, things: None, now: String::new(), bar: None, on_terminal, pace: Pace::default(), said }
    }

    /// Names what is worked on now.
    pub fn on(&mut self, name: &str) {
        name.clone_into(&mut self.now);
    }

    /// Shows how much is done.
    pub fn at(&mut self, done: u64, of: u64) {
        let pace = self.pace.at(done, of);
        let lines = done * LINES / of.max(1);
        let is_due = lines > self.said.0 && self.said.1.elapsed() >= PAUSE;
        if !self.on_terminal && !is_due {
            return;
        }
        let parts = self.parts(done, of, pace);
        if self.on_terminal {
            self.bar.get_or_insert_with(Bar::new).show(&parts, done as f64 / of.max(1) as f64);
        } else {
            self.said = (lines, Instant::now());
            eprintln!("{}", fitting(&parts, COLUMNS));
        }
    }

    fn parts(&self, done: u64, of: u64, pace: Option<(f64, f64)>) -> Vec<(u8, String)> {
        let amount = match self.things {
            Some(things) => format!("{done}/{of} {things}"),
            None => format!("{} of {}", mebibytes(done), mebibytes(of)),
        };
        let mut parts = vec![(0, format!("{} {amount}", self.doing))];
        if let Some((per_second, left)) = pace {
            parts[0].1.push(',');
            let rate = match self.things {
                Some(things) => rate(per_second, things),
                None => format!("{:.1} MiB/s", per_second / f64::from(1 << 20)),
            };
            parts.push((2, format!("{rate},")));
            parts.push((1, format!("{} left", brief(left))));
        }
        if !self.now.is_empty() {
            parts.push((3, self.now.clone()));
        }
        parts
    }

    /// Prints a line on standard output, above the bar.
    pub fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.above(|| println!("{line}")),
            None => println!("{line}"),
        }
    }

    /// Prints a line on standard error, above the bar.
    pub fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.above(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Takes the bar away.
    pub fn end(&mut self) {
        self.bar = None;
    }
}
