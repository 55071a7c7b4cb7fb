//! Where a command writes: what is there is not replaced unless that is asked for, and the place is checked before any work.

pub mod inputs;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use tastemaker_store::version;

use clap::Args;
use serde_json::Value;
use tastemaker_store::lock::Claim;
use tastemaker_store::{StoreError, atomic, json, regular};

use crate::progress::counted;

/// Whether what is there may be replaced.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct OverwriteFlag {
    /// Replace what an earlier command wrote there
    #[arg(long)]
    pub overwrite: bool,
}

/// A place that cannot be written, or that holds what nobody said to replace.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PlaceError(pub String);

/// What a command writes in the place of a file, and how a file is known as such.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// In words.
    pub what: &'static str,
    /// Whether a file is one.
    pub is: fn(&Path) -> bool,
}

/// The place of a command's results.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    path: &'a Path,
    /// How it was typed: `--out`.
    flag: &'a str,
    /// What goes into the place of a file; none for a folder.
    file: Option<Written>,
    /// What such a command writes into a folder, as patterns of paths below it: `*` stands for any name, `#` for a number,
    /// `**` at the end for anything below.
    ours: Vec<Cow<'static, str>>,
    /// Files of which one says that a folder is of such a command; without any, the list that [`Place::done`] leaves does.
    marks: &'static [&'static str],
    /// Folders in it, as patterns of their names, that are replaced as a whole; none where it is itself, and what others put beside its files stays.
    whole: Option<&'static [&'static str]>,
    /// Whether a file of ours is one by what it holds.
    proof: Option<fn(&Path) -> bool>,
}

/// The list of what a command wrote into a folder.
const LIST: &str = ".tastemaker.json";

impl<'a> Place<'a> {
    /// A file, which replaces one of its kind.
    pub fn file(path: &'a Path, flag: &'a str, written: Written) -> Self {
        Self { file: Some(written), ..Self::folder(path, flag, &[]) }
    }

    /// A folder in which a command writes what these patterns say. It is replaced as a whole.
    pub fn folder(path: &'a Path, flag: &'a str, ours: &[&'static str]) -> Self {
        let ours = ours.iter().copied().map(Cow::Borrowed).collect();
        Self { path, flag, file: None, ours, marks: &[], whole: None, proof: None }
    }

    /// The same, known by one of these files.
    pub fn marked(self, marks: &'static [&'static str]) -> Self {
        Self { marks, ..self }
    }

