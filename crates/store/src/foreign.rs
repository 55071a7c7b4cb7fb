//! What lies under a name that promises something else.

use crate::StoreError;
use std::path::Path;

/// A kind of file that is often found where another was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    /// What it is.
    pub what: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

impl Foreign {
    /// Knows a file by its first bytes, of which 16 are enough.
    pub fn of(start: &[u8]) -> Option<Self> {
        let foreign = |what, remedy| Some(Self { what, remedy });
        let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
        match start {
            [] => foreign("nothing, because the file is empty", "fetch it again"),
            _ if text.starts_with(b"<") => foreign(
                "a web page, such as one that asks to log in or to accept a license",
                "fetch the file itself again",
            ),
            _ if start.starts_with(b"version https") => {
                foreign("a git-lfs pointer", "run `git lfs pull`, which fetches the file it stands for")
            }
            [b'P', b'K', 3, 4, ..] => foreign(
                "a zip archive",
                "name it .ckpt if PyTorch wrote it; take the file out of any other archive",
            ),
            [0x80, 2..=5, ..] => foreign("a pickle of Python", "name it .ckpt if PyTorch wrote it"),
            [0x1f, 0x8b, ..] | [0xfd, b'7', b'z', b'X', b'Z', ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                foreign("a compressed file", "unpack it")
            }
            [b'R', b'a', b'r', b'!', ..] | [b'7', b'z', 0xbc, 0xaf, ..] => foreign("an archive", "unpack it"),
            [b'G', b'G', b'U', b'F', ..] => {
                foreign("weights in GGUF, which are quantized", "fetch the model in safetensors")
            }
            [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, 0xff, ..] => {
                foreign("an image", "fetch the file itself again")
            }
            _ if text.starts_with(b"{") || text.starts_with(b"[") => {
                foreign("JSON, such as a server's message", "fetch the file itself again")
            }
            _ if start.len() >= 16
                && start.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) =>
            {
                foreign("a text", "name or fetch the file itself")
            }
            _ => None,
        }
    }

    /// The error of whoever wanted something else, such as `a safetensors file`.
    pub fn instead_of(self, path: &Path, wanted: &str) -> StoreError {
        StoreError::malformed(path, self.what, format!("{wanted}; {}", self.remedy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_that_went_wrong_are_known_by_their_first_bytes() {
        for (start, what) in [
            (&b""[..], "empty"),
            (b"<!DOCTYPE html><h", "web page"),
            (b"\xef\xbb\xbf\n <html lang=", "web page"),
            (b"<?xml version=\"1.", "web page"),
            (b"version https://g", "git-lfs pointer"),
            (b"PK\x03\x04\x14\0\0\0\x08\0", "zip archive"),
            (b"\x80\x02}q\x01(X", "pickle"),
            (b"\x1f\x8b\x08\0", "compressed"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (b"{\"error\":\"Repos", "JSON"),
        ] {
            let found = Foreign::of(start).map(|foreign| foreign.what).unwrap_or_default();
            assert!(found.contains(what), "{start:?}: {found}");
        }
        assert_eq!(Foreign::of(&[0x58, 2, 0, 0, 0, 0, 0, 0, b'{', b'"']), None);
    }
}
