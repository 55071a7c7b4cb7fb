//! The members of tar files: where they lie.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use tar::{Archive, EntryType};
use tastemaker_store::StoreError;
use tastemaker_store::tree::{Blob, BlobReader, Faults, Tree};

use crate::DataError;
use crate::formats::metered::Metered;
use crate::set::{Container, MAX_IMAGE_BYTES, Strings};

/// What headers of one member may take, with long names and attributes.
const MAX_HEADER_BYTES: usize = 1 << 20;

/// Members of one row.
const MAX_COLUMNS: usize = 64;

/// A member of a tar file.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its whole name.
    pub name: String,
    /// Where its bytes begin in the file.
    pub start: u64,
    /// How many they are.
    pub bytes: u64,
}

impl Member {
    /// Where the key ends: at the first dot of the name's last part, `None` without one.
    fn dot(&self) -> Option<usize> {
        let last = self.name.rfind('/').map_or(0, |at| at + 1);
        self.name[last..].find('.').filter(|dot| *dot > 0).map(|dot| last + dot)
    }

    /// What follows the key and its dot.
    pub fn suffix(&self) -> &str {
        self.dot().map_or("", |dot| &self.name[dot + 1..])
    }
}

/// The members of one file.
pub struct Members<'a> {
    blob: &'a dyn Blob,
}

impl<'a> Members<'a> {
    pub fn new(blob: &'a dyn Blob) -> Self {
        Self { blob }
    }

    /// Hands them over in their order, those that follow each other with one key together. Only headers are read.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] for a file that is cut off or no tar, and for members that are links, have whole names or
    /// such that lead out, or are too many to one key; and what `take` returns.
    pub fn for_each(
        &self,
        mut take: impl FnMut(&[Member]) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let left = Cell::new(MAX_HEADER_BYTES);
        let faults = Faults::default();
        let reader = BlobReader::telling(self.blob, faults.clone());
        let broken = |last: &str, error: io::Error| {
            faults.take().unwrap_or_else(|| self.broken(last, &error.to_string()))
        };
        let mut archive = Archive::new(Metered { reader, left: &left, endless: "a header without an end" });
        let mut last = "its start".to_owned();
        let (mut group, mut key) = (Vec::new(), String::new());
        let entries = archive.entries_with_seek().map_err(|error| broken(&last, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| broken(&last, error))?;
            left.set(MAX_HEADER_BYTES);
            let Some(member) = self.member(&entry, &last)? else { continue };
            last = member.name.clone();
            let Some(dot) = member.dot() else { continue };
            if key != member.name[..dot] {
                if !group.is_empty() {
                    take(&group)?;
                }
                group.clear();
                key = member.name[..dot].to_owned();
            } else if group.len() >= MAX_COLUMNS {
                let what = format!("one of more than {MAX_COLUMNS} of its row");
                return Err(self.refused(&member.name, &what).into());
            }
            group.push(member);
        }
        self.check_end(&last)?;
        if group.is_empty() { Ok(()) } else { take(&group) }
    }

    /// A member, `None` for what is no file.
    fn member(&self, entry: &tar::Entry<'_, impl Read>, last: &str) -> Result<Option<Member>, StoreError> {
        let name = String::from_utf8(entry.path_bytes().into_owned())
            .map_err(|_| self.broken(last, "a name that is not UTF-8"))?;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Directory | EntryType::XGlobalHeader => return Ok(None),
            EntryType::Link | EntryType::Symlink => return Err(self.refused(&name, "a link")),
            _ => return Err(self.refused(&name, "neither file nor folder")),
        }
        if name.starts_with('/') || name.contains('\\') || name.split('/').any(|part| part == "..") {
            return Err(self.refused(&name, "a name that leads elsewhere"));
        }
        let (start, bytes) = (entry.raw_file_position(), entry.size());
        if start.checked_add(bytes).is_none_or(|end| end > self.blob.size()) {
            let found = format!("{name} of {bytes} bytes, which the file does not have,");
            return Err(self.broken(last, &found));
        }
        Ok(Some(Member { name, start, bytes }))
    }

    /// A tar file ends with blocks of zeros; one that was cut between members does not.
    fn check_end(&self, last: &str) -> Result<(), StoreError> {
        let size = self.blob.size();
        let end = if size < 1024 { vec![1] } else { self.blob.read_at(size - 512, 512)? };
        if end.iter().any(|&byte| byte != 0) {
            return Err(self.broken(last, "no end mark"));
        }
        Ok(())
    }

    fn broken(&self, last: &str, found: &str) -> StoreError {
        StoreError::malformed(self.blob.place(), format!("{found} after {last}"), "a whole tar file")
    }

    fn refused(&self, name: &str, what: &str) -> StoreError {
        StoreError::malformed(
            self.blob.place(),
            format!("the member {name:?}, {what}"),
            "plain files below the archive",
        )
    }
}

/// Images that lie in tar files.
#[derive(Debug)]
pub struct Images {
    tree: Arc<dyn Tree>,
    files: Vec<String>,
    names: Strings,
    /// File, start and length of each.
    places: Vec<(u32, u64, u32)>,
}

impl Images {
    /// None yet.
    pub fn new(tree: Arc<dyn Tree>) -> Self {
        Self { tree, files: Vec::new(), names: Strings::default(), places: Vec::new() }
    }

    /// Adds a tar file and returns its number.
    pub fn file(&mut self, path: &str) -> u32 {
        self.files.push(path.to_owned());
        (self.files.len() - 1) as u32
    }

    /// Adds an image of a file and returns its number.
    ///
    /// # Errors
    /// What is wrong, for an image that is too long.
    pub fn add(&mut self, file: u32, member: &Member) -> Result<u32, String> {
        let bytes = u32::try_from(member.bytes).ok().filter(|bytes| u64::from(*bytes) <= MAX_IMAGE_BYTES);
        let bytes = bytes.ok_or_else(|| {
            format!("{} of {} bytes; wanted at most {MAX_IMAGE_BYTES}", member.name, member.bytes)
        })?;
        self.places.push((file, member.start, bytes));
        Ok(self.names.push(&member.name))
    }

    fn path(&self, item: u32) -> String {
        let (file, ..) = self.places[item as usize];
        format!("{}/{}", self.files[file as usize], self.names.get(item as usize))
    }
}

impl Container for Images {
    fn read(&self, item: u32) -> Result<Vec<u8>, DataError> {
        let (file, start, bytes) = self.places[item as usize];
        Ok(self.tree.open(&self.files[file as usize])?.read_at(start, bytes as usize)?)
    }

    fn place(&self, item: u32) -> PathBuf {
        self.tree.place(&self.path(item))
    }

    fn identity(&self, item: u32) -> (String, u64) {
        (self.path(item), u64::from(self.places[item as usize].2))
    }
}