    /// The same where files are replaced one by one, but for these folders: other things beside them are no obstacle, and stay.
    pub fn beside_others(self, whole: &'static [&'static str]) -> Self {
        Self { whole: Some(whole), ..self }
    }

    /// The same where files of these names say themselves whether such a command wrote them.
    pub fn proved(self, proof: fn(&Path) -> bool) -> Self {
        Self { proof: Some(proof), ..self }
    }

    /// The same with another name of files that such a command wrote.
    pub fn with(mut self, name: String) -> Self {
        self.ours.push(name.into());
        self
    }

    /// Takes the place until the claim is dropped, if the command may write here; changes nothing that is there.
    ///
    /// # Errors
    /// [`PlaceError`] for a place where another process works, for what is there without `overwrite`, for what another command or
    /// a person put there, for what the command reads, and for a place that cannot be written.
    pub fn claim(&self, overwrite: OverwriteFlag) -> Result<Claim, PlaceError> {
        let claim = self.claim_to_go_on()?;
        match self.file {
            Some(written) => self.check_file(written, overwrite)?,
            None => self.check_folder(overwrite)?,
        }
        if overwrite.overwrite {
            self.spare(inputs::typed())?;
        }
        Ok(claim)
    }

    fn check_file(&self, Written { what, is }: Written, overwrite: OverwriteFlag) -> Result<(), PlaceError> {
        let Self { path, flag, .. } = self;
        let shown = path.display();
        match path.exists() {
            false => Ok(()),
            true if !is(path) => {
                Err(PlaceError(format!("{shown} is something else than {what}; choose another {flag}")))
            }
            true if overwrite.overwrite => Ok(()),
            true => Err(PlaceError(format!("{shown} already exists; choose another {flag} or --overwrite"))),
        }
    }

    fn check_folder(&self, OverwriteFlag { overwrite }: OverwriteFlag) -> Result<(), PlaceError> {
        let Self { path, flag, .. } = self;
        let shown = path.display();
        let files = self.files();
        let listed = self.listed();
        let is_ours = |file: &Path| match &listed {
            Some(listed) => listed.contains(file),
            None => self.is_ours(file),
        };
        let is_marked = self.marks.iter().any(|mark| path.join(mark).is_file());
        let is_known = is_marked || listed.is_some() || self.proof.is_some();
        let strangers: Vec<&PathBuf> = files.iter().filter(|file| !is_ours(file)).collect();
        let in_the_way = |file: &&&PathBuf| !is_marked || self.whole.is_none() || self.is_in_whole(file);
        match (strangers.first(), strangers.iter().find(in_the_way)) {
            (_, Some(stranger)) => Err(self.holds_others(stranger)),
            _ if !overwrite && !files.is_empty() => {
                Err(PlaceError(format!("{shown} already exists; choose another {flag} or --overwrite")))
            }
            _ if !files.is_empty() && !is_known => Err(PlaceError(format!(
                "{shown} holds files of these names, such as {}, but nothing that says that this program wrote them; remove the folder, \
                 or choose another {flag}",
                files[0].display()
            ))),
            (Some(stranger), None) => {
                let others = match strangers.len() - 1 {
                    0 => String::new(),
                    n => format!(" and {}", counted(n as u64, "other file")),
                };
                eprintln!("note: {}{others} in {shown} stay as they are", stranger.display());
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    fn holds_others(&self, stranger: &Path) -> PlaceError {
        let Self { path, flag, .. } = self;
        PlaceError(format!(
            "{} holds other things, such as {}; choose another {flag}",
            path.display(),
            stranger.display()
        ))
    }

    /// Finds out whether anything that the command reads would be gone when the place is cleared.
    ///
    /// # Errors
    /// [`PlaceError`] naming it.
    pub fn spare(&self, inputs: &[PathBuf]) -> Result<(), PlaceError> {
        let Self { path, flag, .. } = self;
        let files: Vec<PathBuf> = if self.file.is_some() { Vec::new() } else { self.files() };
        let removed: Vec<&PathBuf> = files.iter().filter(|file| self.is_ours(file)).collect();
        if removed.is_empty() && !(self.file.is_some() && path.exists()) {
            return Ok(());
        }
        let places = inputs::ways(path);
        let is_removed = |found: &PathBuf| {
            let inside = places.iter().filter_map(|place| found.strip_prefix(place).ok());
            inside.into_iter().any(|inside| {
                inside.as_os_str().is_empty() || removed.iter().any(|file| file.starts_with(inside))
            })
        };
        let is_lost = |input: &Path| {
            let own = inputs::ways(input);
            let around: Vec<(&Path, &Path)> = own
                .iter()
                .flat_map(|found| places.iter().map(move |place| (found, place)))
                .filter(|(found, place)| found != place)
                .filter_map(|(found, place)| Some((found.as_path(), place.strip_prefix(found).ok()?)))
                .collect();
            match around.is_empty() {
                true => inputs::reached(input).iter().any(is_removed),
                // What else a folder around the place holds is not in it.
                false => around.into_iter().any(|(found, place)| inputs::is_part(found, place)),
            }
        };
        match inputs.iter().find(|input| is_lost(input)) {
            None => Ok(()),
            Some(input) => Err(PlaceError(format!(
                "{} is read by this command, and --overwrite would replace it in {}; choose another {flag}",
                input.display(),
                path.display()
            ))),
        }
    }

    /// Leaves a list of what is there, all of which the command wrote.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn done(&self) -> Result<(), StoreError> {
        if self.file.is_some() {
            return Ok(());
        }
        let made_by = format!("tastemaker {}", version());
        let files: Vec<String> =
            self.files().iter().map(|file| file.to_string_lossy().into_owned()).collect();
        json::write(self.path.join(LIST), &serde_json::json!({ "made_by": made_by, "files": files }))
    }

    /// What [`Place::done`] listed.
    fn listed(&self) -> Option<BTreeSet<PathBuf>> {
        let list: Value = json::read(self.path.join(LIST)).ok()?;
        Some(list["files"].as_array()?.iter().filter_map(|name| Some(name.as_str()?.into())).collect())
    }

    /// [`Place::claim`], unless the command goes on with what is there.
    ///
    /// # Errors
    /// As [`Place::claim`].
    pub fn claim_unless(&self, goes_on: bool, overwrite: OverwriteFlag) -> Result<Claim, PlaceError> {
        if goes_on && !overwrite.overwrite { self.claim_to_go_on() } else { self.claim(overwrite) }
    }

    /// Takes the place with what is there.
    ///
    /// # Errors
    /// [`PlaceError`] for a place where another process works, and for one that cannot be written.
    pub fn claim_to_go_on(&self) -> Result<Claim, PlaceError> {
        let Self { path, flag, .. } = self;
        let (shown, wants_file) = (path.display(), self.wants_file());
        if path.as_os_str().is_empty() {
            return Err(PlaceError(format!("{flag} is empty; wanted a path")));
        }
        if let (Ok(to), false) = (path.read_link(), path.exists()) {
            return Err(PlaceError(format!(
                "{shown} is a link to {}, which is not there; make that, or choose another {flag}",
                to.display()
            )));
        }
        if let Some(found) = regular::odd(path) {
            return Err(PlaceError(format!("{shown} is {found}; choose another {flag}")));
        }
        if path.is_dir() == wants_file && path.exists() {
            let (found, wanted) = if wants_file { ("a folder", "a file") } else { ("a file", "a folder") };
            return Err(PlaceError(format!(
                "{shown} is {found}, and {wanted} goes there; choose another {flag}"
            )));
        }
        self.check_writable()?;
        let claimed = if wants_file { Claim::file(path) } else { Claim::folder(path) };
        match claimed {
            Ok(Some(claim)) => Ok(claim),
            Ok(None) => Err(PlaceError(format!(
                "{shown} is in use by another process; wait until that has ended, or choose another {flag}"
            ))),
            Err(error) => {
                let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
                Err(PlaceError(format!("{error}{cause}; choose another {flag}")))
            }
        }
    }

    fn wants_file(&self) -> bool {
        self.file.is_some()
    }

    /// Whether a file or folder can be made here.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub fn check_writable(&self) -> Result<(), PlaceError> {
        let above = self.path.ancestors().skip(usize::from(self.wants_file()));
        let above = above.map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
        let Some(folder) = above.into_iter().find(|folder| folder.exists()) else { return Ok(()) };
        let probe = folder.join(format!(".tmp-{}", std::process::id()));
        let made = File::create_new(&probe);
        let _ = fs::remove_file(&probe);
        match made {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(PlaceError(format!(
                "{} cannot be written: {error} ({}); choose another {}",
                self.path.display(),
                folder.display(),
                self.flag
            ))),
            _ => Ok(()),
        }
    }

    /// Removes what such a command wrote here, and nothing else.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn clear(&self) -> Result<(), StoreError> {
        for file in self.files().iter().filter(|file| self.is_ours(file)) {
            let file = self.path.join(file);
            fs::remove_file(&file).map_err(|error| StoreError::io("remove", &file, error))?;
            // Folders that are empty now.
            for folder in file.ancestors().skip(1).take_while(|folder| *folder != self.path) {
                if fs::remove_dir(folder).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Every file below the folder, as paths relative to it, but for those of writes that were cut off.
    fn files(&self) -> Vec<PathBuf> {
        let (mut found, mut open) = (Vec::new(), vec![self.path.to_owned()]);
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => open.push(path),
                    _ if atomic::is_unfinished(&entry.file_name()) || entry.file_name() == LIST => {}
                    _ => found.extend(path.strip_prefix(self.path).map(Path::to_owned)),
                }
            }
        }
        found.sort();
        found
    }

    /// Whether a file lies in a folder that is replaced as a whole.
    fn is_in_whole(&self, file: &Path) -> bool {
        let Some(folder) = file.parent().and_then(|folder| folder.iter().next()?.to_str()) else {
            return false;
        };
        self.whole.unwrap_or_default().iter().any(|pattern| is_like(folder, pattern))
    }

    fn is_ours(&self, file: &Path) -> bool {
        let is_named = names(file).is_some_and(|names| self.ours.iter().any(|pattern| fits(&names, pattern)));
        is_named && self.proof.is_none_or(|proof| proof(&self.path.join(file)))
    }
}

