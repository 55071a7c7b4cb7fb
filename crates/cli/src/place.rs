//! Where a command writes: what is there is not replaced unless that is asked for, and the place is checked before any work.

use std::borrow::Cow;
use std::error::Error;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use tastemaker_store::lock::Claim;
use tastemaker_store::{StoreError, atomic};

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

/// The place of a command's results.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    path: &'a Path,
    /// How it was typed: `--out`.
    flag: &'a str,
    /// What such a command writes into a folder, as patterns of paths below it: `*` stands for any name, `#` for a number,
    /// `**` at the end for anything below; none for a single file.
    ours: Vec<Cow<'static, str>>,
    /// The file that says that a folder is of such a command, if what others put beside its files stays where it is.
    marker: Option<&'static str>,
    /// Folders in it, as patterns of their names, that are replaced as a whole all the same.
    wholes: &'static [&'static str],
}

impl<'a> Place<'a> {
    /// A file.
    pub fn file(path: &'a Path, flag: &'a str) -> Self {
        Self { path, flag, ours: Vec::new(), marker: None, wholes: &[] }
    }

    /// A folder in which a command writes what these patterns say. It is replaced as a whole.
    pub fn folder(path: &'a Path, flag: &'a str, ours: &[&'static str]) -> Self {
        let ours = ours.iter().copied().map(Cow::Borrowed).collect();
        Self { path, flag, ours, marker: None, wholes: &[] }
    }

    /// The same where files are replaced one by one, but for those of folders in it that are replaced as a whole: where the marker
    /// is, other things beside them are no obstacle, and stay.
    pub fn marked(self, marker: &'static str, wholes: &'static [&'static str]) -> Self {
        Self { marker: Some(marker), wholes, ..self }
    }

    /// The same with another name of a file that such a command wrote.
    pub fn with(mut self, name: String) -> Self {
        self.ours.push(name.into());
        self
    }

    /// Takes the place until the claim is dropped, if the command may write here; changes nothing that is there.
    ///
    /// # Errors
    /// [`PlaceError`] for a place where another process works, for what is there without `overwrite`, for what another command or
    /// a person put there, and for a place that cannot be written.
    pub fn claim(&self, OverwriteFlag { overwrite }: OverwriteFlag) -> Result<Claim, PlaceError> {
        let claim = self.claim_to_go_on()?;
        let Self { path, flag, .. } = self;
        let (shown, wants_file) = (path.display(), self.wants_file());
        let files = if wants_file { Vec::new() } else { self.files() };
        let strangers: Vec<&PathBuf> = files.iter().filter(|file| !self.is_ours(file)).collect();
        let is_ours = self.marker.is_some_and(|marker| path.join(marker).is_file());
        let lost = strangers.iter().find(|stranger| !is_ours || self.is_in_whole(stranger));
        match lost.or(strangers.first()) {
            Some(stranger) if lost.is_some() => Err(PlaceError(format!(
                "{shown} holds other things, such as {}; choose another {flag}",
                stranger.display()
            ))),
            _ if !overwrite && (!files.is_empty() || wants_file && path.exists()) => {
                Err(PlaceError(format!("{shown} already exists; choose another {flag} or --overwrite")))
            }
            Some(stranger) => {
                let others = match strangers.len() - 1 {
                    0 => String::new(),
                    n => format!(" and {}", counted(n as u64, "other file")),
                };
                eprintln!("note: {}{others} in {shown} stay as they are", stranger.display());
                Ok(claim)
            }
            None => Ok(claim),
        }
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
        self.ours.is_empty()
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
                    _ if atomic::is_unfinished(&entry.file_name()) => {}
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
        self.wholes.iter().any(|pattern| is_like(folder, pattern))
    }

    fn is_ours(&self, file: &Path) -> bool {
        let names: Option<Vec<&str>> = file.iter().map(|name| name.to_str()).collect();
        names.is_some_and(|names| self.ours.iter().any(|pattern| fits(&names, pattern)))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &[&str] = &["#-#.png", "grid.png", "images/*/#-#.png", "encoded/**"];

    fn place(folder: &Path) -> Place<'_> {
        Place::folder(folder, "--out", OURS)
    }

    #[test]
    fn what_a_command_wrote_is_replaced_when_asked_and_nothing_else_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let put = |name: &str| {
            let file = path.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        };
        let (no, yes) = (OverwriteFlag { overwrite: false }, OverwriteFlag { overwrite: true });
        let check = |overwrite| place(path).claim(overwrite).map(drop);
        check(no).unwrap();
        for name in ["0000-12.png", "grid.png", "images/a b/0001-0.png", "encoded/deep/er.bin"] {
            put(name);
        }
        let message = check(no).unwrap_err().to_string();
        assert!(message.ends_with("already exists; choose another --out or --overwrite"), "{message}");
        check(yes).unwrap();
        for name in ["notes.txt", "0000-x.png", "-1.png", "images/0001-0.png", "images/a/b/0001-0.png"] {
            put(name);
            let message = check(yes).unwrap_err().to_string();
            assert!(message.contains(&format!("such as {name}; choose another --out")), "{message}");
            place(path).clear().unwrap();
            assert_eq!(place(path).files(), [Path::new(name)]);
            fs::remove_file(path.join(name)).unwrap();
        }
    }

    #[test]
    fn beside_a_marker_what_others_put_there_stays_and_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let claim = |overwrite| {
            place(path).marked("grid.png", &["set-#"]).claim(OverwriteFlag { overwrite }).map(drop)
        };
        fs::write(path.join("notes.txt"), "mine").unwrap();
        let message = claim(true).unwrap_err().to_string();
        assert!(message.contains("such as notes.txt; choose another --out"), "{message}");
        fs::write(path.join("grid.png"), "x").unwrap();
        let message = claim(false).unwrap_err().to_string();
        assert!(message.ends_with("already exists; choose another --out or --overwrite"), "{message}");
        claim(true).unwrap();
        // What would be lost with the folder that it is in.
        fs::create_dir(path.join("set-1")).unwrap();
        fs::write(path.join("set-1/notes.txt"), "mine").unwrap();
        let message = claim(true).unwrap_err().to_string();
        assert!(message.contains("such as set-1/notes.txt; choose another --out"), "{message}");
        fs::remove_dir_all(path.join("set-1")).unwrap();
        place(path).clear().unwrap();
        assert_eq!(place(path).files(), [Path::new("notes.txt")]);
    }

    #[test]
    fn a_file_takes_the_place_of_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scores.csv");
        let check = |overwrite| Place::file(&file, "--out").claim(OverwriteFlag { overwrite }).map(drop);
        assert!(check(false).is_ok());
        fs::write(&file, "x").unwrap();
        assert!(
            check(false)
                .unwrap_err()
                .to_string()
                .ends_with("already exists; choose another --out or --overwrite")
        );
        assert!(check(true).is_ok());
        let below = file.join("out.csv");
        assert!(Place::file(&below, "--out").claim(OverwriteFlag { overwrite: true }).is_err());
    }
}
