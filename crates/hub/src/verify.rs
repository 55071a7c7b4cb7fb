//! Whether a file holds what its entity tag says.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha1::{Digest, Sha1};

use crate::names::is_lower_hex;
use tastemaker_store::StoreError;
use tastemaker_store::checksum::{hex, sha256_file};

/// What was found and what was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub found: String,
    pub wanted: String,
}

/// Whether a tag is a checksum of the contents: SHA-256 for large files, git's name of a blob for the others.
pub(crate) fn is_checksum(tag: &str) -> bool {
    [64, 40].contains(&tag.len()) && is_lower_hex(tag)
}

/// Compares a file with the size and the checksum that were announced, as far as they were.
pub(crate) fn verify(path: &Path, tag: &str, size: Option<u64>) -> Result<Option<Mismatch>, StoreError> {
    let found = std::fs::metadata(path).map_err(|e| StoreError::io("read", path, e))?.len();
    if let Some(size) = size.filter(|size| *size != found) {
        return Ok(Some(Mismatch { found: format!("{found} bytes"), wanted: format!("{size} bytes") }));
    }
    let (name, checksum) = match tag.len() {
        _ if !is_checksum(tag) => return Ok(None),
        64 => ("SHA-256", sha256_file(path)?),
        _ => ("git SHA-1", git_sha1(path, found)?),
    };
    let mismatch = || Mismatch { found: format!("{name} {checksum}"), wanted: tag.to_owned() };
    Ok((checksum != tag).then(mismatch))
}

/// The name that git gives to contents.
fn git_sha1(path: &Path, size: u64) -> Result<String, StoreError> {
    let fail = |e| StoreError::io("read", path, e);
    let mut file = File::open(path).map_err(fail)?;
    let mut hash = Sha1::new();
    hash.update(format!("blob {size}\0"));
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece).map_err(fail)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&piece[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(contents: &[u8], tag: &str, size: Option<u64>) -> Option<Mismatch> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        std::fs::write(&path, contents).unwrap();
        verify(&path, tag, size).unwrap()
    }

    #[test]
    fn git_names_small_files() {
        // Source: `git hash-object` of "hello\n" and of nothing.
        for (contents, name) in [
            ("hello\n", "ce013625030ba8dba906f756967f9e9ca394464a"),
            ("", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
        ] {
            assert_eq!(outcome(contents.as_bytes(), name, Some(contents.len() as u64)), None);
        }
        let mismatch = outcome(b"hellO\n", "ce013625030ba8dba906f756967f9e9ca394464a", None).unwrap();
        assert_eq!(mismatch.wanted, "ce013625030ba8dba906f756967f9e9ca394464a");
    }

    #[test]
    fn large_files_have_a_sha256() {
        let tag = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(outcome(b"abc", tag, None), None);
        assert!(outcome(b"abd", tag, None).unwrap().found.starts_with("SHA-256 "));
    }

    #[test]
    fn another_tag_leaves_the_size() {
        assert_eq!(outcome(b"abc", "0123-4", Some(3)), None);
        let wanted = Mismatch { found: "3 bytes".into(), wanted: "4 bytes".into() };
        assert_eq!(outcome(b"abc", "0123-4", Some(4)), Some(wanted));
    }
}
