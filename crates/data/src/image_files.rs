//! The one list of image formats: what is read, what is an image and is not read, and what is passed over.

use tastemaker_store::tree::Entry;

/// What the names of images end in.
pub const IMAGE_EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// What the names of captions beside images end in; where there are several, the first counts.
pub const CAPTION_EXTENSIONS: [&str; 2] = ["txt", "caption"];

/// What the names of images of other formats end in.
const OTHER_EXTENSIONS: [&str; 14] =
    ["avif", "bmp", "dds", "exr", "gif", "heic", "heif", "jfif", "jp2", "jxl", "ppm", "tga", "tif", "tiff"];

/// The formats that are read, for people.
pub const READ_KINDS: &str = "PNG, JPEG or WebP";

/// What a file is by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// An image that is read.
    Image,
    /// An image of another format.
    OtherImage,
    /// A caption, by its place in [`CAPTION_EXTENSIONS`].
    Caption(usize),
    /// Something else.
    Other,
}

impl FileKind {
    /// Of a file whose name ends in a dot and this.
    pub fn of(extension: &str) -> Self {
        let extension = extension.to_ascii_lowercase();
        let place = |known: &[&str]| known.iter().position(|known| *known == extension);
        match (place(&IMAGE_EXTENSIONS), place(&OTHER_EXTENSIONS), place(&CAPTION_EXTENSIONS)) {
            (Some(_), ..) => Self::Image,
            (_, Some(_), _) => Self::OtherImage,
            (.., Some(place)) => Self::Caption(place),
            _ => Self::Other,
        }
    }

    /// Of a file by its path.
    pub fn of_path(path: &str) -> Self {
        path.rsplit_once('.').map_or(Self::Other, |(_, extension)| Self::of(extension))
    }
}

/// What a name does not say about an image that is not read: `1 .avif, 2 .gif`; `None` without such files.
pub fn unread<'a>(paths: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for path in paths.into_iter().filter(|path| FileKind::of_path(path) == FileKind::OtherImage) {
        let extension = path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        *counts.entry(extension).or_default() += 1;
    }
    let words: Vec<String> = counts.iter().map(|(extension, n)| format!("{n} .{extension}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// [`unread`] of entries.
pub fn unread_entries(entries: &[Entry]) -> Option<String> {
    unread(entries.iter().map(|entry| entry.path.as_str()))
}

/// What bytes are that are no image we read, as far as their beginning says it.
pub fn kind_of(bytes: &[u8]) -> Option<&'static str> {
    let brand = bytes.get(4..12).and_then(|part| part.strip_prefix(b"ftyp"));
    let starts = |start: &[u8]| bytes.starts_with(start);
    let text = bytes.trim_ascii_start();
    Some(match brand {
        Some(b"avif" | b"avis") => "an AVIF image",
        Some(b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1") => "a HEIC image",
        _ if starts(b"GIF8") => "a GIF image",
        _ if starts(b"BM") => "a BMP image",
        _ if starts(b"II*\0") || starts(b"MM\0*") => "a TIFF image",
        _ if starts(b"\xff\x0a") || starts(b"\0\0\0\x0cJXL ") => "a JPEG XL image",
        _ if starts(b"version https://git-lfs") => "a pointer of Git LFS, whose file was not fetched",
        _ if text.len() > 4 && text[..5].eq_ignore_ascii_case(b"<html") => "an HTML page",
        _ if text.len() > 8 && text[..9].eq_ignore_ascii_case(b"<!doctype") => "an HTML page",
        _ if starts(b"PK\x03\x04") => "a zip archive",
        _ => return None,
    })
}
