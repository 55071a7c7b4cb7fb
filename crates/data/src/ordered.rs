//! Work on many threads whose results come in order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

struct State<T> {
    /// The next number that a worker takes.
    next: usize,
    /// The next number that is handed over.
    wanted: usize,
    done: BTreeMap<usize, T>,
    stopped: bool,
}

/// Computes `work` for every number of a range on `n_workers` threads and hands the results to `each` in order, on the
/// calling thread. At most `window` numbers are taken ahead of the one handed over, so memory is bounded. The first error of
/// `each` ends it.
///
/// # Errors
/// That of `each`.
///
/// # Panics
/// If `work` does.
pub fn in_order<T: Send, E>(
    range: Range<usize>,
    n_workers: usize,
    window: usize,
    work: impl Fn(usize) -> T + Sync,
    mut each: impl FnMut(usize, T) -> Result<(), E>,
) -> Result<(), E> {
    let state = State { next: range.start, wanted: range.start, done: BTreeMap::new(), stopped: false };
    let (state, changed) = (Mutex::new(state), Condvar::new());
    let window = window.max(1);
    thread::scope(|scope| {
        // Whoever leaves, by an error or a panic, lets the others go.
        let worker = || {
            let _leaving = Stop { state: &state, changed: &changed, only_on_panic: true };
            loop {
                let mut now = lock(&state);
                while !now.stopped && now.next < range.end && now.next >= now.wanted + window {
                    now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
                }
                if now.stopped || now.next >= range.end {
                    return;
                }
                let number = now.next;
                now.next += 1;
                drop(now);
                let result = work(number);
                lock(&state).done.insert(number, result);
                changed.notify_all();
            }
        };
        let workers: Vec<_> = (0..n_workers.max(1)).map(|_| scope.spawn(worker)).collect();
        let outcome = {
            let _leaving = Stop { state: &state, changed: &changed, only_on_panic: false };
            hand_over(&state, &changed, range.clone(), &mut each)
        };
        for worker in workers {
            if let Err(payload) = worker.join() {
                panic::resume_unwind(payload);
            }
        }
        outcome
    })
}

fn hand_over<T, E>(
    state: &Mutex<State<T>>,
    changed: &Condvar,
    range: Range<usize>,
    each: &mut impl FnMut(usize, T) -> Result<(), E>,
) -> Result<(), E> {
    for number in range {
        let mut now = lock(state);
        let result = loop {
            if let Some(result) = now.done.remove(&number) {
                break result;
            }
            if now.stopped {
                return Ok(());
            }
            now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
        };
        now.wanted = number + 1;
        drop(now);
        changed.notify_all();
        each(number, result)?;
    }
    Ok(())
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stops everybody when it goes out of scope.
struct Stop<'a, T> {
    state: &'a Mutex<State<T>>,
    changed: &'a Condvar,
    only_on_panic: bool,
}

impl<T> Drop for Stop<'_, T> {
    fn drop(&mut self) {
        if !self.only_on_panic || thread::panicking() {
            lock(self.state).stopped = true;
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[test]
    fn results_come_in_order_whoever_is_slow() {
        for n_workers in [1, 4] {
            let mut found = Vec::new();
            let slow = |number: usize| {
                thread::sleep(Duration::from_micros(((number * 7) % 5) as u64 * 200));
                number * number
            };
            let outcome: Result<(), ()> = in_order(3..40, n_workers, 6, slow, |number, square| {
                found.push((number, square));
                Ok(())
            });
            assert_eq!(outcome, Ok(()));
            assert_eq!(found, (3..40).map(|number| (number, number * number)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nobody_runs_further_ahead_than_the_window() {
        let (taken, handed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = |number: usize| {
            taken.fetch_max(number, Ordering::SeqCst);
            assert!(number <= handed.load(Ordering::SeqCst) + 5);
        };
        let each = |number: usize, ()| {
            thread::sleep(Duration::from_micros(300));
            handed.store(number + 1, Ordering::SeqCst);
            Ok::<(), ()>(())
        };
        assert_eq!(in_order(0..60, 3, 5, work, each), Ok(()));
        assert_eq!(taken.load(Ordering::SeqCst), 59);
    }

    #[test]
    fn the_first_error_ends_it() {
        let outcome = in_order(
            0..1000,
            2,
            8,
            |number| number,
            |number, _| if number == 5 { Err(number) } else { Ok(()) },
        );
        assert_eq!(outcome, Err(5));
    }

    #[test]
    #[should_panic(expected = "no such image")]
    fn a_panic_comes_through() {
        let work = |number: usize| assert!(number != 7, "no such image");
        let _: Result<(), ()> = in_order(0..100, 2, 4, work, |_, ()| Ok(()));
    }
}
