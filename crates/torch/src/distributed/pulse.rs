//! Who is still alive: every rank says so in the store, and watches the next one.
//!
//! A rank that waits for another may wait for as long as the other lives: minutes for a checkpoint, hours for a cache. What ends a
//! wait is the silence of a rank, whichever of them notices: it writes that under a key that all ranks read.

use std::ffi::{CString, c_char, c_void};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::shim::{attempt, freed};

/// The key of what is known of a lost rank.
const LOST: &str = "lost";
/// What a rank leaves under its key when it leaves.
const LEFT: &str = "left";
/// Beats in the time after which a silent rank is lost.
const BEATS: u32 = 20;
/// How long leaving waits for the thread that beats.
const PARTING: Duration = Duration::from_secs(1);

/// What one process knows of the others.
#[derive(Debug)]
pub(crate) struct Pulse {
    silence: Duration,
    known: Mutex<Known>,
    woken: Condvar,
}

#[derive(Debug)]
struct Known {
    lost: Option<String>,
    last_beat: Instant,
    leaves: bool,
    has_left: bool,
}

impl Pulse {
    /// Begins to beat for `rank` of `world_size`; a rank that is not heard of for `silence` is lost.
    pub(super) fn begin(store: Store, rank: usize, world_size: usize, silence: Duration) -> Arc<Self> {
        let known = Known { lost: None, last_beat: Instant::now(), leaves: false, has_left: world_size == 1 };
        let pulse = Arc::new(Self { silence, known: Mutex::new(known), woken: Condvar::new() });
        if world_size > 1 {
            let beating = Arc::clone(&pulse);
            thread::spawn(move || beating.beat(&store, rank, (rank + 1) % world_size));
        }
        pulse
    }

    /// What is known of a lost rank, in words.
    pub(crate) fn lost(&self) -> Option<String> {
        let known = self.known();
        if known.lost.is_some() || known.has_left {
            return known.lost.clone();
        }
        // Then the thread that beats waits for a store that does not answer, and its host is the lost one.
        let waits = known.last_beat.elapsed();
        (waits > 2 * self.silence)
            .then(|| format!("the store of rank 0 or of the launcher does not answer since {waits:.0?}"))
    }

