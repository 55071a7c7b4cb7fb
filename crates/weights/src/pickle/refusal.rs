//! Why a part of a file is refused, before the file's name is added.

use std::path::Path;

use tastemaker_store::StoreError;

/// The advice for files that will not be read here.
pub(super) const CONVERT: &str = "convert it to safetensors with its publisher's own tool";

/// The longest piece of a stranger's text repeated in a message, in characters.
const MAX_QUOTED: usize = 120;

/// What was found and what was wanted there.
#[derive(Debug)]
pub(super) struct Refusal {
    pub found: String,
    pub wanted: String,
}

impl Refusal {
    pub fn new(found: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self { found: found.into(), wanted: wanted.into() }
    }

    /// Says where in the pickle it happened.
    pub fn at_byte(mut self, offset: usize) -> Self {
        self.found += &format!(" at byte {offset} of data.pkl");
        self
    }

    pub fn in_file(self, path: &Path) -> StoreError {
        StoreError::malformed(path, self.found, self.wanted)
    }
}

/// Text from the file, fit for a message: control characters escaped, cut when long.
pub(super) fn quoted(text: &str) -> String {
    let mut characters = text.chars().flat_map(char::escape_debug);
    let mut shown: String = characters.by_ref().take(MAX_QUOTED).collect();
    if characters.next().is_some() {
        shown += "...";
    }
    shown
}
