//! Locks on folders and on the places of results, held by a process: who is killed holds none.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::{StoreError, atomic};

/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(200);

/// A lock on a folder, until it is dropped. It is the kernel's, on the folder itself: no file of it stays behind.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "closing the folder unlocks it")] Option<File>);

/// Who may hold a lock beside oneself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody.
    Alone,
    /// Others that share it.
    Shared,
}

impl FolderLock {
    /// Locks a folder that is there; `None` if others hold a lock that excludes this one.
    ///
    /// A file system without locks, as some of networks are, gives one that keeps nobody out.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder cannot be opened.
    pub fn attempt(folder: impl AsRef<Path>, sharing: Sharing) -> Result<Option<Self>, StoreError> {
        let folder = folder.as_ref();
        let file = File::open(folder).map_err(|error| StoreError::io("lock", folder, error))?;
        Ok(match locked(file, sharing) {
            Outcome::Locked(file) => Some(Self(Some(file))),
            Outcome::Held => None,
            Outcome::NoLocks => Some(Self(None)),
        })
    }

    /// Waits until a folder can be locked; `on_wait` is called whenever it cannot, and may give up.
    ///
    /// # Errors
    /// As [`FolderLock::attempt`], and those of `on_wait`.
    pub fn wait<E: From<StoreError>>(
        folder: impl AsRef<Path>,
        sharing: Sharing,
        mut on_wait: impl FnMut() -> Result<(), E>,
    ) -> Result<Self, E> {
        loop {
            if let Some(lock) = Self::attempt(&folder, sharing)? {
                return Ok(lock);
            }
            on_wait()?;
            thread::sleep(PAUSE);
        }
    }
}

enum Outcome {
    Locked(File),
    Held,
    NoLocks,
}

fn locked(file: File, sharing: Sharing) -> Outcome {
    let locked = match sharing {
        Sharing::Alone => file.try_lock(),
        Sharing::Shared => file.try_lock_shared(),
    };
    match locked {
        Ok(()) => Outcome::Locked(file),
        Err(TryLockError::WouldBlock) => Outcome::Held,
        Err(TryLockError::Error(_)) => Outcome::NoLocks,
    }
}

/// The place of a result, from before the first work until it is there: nobody else makes one there meanwhile.
///
/// A folder is made at once and locked itself, as every [`FolderLock`]; it may be replaced by the finished one. A file, which is
/// not there before it is whole, has a file with a lock beside it meanwhile.
#[derive(Debug)]
pub struct Claim {
    /// Held until the end; none where there are no locks.
    lock: Option<File>,
    /// The file beside a file.
    beside: Option<PathBuf>,
    /// Folders that were made for it, outermost first.
    made: Vec<PathBuf>,
}

impl Claim {
    /// The place of a folder; `None` if another process works there.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder cannot be made or opened.
    pub fn folder(path: impl AsRef<Path>) -> Result<Option<Self>, StoreError> {
        let path = path.as_ref();
        let fail = |error| StoreError::io("lock", path, error);
        loop {
            let made = make(path)?;
            let lock = match locked(File::open(path).map_err(fail)?, Sharing::Alone) {
                Outcome::Held => return Ok(None),
                Outcome::NoLocks => None,
                // Between opening and locking, the one before may have put its result there.
                Outcome::Locked(file) if !is_at(&file, path) => continue,
                Outcome::Locked(file) => Some(file),
            };
            return Ok(Some(Self { lock, beside: None, made }));
        }
    }

