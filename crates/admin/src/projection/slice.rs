//! Slices of time: what is dropped as a whole when it is old.

use std::fmt;
use std::time::Duration;

use ringback_core::time::Timestamp;

const HOUR_MICROS: i64 = 3_600_000_000;

/// A slice, by the hour it begins with. The log's append time of a record says which one it is in, so
/// that a record that is read again meets itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Slice(i64);

impl Slice {
    /// The slice of this length that has this time. Lengths are whole hours.
    pub(crate) fn of(time: Timestamp, length: Duration) -> Self {
        let hours = i64::try_from(length.as_secs() / 3600).unwrap_or(i64::MAX);
        let hour = time.as_micros().div_euclid(HOUR_MICROS);
        Self(hour - hour.rem_euclid(hours.max(1)))
    }

    /// Its first moment.
    pub(crate) fn start(self) -> Timestamp {
        Timestamp::from_micros(self.0.saturating_mul(HOUR_MICROS))
    }

    /// As it stands in names of files and tables and in cursors, where it was made by [`fmt::Display`].
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let part = |range| text.get(range);
        let (year, month, day, hour) = (part(0..4)?, part(4..6)?, part(6..8)?, part(8..10)?);
        let digits = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit());
        let time = Timestamp::parse(&format!("{year}-{month}-{day}T{hour}:00:00Z")).ok()?;
        digits.then(|| Self::of(time, Duration::from_secs(3600)))
    }
}

/// `2026112100`.
impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.start().to_string();
        let digits = text.chars().filter(char::is_ascii_digit);
        f.write_str(&digits.take(10).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_found_again_by_its_name() {
        let day = Duration::from_secs(86_400);
        let time = Timestamp::parse("2026-11-21T13:45:00Z").unwrap();
        for (length, name) in [
            (day, "2026112100"),
            (day / 24, "2026112113"),
            (day / 4, "2026112112"),
        ] {
            let slice = Slice::of(time, length);
            assert_eq!(slice.to_string(), name);
            assert_eq!(Slice::parse(name), Some(slice));
            assert!(slice.start() <= time && time < slice.start() + length);
        }
        for name in [
            "",
            "2026",
            "2026112124",
            "20261121000",
            "2026-11-21",
            "20261121é",
        ] {
            assert_eq!(Slice::parse(name), None, "{name}");
        }
    }
}
