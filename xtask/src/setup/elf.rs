//! A cheap test for a shared library that was cut short.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

const HEADER_BYTES: usize = 64;

/// Checks that a 64-bit little-endian ELF file is as long as its own header promises.
///
/// Linkers put the section table last, so a download that stopped early lacks it; the dynamic loader never reads it and
/// would not notice. Source: System V ABI, "ELF header" (`e_shoff` at 40, `e_shentsize` at 58, `e_shnum` at 60).
///
/// # Errors
/// The file cannot be read, is not such a file, or is shorter than promised.
pub fn whole(path: &Path) -> Result<()> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let found = file.metadata()?.len();
    let mut header = [0_u8; HEADER_BYTES];
    file.read_exact(&mut header)
        .with_context(|| format!("{} is cut short ({found} bytes)", path.display()))?;
    if header[..6] != *b"\x7fELF\x02\x01" {
        bail!("{} is not a 64-bit shared library", path.display());
    }
    let number = |at: usize, bytes: usize| {
        header[at..at + bytes].iter().rev().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte))
    };
    let wanted = number(40, 8).saturating_add(number(58, 2) * number(60, 2));
    if found < wanted {
        bail!("{} is cut short ({found} bytes of at least {wanted})", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::whole;

    fn library(section_table_at: u64, sections: u16) -> Vec<u8> {
        let mut bytes = vec![0_u8; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[40..48].copy_from_slice(&section_table_at.to_le_bytes());
        bytes[58..60].copy_from_slice(&64_u16.to_le_bytes());
        bytes[60..62].copy_from_slice(&sections.to_le_bytes());
        bytes
    }

    fn refusal(bytes: &[u8]) -> Option<String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lib.so");
        std::fs::write(&path, bytes).expect("a written file");
        whole(&path).err().map(|error| error.to_string())
    }

    #[test]
    fn a_library_with_its_section_table_is_whole() {
        let mut bytes = library(64, 2);
        bytes.resize(64 + 2 * 64, 0);
        assert_eq!(refusal(&bytes), None);
    }

    #[test]
    fn a_library_one_byte_short_is_refused() {
        let mut bytes = library(64, 2);
        bytes.resize(64 + 2 * 64 - 1, 0);
        assert!(refusal(&bytes).is_some_and(|why| why.contains("cut short (191 bytes of at least 192)")));
    }

    #[test]
    fn an_empty_file_and_a_text_file_are_refused() {
        assert!(refusal(b"").is_some_and(|why| why.contains("cut short")));
        assert!(refusal(&[b'x'; 100]).is_some_and(|why| why.contains("not a 64-bit shared library")));
    }
}
