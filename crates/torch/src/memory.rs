//! How much memory this process holds, in bytes.

use std::ffi::c_char;

use tch::{Device, Kind, Tensor};

use crate::shim::{Raw, attempt, raw};

/// Memory of this process, or of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes held now.
    pub resident: u64,
    /// Largest number of bytes held since the start, or since the peak was reset.
    pub peak: u64,
    /// Largest number of bytes in that time that a device's allocator has taken of it, to hold them.
    pub peak_reserved: Option<u64>,
}

/// What is held on a device: of the CPU the whole process, of another what libtorch's tensors take there. `None` where that is
/// not known.
pub fn read_on(device: Device) -> Option<Memory> {
    if device == Device::Cpu {
        return read();
    }
    let there = Tensor::zeros([0], (Kind::Float, device));
    let (mut resident, mut peak, mut reserved) = (0, 0, 0);
    #[expect(unsafe_code, reason = "a call of the shim")]
    // SAFETY: `there` is a live tensor; the shim writes three integers.
    attempt(|error| unsafe {
        tastemaker_device_memory(raw(&there), &raw mut resident, &raw mut peak, &raw mut reserved, error)
    })
    .ok()?;
    Some(Memory {
        resident: u64::try_from(resident).ok()?,
        peak: u64::try_from(peak).ok()?,
        peak_reserved: Some(u64::try_from(reserved).ok()?),
    })
}

/// What is free on a device, in bytes; `None` where that is not known. Of the host what the kernel would give without swapping, and
/// no more than a container may have.
///
/// Source: `MemAvailable` of proc(5); `memory.max` and `memory.current` of the kernel's `cgroup-v2`.
pub fn free_on(device: Device) -> Option<u64> {
    if device == Device::Cpu {
        let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = meminfo.lines().find(|line| line.starts_with("MemAvailable:"))?;
        let available: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        let of_group = |name: &str| -> Option<u64> {
            std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse().ok()
        };
        let limit = of_group("memory.max").zip(of_group("memory.current"));
        let left = limit.map_or(u64::MAX, |(limit, used)| limit.saturating_sub(used));
        return Some(left.min(available * 1024));
    }
    let there = Tensor::zeros([0], (Kind::Float, device));
    let mut free = 0;
    #[expect(unsafe_code, reason = "a call of the shim")]
    // SAFETY: `there` is a live tensor; the shim writes an integer.
    attempt(|error| unsafe { tastemaker_device_free(raw(&there), &raw mut free, error) }).ok()?;
    u64::try_from(free).ok()
}

/// Lowers the peak on a device to what is held there now; returns whether that worked.
pub fn reset_peak_on(device: Device) -> bool {
    if device == Device::Cpu {
        return reset_peak();
    }
    let there = Tensor::zeros([0], (Kind::Float, device));
    #[expect(unsafe_code, reason = "a call of the shim")]
    // SAFETY: `there` is a live tensor.
    attempt(|error| unsafe { tastemaker_device_reset_peak(raw(&there), error) }).is_ok()
}

#[expect(unsafe_code, reason = "the shim is C++; its functions are called through C")]
unsafe extern "C" {
    fn tastemaker_device_memory(
        tensor: Raw,
        now: *mut i64,
        peak: *mut i64,
        reserved: *mut i64,
        error: *mut *mut c_char,
    ) -> bool;
    fn tastemaker_device_free(tensor: Raw, free: *mut i64, error: *mut *mut c_char) -> bool;
    fn tastemaker_device_reset_peak(tensor: Raw, error: *mut *mut c_char) -> bool;
}

/// As the kernel counts; `None` where it does not offer them.
///
/// Source: `VmRSS` and `VmHWM` of proc(5).
pub fn read() -> Option<Memory> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kibibytes * 1024)
    };
    Some(Memory { resident: field("VmRSS:")?, peak: field("VmHWM:")?, peak_reserved: None })
}

/// Lowers the peak to what is resident now; returns whether the kernel allowed it.
///
/// Source: writing 5 to `clear_refs`, proc(5).
pub fn reset_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Has the C allocator keep what libtorch frees, for the next step to use. Call it before networks are loaded; it suits small ones.
///
/// A training step frees and asks again for the same large blocks. By default the allocator gives each of them back to the
/// kernel and takes zeroed pages anew; on a virtual machine that was a third of the time of a small model's step.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const OF_ANY_SIZE: i32 = i32::MAX;
        #[expect(unsafe_code, reason = "mallopt takes two integers and no memory of ours")]
        // SAFETY: `mallopt` only sets tunables of the allocator; mallopt(3) allows it at any time.
        unsafe {
            libc::mallopt(libc::M_MMAP_MAX, 0);
            libc::mallopt(libc::M_TRIM_THRESHOLD, OF_ANY_SIZE);
            libc::mallopt(libc::M_TOP_PAD, 64 << 20);
        }
    }
}

/// Gives what the C allocator holds free back to the kernel: for the moment between two stages that use memory differently.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "malloc_trim takes an integer and no memory of ours")]
        // SAFETY: `malloc_trim` only touches free blocks; malloc_trim(3) allows it at any time.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_remembers_a_tensor_that_is_gone() {
        let before = read().expect("Linux has proc");
        let bytes = 64 << 20;
        drop(tch::Tensor::ones([bytes / 4], (tch::Kind::Float, tch::Device::Cpu)));
        let after = read().expect("Linux has proc");
        assert!(after.peak >= before.resident + bytes as u64, "{before:?} {after:?}");
    }
}
