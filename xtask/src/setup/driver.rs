//! NVIDIA's driver, without opening it.

use std::path::Path;

use super::needs::System;

/// The oldest driver for CUDA 13, which the pinned libtorch is built with.
/// Source: CUDA 13.0 release notes, "CUDA Toolkit and Minimum Required Driver Version for CUDA Minor Version Compatibility".
pub const OLDEST: u32 = 580;

/// Whether this machine has a driver that the pinned libtorch can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// There is none.
    Absent,
    /// There is one of this version, too old for it.
    TooOld(String),
    /// There is one.
    Fits,
}

/// Looks for the driver as the loader would, and reads its version where the kernel shows it.
pub fn find() -> Driver {
    // Images for containers bring the library of a driver without one.
    let has_device = ["/dev/nvidiactl", "/dev/dxg"].iter().any(|device| Path::new(device).exists());
    if !(has_device && System::read().has("libcuda.so.1")) {
        return Driver::Absent;
    }
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    judge(&text)
}

fn judge(text: &str) -> Driver {
    match version(text) {
        Some((major, version)) if major < OLDEST => Driver::TooOld(version.to_owned()),
        _ => Driver::Fits,
    }
}

/// The version in the first line of `/proc/driver/nvidia/version`.
fn version(text: &str) -> Option<(u32, &str)> {
    let mut words = text.lines().next()?.split_whitespace();
    words.find_map(|word| Some((word.split_once('.')?.0.parse().ok()?, word)))
}

#[cfg(test)]
mod tests {
    use super::{Driver, judge};

    #[test]
    fn a_driver_before_580_is_too_old_for_cuda_13() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version:\n";
        assert_eq!(judge(closed), Driver::TooOld("535.183.01".to_owned()));
        let open =
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (root)\n";
        assert_eq!(judge(open), Driver::Fits);
        assert_eq!(judge(""), Driver::Fits, "under Windows the kernel does not say");
    }
}
