//! The set on the desk: its rows, what was said about them, and the list that this goes to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tastemaker_data::exclusions::{self, Action, Correction, correction_line, corrections_header};
use tastemaker_data::set::PairSet;
use tastemaker_data::{PairId, PairSource, Side};
use tastemaker_store::StoreError;
use tastemaker_store::checksum::{hex, sha256_bytes};

use super::findings::{Finding, Findings};
use super::margins::Margins;
use crate::WebError;

/// The longest caption or note that is taken, in bytes.
const LONGEST: usize = 16 << 10;

/// Rows that are asked for: which, in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// Words of the caption.
    pub words: String,
    /// Name of a check that found something, `any`, or nothing for all rows.
    pub check: String,
    /// What was said: `open`, `done`, or an action; nothing for all rows.
    pub state: String,
    /// `unsure` for the least sure label first, `against` for those first that scores are against, either followed by a space and a
    /// scorer whose margins say it; nothing for the order of the set.
    pub order: String,
}

/// A row as a page shows it.
#[derive(Debug, Serialize)]
pub struct ShownRow<'a> {
    row: PairId,
    position: usize,
    place: String,
    caption: &'a str,
    /// What was said about it; `None` if nothing was yet.
    correction: Option<Correction>,
    findings: &'a [Finding],
    soft_label: Option<f64>,
    /// Margins in units of scorers.
    margins: Vec<(&'a str, f64)>,
}

struct Said {
    corrections: BTreeMap<PairId, Correction>,
    file: File,
    /// How long the list was when it was read or written last.
    length: u64,
    /// The last answer to what is wanted, for pages that go through it part by part.
    cached: Option<(Wanted, Arc<Vec<u32>>)>,
}

/// A set and what is said about it.
pub struct Desk {
    set: PairSet,
    name: PathBuf,
    list: PathBuf,
    tag: String,
    findings: Findings,
    margins: Vec<Margins>,
    said: Mutex<Said>,
}