fn names(file: &Path) -> Option<Vec<&str>> {
    file.iter().map(|name| name.to_str()).collect()
}

fn fits(names: &[&str], pattern: &str) -> bool {
    let mut wanted = pattern.split('/');
    for name in names {
        match wanted.next() {
            Some("**") => return true,
            Some(wanted) if is_like(name, wanted) => {}
            _ => return false,
        }
    }
    wanted.next().is_none()
}

fn is_like(name: &str, wanted: &str) -> bool {
    match wanted.find(['*', '#']) {
        None => name == wanted,
        Some(at) => {
            let (before, rest) = (&wanted[..at], &wanted[at + 1..]);
            let Some(name) = name.strip_prefix(before) else { return false };
            let only_digits = wanted[at..].starts_with('#');
            let least = usize::from(only_digits);
            let part = name.char_indices().map(|(i, _)| i).chain([name.len()]);
            part.skip(least).any(|end| {
                let is_part = !only_digits || name[..end].bytes().all(|byte| byte.is_ascii_digit());
                is_part && is_like(&name[end..], rest)
            })
        }
    }
}

/// Whether the first line of a file has these words.
pub fn first_line(path: &Path, words: &[&str]) -> bool {
    let start = start(path);
    let line = start.lines().next().unwrap_or_default();
    words.iter().all(|word| line.contains(word))
}

/// Whether a text is near the start of a file.
pub fn starts_with(path: &Path, text: &str) -> bool {
    start(path).contains(text)
}

fn start(path: &Path) -> String {
    let mut bytes = Vec::new();
    let file = regular::open(path).ok();
    let _ = file.map(|file| file.take(1 << 12).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Gives the folder of images that an earlier version called `pictures` the name of now.
///
/// # Errors
/// [`StoreError::Io`] if it cannot be renamed.
pub fn rename_images(folder: &Path) -> Result<(), StoreError> {
    let (old, new) = (folder.join("pictures"), folder.join("images"));
    match old.is_dir() && !new.exists() {
        true => fs::rename(&old, &new).map_err(|error| StoreError::io("rename", &old, error)),
        false => Ok(()),
    }
}
