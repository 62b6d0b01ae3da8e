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

/// Where Kubernetes reads why a container ended. Elsewhere there is no such file.
const LAST_WORDS: &str = "/dev/termination-log";
/// As much as it keeps of that; of more, the end.
const LAST_WORDS_MAX: usize = 4096;

/// Leaves for `kubectl describe` why a component ended. Without that, it shows the end of the log, where
/// Kafka's client says the same thing many times.
pub(crate) fn last_words(text: &str) {
    let mut end = text.len().min(LAST_WORDS_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // Nobody is left who could be told that it did not work.
    let _ = std::fs::OpenOptions::new()
        .write(true)
        .open(LAST_WORDS)
        .and_then(|mut file| file.write_all(&text.as_bytes()[..end]));
}

/// Writes a line to standard output, like `println!`.
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}
