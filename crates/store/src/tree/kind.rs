//! The one list of image formats: what is read, and what is an image and is not.

use std::collections::BTreeMap;

use super::Entry;

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

/// The images among files that are not read, counted: `1 .avif, 2 .gif`; `None` without any.
pub fn unread(entries: &[Entry]) -> Option<String> {
    let mut counts = BTreeMap::<String, usize>::new();
    for Entry { path, .. } in
        entries.iter().filter(|entry| FileKind::of_path(&entry.path) == FileKind::OtherImage)
    {
        let extension = path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        *counts.entry(extension).or_default() += 1;
    }
    let words: Vec<String> = counts.iter().map(|(extension, n)| format!("{n} .{extension}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_first_bytes_say_what_a_file_is() {
        for (path, kind) in [
            ("a/b.PNG", FileKind::Image),
            ("b.jpeg", FileKind::Image),
            ("b.caption", FileKind::Caption(1)),
            ("b.txt", FileKind::Caption(0)),
            ("b.heic", FileKind::OtherImage),
            ("b.json", FileKind::Other),
            ("png", FileKind::Other),
        ] {
            assert_eq!(FileKind::of_path(path), kind, "{path}");
        }
        let entry = |path: &str| Entry { path: path.into(), bytes: 0 };
        let entries = ["a.gif", "b/c.GIF", "d.avif", "e.png", "f.txt"].map(entry);
        assert_eq!(unread(&entries).as_deref(), Some("1 .avif, 2 .gif"));
        assert_eq!(unread(&entries[3..]), None);
        for (bytes, kind) in [
            (&b"GIF89a"[..], Some("a GIF image")),
            (b"\0\0\0\x20ftypavif....", Some("an AVIF image")),
            (b"\n<!DOCTYPE html>", Some("an HTML page")),
            (
                b"version https://git-lfs.github.com/spec/v1",
                Some("a pointer of Git LFS, whose file was not fetched"),
            ),
            (b"", None),
            (b"<", None),
        ] {
            assert_eq!(kind_of(bytes), kind);
        }
    }
}
