//! Blocks of files that were read lately.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::HubError;

/// Bytes of a block; the last one of a file is shorter.
pub(super) const BLOCK: u64 = 4 << 20;

/// Blocks that are kept.
const KEPT: usize = 16;

/// A block: number of its file, and its number in that.
type Key = (u64, u64);

/// The blocks read last, for all threads. While one thread fetches a block, others that want it wait.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// The one used last at the end. `None` is being fetched.
    blocks: Mutex<Vec<(Key, Option<Bytes>)>>,
    changed: Condvar,
}

impl Blocks {
    /// A block, fetched unless it is there.
    pub fn get(&self, key: Key, fetch: impl FnOnce() -> Result<Bytes, HubError>) -> Result<Bytes, HubError> {
        let mut blocks = self.lock();
        while let Some(at) = blocks.iter().position(|(found, _)| *found == key) {
            match blocks[at].1.clone() {
                Some(bytes) => {
                    let block = blocks.remove(at);
                    blocks.push(block);
                    return Ok(bytes);
                }
                None => blocks = self.changed.wait(blocks).unwrap_or_else(PoisonError::into_inner),
            }
        }
        blocks.push((key, None));
        drop(blocks);
        let mut place = Place { blocks: self, key, bytes: None };
        let bytes = fetch()?;
        place.bytes = Some(bytes.clone());
        Ok(bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Key, Option<Bytes>)>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a block that is being fetched. It is given up if nothing comes, also where fetching panics.
struct Place<'a> {
    blocks: &'a Blocks,
    key: Key,
    bytes: Option<Bytes>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut blocks = self.blocks.lock();
        blocks.retain(|(key, _)| *key != self.key);
        if let Some(bytes) = self.bytes.take() {
            blocks.push((self.key, Some(bytes)));
        }
        while blocks.iter().filter(|(_, bytes)| bytes.is_some()).count() > KEPT {
            if let Some(oldest) = blocks.iter().position(|(_, bytes)| bytes.is_some()) {
                blocks.remove(oldest);
            }
        }
        drop(blocks);
        self.blocks.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use tastemaker_store::StoreError;

    use super::*;

    fn block(number: u64) -> Bytes {
        Bytes::from(number.to_le_bytes().to_vec())
    }

    #[test]
    fn a_block_that_many_want_is_fetched_once() {
        let (blocks, fetched) = (Blocks::default(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let got = blocks.get((1, 2), || {
                        fetched.fetch_add(1, Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(20));
                        Ok(block(7))
                    });
                    assert_eq!(got.unwrap(), block(7));
                });
            }
        });
        assert_eq!(fetched.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn the_block_used_longest_ago_goes_first() {
        let blocks = Blocks::default();
        let fetches = |number: u64| {
            let mut fetched = false;
            blocks
                .get((0, number), || {
                    Ok({
                        fetched = true;
                        block(number)
                    })
                })
                .unwrap();
            fetched
        };
        for number in 0..KEPT as u64 {
            assert!(fetches(number));
        }
        assert!(!fetches(0));
        assert!(fetches(KEPT as u64));
        assert!(!fetches(0));
        assert!(fetches(1));
        assert_eq!(blocks.lock().len(), KEPT);
    }

    #[test]
    fn a_fetch_that_fails_leaves_the_block_to_the_next() {
        let blocks = Blocks::default();
        let fail = || Err(StoreError::malformed("x".as_ref(), "a", "b").into());
        assert!(blocks.get((0, 0), fail).is_err());
        let panicked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| blocks.get((0, 0), || panic!("no"))));
        assert!(panicked.is_err());
        assert_eq!(blocks.get((0, 0), || Ok(block(1))).unwrap(), block(1));
    }
}
