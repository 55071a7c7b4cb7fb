//! Members of one key as a row.

use serde_json::{Map, Value};
use tastemaker_store::tree::{Blob, FileKind, READ_KINDS};

use super::members::{Images, Member};
use crate::Reason;
use crate::formats::lists::{cell, parse};
use crate::formats::refusal::Refusal;
use crate::formats::table::{Cell, INSIDE, NamedRow, Row};
use crate::set::ImageRef;

/// The longest member that is text.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// Columns that are images without saying so at their end.
const IMAGES: [&str; 4] = ["jpg_0", "jpg_1", "img_win", "img_lose"];

/// A row of a tar file.
#[derive(Debug, Default)]
pub struct Sample {
    images: Vec<(String, ImageRef)>,
    fields: Map<String, Value>,
}

impl Sample {
    /// Reads the members that are text, and adds those that are images.
    ///
    /// `X.jpg` and the like are the image `X`, `0.jpg` is `image_0`, and a bare `jpg` is `image`. `X.txt` and `X.cls` are
    /// the text `X`, a bare `txt` or `caption` is `caption`, a bare `cls` is `label`. Keys of `json` are columns. Other members are nothing
    /// to us.
    ///
    /// # Errors
    /// [`Refusal`] if the file cannot be read, or the row is skipped.
    pub fn read(
        members: &[Member],
        blob: &dyn Blob,
        file: u32,
        images: &mut Images,
    ) -> Result<Self, Refusal> {
        let mut sample = Self::default();
        for member in members {
            let (stem, extension) = member.suffix().rsplit_once('.').unwrap_or(("", member.suffix()));
            let lower = extension.to_ascii_lowercase();
            let bare = stem.is_empty();
            let kind = FileKind::of(&lower);
            if kind == FileKind::OtherImage {
                let found = format!("{} is not read; wanted {READ_KINDS}", member.name);
                return Err(Refusal::Row((Reason::OtherFormat, found)));
            }
            if kind == FileKind::Image || (bare && IMAGES.contains(&extension)) {
                let column = match stem {
                    "" if IMAGES.contains(&extension) => extension.to_owned(),
                    "" => "image".to_owned(),
                    "0" | "1" => format!("image_{stem}"),
                    stem => stem.to_owned(),
                };
                let item = images.add(file, member).map_err(Refusal::bad_row)?;
                sample.images.push((column, ImageRef { container: INSIDE, item }));
                continue;
            }
            let column = match lower.as_str() {
                "json" if bare => "",
                "txt" | "caption" if bare => "caption",
                "cls" if bare => "label",
                "txt" | "cls" => stem,
                _ => continue,
            };
            if member.bytes > MAX_TEXT_BYTES {
                let found = format!("{} of {} bytes", member.name, member.bytes);
                return Err(Refusal::bad_row(format!("{found}; wanted at most {MAX_TEXT_BYTES}")));
            }
            let bytes = blob.read_at(member.start, member.bytes as usize);
            let bytes = bytes.map_err(|error| Refusal::of_row(error.into()))?;
            if column.is_empty() {
                let in_member = |problem| Refusal::bad_row(format!("{} {problem}", member.name));
                sample.fields.extend(parse(&bytes).map_err(in_member)?);
                continue;
            }
            let not_text = |_| Refusal::bad_row(format!("{} is not UTF-8", member.name));
            let text = String::from_utf8(bytes).map_err(not_text)?;
            sample.fields.insert(column.to_owned(), Value::String(text.trim().to_owned()));
        }
        let mut names: Vec<&str> = sample.images.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|two| two[0] == two[1]) {
            let found = format!("the image {:?} twice in {}", twice[0], members[0].name);
            return Err(Refusal::bad_row(found));
        }
        Ok(sample)
    }
}

impl NamedRow for Sample {
    fn columns(&self) -> Vec<String> {
        self.images.iter().map(|(name, _)| name.clone()).chain(self.fields.keys().cloned()).collect()
    }

    fn has(&self, column: &str) -> bool {
        self.fields.contains_key(column)
    }
}

impl Row for Sample {
    fn cell(&self, column: &str) -> Cell<'_> {
        match self.images.iter().find(|(name, _)| name == column) {
            Some((_, image)) => Cell::Image(*image),
            None => self.fields.get(column).map_or(Cell::Null, cell),
        }
    }
}
