//! Devices by the names people type.
//!
//! Programs link only the part of libtorch that every machine can load. The part for NVIDIA's devices lies beside it and is opened
//! when such a device is asked for; its kernels then announce themselves.

use std::ffi::{CStr, CString};
use std::fmt::Display;
use std::str::FromStr;
use std::sync::OnceLock;

use tch::{Cuda, Device};

use crate::TorchError;

/// A device as it is typed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// A CUDA device where there is one, the CPU otherwise.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device: this one, or that of the process's place on its machine.
    Cuda(Option<usize>),
}

impl Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(index)) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(None)),
            Some(("cuda", index)) => match index.parse() {
                Ok(index) => Ok(Self::Cuda(Some(index))),
                Err(_) => Err(format!("{index:?} is no number of a CUDA device, such as 0 in cuda:0")),
            },
            _ => Err("wanted auto, cpu, cuda, or cuda:N".to_owned()),
        }
    }
}

/// The device that is wanted; of several CUDA devices, where none is named, that of the process's place on its machine.
///
/// # Errors
/// [`TorchError::Device`] if a CUDA device is asked for and cannot be used, with the reason.
pub fn open(wanted: Wanted, local_rank: usize) -> Result<Device, TorchError> {
    let refused = |why: String| TorchError::Device { wanted: wanted.to_string(), why };
    match (wanted, n_cuda()) {
        (Wanted::Cpu, _) | (Wanted::Auto, Err(_)) => Ok(Device::Cpu),
        (Wanted::Auto | Wanted::Cuda(None), Ok(n)) => Ok(Device::Cuda(local_rank % n)),
        (Wanted::Cuda(Some(index)), Ok(n)) if index < n => Ok(Device::Cuda(index)),
        (Wanted::Cuda(Some(_)), Ok(n)) => Err(refused(format!("this machine has {n}, counted from 0"))),
        (Wanted::Cuda(_), Err(why)) => Err(refused(why)),
    }
}

/// How many CUDA devices there are, at least one, or why none can be used.
///
/// # Errors
/// The reason in words.
pub fn n_cuda() -> Result<usize, String> {
    static FOUND: OnceLock<Result<usize, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        // The driver first: opening libtorch's own part takes a second and says less when there is none.
        open_library("libcuda.so.1").map_err(|why| format!("NVIDIA's driver cannot be opened ({why})"))?;
        open_library("libtorch_cuda.so")
            .map_err(|why| format!("libtorch's part for CUDA cannot be opened ({why})"))?;
        match usize::try_from(Cuda::device_count()) {
            Ok(n) if n > 0 => Ok(n),
            _ => Err("NVIDIA's driver is there and offers no device".to_owned()),
        }
    });
    found.clone()
}

/// Opens a library for as long as the process lives, and shows its symbols to whatever is opened later.
#[cfg(target_os = "linux")]
fn open_library(name: &str) -> Result<(), String> {
    let name = CString::new(name).map_err(|error| error.to_string())?;
    #[expect(unsafe_code, reason = "opening a library runs its constructors")]
    // SAFETY: the name ends with a zero; both libraries are made to be opened so, at any time. `dlerror` gives a C string of
    // this thread or nothing.
    unsafe {
        if !libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() {
            return Ok(());
        }
        let message = libc::dlerror();
        if message.is_null() {
            return Err("no reason given".to_owned());
        }
        Err(CStr::from_ptr(message).to_string_lossy().into_owned())
    }
}

#[cfg(not(target_os = "linux"))]
fn open_library(_name: &str) -> Result<(), String> {
    Err("CUDA is supported on Linux alone".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_read_and_printed_alike() {
        for text in ["auto", "cpu", "cuda", "cuda:3"] {
            assert_eq!(text.parse::<Wanted>().unwrap().to_string(), text);
        }
        assert!("cuda:x".parse::<Wanted>().unwrap_err().contains("\"x\""));
        assert!("gpu".parse::<Wanted>().unwrap_err().contains("wanted auto"));
    }

    #[test]
    fn the_processor_is_always_there_and_a_device_that_is_not_is_refused_by_name() {
        assert_eq!(open(Wanted::Cpu, 3).unwrap(), Device::Cpu);
        let error = open(Wanted::Cuda(Some(9999)), 0).unwrap_err().to_string();
        assert!(error.starts_with("cuda:9999 cannot be used: "), "{error}");
    }
}
