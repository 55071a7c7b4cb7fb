//! One blob: locked, resumed, verified, renamed.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ureq::http::HeaderMap;

use crate::client::{About, Ask, Client, Fault, Metadata, header};
use crate::event::{Event, OnEvent};
use crate::url::shown;
use crate::verify::{is_checksum, verify};
use tastemaker_store::{StoreError, atomic};

use crate::HubError;

/// Bytes read between two events.
const PIECE: usize = 1 << 18;

/// Where a blob goes, and the lock that keeps other processes from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub blob: &'a Path,
    pub lock: &'a Path,
}

/// Fetches a file's contents unless they are there, and says how many bytes came over the wire.
pub(crate) fn download(
    client: &Client,
    about: About<'_>,
    metadata: &Metadata,
    place: Place<'_>,
    on_event: &mut OnEvent<'_>,
) -> Result<u64, HubError> {
    let name = about.file.unwrap_or_default();
    let url = client.endpoint.file(about.repo, about.revision, name);
    if metadata.size.is_none() && !is_checksum(&metadata.blob) {
        return Err(client.answer(
            &url,
            "with neither a size nor a checksum",
            "one of them, to verify it by",
        ));
    }
    for path in [place.lock, place.blob] {
        path.parent().map_or(Ok(()), atomic::create_folder)?;
    }
    let _lock = lock(place.lock, name, on_event)?;
    // Another process may have fetched it while this one waited.
    if place.blob.is_file() {
        return Ok(0);
    }
    let mut partial = Partial::open(place.blob)?;
    let mut n_bytes = 0;
    client.retrying(&url, on_event, |on_event| {
        let outcome = attempt(client, &url, about, metadata.size, &mut partial, on_event);
        n_bytes += match &outcome {
            Ok(n) | Err(Fault::Passing { n_bytes: n, .. }) => *n,
            Err(Fault::Final(_)) => 0,
        };
        outcome
    })?;
    if let Some(mismatch) = verify(&partial.path, &metadata.blob, metadata.size)? {
        return Err(partial.discard(&url, mismatch.found, mismatch.wanted));
    }
    partial.file.sync_all().map_err(|e| StoreError::io("sync", &partial.path, e))?;
    atomic::rename(&partial.path, place.blob)?;
    Ok(n_bytes)
}

/// What there is of a blob.
struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Partial {
    fn open(blob: &Path) -> Result<Self, HubError> {
        let mut path = OsString::from(blob);
        path.push(".incomplete");
        let path = PathBuf::from(path);
        let open = || {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let length = file.seek(SeekFrom::End(0))?;
            Ok((file, length))
        };
        let (file, length) = open().map_err(|e| StoreError::io("write", &path, e))?;
        Ok(Self { path, file, length })
    }

    fn append(&mut self, bytes: &[u8], wanted_bytes: u64) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(|error| write_failed(&self.path, wanted_bytes, error))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), HubError> {
        let empty = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        empty.map_err(|e| StoreError::io("write", &self.path, e))?;
        self.length = 0;
        Ok(())
    }

    /// Removes it, for its contents are wrong.
    fn discard(&self, url: &str, found: String, wanted: String) -> HubError {
        match fs::remove_file(&self.path) {
            Ok(()) => HubError::Damaged { url: shown(url).to_owned(), found, wanted },
            Err(error) => StoreError::io("remove", &self.path, error).into(),
        }
    }
}

fn write_failed(path: &Path, wanted_bytes: u64, source: io::Error) -> HubError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            HubError::DiskFull { path: path.to_owned(), wanted_bytes, source }
        }
        _ => StoreError::io("write", path, source).into(),
    }
}