impl Desk {
    /// Opens a list, or begins one. `name` is what the user calls the set.
    ///
    /// # Errors
    /// Those of [`exclusions::read`], and [`WebError::Store`] if the list cannot be written; [`WebError::OtherStudy`] if another process
    /// has it; [`WebError::Study`] for a set of single images.
    pub fn open(set: PairSet, name: &Path, list: &Path, findings: Findings) -> Result<Self, WebError> {
        if set.label(0).is_some() {
            return Err(WebError::Study(format!("{} has single images; wanted pairs", name.display())));
        }
        let fail = |action| move |error| StoreError::io(action, list, error);
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(list).map_err(fail("write"))?;
        if matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)) {
            let what = "another process is writing it; use its page, or another --list".to_owned();
            return Err(WebError::OtherStudy { path: list.to_owned(), what });
        }
        if whole(&mut file).map_err(fail("write"))? == 0 {
            writeln!(file, "{}", corrections_header(&set, name)).map_err(fail("write"))?;
            file.sync_all().map_err(fail("sync"))?;
        }
        let corrections = exclusions::read(list, &set)?;
        let length = file.metadata().map_err(fail("read"))?.len();
        let said = Mutex::new(Said { corrections, file, length, cached: None });
        let list = list.canonicalize().map_err(fail("read"))?;
        let of = format!("{} {}", hex(&set.opened_fingerprint()), list.display());
        let tag = sha256_bytes(of.as_bytes())[..12].to_owned();
        Ok(Self { set, name: name.to_owned(), list, tag, findings, margins: Vec::new(), said })
    }

    /// With what scorers say, to choose pairs by.
    #[must_use]
    pub fn with_margins(self, margins: Vec<Margins>) -> Self {
        Self { margins, ..self }
    }

    /// By what rows can be ordered: a name that a request takes, and words.
    pub fn orders(&self) -> Vec<(String, String)> {
        let scored = (0..self.set.len()).any(|position| self.set.soft_label(position).is_some());
        let of_set = scored.then_some((String::new(), String::new())).into_iter();
        let of_scorers =
            self.margins.iter().map(|Margins { scorer, .. }| (format!(" {scorer}"), format!("{scorer}: ")));
        let both = |(name, words): (String, String)| {
            [
                (format!("unsure{name}"), format!("{words}least sure first")),
                (format!("against{name}"), format!("{words}against the label first")),
            ]
        };
        of_set.chain(of_scorers).flat_map(both).collect()
    }

    /// How much the scores of a pair are for its label, in whatever unit; `None` where nothing is known.
    fn margin(&self, scorer: Option<&str>, position: usize) -> Option<f64> {
        match scorer {
            None => self.set.soft_label(position).map(|probability| probability - 0.5),
            Some(name) => self.margins.iter().find(|one| one.scorer == name)?.values[position],
        }
    }

    /// What tells a page of this set and list from one of another that had the same address.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The set.
    pub fn set(&self) -> &PairSet {
        &self.set
    }

    /// What the user calls it.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// The checks that found something, and in how many rows.
    pub fn checks(&self) -> BTreeMap<&str, usize> {
        let mut checks = BTreeMap::new();
        for found in self.findings.values() {
            for check in found.iter().map(|finding| finding.check.as_str()).collect::<BTreeSet<_>>() {
                *checks.entry(check).or_default() += 1;
            }
        }
        checks
    }

    /// How many rows something was said about, and how many of them are not just kept.
    pub fn counts(&self) -> (usize, usize) {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = |one: &&Correction| one.action != Action::Keep || one.caption.is_some();
        (said.corrections.len(), said.corrections.values().filter(changes).count())
    }

    /// Positions of the rows that are wanted. What was asked before is answered as before, so that a row does not vanish under the
    /// hand that decides about it; `again` asks anew.
    pub fn wanted(&self, wanted: &Wanted, again: bool) -> Arc<Vec<u32>> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, positions)) = &said.cached
            && before == wanted
            && !again
        {
            return Arc::clone(positions);
        }
        let words: Vec<String> = wanted.words.to_lowercase().split_whitespace().map(str::to_owned).collect();
        let fits = |&position: &u32| {
            let id = self.set.id(position as usize);
            let correction = said.corrections.get(&id);
            let state = match wanted.state.as_str() {
                "" => true,
                "open" => correction.is_none(),
                "done" => correction.is_some(),
                "edited" => correction.is_some_and(|one| one.caption.is_some()),
                action => correction.is_some_and(|one| serde_json::json!(one.action) == action),
            };
            let found = || self.findings.get(&id).map_or(&[][..], Vec::as_slice);
            let check = match wanted.check.as_str() {
                "" => true,
                "any" => !found().is_empty(),
                name => found().iter().any(|finding| finding.check == name),
            };
            let has_words = || {
                let caption = self.caption(position as usize, correction).to_lowercase();
                words.iter().all(|word| caption.contains(word.as_str()))
            };
            state && check && (words.is_empty() || has_words())
        };
        let mut positions: Vec<u32> = (0..self.set.len() as u32).filter(fits).collect();
        let (order, scorer) = match wanted.order.split_once(' ') {
            Some((order, scorer)) => (order, Some(scorer)),
            None => (wanted.order.as_str(), None),
        };
        // Pairs of which nothing is known come last.
        let key = |position: &u32| {
            let margin = self.margin(scorer, *position as usize).unwrap_or(f64::INFINITY);
            if order == "unsure" { margin.abs() } else { margin }
        };
        if ["unsure", "against"].contains(&order) {
            positions.sort_by(|a, b| key(a).total_cmp(&key(b)));
        }
        let positions = Arc::new(positions);
        said.cached = Some((wanted.clone(), Arc::clone(&positions)));
        positions
    }

    fn caption<'a>(&'a self, position: usize, correction: Option<&'a Correction>) -> &'a str {
        correction.and_then(|one| one.caption.as_deref()).unwrap_or_else(|| self.set.caption(position))
    }

    /// The row at a position.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn row(&self, position: usize) -> ShownRow<'_> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let row = self.set.id(position);
        ShownRow {
            row,
            position,
            place: self.set.place(row),
            caption: self.set.caption(position),
            correction: said.corrections.get(&row).cloned(),
            findings: self.findings.get(&row).map_or(&[], Vec::as_slice),
            soft_label: self.set.soft_label(position),
            margins: self
                .margins
                .iter()
                .filter_map(|one| Some((one.scorer.as_str(), one.values[position]?)))
                .collect(),
        }
    }

    /// Keeps what is said about the row at a position; when this returns, it is on disk. Where `before` is given and not what stands,
    /// another page decided meanwhile: then this returns false, and nothing changes.
    ///
    /// # Errors
    /// [`WebError::Study`] for a text that is too long; [`WebError::OtherStudy`] if another program replaced the list;
    /// [`WebError::Store`] if it cannot be written.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn correct(
        &self,
        position: usize,
        mut correction: Correction,
        before: Option<&Option<Correction>>,
    ) -> Result<bool, WebError> {
        for text in [&correction.caption, &correction.note].into_iter().flatten() {
            if text.len() > LONGEST {
                let what = format!("{} bytes of text; wanted at most {LONGEST}", text.len());
                return Err(WebError::Study(what));
            }
        }
        correction.caption = correction.caption.filter(|text| text != self.set.caption(position));
        correction.note = correction.note.filter(|text| !text.trim().is_empty());
        let wanted = Some(correction).filter(|one| one.action != Action::Open);
        let id = self.set.id(position);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        self.follow(&mut said)?;
        let stands = said.corrections.get(&id);
        if before.is_some_and(|before| before.as_ref() != stands) && stands != wanted.as_ref() {
            return Ok(false);
        }
        let open = Correction { action: Action::Open, ..Correction::default() };
        let line = correction_line(&self.set, id, wanted.as_ref().unwrap_or(&open)) + "\n";
        let written = said.file.write_all(line.as_bytes()).and_then(|()| said.file.sync_data());
        if let Err(error) = written {
            // Whatever part of the line is there must not stand before the next one.
            let _ = whole(&mut said.file);
            return Err(StoreError::io("write", &self.list, error).into());
        }
        said.length += line.len() as u64;
        match wanted {
            Some(correction) => said.corrections.insert(id, correction),
            None => said.corrections.remove(&id),
        };
        Ok(true)
    }

    /// Takes over what another program wrote into the list meanwhile.
    fn follow(&self, said: &mut Said) -> Result<(), WebError> {
        let fail = |error| StoreError::io("read", &self.list, error);
        let ours = said.file.metadata().map_err(fail)?;
        if !self.list.metadata().is_ok_and(|there| is_same(&there, &ours)) {
            let what =
                "another program removed or replaced it; start curate again to go on with what is there";
            return Err(WebError::OtherStudy { path: self.list.clone(), what: what.into() });
        }
        if ours.len() != said.length {
            said.length = whole(&mut said.file).map_err(fail)?;
            said.corrections = exclusions::read(&self.list, &self.set)?;
            said.cached = None;
        }
        Ok(())
    }

    /// An image as it is stored.
    ///
    /// # Errors
    /// [`WebError::Data`] if it cannot be read.
    pub fn image(&self, position: usize, side: Side) -> Result<Vec<u8>, WebError> {
        Ok(self.set.encoded(position, side)?)
    }
}

/// Whether both are one file, and not one that took the place of the other.
#[cfg(unix)]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}

/// Cuts off a last line that a killed process did not finish, and ends one that somebody wrote without a line break; how long the
/// file then is.
fn whole(file: &mut File) -> std::io::Result<u64> {
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut text)?;
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let rest = &text[end..];
    if serde_json::from_slice::<IgnoredAny>(rest).is_ok() {
        file.write_all(b"\n")?;
        return Ok(text.len() as u64 + 1);
    }
    if !rest.is_empty() {
        file.set_len(end as u64)?;
    }
    Ok(end as u64)
}
