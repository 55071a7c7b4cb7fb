//! Shared libraries that are opened by name while the program runs.

use std::ffi::{CStr, CString, c_void};
use std::mem;

/// A library that stays open for as long as the process lives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Library(*mut c_void);

impl Library {
    /// Opens a library and shows its symbols to whatever is opened later.
    #[cfg(target_os = "linux")]
    pub(crate) fn open(name: &str) -> Result<Self, String> {
        let name = CString::new(name).map_err(|error| error.to_string())?;
        #[expect(unsafe_code, reason = "opening a library runs its constructors")]
        // SAFETY: the name ends with a zero; the libraries that this crate names are made to be opened so, at any time. `dlerror`
        // gives a C string of this thread or nothing.
        unsafe {
            let library = libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL);
            if !library.is_null() {
                return Ok(Self(library));
            }
            let message = libc::dlerror();
            if message.is_null() {
                return Err("no reason given".to_owned());
            }
            Err(CStr::from_ptr(message).to_string_lossy().into_owned())
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn open(_name: &str) -> Result<Self, String> {
        Err("CUDA is supported on Linux alone".to_owned())
    }

    /// Everything that the process shows: what it is linked to, and what was opened since.
    pub(crate) fn process() -> Self {
        Self(libc::RTLD_DEFAULT)
    }

    /// A function by its name.
    ///
    /// # Safety
    /// `F` is the type of a pointer to the function that has this name, `extern "C"`.
    #[expect(unsafe_code, reason = "a symbol has no type")]
    pub(crate) unsafe fn function<F: Copy>(self, name: &CStr) -> Option<F> {
        const { assert!(mem::size_of::<F>() == mem::size_of::<*mut c_void>()) };
        // SAFETY: the handle is that of an open library, or the one for all of them; the name ends with a zero.
        let symbol = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        // SAFETY: as the caller promises; the sizes are equal.
        (!symbol.is_null()).then(|| unsafe { mem::transmute_copy(&symbol) })
    }
}