    /// The place of a file; `None` if another process makes one there.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder around it cannot be made or written.
    pub fn file(path: impl AsRef<Path>) -> Result<Option<Self>, StoreError> {
        let path = path.as_ref();
        let made = make(atomic::folder_of(path))?;
        let mut name = OsString::from(atomic::LOCK_PREFIX);
        name.push(path.file_name().unwrap_or_default());
        name.push(atomic::SUFFIX);
        let beside = path.with_file_name(name);
        loop {
            let mut open = File::options();
            let open = open.write(true).create(true).truncate(false).open(&beside);
            let lock = match locked(open.map_err(|e| StoreError::io("lock", path, e))?, Sharing::Alone) {
                Outcome::Held => return Ok(None),
                Outcome::NoLocks => None,
                Outcome::Locked(file) if !is_at(&file, &beside) => continue,
                Outcome::Locked(file) => Some(file),
            };
            return Ok(Some(Self { lock, beside: Some(beside), made }));
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Removed while it is locked, so that whoever opens it knows that it is no longer the one.
        if let Some(beside) = &self.beside {
            let _ = fs::remove_file(beside);
        }
        // Folders that nothing came into; those with something in them stay.
        let _ = self.made.iter().rev().try_for_each(fs::remove_dir);
        self.lock = None;
    }
}

/// Makes a folder, and returns what had to be made, outermost first.
fn make(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let absent = folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
    let mut absent: Vec<PathBuf> = absent.map(Path::to_owned).collect();
    absent.reverse();
    atomic::create_folder(folder)?;
    Ok(absent)
}

/// Whether an open file or folder is the one that is at a path now.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().ok().map(id).is_some_and(|open| fs::metadata(path).ok().map(id) == Some(open))
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_place_is_nobody_elses_and_leaves_nothing_that_was_not_put_there() {
        let around = tempfile::tempdir().unwrap();
        type Take = fn(&Path) -> Option<Claim>;
        let folder: Take = |path| Claim::folder(path).unwrap();
        let file: Take = |path| Claim::file(path).unwrap();
        for (take, put) in [(folder, "a/b/out/one"), (file, "a/b/out")] {
            let place = around.path().join("a/b/out");
            let claim = take(&place).unwrap();
            assert!(take(&place).is_none() && take(&around.path().join("a/./b/out")).is_none());
            drop(claim);
            assert_eq!(fs::read_dir(around.path()).unwrap().count(), 0);
            let claim = take(&place).unwrap();
            fs::write(around.path().join(put), "x").unwrap();
            drop(claim);
            assert_eq!(fs::read_dir(around.path().join("a/b")).unwrap().count(), 1);
            assert!(take(&place).is_some(), "free again");
            fs::remove_dir_all(around.path().join("a")).unwrap();
        }
    }

    #[test]
    fn a_claim_outlives_that_its_folder_is_replaced_by_the_finished_one() {
        let around = tempfile::tempdir().unwrap();
        let place = around.path().join("out");
        let claim = Claim::folder(&place).unwrap();
        let whole = atomic::NewFolder::begin(&place).unwrap();
        fs::write(whole.file("a").unwrap(), "x").unwrap();
        whole.finish().unwrap();
        drop(claim);
        assert!(place.join("a").exists() && Claim::folder(&place).unwrap().is_some());
    }

    #[test]
    fn one_lock_keeps_others_out_until_it_is_dropped_and_shared_ones_each_other_not() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = |sharing| FolderLock::attempt(folder.path(), sharing).unwrap();
        let alone = attempt(Sharing::Alone).unwrap();
        assert!(attempt(Sharing::Alone).is_none() && attempt(Sharing::Shared).is_none());
        drop(alone);
        let (one, other) = (attempt(Sharing::Shared), attempt(Sharing::Shared));
        assert!(one.is_some() && other.is_some() && attempt(Sharing::Alone).is_none());
        drop((one, other));
        assert!(attempt(Sharing::Alone).is_some());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a lock leaves no file");
    }

    #[test]
    fn who_waits_has_the_lock_once_it_is_free_or_gives_up() {
        let folder = tempfile::tempdir().unwrap();
        let mut held = FolderLock::attempt(folder.path(), Sharing::Alone).unwrap();
        let mut n = 0;
        let waited = FolderLock::wait(folder.path(), Sharing::Alone, || {
            n += 1;
            held = None;
            Ok::<(), StoreError>(())
        });
        assert!(waited.is_ok() && n == 1);
        let gave_up = FolderLock::wait(folder.path(), Sharing::Shared, || {
            Err(StoreError::malformed(folder.path(), "a lock", "none"))
        });
        assert!(gave_up.is_err());
    }
}
