//! What holds for every text that comes from outside, asserted by the property tests here and by the
//! targets of `tests/fuzz`, which look for inputs longer (`cargo xtask fuzz`). Nothing of this is in a
//! released program.
//!
//! The public functions take what a fuzzer makes. Their seeds, and whatever it finds, are in
//! `tests/fuzz/seeds` and run as an ordinary test.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "these are tests: they fail by panicking"
)]

pub(crate) mod digest;
pub(crate) mod reach;
pub(crate) mod signature;

use std::time::Duration;

pub use digest::{challenge, next_nonce, reply};
pub use reach::{address, url};
pub use signature::{key, signature};

use crate::time::Timestamp;
use crate::verdict::parse_retry_after;

/// Most lines of an input that are looked at.
const LINES_MAX: usize = 8;

/// The text of a `Retry-After` header; on a further line the time in microseconds.
pub fn retry_after(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (text, now) = text.split_once('\n').unwrap_or((&text, "1795253400000000"));
    retry_after_is_a_wait(text, Timestamp::from_micros(now.parse().unwrap_or(0)));
}

/// Seconds are themselves at any time; a date is nearer the later it is, and passes.
pub(crate) fn retry_after_is_a_wait(text: &str, now: Timestamp) {
    let read = |now| parse_retry_after(text, now);
    let Some(wait) = read(now) else {
        assert_eq!(read(Timestamp::from_micros(i64::MIN)), None);
        return;
    };
    let later = read(now + Duration::from_secs(1)).unwrap();
    if text.trim().bytes().all(|byte| byte.is_ascii_digit()) {
        assert_eq!(later, wait);
        assert_eq!(wait.as_secs(), text.trim().parse().unwrap_or(u64::MAX));
    } else {
        let date_passed = wait <= Duration::from_secs(1);
        assert!(
            later < wait
                || date_passed
                || now.as_micros() > i64::MAX - 1_000_000
                || now.as_micros() < 0,
            "{text:?}"
        );
        assert_eq!(read(Timestamp::from_micros(i64::MAX)), Some(Duration::ZERO));
        let then = read(now + wait);
        assert!(
            then == Some(Duration::ZERO) || now.as_micros() < 0,
            "{text:?}"
        );
    }
}

fn lines(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    input.split(|byte| *byte == b'\n').take(LINES_MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// So that they hold on every change, also where no fuzzer is.
    #[test]
    fn seeds_hold() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/seeds");
        type Target = fn(&[u8]);
        let targets: [(&str, Target); 8] = [
            ("address", address),
            ("challenge", challenge),
            ("key", key),
            ("next_nonce", next_nonce),
            ("reply", reply),
            ("retry_after", retry_after),
            ("signature", signature),
            ("url", url),
        ];
        for (name, target) in targets {
            let files = fs::read_dir(seeds.join(name)).unwrap();
            let mut seen = 0;
            for file in files {
                let path = file.unwrap().path();
                println!("{}", path.display());
                target(&fs::read(&path).unwrap());
                seen += 1;
            }
            assert!(seen > 0, "{name}");
        }
        for all in [seeds.clone(), seeds.join("../fuzz_targets")] {
            assert_eq!(fs::read_dir(&all).unwrap().count(), targets.len());
        }
    }
}
