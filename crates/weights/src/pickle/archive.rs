//! The zip archive around the pickle, read as strictly as its one writer allows.
//!
//! PyTorch writes uncompressed entries one after the other, then the directory, then nothing. Reading only
//! that needs no search and no guess: there is one way to understand an archive or none, and every size is
//! compared with the file before anything is made of it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::limits::MAX_ENTRIES;
use super::refusal::{CONVERT, Refusal, quoted};

const LOCAL: &[u8] = b"PK\x03\x04";
const LOCAL_LEN: usize = 30;
const CENTRAL: &[u8] = b"PK\x01\x02";
const CENTRAL_LEN: usize = 46;
const END: &[u8] = b"PK\x05\x06";
const END_LEN: usize = 22;
const WIDE_LOCATOR: &[u8] = b"PK\x06\x07";
const WIDE_LOCATOR_LEN: usize = 20;
const WIDE_END: &[u8] = b"PK\x06\x06";
const WIDE_END_LEN: usize = 56;
/// The extra field that holds sizes of more than 32 bits.
const WIDE_FIELD: u64 = 1;
/// The flags of an entry that is encrypted, or whose header is.
const ENCRYPTED: u64 = 1 | 1 << 6 | 1 << 13;

/// The entries of an archive.
pub(super) struct Archive<'a> {
    /// Names below the archive's one folder, and where the bytes of each lie in the file.
    entries: BTreeMap<&'a str, Range<usize>>,
}

impl<'a> Archive<'a> {
    /// Reads the directory and checks each entry against the file.
    pub fn open(file: &'a [u8]) -> Result<Self, Refusal> {
        let directory = Directory::find(file)?;
        let mut entries = BTreeMap::new();
        let mut occupied = Vec::with_capacity(directory.n_entries);
        let mut root = None;
        let mut at = directory.range.start;
        for _ in 0..directory.n_entries {
            let record = file.get(at..directory.range.end).unwrap_or_default();
            let entry = Central::read(record).ok_or_else(bad_directory)?;
            at += entry.len;
            let (folder, name) = entry.checked_name()?;
            if *root.get_or_insert(folder) != folder {
                return Err(Refusal::new(
                    format!("archive entry `{}`", quoted(entry.name)),
                    "every entry in one folder",
                ));
            }
            let place = entry.place(file, directory.range.start)?;
            if entries.insert(name, place.clone()).is_some() {
                return Err(Refusal::new(
                    format!("two archive entries `{}`", quoted(entry.name)),
                    "each name once",
                ));
            }
            // Within the file, so it fits.
            occupied.push(entry.header as usize..place.end);
        }
        if at != directory.range.end {
            return Err(bad_directory());
        }
        occupied.sort_unstable_by_key(|range| range.start);
        if occupied.windows(2).any(|pair| pair[1].start < pair[0].end) {
            return Err(Refusal::new("archive entries that overlap", "each byte in one entry"));
        }
        Ok(Self { entries })
    }

    /// Where the bytes of an entry lie.
    pub fn get(&self, name: &str) -> Option<Range<usize>> {
        self.entries.get(name).cloned()
    }
}

/// Where the list of entries lies.
struct Directory {
    n_entries: usize,
    range: Range<usize>,
}

impl Directory {
    fn find(file: &[u8]) -> Result<Self, Refusal> {
        let no_end = || {
            Refusal::new(
                "no archive directory at the end",
                "a zip archive with nothing after it; if it is truncated, fetch it again",
            )
        };
        let at =
            file.len().checked_sub(END_LEN).filter(|&at| file[at..].starts_with(END)).ok_or_else(no_end)?;
        let end = &file[at..];
        let [on_this_disk, n_entries] = [8, 10].map(|field| number::<2>(end, field));
        let [size, start] = [12, 16].map(|field| number::<4>(end, field));
        let comment = number::<2>(end, 20);
        if on_this_disk != n_entries || comment != Some(0) {
            return Err(no_end());
        }
        let narrow = [(n_entries, 0xffff), (size, 0xffff_ffff), (start, 0xffff_ffff)];
        let (fields, close) = match wide_end(file, at)? {
            Some((wide, close)) => {
                let agree = |((narrow, full), wide): ((Option<u64>, u64), Option<u64>)| {
                    narrow == Some(full) || narrow == wide
                };
                if !narrow.into_iter().zip(wide).all(agree) {
                    return Err(bad_directory());
                }
                (wide, close)
            }
            None => (narrow.map(|(field, _)| field), at),
        };
        let [Some(n_entries), Some(size), Some(start)] = fields.map(|n| usize::try_from(n?).ok()) else {
            return Err(bad_directory());
        };
        if start.checked_add(size) != Some(close) || n_entries > size / CENTRAL_LEN {
            return Err(bad_directory());
        }
        if n_entries > MAX_ENTRIES {
            return Err(Refusal::new(
                format!("an archive of {n_entries} entries"),
                format!("at most {MAX_ENTRIES}"),
            ));
        }
        Ok(Self { n_entries, range: start..close })
    }
}

/// Number of entries, size and start of the directory, as a field may be missing.
type Fields = [Option<u64>; 3];

