//! What was found, in numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tastemaker_math::intervals::{Interval, WinCount};

use super::checks::{CHECKS, Kind, Severity};
use super::finding::{Finding, Subject};
use super::settings::Settings;
use crate::set::PairSet;
use crate::{Label, PairId, PairSource};

/// Where the bins of [`Summary::sizes`] begin, in pixels of the shorter side; the first begins at 1.
pub const SIZE_BINS: [u32; 9] = [1, 256, 384, 512, 640, 768, 1024, 1536, 2048];

/// A rate of winners listed first within these is not worth a word.
const BALANCED: std::ops::RangeInclusive<f64> = 0.45..=0.55;

/// A rate of liked images within these leaves enough of both labels.
const BOTH_LABELS: std::ops::RangeInclusive<f64> = 0.1..=0.9;

/// Findings of each kind that are remembered, the worst ones.
const REMEMBERED: usize = 4;

/// Where the time went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// Threads.
    pub workers: usize,
    /// From the first pair to the last.
    pub wall: Duration,
    /// That the workers worked, all together.
    pub busy: Duration,
    /// That they spent in the decoder, all together.
    pub decoding: Duration,
}

impl Timing {
    /// Fraction of the time that the workers worked.
    pub fn utilization(&self) -> f64 {
        self.busy.as_secs_f64() / (self.wall.as_secs_f64() * self.workers as f64).max(1e-9)
    }

    /// Fraction of that time spent in the decoder.
    pub fn decoder_fraction(&self) -> f64 {
        self.decoding.as_secs_f64() / self.busy.as_secs_f64().max(1e-9)
    }
}

/// How many single images have which label.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LabelCounts {
    /// That people like.
    pub n_liked: u64,
    /// That they do not.
    pub n_disliked: u64,
}

impl LabelCounts {
    /// Fraction of images that people like, with its 95% interval.
    pub fn liked(&self) -> Option<Interval> {
        WinCount { wins: self.n_liked, ties: 0, losses: self.n_disliked }.wilson_95()
    }
}

/// What was found, in numbers.
#[derive(Debug, Clone)]
pub struct Summary {
    /// What users call the set.
    pub path: String,
    /// What was asked.
    pub settings: Settings,
    /// Rows of the set, pairs or not.
    pub n_rows: u64,
    /// Rows that are pairs.
    pub n_pairs: u64,
    /// Pairs whose images decode.
    pub n_usable: u64,
    /// Pairs that training holds out.
    pub n_held_out: u64,
    /// Rows with findings of each kind, in the order of [`CHECKS`].
    pub rows: Vec<u64>,
    /// Images by the length of their shorter side.
    pub sizes: [u64; SIZE_BINS.len()],
    /// Tokens of captions that are cut, over all pairs.
    pub n_tokens_cut: u64,
    /// Single images with either label, where the set has no pairs.
    pub labels: Option<LabelCounts>,
    /// Pairs whose winner is listed first.
    pub n_winner_first: u64,
    /// Pairs whose loser is.
    pub n_loser_first: u64,
    /// The worst findings of each kind, the worst kind first.
    pub worst: Vec<Finding>,
    /// Rows to exclude, and why.
    pub excluded: BTreeMap<PairId, Kind>,
    /// Where the time went.
    pub timing: Timing,
}

impl Summary {
    pub(super) fn of(set: &PairSet, settings: &Settings) -> Self {
        Self {
            path: set.path().display().to_string(),
            settings: settings.clone(),
            n_rows: (set.len() + set.skipped().len()) as u64,
            n_pairs: set.len() as u64,
            n_usable: set.len() as u64,
            n_held_out: 0,
            rows: vec![0; CHECKS.len()],
            sizes: [0; SIZE_BINS.len()],
            n_tokens_cut: 0,
            labels: set.label(0).map(|_| LabelCounts::default()),
            n_winner_first: 0,
            n_loser_first: 0,
            worst: Vec::new(),
            excluded: BTreeMap::new(),
            timing: Timing::default(),
        }
    }

    /// Counts the findings of one row.
    pub(super) fn count(&mut self, findings: &[Finding]) {
        for (i, finding) in findings.iter().enumerate() {
            let kind = finding.kind;
            if findings[..i].iter().any(|earlier| earlier.kind == kind) {
                continue;
            }
            self.rows[kind as usize] += 1;
            if kind == Kind::CutCaption {
                self.n_tokens_cut += finding.badness as u64;
            }
            if let (Kind::BadImage, Subject::Pair(..)) = (kind, &finding.subject) {
                self.n_usable -= 1;
            }
            if let Some(id) = finding.row().filter(|_| self.settings.exclude.contains(&kind)) {
                self.excluded.entry(id).or_insert(kind);
            }
            self.remember(finding);
        }
    }

    fn remember(&mut self, finding: &Finding) {
        let rank = |other: &Finding| (other.kind, -other.badness);
        // After those as bad that came before.
        let at = self.worst.partition_point(|other| rank(other) <= rank(finding));
        let kept = self.worst.iter().take(at).filter(|other| other.kind == finding.kind).count();
        if kept >= REMEMBERED {
            return;
        }
        self.worst.insert(at, finding.clone());
        let first = self.worst.partition_point(|other| other.kind < finding.kind);
        let n = self.worst[first..].iter().take_while(|other| other.kind == finding.kind).count();
        if n > REMEMBERED {
            self.worst.remove(first + REMEMBERED);
        }
    }

