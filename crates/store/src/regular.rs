//! Regular files: what is read is one, and no device that never ends or pipe that waits for who writes it.

use std::fs::{self, File, FileType};
use std::path::Path;

use crate::StoreError;

/// Opens a file of weights, images or data for reading.
///
/// # Errors
/// [`StoreError::Missing`], [`StoreError::Io`]; [`StoreError::Malformed`] for anything but a regular file.
pub fn open(path: impl AsRef<Path>) -> Result<File, StoreError> {
    let path = path.as_ref();
    let fail = |error| StoreError::io("read", path, error);
    // Before it is opened: to open a pipe is to wait.
    let kind = fs::metadata(path).map_err(fail)?.file_type();
    if !kind.is_file() {
        return Err(StoreError::malformed(path, kind_of(kind), "a regular file"));
    }
    File::open(path).map_err(fail)
}

/// Opens a text for reading, which may also come out of a pipe that the shell made, such as `/dev/stdin` or `/dev/fd/63`.
///
/// # Errors
/// As [`open`].
pub fn open_text(path: impl AsRef<Path>) -> Result<File, StoreError> {
    let path = path.as_ref();
    let is_made = ["/dev/", "/proc/"].iter().any(|folder| path.starts_with(folder));
    let is_pipe = || fs::metadata(path).is_ok_and(|found| is_pipe(found.file_type()));
    if is_made && is_pipe() {
        return File::open(path).map_err(|error| StoreError::io("read", path, error));
    }
    open(path)
}

/// What is neither a regular file nor absent, in words; `None` for a regular file, a folder, and where nothing is.
pub fn odd(path: impl AsRef<Path>) -> Option<&'static str> {
    let kind = fs::metadata(path).ok()?.file_type();
    (!kind.is_file() && !kind.is_dir()).then(|| kind_of(kind))
}

#[cfg(unix)]
fn kind_of(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn kind_of(kind: FileType) -> &'static str {
    if kind.is_dir() { "a folder" } else { "a device" }
}

#[cfg(unix)]
fn is_pipe(kind: FileType) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&kind)
}

#[cfg(not(unix))]
fn is_pipe(_: FileType) -> bool {
    false
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_texts_also_out_of_the_pipes_of_a_shell() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        for (path, what) in
            [(Path::new("/dev/zero"), "a device"), (folder.path(), "a folder"), (&socket, "a socket")]
        {
            for error in [open(path).unwrap_err(), open_text(path).unwrap_err()] {
                assert!(
                    error.to_string().ends_with(&format!("found {what}; wanted a regular file")),
                    "{error}"
                );
            }
            assert_eq!(odd(path).is_some(), what != "a folder");
        }
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(open(&file).is_ok() && odd(&file).is_none() && odd(folder.path().join("nothing")).is_none());
        assert!(matches!(open(folder.path().join("nothing")), Err(StoreError::Missing { .. })));
        let (reader, writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut &writer, b"text").unwrap();
        drop(writer);
        let made = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        assert!(open(&made).unwrap_err().to_string().ends_with("found a pipe; wanted a regular file"));
        let mut text = String::new();
        open_text(&made).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
    }
}
