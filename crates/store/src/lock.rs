//! Locks on folders, held by a process: who is killed holds none.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::StoreError;

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
        let locked = match sharing {
            Sharing::Alone => file.try_lock(),
            Sharing::Shared => file.try_lock_shared(),
        };
        match locked {
            Ok(()) => Ok(Some(Self(Some(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(_)) => Ok(Some(Self(None))),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
