//! What is printed, whether or not somebody reads it: a reader that has gone, as `head` goes, ends no run.
//!
//! These macros stand in the place of the standard ones, which panic where a pipe is closed.

macro_rules! println {
    ($($what:tt)*) => { $crate::output::line(&mut ::std::io::stdout(), ::std::format_args!($($what)*)) };
}

macro_rules! print {
    ($($what:tt)*) => { $crate::output::part(&mut ::std::io::stdout(), ::std::format_args!($($what)*)) };
}

macro_rules! eprintln {
    ($($what:tt)*) => { $crate::output::line(&mut ::std::io::stderr(), ::std::format_args!($($what)*)) };
}

/// Writes a line, if it can be written.
pub fn line(to: &mut dyn std::io::Write, text: std::fmt::Arguments<'_>) {
    // In one piece, so that lines of several processes do not mix.
    let _ = to.write_all(std::format!("{text}\n").as_bytes());
}

/// Writes a part of a line, if it can be written.
pub fn part(to: &mut dyn std::io::Write, text: std::fmt::Arguments<'_>) {
    let _ = to.write_fmt(text);
}