    pub(super) fn size(&mut self, (width, height): (u32, u32)) {
        let bin = SIZE_BINS.partition_point(|&side| side <= width.min(height));
        self.sizes[bin.saturating_sub(1)] += 1;
    }

    pub(super) fn listed(&mut self, winner_is_first: Option<bool>) {
        match winner_is_first {
            Some(true) => self.n_winner_first += 1,
            Some(false) => self.n_loser_first += 1,
            None => {}
        }
    }

    pub(super) fn labeled(&mut self, label: Option<Label>) {
        if let (Some(label), Some(counts)) = (label, &mut self.labels) {
            match label {
                Label::Liked => counts.n_liked += 1,
                Label::Disliked => counts.n_disliked += 1,
            }
        }
    }

    /// What the set has: `pairs`, or `images`.
    pub fn things(&self) -> &'static str {
        if self.labels.is_some() { "images" } else { "pairs" }
    }

    /// Findings of a severity, one per row and check.
    pub fn n(&self, severity: Severity) -> u64 {
        let checks = CHECKS.iter().filter(|check| check.severity == severity);
        checks.map(|check| self.rows[check.kind as usize]).sum()
    }

    /// Fraction of pairs whose winner is listed first, with its 95% interval; `None` in a layout without an order.
    pub fn winner_first(&self) -> Option<Interval> {
        WinCount { wins: self.n_winner_first, ties: 0, losses: self.n_loser_first }.wilson_95()
    }

    /// Findings, in numbers and words: `2 errors, 1 warning`.
    pub fn verdict(&self) -> String {
        let counted = |n: u64, word: &str| match n {
            0 => format!("no {word}s"),
            1 => format!("1 {word}"),
            _ => format!("{n} {word}s"),
        };
        format!(
            "{}, {}",
            counted(self.n(Severity::Error), "error"),
            counted(self.n(Severity::Warning), "warning")
        )
    }
}

/// The finding that winners are listed first too often or too rarely, or that single images have hardly any of one label. Images
/// that are all liked are favorites, and meant to be.
pub(super) fn imbalance(summary: &Summary) -> Option<Finding> {
    let detail = match summary.labels {
        None => {
            let Interval { estimate, low, high } = summary.winner_first()?;
            if high >= *BALANCED.start() && low <= *BALANCED.end() {
                return None;
            }
            let (n, of) = (summary.n_winner_first, summary.n_winner_first + summary.n_loser_first);
            let [rate, low, high] = [estimate, low, high].map(|rate| 100.0 * rate);
            format!(
                "the winner is listed first in {n} of {of} pairs, {rate:.1}% (95% interval {low:.1}% to {high:.1}%)"
            )
        }
        Some(counts @ LabelCounts { n_liked, n_disliked }) => {
            let Interval { low, high, .. } = counts.liked()?;
            let is_lopsided = high < *BOTH_LABELS.start() || low > *BOTH_LABELS.end();
            if n_disliked == 0 || n_liked == 0 || !is_lopsided {
                return None;
            }
            format!("{n_liked} images are liked and {n_disliked} are not")
        }
    };
    let (kind, subject) = (Kind::LabelImbalance, Subject::Set);
    Some(Finding { kind, subject, place: String::new(), side: None, file: None, detail, badness: 0.0 })
}

/// As the command prints it.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, n_rows, n_usable, n_held_out, .. } = self;
        writeln!(f, "{path}: {}", self.verdict())?;
        writeln!(f, "{n_rows} rows, {n_usable} {} to use, {n_held_out} of them held out", self.things())?;
        let found = CHECKS.iter().filter(|check| self.rows[check.kind as usize] > 0);
        let widest = found.clone().map(|check| check.name.len()).max().unwrap_or(0);
        let digits = n_rows.to_string().len();
        for check in found {
            let n = self.rows[check.kind as usize];
            let (severity, name) = (check.severity.name(), check.name);
            writeln!(f, "  {severity:7}  {name:widest$}  {n:digits$}  {}", check.what)?;
        }
        if self.n_tokens_cut > 0 {
            let n = self.rows[Kind::CutCaption as usize];
            let captions = if n == 1 { "caption" } else { "captions" };
            writeln!(f, "{n} {captions} lose {} tokens to the text encoder's length", self.n_tokens_cut)?;
        }
        if let Some(LabelCounts { n_liked, n_disliked }) = self.labels {
            writeln!(f, "{n_liked} images are liked, {n_disliked} are not")?;
        }
        if let Some(Interval { estimate, low, high }) = self.winner_first().filter(|_| self.labels.is_none())
        {
            let [rate, low, high] = [estimate, low, high].map(|rate| 100.0 * rate);
            writeln!(
                f,
                "the winner is listed first in {rate:.1}% of pairs (95% interval {low:.1}% to {high:.1}%)"
            )?;
        }
        Ok(())
    }
}
