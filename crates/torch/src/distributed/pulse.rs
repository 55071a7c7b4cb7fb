//! Who is still alive: every rank says so in the store, and watches the next one.
//!
//! A rank that waits for another may wait for as long as the other lives: minutes for a checkpoint, hours for a cache. What ends a
//! wait is the silence of a rank, whichever of them notices: it writes that under a key that all ranks read. A rank that leaves before
//! its work is done writes why under the same key, and waits until the others know.

use std::ffi::{CString, c_char, c_void};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

/// How often a rank that leaves looks whether the others know.
const GLANCE: Duration = Duration::from_millis(50);

/// Why a rank left before its work was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Farewell {
    /// The rank.
    pub rank: usize,
    /// The exit code of its process.
    pub code: u8,
    /// Its error.
    pub words: String,
}

/// What the value of [`LOST`] begins with where it is a farewell; rank, code and words follow, with a space between.
const FAREWELL: &str = "farewell ";

impl Farewell {
    fn write(&self) -> String {
        // The store keeps what ends with a zero.
        let words = self.words.replace('\0', " ");
        format!("{FAREWELL}{} {} {words}", self.rank, self.code)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(FAREWELL)?.splitn(3, ' ');
        let (rank, code) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { rank, code, words: parts.next()?.to_owned() })
    }
}

/// What one process knows of the others.
#[derive(Debug)]
pub(crate) struct Pulse {
    silence: Duration,
    /// The number of the signal that asks this process to end, 0 for none.
    signal: Arc<AtomicUsize>,
    /// Whether that ends waits.
    heeds: AtomicBool,
    known: Mutex<Known>,
    woken: Condvar,
}

#[derive(Debug)]
struct Known {
    lost: Option<String>,
    last_beat: Instant,
    n_beats: u64,
    leaves: bool,
    /// What this rank has to say to the others.
    farewell: Option<Farewell>,
    has_left: bool,
}

impl Pulse {
    /// Begins to beat for `rank` of `world_size`; a rank that is not heard of for `silence` is lost.
    pub(super) fn begin(
        store: Store,
        rank: usize,
        world_size: usize,
        silence: Duration,
        signal: Arc<AtomicUsize>,
    ) -> Arc<Self> {
        let has_left = world_size == 1;
        let known = Known {
            lost: None,
            last_beat: Instant::now(),
            n_beats: 0,
            leaves: false,
            farewell: None,
            has_left,
        };
        let (known, heeds) = (Mutex::new(known), AtomicBool::new(false));
        let pulse = Arc::new(Self { silence, signal, heeds, known, woken: Condvar::new() });
        if world_size > 1 {
            let beating = Arc::clone(&pulse);
            thread::spawn(move || beating.beat(&store, rank, world_size));
        }
        pulse
    }

    /// Whether a signal to this process ends its waits from now on.
    pub(super) fn heed(&self, heeds: bool) {
        self.heeds.store(heeds, Ordering::Relaxed);
    }

    /// Asks at once what is known, for something has failed that another rank may have said the reason of.
    pub(super) fn ask(&self) {
        let mut known = self.known();
        let (asked, until) = (known.n_beats, Instant::now() + PARTING);
        // The first may have been under way.
        while known.lost.is_none() && !known.has_left && known.n_beats < asked + 2 && Instant::now() < until {
            self.woken.notify_all();
            let waited = self.woken.wait_timeout(known, GLANCE).unwrap_or_else(PoisonError::into_inner);
            known = waited.0;
        }
    }

    /// What another rank that left before its work was done said.
    pub(super) fn farewell(&self) -> Option<Farewell> {
        self.known().lost.as_deref().and_then(Farewell::read)
    }

