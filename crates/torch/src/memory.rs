//! How much memory this process holds, in bytes.

/// Resident and peak resident memory of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes resident now.
    pub resident: u64,
    /// Largest number of bytes resident since the start, or since the last [`reset_peak`].
    pub peak: u64,
}

/// Reads the figures from the kernel; `None` where it does not offer them.
///
/// Source: `VmRSS` and `VmHWM` of proc(5).
pub fn read() -> Option<Memory> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kibibytes * 1024)
    };
    Some(Memory { resident: field("VmRSS:")?, peak: field("VmHWM:")? })
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
