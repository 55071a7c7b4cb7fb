//! Signals: of SIGINT, SIGTERM and SIGHUP the first asks a run to save and stop, the second ends the program at once. A file
//! that grows beyond its limit is an error like a full disk, and a reader that has gone is none of our business.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

/// Codes of programs that a signal ended are this much above the signal's number.
pub const CODE: i32 = 128;

/// Which signal came, if one did.
#[derive(Debug, Clone, Default)]
pub struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// From now on signals ask.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn listen() -> std::io::Result<Self> {
        let signals = Self::default();
        signals.begin()?;
        Ok(signals)
    }

    /// The same where somebody reads the number already.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn begin(&self) -> std::io::Result<()> {
        let came = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal)) {
            // Handlers run in this order, so only a second signal finds that one came.
            flag::register_conditional_shutdown(signal, CODE + signal, Arc::clone(&came))?;
            flag::register(signal, Arc::clone(&came))?;
            flag::register_usize(signal, Arc::clone(&self.0), signal as usize)?;
        }
        Ok(())
    }

    /// Where its number is written; 0 before.
    pub fn number(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.0)
    }

    /// The number of the signal that came.
    pub fn came(&self) -> Option<i32> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => i32::try_from(signal).ok(),
        }
    }
}

/// From now on a write beyond the limit on a file's size fails, and does not end the program.
///
/// # Errors
/// If the system refuses a handler.
pub fn outlive_file_limits() -> std::io::Result<()> {
    flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// Whether whoever started the program wants it to go on through this signal, as `nohup` does.
///
/// Source: `SigIgn` of proc(5), a mask in which bit 0 is signal 1.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
