//! NCCL's interface of C, as far as it is used, and where its functions are found.
//!
//! Source: `nccl.h` of NCCL 2.28.9 and, for the configuration, of 2.14, the first with communicators that do not block.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::Arc;

use tch::Kind;

/// `ncclUniqueId`, which is passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct UniqueId(pub [u8; 128]);

/// `ncclConfig_t` as version 2.14 had it: later ones read as much as `size` says and take their defaults for the rest.
#[repr(C)]
pub(super) struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: c_int,
}

impl Config {
    pub(super) fn not_blocking() -> Self {
        Self { size: size_of::<Self>(), magic: 0xcafe_beef, version: OLDEST as u32, blocking: 0 }
    }
}

/// `ncclComm_t`.
pub(super) type Comm = *mut c_void;
/// `cudaStream_t`.
pub(super) type StreamHandle = *mut c_void;
/// `ncclResult_t`.
pub(super) type Status = c_int;

pub(super) const SUCCESS: Status = 0;
pub(super) const IN_PROGRESS: Status = 7;
/// `ncclSum`.
pub(super) const SUM: c_int = 0;
/// `NCCL_VERSION(2, 14, 0)`.
const OLDEST: c_int = 21_400;
/// `NCCL_VERSION(3, 0, 0)`: another interface.
const TOO_NEW: c_int = 30_000;

/// `ncclDataType_t` of a type that is summed or copied.
pub(super) fn data_type(kind: Kind) -> Option<c_int> {
    match kind {
        Kind::Int8 => Some(0),
        Kind::Uint8 => Some(1),
        Kind::Int => Some(2),
        Kind::Int64 => Some(4),
        Kind::Half => Some(6),
        Kind::Float => Some(7),
        Kind::Double => Some(8),
        Kind::BFloat16 => Some(9),
        _ => None,
    }
}

macro_rules! functions {
    ($($name:ident $symbol:literal: ($($argument:ty),*) -> $result:ty;)*) => {
        /// Pointers to the functions of a library.
        #[derive(Debug)]
        pub(super) struct Functions {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            fn find(symbol: impl Fn(&'static CStr) -> *mut c_void) -> Result<Self, String> {
                Ok(Self {
                    $($name: {
                        let found = symbol($symbol);
                        if found.is_null() {
                            return Err(format!("it has no function {}", $symbol.to_string_lossy()));
                        }
                        #[expect(unsafe_code, reason = "a function found by its name")]
                        // SAFETY: functions of C are of the type that the library's header gives.
                        unsafe {
                            std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) -> $result>(found)
                        }
                    },)*
                })
            }
        }
    };
}

functions! {
    version c"ncclGetVersion": (*mut c_int) -> Status;
    unique_id c"ncclGetUniqueId": (*mut UniqueId) -> Status;
    init c"ncclCommInitRankConfig": (*mut Comm, c_int, UniqueId, c_int, *mut Config) -> Status;
    async_error c"ncclCommGetAsyncError": (Comm, *mut Status) -> Status;
    finalize c"ncclCommFinalize": (Comm) -> Status;
    destroy c"ncclCommDestroy": (Comm) -> Status;
    abort c"ncclCommAbort": (Comm) -> Status;
    error_string c"ncclGetErrorString": (Status) -> *const c_char;
    last_error c"ncclGetLastError": (Comm) -> *const c_char;
    group_start c"ncclGroupStart": () -> Status;
    group_end c"ncclGroupEnd": () -> Status;
    all_reduce c"ncclAllReduce": (*const c_void, *mut c_void, usize, c_int, c_int, Comm, StreamHandle) -> Status;
    reduce_scatter c"ncclReduceScatter": (*const c_void, *mut c_void, usize, c_int, c_int, Comm, StreamHandle) -> Status;
    all_gather c"ncclAllGather": (*const c_void, *mut c_void, usize, c_int, Comm, StreamHandle) -> Status;
}

/// NCCL, or a library with its interface.
#[derive(Debug, Clone)]
pub struct Library {
    pub(super) functions: Arc<Functions>,
    version: c_int,
}

