//! The one pass over a set.

use std::time::Instant;

use super::across::across;
use super::checks::Kind;
use super::finding::{Finding, Subject};
use super::row::{CheckedRow, check_row};
use super::settings::Settings;
use super::summary::{Summary, Timing, imbalance};
use crate::ordered::in_order;
use crate::set::PairSet;
use crate::{DataError, PairSource};

/// Pairs that each thread may be ahead of the one whose findings come next.
const AHEAD: usize = 8;

/// Progress of a check.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something was found.
    Finding(&'a Finding),
    /// So many pairs have been checked.
    Pairs {
        /// How many.
        done: usize,
        /// Of how many.
        of: usize,
    },
}

/// Checks every row of a set. Findings come in this order: rows skipped, pairs by themselves, what only the whole set shows;
/// each in the order of the set.
///
/// # Errors
/// [`DataError`] if images cannot be had at all, and whatever `on_event` returns.
pub fn check(
    set: &PairSet,
    settings: &Settings,
    on_event: &mut dyn FnMut(Event<'_>) -> Result<(), DataError>,
) -> Result<Summary, DataError> {
    let began = Instant::now();
    let mut summary = Summary::of(set, settings);
    for row in set.skipped() {
        let kind = Kind::from(row.reason);
        let (place, found) = row.named(set.place(row.id));
        let detail = if found.is_empty() { kind.check().what } else { found }.to_owned();
        let subject = Subject::Skipped(row.id);
        let found = Finding { kind, subject, place, side: None, file: None, detail, badness: 0.0 };
        on_event(Event::Finding(&found))?;
        summary.count(&[found]);
    }

    let of = set.len();
    let mut pixels = Vec::with_capacity(of);
    let mut timing = Timing { workers: settings.workers.min(of), ..Timing::default() };
    let work = |position: usize| check_row(set, position, settings);
    in_order(0..of, timing.workers, AHEAD * timing.workers, work, |position, row| {
        let CheckedRow { findings, pixels: hashes, sizes, decoding, busy } = row?;
        findings.iter().try_for_each(|finding| on_event(Event::Finding(finding)))?;
        summary.count(&findings);
        sizes.into_iter().flatten().for_each(|size| summary.size(size));
        summary.listed(set.winner_is_listed_first(position));
        summary.labeled(set.label(position));
        pixels.push(hashes);
        timing.decoding += decoding;
        timing.busy += busy;
        on_event(Event::Pairs { done: position + 1, of })
    })?;
    timing.wall = began.elapsed();

    let n_held_out = across(set, &pixels, settings, &mut |findings| {
        findings.iter().try_for_each(|finding| on_event(Event::Finding(finding)))?;
        summary.count(findings);
        Ok(())
    })?;
    if let Some(finding) = imbalance(&summary) {
        on_event(Event::Finding(&finding))?;
        summary.count(&[finding]);
    }
    Ok(Summary { n_held_out, timing, ..summary })
}
