//! Writing for people. A closed pipe (`ringback … | head`) is no error and no panic.

use std::fmt;
use std::io::Write;

/// Writes a line to standard output.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Writes a line to standard error.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "ringback: {text}");
}

/// Writes a line to standard output, like `println!`.
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}
