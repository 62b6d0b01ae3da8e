//! Fields of a JSON record, and the times that PBXs write.

use ringback_core::time::Timestamp;
use serde_json::Value;

/// Where a value stands in a line: a dotted path (`call.id`) or a JSON pointer (`/call/id`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field(String);

impl Field {
    pub(super) fn new(text: &str) -> Self {
        match text.starts_with('/') {
            true => Self(text.to_owned()),
            false => Self(format!("/{}", text.replace('.', "/"))),
        }
    }

    /// Its value as text; `None` when it is missing, null, empty, or not a plain value.
    pub(super) fn text(&self, line: &Value) -> Option<String> {
        match line.pointer(&self.0)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(value) => Some(value.to_string()),
            _ => None,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }
}

/// Reads a time as PBXs write it: RFC 3339; `2026-11-21 03:19:59` in `zone` (`Z` or `+02:00`); Unix
/// seconds or milliseconds, whole or not.
pub(super) fn parse_time(text: &str, zone: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        // Seconds until the year 5138, milliseconds beyond.
        let micros = if number.abs() < 1e11 {
            number * 1e6
        } else {
            number * 1e3
        };
        return (micros.is_finite() && micros.abs() < 1e17)
            .then(|| Timestamp::from_micros(micros.round() as i64));
    }
    if let Ok(time) = Timestamp::parse(text) {
        return Some(time);
    }
    let (date, time) = text.split_once([' ', 'T'])?;
    Timestamp::parse(&format!("{date}T{time}{zone}")).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields() {
        let line = json!({"a": {"b": 7}, "c": "", "d": "x"});
        assert_eq!(Field::new("a.b").text(&line).as_deref(), Some("7"));
        assert_eq!(Field::new("/a/b").text(&line).as_deref(), Some("7"));
        assert_eq!(Field::new("d").text(&line).as_deref(), Some("x"));
        for missing in ["a", "c", "e", "a.b.c"] {
            assert_eq!(Field::new(missing).text(&line), None, "{missing}");
        }
    }

    #[test]
    fn times() {
        let read = |text| parse_time(text, "+02:00").unwrap().to_string();
        assert_eq!(read("2026-11-21 03:19:59"), "2026-11-21T01:19:59Z");
        assert_eq!(read("2026-11-21T03:19:59Z"), "2026-11-21T03:19:59Z");
        assert_eq!(read("1795231199"), "2026-11-21T03:19:59Z");
        assert_eq!(read("1795231199.731221"), "2026-11-21T03:19:59.731221Z");
        assert_eq!(read("1795231199731"), "2026-11-21T03:19:59.731Z");
        for bad in ["", "today", "NaN", "inf", "1e300", "2026-11-21"] {
            assert_eq!(parse_time(bad, "Z"), None, "{bad}");
        }
    }
}