/// The 64-bit end record, if there is one, and where it starts.
fn wide_end(file: &[u8], end: usize) -> Result<Option<(Fields, usize)>, Refusal> {
    let Some(locator) = end.checked_sub(WIDE_LOCATOR_LEN).map(|at| &file[at..end]) else { return Ok(None) };
    if !locator.starts_with(WIDE_LOCATOR) {
        return Ok(None);
    }
    let at = (end - WIDE_LOCATOR_LEN).checked_sub(WIDE_END_LEN).ok_or_else(bad_directory)?;
    let record = &file[at..at + WIDE_END_LEN];
    let body = (WIDE_END_LEN - 12) as u64;
    if number::<8>(locator, 8) != Some(at as u64)
        || !record.starts_with(WIDE_END)
        || number::<8>(record, 4) != Some(body)
        || number::<8>(record, 24) != number::<8>(record, 32)
    {
        return Err(bad_directory());
    }
    Ok(Some(([32, 40, 48].map(|field| number::<8>(record, field)), at)))
}

/// One entry of the directory.
struct Central<'a> {
    name: &'a str,
    flags: u64,
    method: u64,
    stored: u64,
    size: u64,
    /// Where the entry's own header begins.
    header: u64,
    /// The length of this record.
    len: usize,
}

impl<'a> Central<'a> {
    /// Reads the record at the start of `record`; `None` if it does not fit or makes no sense.
    fn read(record: &'a [u8]) -> Option<Self> {
        if !record.starts_with(CENTRAL) {
            return None;
        }
        let [flags, method, name_len, extra_len, comment_len] =
            [8, 10, 28, 30, 32].map(|field| number::<2>(record, field));
        // At most 16 bits each.
        let [name_len, extra_len, comment_len] =
            [name_len? as usize, extra_len? as usize, comment_len? as usize];
        let extra_at = CENTRAL_LEN + name_len;
        let len = extra_at + extra_len + comment_len;
        let name = std::str::from_utf8(record.get(CENTRAL_LEN..extra_at)?).ok()?;
        let wide = wide_field(record.get(extra_at..extra_at + extra_len)?);
        record.get(..len)?;

        let mut taken = 0;
        let mut widened = |field: usize| {
            let narrow = number::<4>(record, field)?;
            if narrow != 0xffff_ffff {
                return Some(narrow);
            }
            taken += 8;
            number::<8>(wide?, taken - 8)
        };
        let size = widened(24)?;
        let stored = widened(20)?;
        let header = widened(42)?;
        Some(Self { name, flags: flags?, method: method?, stored, size, header, len })
    }

    /// The archive's folder and the name below it.
    fn checked_name(&self) -> Result<(&'a str, &'a str), Refusal> {
        let sound = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']);
        match self.name.split_once('/') {
            Some((folder, name)) if sound(folder) && name.split('/').all(sound) => Ok((folder, name)),
            _ => Err(Refusal::new(
                format!("archive entry `{}`", quoted(self.name)),
                "names of the form folder/file, without `..`",
            )),
        }
    }

    /// Where the entry's bytes lie, all of them before `limit`.
    fn place(&self, file: &[u8], limit: usize) -> Result<Range<usize>, Refusal> {
        let refuse = |what: &str, wanted: &str| {
            Refusal::new(format!("archive entry `{}` {what}", quoted(self.name)), wanted)
        };
        if self.flags & ENCRYPTED != 0 {
            return Err(refuse("that is encrypted", &format!("entries stored as they are; {CONVERT}")));
        }
        if self.method != 0 || self.stored != self.size {
            return Err(refuse(
                "that is compressed",
                &format!("entries stored as they are, as torch.save writes them; {CONVERT}"),
            ));
        }
        let outside = || refuse("outside the file", "it inside; if the file is truncated, fetch it again");
        let at = usize::try_from(self.header).map_err(|_| outside())?;
        let local = file.get(at..limit).ok_or_else(outside)?;
        let [method, name_len, extra_len] = [8, 26, 28].map(|field| number::<2>(local, field));
        let (Some(name_len), Some(extra_len)) = (name_len, extra_len) else { return Err(outside()) };
        let name_end = LOCAL_LEN + name_len as usize;
        let start = name_end + extra_len as usize;
        if !local.starts_with(LOCAL)
            || method != Some(0)
            || local.get(LOCAL_LEN..name_end) != Some(self.name.as_bytes())
        {
            return Err(refuse("with another header in its place", "the entry that the directory names"));
        }
        let end = usize::try_from(self.size).ok().and_then(|size| start.checked_add(size));
        match end {
            Some(end) if end <= local.len() => Ok(at + start..at + end),
            _ => Err(outside()),
        }
    }
}

/// The contents of the extra field for wide sizes.
fn wide_field(mut extra: &[u8]) -> Option<&[u8]> {
    loop {
        let (id, len) = (number::<2>(extra, 0)?, number::<2>(extra, 2)? as usize);
        let body = extra.get(4..4 + len)?;
        if id == WIDE_FIELD {
            return Some(body);
        }
        extra = &extra[4 + len..];
    }
}

/// The little-endian number of `N` bytes at `at`.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at + N)?;
    Some(field.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
}

fn bad_directory() -> Refusal {
    Refusal::new(
        "an archive directory that contradicts itself",
        "one as torch.save writes it; fetch it again",
    )
}
