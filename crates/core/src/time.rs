//! Points in time as the pipeline uses them.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time: microseconds since the Unix epoch, UTC. It is only ever passed in: nothing in
/// `core` reads a clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// The text is not an RFC 3339 date and time with an offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an RFC 3339 time such as 2026-11-21T09:30:00Z")]
pub struct InvalidTime {
    text: String,
}

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From milliseconds since the Unix epoch, the unit of Kafka's record times.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    /// Reads an RFC 3339 time (`2026-11-21T09:30:00.5+01:00`).
    pub fn parse(text: &str) -> Result<Self, InvalidTime> {
        let parsed: jiff::Timestamp = text.parse().map_err(|_| InvalidTime {
            text: text.chars().take(64).collect(),
        })?;
        Ok(Self(parsed.as_microsecond()))
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since the Unix epoch, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros))
    }
}

/// RFC 3339 in UTC, with as many fractional digits as needed.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(time) => time.fmt(f),
            // Outside the years -9999 to 9999: still readable, and no panic.
            Err(_) => write!(f, "@{}us", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A clock that is handed in: the system's in production, a simulated one in tests.
///
/// It has two hands. [`now`](Self::now) is the time of day: what it says is compared with what others
/// say, and somebody may set it, forwards or back. [`steady`](Self::steady) only ever goes forwards,
/// at its own pace, and is what waits and ages are measured by.
#[derive(Clone)]
pub struct Clock {
    now: std::sync::Arc<dyn Fn() -> Timestamp + Send + Sync>,
    steady: std::sync::Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Clock {
    /// A clock that reads these: the time of day, and the time since some moment of its own.
    pub fn new(
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
        steady: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        Self {
            now: std::sync::Arc::new(now),
            steady: std::sync::Arc::new(steady),
        }
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// Time since a moment that only this clock knows. It never goes back, and no one sets it.
    pub fn steady(&self) -> Duration {
        (self.steady)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A duration as people write it: `32s`, `4m`, `17m`, `2h`, `7d`, `250ms`. The largest unit that
/// divides it is used, so the text is unique and can name a topic.
pub fn duration_label(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
    ] {
        if millis > 0 && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

/// Reads what [`duration_label`] writes.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 250ms, 32s, 4m, 2h or 7d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(wrong)
}

/// Form of a duration as [`duration_label`] text: `#[serde(with = "DurationText")]`.
pub struct DurationText;

impl DurationText {
    /// Writes `32s`.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration_label(*value))
    }

    /// Reads `32s`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for DurationText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn label_reads_back(millis in 0u64..10_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&duration_label(duration)).unwrap(), duration);
        }

        #[test]
        fn time_reads_back(micros in -62_000_000_000_000_000i64..253_000_000_000_000_000) {
            let time = Timestamp::from_micros(micros);
            prop_assert_eq!(Timestamp::parse(&time.to_string()).unwrap(), time);
        }
    }

    #[test]
    fn a_clock_has_two_hands() {
        let clock = Clock::new(|| Timestamp(7), || Duration::from_secs(3));
        assert_eq!(
            (clock.now(), clock.steady()),
            (Timestamp(7), Duration::from_secs(3))
        );
    }

    #[test]
    fn default_tiers_have_their_names() {
        let labels: Vec<_> = [32, 240, 1020, 3120, 7200]
            .map(|s| duration_label(Duration::from_secs(s)))
            .into();
        assert_eq!(labels, ["32s", "4m", "17m", "52m", "2h"]);
    }

    #[test]
    fn absurd_times_do_not_panic() {
        assert_eq!(
            Timestamp::from_micros(i64::MAX).to_string(),
            format!("@{}us", i64::MAX)
        );
        assert_eq!(
            Timestamp::from_millis(i64::MAX) + Duration::MAX,
            Timestamp(i64::MAX)
        );
        assert_eq!(Timestamp::EPOCH.since(Timestamp(5)), Duration::ZERO);
        assert!(Timestamp::parse("yesterday").is_err());
    }

    #[test]
    fn times_are_rounded_down() {
        let time = Timestamp::from_micros(1_999_999);
        assert_eq!(
            (time.as_micros(), time.as_millis(), time.as_secs()),
            (1_999_999, 1_999, 1)
        );
        let before = Timestamp::from_micros(-1);
        assert_eq!((before.as_millis(), before.as_secs()), (-1, -1));
        assert_eq!(Timestamp::from_millis(3), Timestamp::from_micros(3_000));
    }

    #[test]
    fn times_are_added_and_compared() {
        let (early, late) = (Timestamp(1_000), Timestamp(4_000));
        assert_eq!(late.since(early), Duration::from_millis(3));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(early + Duration::from_millis(3), late);
        assert_eq!(late - Duration::from_millis(3), early);
        assert_eq!(Timestamp(i64::MIN) - Duration::MAX, Timestamp(i64::MIN));
    }

    #[test]
    fn a_time_is_a_text_in_records_and_for_people() {
        let time = Timestamp::from_micros(5);
        let text = "1970-01-01T00:00:00.000005Z";
        assert_eq!(time.to_string(), text);
        assert_eq!(format!("{time:?}"), text);
        assert_eq!(serde_json::to_value(time).unwrap(), text);
        let read: Timestamp = serde_json::from_value(text.into()).unwrap();
        assert_eq!(read, time);
        serde_json::from_value::<Timestamp>("yesterday".into()).unwrap_err();
        let long = Timestamp::parse(&"y".repeat(100)).unwrap_err();
        assert_eq!(long.text.len(), 64);
        let clock = Clock::new(|| Timestamp(7), || Duration::ZERO);
        assert_eq!(format!("{clock:?}"), "Clock");
    }

    #[test]
    fn durations_are_written_in_their_largest_unit() {
        let seconds = |seconds| duration_label(Duration::from_secs(seconds));
        assert_eq!(seconds(7 * 86_400), "7d");
        assert_eq!(seconds(36 * 3_600), "36h");
        assert_eq!(seconds(90 * 60), "90m");
        assert_eq!(seconds(61), "61s");
        assert_eq!(duration_label(Duration::from_millis(1_001)), "1001ms");
        assert_eq!(duration_label(Duration::ZERO), "0ms");
        for (text, millis) in [
            ("250ms", 250),
            ("32s", 32_000),
            ("4m", 240_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)));
        }
        for wrong in ["", "5", "s", "5x", "-5s", "5 s", "18446744073709551615d"] {
            parse_duration(wrong).unwrap_err();
        }
    }

    #[test]
    fn a_duration_is_a_text_in_records() {
        #[derive(Serialize, Deserialize)]
        struct Waits(#[serde(with = "DurationText")] Duration);
        let json = serde_json::to_value(Waits(Duration::from_secs(32))).unwrap();
        assert_eq!(json, "32s");
        let read: Waits = serde_json::from_value(json).unwrap();
        assert_eq!(read.0, Duration::from_secs(32));
        assert!(serde_json::from_value::<Waits>("soon".into()).is_err());
    }

    #[test]
    fn editors_know_what_a_duration_is() {
        let schema = schemars::schema_for!(DurationText).to_value();
        assert_eq!(schema["title"], "Duration");
        assert_eq!(schema["type"], "string");
        assert_eq!(schema["pattern"], "^[0-9]+(ms|s|m|h|d)$");
    }
}
