//! Memory that many threads share, so that a few kilobytes of images cannot ask for more than there is.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A number of bytes that threads take and give back; who finds too few left waits.
#[derive(Debug)]
pub struct Budget {
    bytes: u64,
    used: Mutex<u64>,
    freed: Condvar,
}

/// What decoded images of this process may take at the same time while they are prepared.
pub static DECODED: Budget = Budget::new(1 << 30);

/// What pages of parquet files of this process may unpack to at the same time. Writers put up to a thousand rows into one page, images
/// and all.
pub static PAGES: Budget = Budget::new(2 << 30);

impl Budget {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self { bytes, used: Mutex::new(0), freed: Condvar::new() }
    }

    /// All bytes of it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes bytes, all there are if that is fewer, and waits until they are free. Nobody may take more while holding some:
    /// two that do would wait for each other.
    pub fn take(&self, bytes: u64) -> Lease<'_> {
        let bytes = bytes.min(self.bytes);
        let mut used = self.used();
        while *used + bytes > self.bytes {
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        *used += bytes;
        Lease { budget: self, bytes }
    }

    /// Takes bytes if so many are left.
    pub fn try_take(&self, bytes: u64) -> Option<Lease<'_>> {
        let mut used = self.used();
        if bytes > self.bytes - *used {
            return None;
        }
        *used += bytes;
        Some(Lease { budget: self, bytes })
    }

    fn used(&self) -> MutexGuard<'_, u64> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of a [`Budget`], given back when it is dropped.
#[derive(Debug)]
pub struct Lease<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        *self.budget.used() -= self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn threads_together_never_hold_more_than_there_is() {
        let budget = Budget::new(10);
        let (held, most) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for worker in 0..6 {
                let (budget, held, most) = (&budget, &held, &most);
                scope.spawn(move || {
                    for i in 0..50 {
                        let bytes = 1 + (worker + i) % 7;
                        let _lease = budget.take(bytes);
                        most.fetch_max(held.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                        thread::yield_now();
                        held.fetch_sub(bytes, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 10);
        assert_eq!(*budget.used(), 0);
    }

    #[test]
    fn who_does_not_wait_gets_nothing_where_too_few_are_left() {
        let budget = Budget::new(10);
        let lease = budget.try_take(7).unwrap();
        assert!(budget.try_take(4).is_none() && budget.try_take(u64::MAX).is_none());
        let rest = budget.try_take(3).unwrap();
        drop((lease, rest));
        assert_eq!(*budget.used(), 0);
    }

    #[test]
    fn who_wants_more_than_there_is_gets_all_of_it_alone() {
        let budget = Budget::new(10);
        let lease = budget.take(99);
        assert_eq!(*budget.used(), 10);
        drop(lease);
        assert_eq!(*budget.used(), 0);
    }
}
