//! Mapped files that cannot be read any more: cut short by another program, or on a disk that fails. The kernel then sends SIGBUS to
//! whoever reads them, which by itself ends a process without a word.

use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering};

/// Files that can be open at once and have their names known. A model has a few.
const MOST: usize = 64;

static FILES: [Slot; MOST] = [const { Slot::new() }; MOST];
static CODE: AtomicI32 = AtomicI32::new(0);

/// An open file. `start` is 0 where there is none, and 1 while one is entered.
struct Slot {
    start: AtomicUsize,
    length: AtomicUsize,
    name: AtomicPtr<String>,
}

impl Slot {
    const fn new() -> Self {
        let name = AtomicPtr::new(std::ptr::null_mut());
        Self { start: AtomicUsize::new(0), length: AtomicUsize::new(0), name }
    }
}

/// The number of an open file; dropping it forgets the file.
#[derive(Debug)]
pub(crate) struct Known(usize);

/// Enters a mapped file; `None` where too many are open.
pub(crate) fn known(bytes: &[u8], path: &Path) -> Option<Known> {
    let free = |slot: &Slot| slot.start.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    let number = FILES.iter().position(free)?;
    let slot = &FILES[number];
    slot.name.store(Box::into_raw(Box::new(path.display().to_string())), Ordering::Release);
    slot.length.store(bytes.len(), Ordering::Release);
    slot.start.store(bytes.as_ptr() as usize, Ordering::Release);
    Some(Known(number))
}

impl Drop for Known {
    fn drop(&mut self) {
        let slot = &FILES[self.0];
        slot.length.store(0, Ordering::Release);
        let name = slot.name.swap(std::ptr::null_mut(), Ordering::AcqRel);
        #[expect(unsafe_code, reason = "the name was given away as a pointer")]
        // SAFETY: it came from a box, nobody else takes it, and a fault reads the names of files that are open only.
        unsafe {
            drop(Box::from_raw(name));
        }
        slot.start.store(0, Ordering::Release);
    }
}

/// From now on a mapped file that cannot be read ends the program with this exit code and words that name the file.
///
/// # Errors
/// If the system refuses a handler.
pub fn end_with(code: u8) -> std::io::Result<()> {
    CODE.store(code.into(), Ordering::Release);
    #[cfg(unix)]
    {
        #[expect(unsafe_code, reason = "a handler of a signal that tells its address is set through C")]
        // SAFETY: the structure is a plain one of C, for which zeros are valid; the handler has the wanted signature and calls
        // nothing that a handler may not.
        let refused = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut())
        };
        if refused != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "a handler of a signal is called by the kernel")]
extern "C" fn on_fault(_: libc::c_int, about: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands over a valid structure. Only `write`, `_exit`, `signal` and `raise` are called, which handlers may call, and a
    // name is read only while its file is open, for whoever faulted is reading it.
    unsafe {
        let at = (*about).si_addr() as usize;
        let holds = |slot: &&Slot| {
            let start = slot.start.load(Ordering::Acquire);
            start > 1 && (start..start + slot.length.load(Ordering::Acquire)).contains(&at)
        };
        let name = FILES.iter().find(holds).and_then(|slot| slot.name.load(Ordering::Acquire).as_ref());
        let Some(name) = name else {
            // No file of ours: the signal comes again, and ends the process as it would have.
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
            libc::raise(libc::SIGBUS);
            return;
        };
        let end = ": it cannot be read any more: it was cut short while it was open, or its disk fails; restore the file and start again\n";
        for part in ["error: ", name.as_str(), end] {
            libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len());
        }
        libc::_exit(CODE.load(Ordering::Acquire));
    }
}
