//! What is printed, whether or not somebody reads it: a reader that has gone, as `head` goes, ends no run, and a disk that is full is
//! said at the end.
//!
//! These macros stand in the place of the standard ones, which panic where a pipe is closed.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::sync::OnceLock;

use crate::place::PlaceError;

macro_rules! println {
    ($($what:tt)*) => { $crate::output::line(&mut ::std::io::stdout(), ::std::format_args!($($what)*)) };
}

macro_rules! print {
    ($($what:tt)*) => { $crate::output::part(&mut ::std::io::stdout(), ::std::format_args!($($what)*)) };
}

macro_rules! eprintln {
    ($($what:tt)*) => { $crate::output::aside(::std::format_args!($($what)*)) };
}

/// Lines only: parts of them from several processes would mix.
#[expect(
    unused_macros,
    reason = "stands in the place of the standard one, which panics where a pipe is closed"
)]
macro_rules! eprint {
    ($($what:tt)*) => {
        compile_error!("wanted a whole line: eprintln!")
    };
}

/// What kept standard output from being written, but for a reader that has gone.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// Writes a line.
pub fn line(to: &mut dyn Write, text: Arguments<'_>) {
    // In one piece, so that lines of several processes do not mix.
    note(to.write_all(format!("{text}\n").as_bytes()));
}

/// Writes a line to standard error, where nobody can be told that it could not be written.
pub fn aside(text: Arguments<'_>) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Writes a part of a line.
pub fn part(to: &mut dyn Write, text: Arguments<'_>) {
    note(to.write_fmt(text));
}

/// Keeps what went wrong for the end, for a command does not stop half way because nobody can read what it says.
pub fn note(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = FAILED.set(error);
    }
}

/// Says whether everything could be written.
///
/// # Errors
/// [`PlaceError`] with what could not.
pub fn end() -> Result<(), PlaceError> {
    note(io::stdout().flush());
    match FAILED.get() {
        Some(error) => Err(PlaceError(format!("cannot write to standard output: {error}"))),
        None => Ok(()),
    }
}