    /// What ends a wait, in words: a signal to this process, or what is known of a lost rank.
    pub(super) fn end_of_wait(&self) -> Option<String> {
        let signal = Some(self.signal.load(Ordering::Relaxed)).filter(|signal| *signal > 0);
        let heeded = signal.filter(|_| self.heeds.load(Ordering::Relaxed));
        heeded.map(|signal| format!("signal {signal} came to this rank")).or_else(|| self.lost())
    }

    /// What is known of a lost rank, in words.
    pub(crate) fn lost(&self) -> Option<String> {
        let known = self.known();
        if known.lost.is_some() || known.has_left {
            return known.lost.as_deref().map(in_words);
        }
        // Then the thread that beats waits for a store that does not answer, and its host is the lost one.
        let waits = known.last_beat.elapsed();
        (waits > 2 * self.silence)
            .then(|| format!("the store of rank 0 or of the launcher does not answer since {waits:.0?}"))
    }

    /// Says that this rank leaves, so that nobody waits for it.
    pub(super) fn leave(&self) {
        self.leave_saying(None);
    }

    /// Says why this rank leaves before its work is done, and waits for a while until all others know.
    pub(super) fn leave_saying(&self, farewell: Option<Farewell>) {
        let patience = PARTING + farewell.as_ref().map_or(Duration::ZERO, |_| self.until_all_know());
        let mut known = self.known();
        known.farewell = farewell;
        known.leaves = true;
        self.woken.notify_all();
        let until = Instant::now() + patience;
        while !known.has_left && Instant::now() < until {
            let waited = self.woken.wait_timeout(known, PARTING).unwrap_or_else(PoisonError::into_inner);
            known = waited.0;
        }
    }

    /// After how long every living rank has looked what others said.
    fn until_all_know(&self) -> Duration {
        2 * self.silence / BEATS
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beat(&self, store: &Store, rank: usize, world_size: usize) {
        let interval = self.silence / BEATS;
        let mut watched = Watched::new((rank + 1) % world_size, interval, self.silence);
        for number in 0u64.. {
            let began = Instant::now();
            let found = beat_once(store, &key(rank), number, &mut watched);
            let mut known = self.known();
            known.last_beat = Instant::now();
            known.n_beats += 1;
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
                let farewell = known.farewell.take().filter(|_| known.lost.is_none());
                drop(known);
                if let Some(farewell) = &farewell {
                    let _ = store.set(LOST, &farewell.write());
                }
                let _ = store.set(&key(rank), LEFT);
                if farewell.is_some() {
                    self.wait_for_others(store, rank, world_size);
                }
                self.known().has_left = true;
                self.woken.notify_all();
                return;
            }
            drop(known);
            watched.passed(began.elapsed());
        }
    }

    /// Until every other rank has left too, which it does when it knows that this one has.
    fn wait_for_others(&self, store: &Store, rank: usize, world_size: usize) {
        let until = Instant::now() + self.until_all_know();
        let stays = |other: usize| matches!(store.get(&key(other)), Ok(Some(said)) if said != LEFT);
        while (0..world_size).any(|other| other != rank && stays(other)) && Instant::now() < until {
            thread::sleep(GLANCE);
        }
    }
}

/// What is known of a lost rank, as it stands in the store, in words.
fn in_words(lost: &str) -> String {
    match Farewell::read(lost) {
        Some(Farewell { rank, words, .. }) => format!("rank {rank} has ended: {words}"),
        None => lost.to_owned(),
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
    unsafe { &*watch.cast::<Pulse>() }.end_of_wait().is_some()
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
    fn what_a_rank_says_when_it_leaves_is_read_as_it_was_written() {
        let said =
            Farewell { rank: 3, code: 143, words: "stopped before the first step; x\ny 1 2".to_owned() };
        assert_eq!(Farewell::read(&said.write()), Some(said));
        assert_eq!(Farewell::read("rank 3 has ended"), None);
        assert_eq!(in_words("rank 3 has ended"), "rank 3 has ended");
        assert_eq!(in_words("farewell 3 2 no such file"), "rank 3 has ended: no such file");
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
