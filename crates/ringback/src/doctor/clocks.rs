//! Clocks, as far as they can be compared without writing to the log: its newest records tell the time
//! of the brokers, and those of attempts that of the dispatchers that made them as well.

use std::collections::BTreeMap;
use std::time::Duration;

use ringback_core::log::{Log, LogError, Reader};
use ringback_core::record::Attempt;
use ringback_core::time::{Timestamp, duration_label};
use ringback_core::topics::Role;

use super::report::Report;
use crate::component::blocking;

/// Clocks that are kept differ by less.
const TOLERATED: Duration = Duration::from_secs(2);
/// An attempt is in the log soon after its end; one that comes later was delayed, or its clock is behind.
const SOON: Duration = Duration::from_secs(60);
const ADVICE: &str = "let a time service (NTP, chrony) keep the clocks of all machines";

/// What the records of the log say.
#[derive(Default)]
struct Seen {
    newest: Option<Timestamp>,
    /// By dispatcher: when its attempt ended by its own clock, and when that was appended.
    dispatchers: BTreeMap<String, (Timestamp, Timestamp)>,
}

/// Compares our clock, and those of dispatchers, with the log's.
pub(super) async fn check<L: Log>(log: L, report: &mut Report) {
    match blocking(move || look(&log)).await {
        Ok(seen) => judge(&seen, ringback_log::system_clock().now(), report),
        Err(error) => report.failed("clocks", error.message, "see docs/kafka.md, Grants"),
    }
}

/// Blocking: reads the last record of each partition that changes often.
fn look<L: Log>(log: &L) -> Result<Seen, LogError> {
    let (mut reader, topics) = (log.reader()?, log.topics().clone());
    let mut seen = Seen::default();
    for (topic, spec) in topics.iter() {
        let looked = matches!(spec.role, Role::Attempts | Role::Events(_) | Role::Webhooks);
        if !looked {
            continue;
        }
        for partition in topics.partitions(topic) {
            let bounds = reader.bounds(partition)?;
            let last = (bounds.end - 1).max(bounds.start)..bounds.end;
            reader.read(partition, last, &mut |record| {
                seen.newest = seen.newest.max(Some(record.appended));
                let attempt = record.value.filter(|_| spec.role == Role::Attempts);
                let attempt = attempt.and_then(|v| serde_json::from_slice::<Attempt>(v).ok());
                if let Some(attempt) = attempt {
                    let ended = attempt.started + Duration::from_millis(attempt.duration_ms);
                    seen.dispatchers
                        .insert(attempt.dispatcher, (ended, record.appended));
                }
            })?;
        }
    }
    Ok(seen)
}

fn judge(seen: &Seen, now: Timestamp, report: &mut Report) {
    match seen.newest {
        None => report.ok("clocks", "nothing in the log to compare with yet"),
        Some(newest) if newest.since(now) > TOLERATED => report.failed(
            "clocks",
            format!(
                "the log's newest record is of {newest}, this machine's clock says {now}: it is behind the brokers'"
            ),
            ADVICE,
        ),
        Some(_) => report.ok("clocks", "this machine's is not behind the brokers'"),
    }
    for (dispatcher, (ended, appended)) in &seen.dispatchers {
        let ahead = ended.since(*appended);
        let late = appended.since(*ended);
        if ahead > TOLERATED {
            let said = format!(
                "dispatcher {dispatcher} was {} ahead of the brokers at its last attempt",
                seconds(ahead)
            );
            report.failed("clocks", said, ADVICE);
        } else if late > SOON {
            let said = format!(
                "the last attempt of dispatcher {dispatcher} came into the log {} after its end: its clock is behind the brokers', or the log was away",
                seconds(late)
            );
            report.warning("clocks", said, ADVICE);
        }
    }
}

fn seconds(duration: Duration) -> String {
    duration_label(Duration::from_secs(duration.as_secs().max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1000)
    }

    #[test]
    fn who_is_ahead_or_behind_is_named() {
        let mut seen = Seen::default();
        let judged = |seen: &Seen, now: i64| {
            let mut report = Report::new(true);
            judge(seen, at(now), &mut report);
            report.results().join(" ")
        };
        assert_eq!(judged(&seen, 100), "ok");
        seen.newest = Some(at(101));
        assert_eq!(judged(&seen, 100), "ok");
        assert_eq!(judged(&seen, 5000), "ok", "a quiet log");
        assert_eq!(judged(&seen, 98), "failed");
        let mut with = |ended: i64, appended: i64| {
            seen.dispatchers
                .insert("d".to_owned(), (at(ended), at(appended)));
            judged(&seen, 100)
        };
        assert_eq!(with(100, 101), "ok");
        assert_eq!(with(104, 101), "ok failed");
        assert_eq!(with(30, 101), "ok warning");
    }
}
