//! One legacy file as a set of named byte views.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::archive::Archive;
use super::machine;
use super::refusal::{CONVERT, Refusal, quoted};
use super::tensors::{self, Entry};
use crate::safetensors::{Bytes, TensorView};
use tastemaker_store::foreign::Foreign;
use tastemaker_store::{StoreError, regular};

/// How much of a file tells its format: a tar archive says so at byte 257.
const HEAD_LEN: usize = 262;

/// The start of the pickle that opens a file of torch before 1.6: the number 0x1950a86a20f9469cfc6c.
const OLD_MAGIC: [u8; 12] = [0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// An open legacy file whose tensors have been checked against its length.
#[derive(Clone)]
pub struct LegacyFile {
    path: PathBuf,
    entries: Vec<Entry>,
    bytes: Bytes,
}

impl LegacyFile {
    /// Reads a file into memory and checks it.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Io`], or [`StoreError::Malformed`] for a format, an archive, a
    /// pickle or a tensor that is refused.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let fail = |e| StoreError::io("read", path, e);
        // The head first: a wrong file of many gigabytes is refused before it is read.
        let mut head = Vec::with_capacity(HEAD_LEN);
        regular::open(path)?.take(HEAD_LEN as u64).read_to_end(&mut head).map_err(fail)?;
        check_format(&head).map_err(|refusal| refusal.in_file(path))?;
        let bytes = fs::read(path).map_err(fail)?;
        Self::over(path, Arc::new(bytes))
    }

    /// Checks bytes that are at hand already; `path` is for errors.
    ///
    /// # Errors
    /// [`StoreError::Malformed`].
    pub fn over(path: impl AsRef<Path>, bytes: Bytes) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let entries = read((*bytes).as_ref()).map_err(|refusal| refusal.in_file(path))?;
        Ok(Self { path: path.to_path_buf(), entries, bytes })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor of the state dict, in name order. Tensors may share bytes.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.entries.iter().map(|entry| self.view(entry))
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let at = self.entries.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()?;
        Some(self.view(&self.entries[at]))
    }

    fn view<'a>(&'a self, entry: &'a Entry) -> TensorView<'a> {
        let bytes = &(*self.bytes).as_ref()[entry.range.clone()];
        TensorView { name: &entry.name, dtype: entry.dtype, shape: &entry.shape, bytes }
    }
}

impl std::fmt::Debug for LegacyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LegacyFile")
            .field("path", &self.path)
            .field("n_tensors", &self.entries.len())
            .finish_non_exhaustive()
    }
}

fn read(file: &[u8]) -> Result<Vec<Entry>, Refusal> {
    check_format(file)?;
    let archive = Archive::open(file)?;
    if archive.get("constants.pkl").is_some() {
        return Err(Refusal::new("a TorchScript program", format!("a state dict; {CONVERT}")));
    }
    let entry = |name: &str| archive.get(name).map(|range| &file[range]);
    if let Some(order) = entry("byteorder").filter(|order| *order != b"little") {
        return Err(Refusal::new(
            format!("byte order `{}`", quoted(&String::from_utf8_lossy(order))),
            "`little`",
        ));
    }
    let version = entry("version").map(<[u8]>::trim_ascii).unwrap_or_default();
    if version.is_empty() || version.len() > 4 || !version.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::new("no version number in the archive", "a file as torch.save writes it"));
    }
    let pickle = entry("data.pkl")
        .ok_or_else(|| Refusal::new("no data.pkl in the archive", "a file as torch.save writes it"))?;
    tensors::entries(&machine::run(pickle)?, &archive)
}

/// Tells the other things such a file may be.
fn check_format(head: &[u8]) -> Result<(), Refusal> {
    let found = match head {
        [b'P', b'K', 3, 4, ..] => return Ok(()),
        [0x80, _, pickle @ ..] if pickle.starts_with(&OLD_MAGIC) => "the format of torch before 1.6",
        [0x80, ..] => "a bare pickle",
        _ if head.get(257..HEAD_LEN) == Some(b"ustar") => "a tar archive, the format of torch before 0.2",
        // Eight bytes of length, then the brace of the header.
        _ if head.get(8..10) == Some(b"{\"") => {
            return Err(Refusal::new("a safetensors file", "PyTorch's own format; name it .safetensors"));
        }
        _ if let Some(foreign) = Foreign::of(head) => {
            return Err(Refusal::new(
                foreign.what,
                format!("weights as torch.save writes them; {}", foreign.remedy),
            ));
        }
        _ => "neither a zip archive nor any known kind of weights",
    };
    Err(Refusal::new(found, format!("a zip archive, as torch.save has written since 1.6; {CONVERT}")))
}