impl Library {
    /// The NCCL that came into this process with libtorch's part for CUDA.
    ///
    /// # Errors
    /// In words, if there is none or it is too old.
    pub fn of_process() -> Result<Self, String> {
        const FILE: &CStr = c"libnccl.so.2";
        let symbol = |name: &CStr| {
            #[expect(unsafe_code, reason = "looking for a name among what is loaded")]
            // SAFETY: the names end with zeros; without `RTLD_NOLOAD`'s library the handle is null, and nothing is asked of it.
            unsafe {
                let found = libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr());
                if !found.is_null() {
                    return found;
                }
                let handle = libc::dlopen(FILE.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
                if handle.is_null() { handle } else { libc::dlsym(handle, name.as_ptr()) }
            }
        };
        Self::checked(Functions::find(symbol))
            .map_err(|why| format!("NCCL, which comes with libtorch's part for CUDA, cannot be used: {why}"))
    }

    /// A library in a file: another build of NCCL, or what stands in for it where there is no device.
    ///
    /// # Errors
    /// In words, if it cannot be opened, lacks a function or is of another version.
    pub fn open(path: &Path) -> Result<Self, String> {
        let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())?;
        #[expect(unsafe_code, reason = "opening a library runs its constructors")]
        // SAFETY: the name ends with a zero, and what is opened stays open.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(format!("{} cannot be opened", path.display()));
        }
        #[expect(unsafe_code, reason = "looking for a name in a library")]
        // SAFETY: the handle is of an open library, and the name ends with a zero.
        let symbol = |name: &CStr| unsafe { libc::dlsym(handle, name.as_ptr()) };
        Self::checked(Functions::find(symbol)).map_err(|why| format!("{}: {why}", path.display()))
    }

    fn checked(functions: Result<Functions, String>) -> Result<Self, String> {
        let functions = functions?;
        let mut version = 0;
        #[expect(unsafe_code, reason = "a call of NCCL")]
        // SAFETY: the function writes one number.
        let status = unsafe { (functions.version)(&raw mut version) };
        match status {
            SUCCESS if (OLDEST..TOO_NEW).contains(&version) => {
                Ok(Self { functions: Arc::new(functions), version })
            }
            SUCCESS => Err(format!("it is version {}; wanted 2.14 or a later 2", in_words(version))),
            _ => Err("it does not say its version".to_owned()),
        }
    }

    /// Its version, such as `2.28.9`.
    pub fn version(&self) -> String {
        in_words(self.version)
    }

    /// A name for a communicator that is to be made.
    pub(super) fn unique_id(&self) -> Result<UniqueId, String> {
        let mut id = UniqueId([0; 128]);
        #[expect(unsafe_code, reason = "a call of NCCL")]
        // SAFETY: the function writes 128 bytes.
        match unsafe { (self.functions.unique_id)(&raw mut id) } {
            SUCCESS => Ok(id),
            status => Err(self.words(status, std::ptr::null_mut())),
        }
    }

    /// What NCCL says of an error.
    pub(super) fn words(&self, status: Status, comm: Comm) -> String {
        let text = |text: *const c_char| {
            #[expect(unsafe_code, reason = "NCCL gives a C string")]
            // SAFETY: what is not null is a C string that NCCL keeps.
            let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) });
            text.map(|text| text.to_string_lossy().trim().to_owned()).filter(|text| !text.is_empty())
        };
        #[expect(unsafe_code, reason = "calls of NCCL")]
        // SAFETY: both take any status, and any communicator that is alive or null.
        let (general, last) =
            unsafe { ((self.functions.error_string)(status), (self.functions.last_error)(comm)) };
        let general = text(general).unwrap_or_else(|| format!("error {status}"));
        let last = text(last).map(|last| format!(" ({})", last.lines().last().unwrap_or_default()));
        format!("NCCL: {general}{}", last.unwrap_or_default())
    }
}

/// Source: `NCCL_VERSION` of `nccl.h`, as it is since 2.9.
fn in_words(version: c_int) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_laid_out_as_the_header_of_2_14_says() {
        assert_eq!((size_of::<Config>(), size_of::<UniqueId>()), (24, 128));
        assert_eq!(std::mem::offset_of!(Config, blocking), 16);
    }

    #[test]
    fn a_process_without_libtorch_for_cuda_says_what_it_lacks() {
        let why = Library::of_process().unwrap_err();
        assert!(why.contains("cannot be used: it has no function ncclGetVersion"), "{why}");
        assert_eq!(in_words(22_809), "2.28.9");
    }
}
