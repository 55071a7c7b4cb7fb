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
