//! Writing a file or a folder so that it is whole or not there.
//!
//! Both are made under a temporary name beside their place. A process that is killed leaves them there; the next one that writes
//! into the folder removes them. It knows whose they are by the number in their name and by a lock that ends with its holder.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::{NamedTempFile, TempDir};

use crate::StoreError;
use crate::checksum::Hashing;

/// What temporary names begin with; the number of the process follows.
const PREFIX: &str = ".tastemaker-";

/// What they end with.
pub(crate) const SUFFIX: &str = ".tmp";

/// What names of files begin with that are only locked; the name of what they are for follows.
pub(crate) const LOCK_PREFIX: &str = ".tastemaker-lock-";

/// Writes `path` through `fill`: a temporary sibling, synced, renamed over the target, then the folder
/// synced.
///
/// Whoever reads `path` meanwhile, or after a crash at any moment, finds the old contents or the new, whole.
///
/// # Errors
/// [`StoreError::Io`] if the folder is missing or not writable, the disk is full, or `fill` fails; `path` is
/// then untouched.
pub fn write(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> Result<(), StoreError> {
    let path = path.as_ref();
    put(filled(path, fill)?, path)
}

/// The temporary sibling of a file, filled and not yet synced.
fn filled(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> Result<NamedTempFile, StoreError> {
    let folder = folder_of(path);
    sweep_once(folder);
    let (prefix, fail) = (prefix(), |e| StoreError::io("write", path, e));
    let mut sibling = builder(&prefix, 0o666).tempfile_in(folder).map_err(fail)?;
    // Where there are no locks, nothing is ever swept.
    drop(sibling.as_file().try_lock());
    {
        let mut out = BufWriter::with_capacity(1 << 20, sibling.as_file_mut());
        fill(&mut out).and_then(|()| out.flush()).map_err(fail)?;
    }
    Ok(sibling)
}

fn put(sibling: NamedTempFile, path: &Path) -> Result<(), StoreError> {
    sibling.as_file().sync_all().map_err(|e| StoreError::io("sync", path, e))?;
    sibling.persist(path).map_err(|e| StoreError::io("rename", path, e.error))?;
    sync_folder(folder_of(path))
}

/// A file that is written and not yet in its place: to sync gigabytes takes a while, and can be done by another thread. One that is
/// dropped is removed.
#[derive(Debug)]
pub struct Staged {
    sibling: NamedTempFile,
    path: PathBuf,
    sha256: String,
}

impl Staged {
    /// Writes the temporary sibling of a file through `fill`, and hashes what is written on the way.
    ///
    /// # Errors
    /// As [`write()`].
    pub fn write(
        path: impl Into<PathBuf>,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Self, StoreError> {
        let (path, mut sha256) = (path.into(), String::new());
        let sibling = filled(&path, |out| {
            let mut out = Hashing::new(out);
            fill(&mut out)?;
            sha256 = out.sha256();
            Ok(())
        })?;
        Ok(Self { sibling, path, sha256 })
    }

    /// The SHA-256 of its bytes, 64 hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Syncs it, and puts it into its place.
    ///
    /// # Errors
    /// As [`write()`].
    pub fn finish(self) -> Result<(), StoreError> {
        put(self.sibling, &self.path)
    }
}

/// A folder being filled: a temporary sibling, renamed when it is whole. One that is never finished is removed.
#[derive(Debug)]
pub struct NewFolder {
    made: TempDir,
    path: PathBuf,
    /// Keeps [`sweep`] away.
    _lock: Option<File>,
}

impl NewFolder {
    /// Begins a folder that takes the place of one that may be there. Makes the folders above it.
    ///
    /// # Errors
    /// [`StoreError::Name`] for a path that has no name; [`StoreError::Io`] if the folder around cannot be written.
    pub fn begin(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        if path.file_name().is_none() {
            let found = path.display().to_string();
            return Err(StoreError::Name {
                what: "output folder",
                found,
                wanted: "a path that ends in a name",
            });
        }
        create_folder(folder_of(path))?;
        sweep_once(folder_of(path));
        let made = temporary_beside(path)?;
        let lock = lock(made.path());
        Ok(Self { made, path: path.to_path_buf(), _lock: lock })
    }

    /// Where it is while it is being filled.
    pub fn place(&self) -> &Path {
        self.made.path()
    }

    /// Where a file is while the folder is being filled. Makes the folders above it.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn file(&self, path: &str) -> Result<PathBuf, StoreError> {
        let path = self.place().join(path);
        create_folder(folder_of(&path))?;
        Ok(path)
    }

    /// Puts the folder into its place. One that is there is replaced; for the moment between two renames it is gone.
    ///
    /// # Errors
    /// [`StoreError::Io`]; what was there is then untouched.
    pub fn finish(self) -> Result<(), StoreError> {
        let path = &self.path;
        sync_folder(self.place())?;
        let rename =
            |from: &Path, to: &Path| fs::rename(from, to).map_err(|e| StoreError::io("rename", path, e));
        // An empty folder is replaced at once.
        let is_put = fs::rename(self.place(), path).is_ok();
        if !is_put && path.exists() {
            let aside = temporary_beside(path)?;
            let old = aside.path().join("old");
            rename(path, &old)?;
            if let Err(error) = rename(self.place(), path) {
                rename(&old, path)?;
                return Err(error);
            }
        } else if !is_put {
            rename(self.place(), path)?;
        }
        // It has another name now.
        let _ = self.made.keep();
        sync_folder(folder_of(path))
    }
}

fn temporary_beside(path: &Path) -> Result<TempDir, StoreError> {
    let made = builder(&prefix(), 0o777).tempdir_in(folder_of(path));
    made.map_err(|e| StoreError::io("create", path, e))
}

/// Makes a [`NewFolder`] through `fill`, which gets the place to fill.
///
/// # Errors
/// Those of [`NewFolder`], and those of `fill`; what was there is then untouched.
pub fn write_folder<E: From<StoreError>>(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let folder = NewFolder::begin(path)?;
    fill(folder.place())?;
    Ok(folder.finish()?)
}

/// Removes what killed processes left in a folder.
///
/// # Errors
/// [`StoreError::Io`] if the folder cannot be read, or something in it not removed.
pub fn sweep(folder: impl AsRef<Path>) -> Result<(), StoreError> {
    let folder = folder.as_ref();
    for entry in fs::read_dir(folder).map_err(|e| StoreError::io("read", folder, e))? {
        let path = entry.map_err(|e| StoreError::io("read", folder, e))?.path();
        // Held until it is gone.
        let Some(_lock) = lock_abandoned(&path) else { continue };
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// [`sweep`], once for each folder; that what others left cannot be removed keeps nobody from writing.
fn sweep_once(folder: &Path) {
    static SWEPT: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    let is_new = {
        let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
        swept.get_or_insert_default().insert(folder.to_path_buf())
    };
    if is_new {
        drop(sweep(folder));
    }
}

/// Whether a file or folder of this name is one that some process is writing, or was when it ended; those of earlier versions, too.
pub fn is_unfinished(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(".tmp") || name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

/// The lock of the temporary file or folder of a process that has ended; `None` for anything else.
fn lock_abandoned(path: &Path) -> Option<File> {
    let name = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    if !name.starts_with(LOCK_PREFIX) {
        let process: u32 = name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()?;
        let processes = Path::new("/proc");
        let lives = process == std::process::id()
            || !processes.join("self").exists()
            || processes.join(process.to_string()).exists();
        if lives {
            return None;
        }
    }
    lock(path)
}

/// A lock on a file or a folder; `None` where another process has it, or there are no locks.
fn lock(path: &Path) -> Option<File> {
    let handle = File::open(path).ok()?;
    handle.try_lock().ok()?;
    Some(handle)
}

fn prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// [`write()`] for bytes already in memory.
///
/// # Errors
/// As [`write()`].
pub fn write_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), StoreError> {
    write(path, |out| out.write_all(bytes))
}

/// Renames a file that is already synced over `path` in the same folder, then syncs the folder.
///
/// # Errors
/// [`StoreError::Io`].
pub fn rename(from: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<(), StoreError> {
    let path = path.as_ref();
    fs::rename(from, path).map_err(|e| StoreError::io("rename", path, e))?;
    sync_folder(folder_of(path))
}

/// Creates a folder and its parents; one that is there already is fine.
///
/// # Errors
/// [`StoreError::Io`] if it cannot be made, for instance because a file has its name.
pub fn create_folder(path: impl AsRef<Path>) -> Result<(), StoreError> {
    let path = path.as_ref();
    fs::create_dir_all(path).map_err(|e| StoreError::io("create", path, e))
}

/// The folder that something is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg_attr(not(unix), expect(unused_variables, reason = "permissions are those of Unix"))]
fn builder(prefix: &str, mode: u32) -> tempfile::Builder<'_, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).suffix(SUFFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary file is private by default; a result is for whoever the user's umask lets read it.
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    builder
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    // Without this the rename itself may be lost with the power.
    File::open(folder).and_then(|handle| handle.sync_all()).map_err(|e| StoreError::io("sync", folder, e))
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> Result<(), StoreError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_contents_replace_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        write_bytes(&path, b"old").unwrap();
        write_bytes(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_failed_write_leaves_the_old_contents_and_no_litter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        write_bytes(&path, b"old").unwrap();
        let outcome = write(&path, |out| {
            out.write_all(b"half of the ne")?;
            Err(io::Error::other("disk full"))
        });
        assert!(matches!(outcome, Err(StoreError::Io { action: "write", .. })));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_staged_file_is_not_there_before_it_is_finished_and_knows_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let bytes = vec![7; 3 << 20];
        let stage =
            || Staged::write(&path, |out| bytes.chunks(1 << 19).try_for_each(|part| out.write_all(part)));
        drop(stage().unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "one that is dropped is removed");
        let staged = stage().unwrap();
        assert!(!path.exists());
        let sha256 = staged.sha256().to_owned();
        std::thread::spawn(|| staged.finish().unwrap()).join().unwrap();
        assert_eq!(sha256, crate::checksum::sha256_file(&path).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn folders_being_filled_for_one_place_leave_each_other_alone() {
        let around = tempfile::tempdir().unwrap();
        let path = around.path().join("out");
        let [one, other] = [(); 2].map(|()| NewFolder::begin(&path).unwrap());
        fs::write(one.file("a/1").unwrap(), "one").unwrap();
        fs::write(other.file("a/2").unwrap(), "other").unwrap();
        one.finish().unwrap();
        assert_eq!(fs::read(path.join("a/1")).unwrap(), b"one");
        other.finish().unwrap();
        assert_eq!(fs::read(path.join("a/2")).unwrap(), b"other");
        assert!(!path.join("a/1").exists(), "replaced as a whole");
        drop(NewFolder::begin(&path).unwrap());
        assert_eq!(fs::read_dir(around.path()).unwrap().count(), 1, "one that is not finished is removed");
        assert!(matches!(NewFolder::begin("/"), Err(StoreError::Name { .. })));
    }

    #[test]
    fn a_folder_is_whole_or_not_there() {
        let around = tempfile::tempdir().unwrap();
        let path = around.path().join("model");
        let fill = |text: &'static str, end: Result<(), StoreError>| {
            write_folder(&path, move |place| {
                write_bytes(place.join("a"), text.as_bytes())?;
                end
            })
        };
        let broken = || Err(StoreError::malformed(Path::new("x"), "a", "b"));
        assert!(fill("one", broken()).is_err());
        assert_eq!(fs::read_dir(around.path()).unwrap().count(), 0);
        fill("two", Ok(())).unwrap();
        assert!(fill("three", broken()).is_err());
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "two");
        fill("four", Ok(())).unwrap();
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "four");
        assert_eq!(fs::read_dir(around.path()).unwrap().count(), 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_killed_processes_left_is_swept_and_what_others_write_is_not() {
        let folder = tempfile::tempdir().unwrap();
        // Numbers of processes are smaller.
        let of = |process: u32, name: &str| folder.path().join(format!("{PREFIX}{process}-{name}{SUFFIX}"));
        let (dead_file, dead_folder) = (of(u32::MAX, "a"), of(u32::MAX - 1, "b"));
        let (held, alive) = (of(u32::MAX, "c"), of(1, "d"));
        let locked_only = folder.path().join(format!("{LOCK_PREFIX}scores.csv{SUFFIX}"));
        fs::write(&locked_only, "").unwrap();
        let strange = folder.path().join(".tastemaker-notes.tmp");
        for path in [&dead_file, &held, &alive, &strange] {
            fs::write(path, "half of it").unwrap();
        }
        fs::create_dir_all(dead_folder.join("unet")).unwrap();
        let lock = lock(&held).unwrap();
        write_bytes(folder.path().join("plan.json"), b"x").unwrap();
        let found = [&dead_file, &dead_folder, &held, &alive, &strange].map(|path| path.exists());
        assert_eq!(found, [false, false, true, true, true]);
        assert!(!locked_only.exists());
        drop(lock);
        sweep(folder.path()).unwrap();
        assert!(!held.exists() && alive.exists());
    }

    #[test]
    fn a_missing_folder_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nowhere/plan.json");
        let error = write_bytes(&path, b"x").unwrap_err();
        assert_eq!(error.to_string(), format!("cannot write {}", path.display()));
    }

    #[test]
    fn a_folder_under_a_file_cannot_be_created() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        write_bytes(&file, b"x").unwrap();
        assert!(matches!(create_folder(file.join("sub")), Err(StoreError::Io { action: "create", .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_result_is_readable_by_others_as_the_umask_allows() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write_bytes(&ours, b"x").unwrap();
        fs::write(&plain, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