/// One request for the rest of a blob; the number of bytes it brought.
fn attempt(
    client: &Client,
    url: &str,
    about: About<'_>,
    size: Option<u64>,
    partial: &mut Partial,
    on_event: &mut OnEvent<'_>,
) -> Result<u64, Fault> {
    let name = about.file.unwrap_or_default();
    match size {
        Some(size) if partial.length > size => partial.restart()?,
        Some(size) if partial.length == size => return Ok(0),
        _ => {}
    }
    let response = client.ask(Ask::Contents { from: partial.length }, url, about)?;
    let headers = response.headers();
    match response.status().as_u16() {
        206 if continues(headers, partial.length, size) => {}
        // The server does not resume, and sends everything.
        200 => partial.restart()?,
        status => {
            partial.restart()?;
            return Err(Fault::passing(format!("status {status} to a request to resume, so starting anew")));
        }
    }
    on_event(Event::At { name, bytes: partial.length });
    let announced = header(headers, "content-length").and_then(|text| text.parse::<u64>().ok());
    if let (Some(announced), Some(size)) = (announced, size)
        && announced.saturating_add(partial.length) != size
    {
        let found = format!("{} bytes", announced.saturating_add(partial.length));
        return Err(partial.discard(url, found, format!("{size} bytes")).into());
    }
    let mut body = client.body(response);
    let mut piece = vec![0; PIECE];
    let mut n_bytes = 0;
    loop {
        let n = match body.read(&mut piece) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(reason) => return Err(Fault::Passing { reason, after: None, n_bytes }),
        };
        if n == 0 {
            break;
        }
        let left = size.map(|size| size - partial.length);
        if left.is_some_and(|left| n as u64 > left) {
            let size = size.unwrap_or_default();
            return Err(partial
                .discard(url, format!("more than {size} bytes"), format!("{size} bytes"))
                .into());
        }
        partial.append(&piece[..n], left.unwrap_or(n as u64))?;
        n_bytes += n as u64;
        on_event(Event::At { name, bytes: partial.length });
    }
    match size {
        Some(size) if partial.length < size => {
            let reason = format!("cut after {} of {size} bytes", partial.length);
            Err(Fault::Passing { reason: io::Error::other(reason), after: None, n_bytes })
        }
        _ => Ok(n_bytes),
    }
}

/// Whether a partial answer begins where the file ends, and belongs to a file of that size.
fn continues(headers: &HeaderMap, from: u64, size: Option<u64>) -> bool {
    let parse = || {
        let range = header(headers, "content-range")?.strip_prefix("bytes ")?;
        let (range, total) = range.split_once('/')?;
        let start: u64 = range.split_once('-')?.0.parse().ok()?;
        Some((start, total.parse::<u64>().ok()))
    };
    parse()
        .is_some_and(|(start, total)| start == from && (total.is_none() || size.is_none() || total == size))
}

/// Holds the lock of a blob until the result is dropped.
fn lock(path: &Path, name: &str, on_event: &mut OnEvent<'_>) -> Result<File, HubError> {
    let fail = |error| StoreError::io("lock", path, error);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            on_event(Event::Waiting { name });
            file.lock().map_err(fail)?;
        }
        Err(TryLockError::Error(error)) => return Err(fail(error).into()),
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_so_and_how_much_is_missing() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = write_failed(Path::new("blobs/abc"), 7, full);
        assert!(matches!(error, HubError::DiskFull { wanted_bytes: 7, .. }));
        assert!(
            error.to_string().starts_with("no space is left for blobs/abc; wanted 7 more bytes"),
            "{error}"
        );
        let other = write_failed(Path::new("x"), 7, io::Error::other("broken"));
        assert!(matches!(other, HubError::Store(StoreError::Io { action: "write", .. })));
    }

    #[test]
    fn a_resumed_answer_must_begin_where_the_file_ends() {
        let ok = |text: &str, size| {
            let mut headers = HeaderMap::new();
            headers.insert("content-range", text.parse().unwrap());
            continues(&headers, 5, size)
        };
        assert!(ok("bytes 5-9/10", Some(10)));
        assert!(ok("bytes 5-9/*", Some(10)));
        assert!(ok("bytes 5-9/10", None));
        for text in ["bytes 4-9/10", "bytes 5-9/11", "bytes 5-9", "items 5-9/10", ""] {
            assert!(!ok(text, Some(10)), "{text}");
        }
    }
}
