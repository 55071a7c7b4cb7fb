//! Versions and places of the libraries in this process.

use std::ffi::{CStr, c_int};
use std::path::PathBuf;

use crate::library::Library;

/// A release of CUDA from its number, `1000 major + 10 minor`: `13.0`.
pub fn cuda(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

/// The CUDA that libtorch is built with, as `1000 major + 10 minor`; `None` for a libtorch without CUDA. Opens nothing.
///
/// Source: `cudaError_t cudaRuntimeGetVersion(int *)`.
pub fn cuda_runtime() -> Option<i32> {
    number(c"cudaRuntimeGetVersion")
}

/// The release of cuDNN, if a library in the process has it. Source: `size_t cudnnGetVersion(void)`.
pub fn cudnn() -> Option<String> {
    #[expect(unsafe_code, reason = "cuDNN comes with libtorch's CUDA part, by name")]
    // SAFETY: as its documentation declares it.
    let version = unsafe { Library::process().function::<extern "C" fn() -> usize>(c"cudnnGetVersion") };
    let number = version?();
    // From release 9 on: 10000 major + 100 minor + patch.
    Some(format!("{}.{}.{}", number / 10_000, number % 10_000 / 100, number % 100))
}

/// The release of NCCL, if a library in the process has it. Source: `ncclResult_t ncclGetVersion(int *)`.
pub fn nccl() -> Option<String> {
    let number = number(c"ncclGetVersion")?;
    Some(format!("{}.{}.{}", number / 10_000, number % 10_000 / 100, number % 100))
}

fn number(name: &CStr) -> Option<i32> {
    #[expect(unsafe_code, reason = "the function comes with libtorch's CUDA part, by name")]
    // SAFETY: both functions take a pointer to an int and return an enumeration, 0 for success.
    let version = unsafe { Library::process().function::<extern "C" fn(*mut c_int) -> c_int>(name) };
    let mut number = 0;
    (version?(&raw mut number) == 0).then_some(number)
}

/// The folder that libtorch was loaded from; `None` where the kernel does not say.
pub fn libtorch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().find_map(|line| {
        let path = line.get(line.find('/')?..)?;
        path.ends_with("/libtorch_cpu.so").then(|| PathBuf::from(path))
    });
    Some(path?.parent()?.to_owned())
}

/// The release of libtorch, from the headers beside its libraries.
pub fn libtorch() -> Option<String> {
    let header = libtorch_folder()?.parent()?.join("include/torch/headeronly/version.h");
    let header = std::fs::read_to_string(header).ok()?;
    let number = |name: &str| {
        let line = header.lines().find(|line| line.contains(name))?;
        line.split_whitespace().last()?.parse::<u32>().ok()
    };
    let (major, minor) = (number("TORCH_VERSION_MAJOR")?, number("TORCH_VERSION_MINOR")?);
    Some(format!("{major}.{minor}.{}", number("TORCH_VERSION_PATCH")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_of_cuda_is_read_from_its_number() {
        assert_eq!(cuda(13_000), "13.0");
        assert_eq!(cuda(12_080), "12.8");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_libtorch_of_this_process_is_found() {
        assert!(libtorch_folder().is_some_and(|folder| folder.join("libc10.so").is_file()));
        assert_eq!(libtorch().as_deref(), Some("2.11.0"));
    }
}
