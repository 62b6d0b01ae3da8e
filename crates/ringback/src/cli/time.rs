//! Points in time as people give them.

use ringback_core::time::{Timestamp, parse_duration};

/// Reads an RFC 3339 time, or how long ago: `2h`, `7d`.
pub(crate) fn parse_since(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = parse_duration(text) {
        return Ok(ringback_log::system_clock().now() - ago);
    }
    Timestamp::parse(text).map_err(|_| {
        "use how long ago, such as 30m, 2h or 7d, or a time such as 2026-11-21T09:30:00Z".to_owned()
    })
}