    /// Says that this rank leaves, so that nobody waits for it.
    pub(super) fn leave(&self) {
        let mut known = self.known();
        known.leaves = true;
        self.woken.notify_all();
        let until = Instant::now() + PARTING;
        while !known.has_left && Instant::now() < until {
            let waited = self.woken.wait_timeout(known, PARTING).unwrap_or_else(PoisonError::into_inner);
            known = waited.0;
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beat(&self, store: &Store, rank: usize, next: usize) {
        let interval = self.silence / BEATS;
        let mut watched = Watched::new(next, interval, self.silence);
        for number in 0u64.. {
            let began = Instant::now();
            let found = beat_once(store, &key(rank), number, &mut watched);
            let mut known = self.known();
            known.last_beat = Instant::now();
            match found {
                Ok(None) => {}
                Ok(Some(words)) => known.lost = Some(words),
                Err(why) => known.lost = Some(format!("the store that the ranks met at is gone ({why})")),
            }
            if known.lost.is_none() && !known.leaves {
                let waited = self.woken.wait_timeout(known, interval).unwrap_or_else(PoisonError::into_inner);
                known = waited.0;
            }
            if known.leaves || known.lost.is_some() {
                drop(known);
                let _ = store.set(&key(rank), LEFT);
                self.known().has_left = true;
                self.woken.notify_all();
                return;
            }
            drop(known);
            watched.passed(began.elapsed());
        }
    }
}

/// Says that this rank lives, and asks about the others.
fn beat_once(store: &Store, own: &str, number: u64, watched: &mut Watched) -> Result<Option<String>, String> {
    store.set(own, &number.to_string())?;
    if let Some(words) = store.get(LOST)? {
        return Ok(Some(words));
    }
    let lost = watched.observe(store.get(&key(watched.rank))?);
    if let Some(words) = &lost {
        store.set(LOST, words)?;
    }
    Ok(lost)
}

fn key(rank: usize) -> String {
    format!("alive/{rank}")
}

/// The rank that this one watches.
struct Watched {
    rank: usize,
    interval: Duration,
    silence: Duration,
    heard: Option<String>,
    silent_for: Duration,
    n_left: u32,
}

impl Watched {
    fn new(rank: usize, interval: Duration, silence: Duration) -> Self {
        Self { rank, interval, silence, heard: None, silent_for: Duration::ZERO, n_left: 0 }
    }

    /// Adds to its silence. Time in which this process itself was stopped says nothing about another.
    fn passed(&mut self, time: Duration) {
        self.silent_for += time.min(2 * self.interval);
    }

    /// Takes what it last said; gives words if it is lost.
    fn observe(&mut self, said: Option<String>) -> Option<String> {
        if said.as_deref() == Some(LEFT) {
            // What it sent before may still be on its way.
            self.n_left += 1;
            return (self.n_left > 2).then(|| format!("rank {} has ended", self.rank));
        }
        if said != self.heard {
            self.heard = said;
            self.silent_for = Duration::ZERO;
        }
        (self.silent_for >= self.silence)
            .then(|| format!("rank {} has not been heard of for {:?}", self.rank, self.silence))
    }
}

/// A connection to the store of a group, for one thread at a time.
pub(super) struct Store(*mut c_void);

#[expect(unsafe_code, reason = "a connection may change threads")]
// SAFETY: a store of libtorch belongs to no thread, and this one has no second handle.
unsafe impl Send for Store {}

impl Store {
    /// # Errors
    /// libtorch's words if the store cannot be reached.
    pub(super) fn open(group: *mut c_void) -> Result<Self, String> {
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: the caller gives a live group.
        attempt(|error| unsafe { tastemaker_store_open(group, error) }).map(Self)
    }

    fn set(&self, key: &str, value: &str) -> Result<(), String> {
        let text = |text: &str| CString::new(text).map_err(|error| error.to_string());
        let (key, value) = (text(key)?, text(value)?);
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: the store is alive, and the strings end with zeros.
        attempt(|error| unsafe { tastemaker_store_set(self.0, key.as_ptr(), value.as_ptr(), error) })?;
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Option<String>, String> {
        let key = CString::new(key).map_err(|error| error.to_string())?;
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: the store is alive, and the string ends with a zero.
        let found = attempt(|error| unsafe { tastemaker_store_get(self.0, key.as_ptr(), error) })?;
        #[expect(unsafe_code, reason = "the shim hands over a C string")]
        // SAFETY: what is not null is a C string that is ours to free.
        Ok((!found.is_null()).then(|| unsafe { freed(found) }))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: the store is alive, and nobody uses it after this.
        unsafe {
            tastemaker_store_close(self.0);
        }
    }
}

/// What the shim asks while it waits. `watch` is the [`Pulse`] of its group.
#[expect(unsafe_code, reason = "called from C++")]
pub(super) unsafe extern "C" fn is_lost(watch: *const c_void) -> bool {
    // SAFETY: the group that asks keeps its pulse.
    unsafe { &*watch.cast::<Pulse>() }.lost().is_some()
}

type Message = *mut *mut c_char;

#[expect(unsafe_code, reason = "the shim is C++; its functions are called through C")]
unsafe extern "C" {
    fn tastemaker_store_open(group: *mut c_void, error: Message) -> *mut c_void;
    fn tastemaker_store_close(store: *mut c_void);
    fn tastemaker_store_set(
        store: *mut c_void,
        key: *const c_char,
        value: *const c_char,
        error: Message,
    ) -> bool;
    fn tastemaker_store_get(store: *mut c_void, key: *const c_char, error: Message) -> *mut c_char;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(number: u32) -> Option<String> {
        Some(number.to_string())
    }

    #[test]
    fn a_rank_is_lost_when_it_is_silent_or_has_left_and_not_while_it_beats_or_this_one_was_stopped() {
        let second = Duration::from_secs(1);
        let watched = || Watched::new(3, second, 3 * second);
        let mut beats = watched();
        for number in 0..10 {
            assert_eq!(beats.observe(said(number)), None);
            beats.passed(2 * second);
        }
        let mut stopped = watched();
        assert_eq!(stopped.observe(said(0)), None);
        stopped.passed(3600 * second);
        assert_eq!(stopped.observe(said(0)), None, "this process was stopped, not that one");
        stopped.passed(second);
        assert_eq!(stopped.observe(said(0)).unwrap(), "rank 3 has not been heard of for 3s");
        let mut left = watched();
        let words: Vec<_> = (0..3).map(|_| left.observe(Some(LEFT.to_owned()))).collect();
        assert_eq!(words, [None, None, Some("rank 3 has ended".to_owned())]);
        let mut absent = watched();
        assert_eq!(absent.observe(None), None);
        (0..3).for_each(|_| absent.passed(second));
        assert!(absent.observe(None).is_some());
    }
}
