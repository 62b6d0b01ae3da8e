//! Reading pages, newest slice first, slice by slice, until a page is full.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;

use ringback_core::time::Timestamp;
use uuid::Uuid;

use super::engine::{Rows, Session, StoreError, Value};
use super::rows::{BOUNDS_MS, CLASSES, Tally};
use super::slice::Slice;

/// Rows of one event that are looked at in a slice, and shown at all.
pub(crate) const EVENT_ROWS_MAX: usize = 1000;
/// Events that are looked up by one statement.
const EVENTS: usize = 50;

/// Where a page begins: below this entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cursor {
    slice: Slice,
    appended: i64,
    id: i64,
}

impl Cursor {
    /// Cursors of this kind begin so; those of the log are digits.
    const MARK: &str = "p";

    pub(crate) fn is_ours(text: &str) -> bool {
        text.starts_with(Self::MARK)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(Self::MARK)?.splitn(3, '.');
        Some(Self {
            slice: Slice::parse(parts.next()?)?,
            appended: parts.next()?.parse().ok()?,
            id: parts.next()?.parse().ok()?,
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            slice,
            appended,
            id,
        } = self;
        write!(f, "{}{slice}.{appended}.{id}", Self::MARK)
    }
}

/// Which attempts are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    All,
    Delivered,
    Failed,
    /// See [`super::rows::code_of`].
    Code(i64),
}

/// Which entries of a webhook, and how many.
pub(crate) struct Query {
    pub(crate) webhook: Uuid,
    pub(crate) event: Option<Uuid>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) below: Option<Cursor>,
    pub(crate) limit: usize,
}

/// A row of `attempts` or `parked`, as it is shown.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    at: Cursor,
    pub(crate) webhook: Uuid,
    pub(crate) event: Uuid,
    /// Attempts: how many it stands for; parked: its run.
    pub(crate) number: i64,
    failed: bool,
    code: i64,
    reason: String,
    tenant: String,
    /// JSON.
    pub(crate) record: String,
}

impl Entry {
    /// Where it is in the log, see [`super::rows::place`].
    pub(crate) fn id(&self) -> i64 {
        self.at.id
    }

    fn key(&self) -> (i64, i64) {
        (self.at.appended, self.at.id)
    }
}

pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    /// Where the next page begins; `None` when there is nothing more.
    pub(crate) cursor: Option<Cursor>,
}

const ATTEMPTS: &str = "SELECT id, appended, webhook, event, tenant, stands_for, failed, code, '', record FROM attempts@";
const PARKED: &str =
    "SELECT id, appended, webhook, event, tenant, run, 1, 0, reason, record FROM parked@";

/// A page of a webhook's attempts.
pub(crate) fn attempts(
    session: &mut dyn Session,
    query: &Query,
    wanted: Wanted,
) -> Result<Page, StoreError> {
    // Each is one range of an index.
    let branches: &[(&str, i64)] = match wanted {
        Wanted::All => &[("failed", 0), ("failed", 1)],
        Wanted::Delivered => &[("failed", 0)],
        Wanted::Failed => &[("failed", 1)],
        Wanted::Code(code) => &[("code", code)],
    };
    let branches: Vec<_> = branches
        .iter()
        .map(|&(column, value)| (column, Value::Int(value)))
        .collect();
    page(session, ATTEMPTS, query, &branches, |entry| match wanted {
        Wanted::All => true,
        Wanted::Delivered => !entry.failed,
        Wanted::Failed => entry.failed,
        Wanted::Code(code) => entry.code == code,
    })
}

/// A page of what was parked for a webhook.
pub(crate) fn parked(
    session: &mut dyn Session,
    query: &Query,
    reason: Option<&str>,
) -> Result<Page, StoreError> {
    let branches: Vec<_> = reason
        .map(|reason| ("reason", Value::Text(Cow::Borrowed(reason))))
        .into_iter()
        .collect();
    page(session, PARKED, query, &branches, |entry| {
        reason.is_none_or(|reason| reason == entry.reason)
    })
}

fn page(
    session: &mut dyn Session,
    select: &str,
    query: &Query,
    branches: &[(&str, Value<'_>)],
    wants: impl Fn(&Entry) -> bool,
) -> Result<Page, StoreError> {
    let mut entries = Vec::new();
    for slice in session.slices()? {
        let below = match query.below {
            Some(cursor) if slice > cursor.slice => continue,
            Some(cursor) if slice == cursor.slice => (cursor.appended, cursor.id),
            _ => (i64::MAX, i64::MAX),
        };
        // One more, to know whether there is more.
        let missing = query.limit + 1 - entries.len();
        let mut found = match query.event {
            Some(event) => of_event(session, select, slice, event, query.webhook)?,
            None => ranges(session, select, slice, query, branches, below, missing)?,
        };
        let since = query.since.map_or(i64::MIN, Timestamp::as_micros);
        found.retain(|entry| entry.key() < below && entry.at.appended >= since && wants(entry));
        found.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.key()));
        found.truncate(missing);
        entries.append(&mut found);
        if entries.len() > query.limit {
            break;
        }
    }
    let more = entries.len() > query.limit;
    entries.truncate(query.limit);
    let cursor = entries.last().filter(|_| more).map(|entry| entry.at);
    Ok(Page { entries, cursor })
}

/// The newest entries of each branch; without a branch, of the webhook.
fn ranges(
    session: &mut dyn Session,
    select: &str,
    slice: Slice,
    query: &Query,
    branches: &[(&str, Value<'_>)],
    below: (i64, i64),
    limit: usize,
) -> Result<Vec<Entry>, StoreError> {
    let mut range = |condition: &str, value: Option<&Value<'_>>| {
        let sql = format!(
            "{select} WHERE webhook = $1 AND appended >= $2 AND appended <= $3
             AND (appended < $3 OR id < $4) {condition}
             ORDER BY appended DESC, id DESC LIMIT $5"
        );
        let since = query.since.map_or(i64::MIN, Timestamp::as_micros);
        let mut values = vec![
            bytes(&query.webhook),
            Value::Int(since),
            Value::Int(below.0),
            Value::Int(below.1),
            Value::Int(i64::try_from(limit).unwrap_or(i64::MAX)),
        ];
        values.extend(value.cloned());
        session.query(slice, &sql, &values)
    };
    let mut rows = Rows::new();
    for (column, value) in branches {
        rows.append(&mut range(&format!("AND {column} = $6"), Some(value))?);
    }
    if branches.is_empty() {
        rows = range("", None)?;
    }
    Ok(entries(slice, rows))
}

fn of_event(
    session: &mut dyn Session,
    select: &str,
    slice: Slice,
    event: Uuid,
    webhook: Uuid,
) -> Result<Vec<Entry>, StoreError> {
    let sql = format!("{select} WHERE event = $1 AND webhook = $2 LIMIT {EVENT_ROWS_MAX}");
    let rows = session.query(slice, &sql, &[bytes(&event), bytes(&webhook)])?;
    Ok(entries(slice, rows))
}

fn entries(slice: Slice, rows: Rows) -> Vec<Entry> {
    let entry = |row: Vec<Value<'static>>| {
        let [
            id,
            appended,
            webhook,
            event,
            tenant,
            number,
            failed,
            code,
            reason,
            record,
        ] = <[_; 10]>::try_from(row).ok()?;
        Some(Entry {
            at: Cursor {
                slice,
                appended: appended.int(),
                id: id.int(),
            },
            webhook: Uuid::from_slice(webhook.bytes()).unwrap_or_default(),
            event: Uuid::from_slice(event.bytes()).unwrap_or_default(),
            number: number.int(),
            failed: failed.int() != 0,
            code: code.int(),
            reason: reason.text().to_owned(),
            tenant: tenant.text().to_owned(),
            record: record.text().to_owned(),
        })
    };
    rows.into_iter().filter_map(entry).collect()
}

/// Everything there is about an event of a tenant, oldest first.
#[derive(Default)]
pub(crate) struct EventRows {
    pub(crate) attempts: Vec<Entry>,
    pub(crate) parked: Vec<Entry>,
    /// Webhook and run.
    pub(crate) replays: Vec<(Uuid, i64, Timestamp)>,
    /// There is more than is shown.
    pub(crate) truncated: bool,
}

pub(crate) fn event(
    session: &mut dyn Session,
    tenant: &str,
    event: Uuid,
) -> Result<EventRows, StoreError> {
    let mut found = EventRows::default();
    for slice in session.slices()? {
        let values = [bytes(&event), Value::Text(Cow::Borrowed(tenant))];
        let mut all = |select: &str| {
            let sql = format!(
                "{select} WHERE event = $1 AND tenant = $2
                 ORDER BY appended DESC, id DESC LIMIT {EVENT_ROWS_MAX}"
            );
            session.query(slice, &sql, &values)
        };
        found.attempts.extend(entries(slice, all(ATTEMPTS)?));
        found.parked.extend(entries(slice, all(PARKED)?));
        for row in all("SELECT webhook, run, appended FROM replays@")? {
            if let [webhook, run, appended] = row.as_slice() {
                let webhook = Uuid::from_slice(webhook.bytes()).unwrap_or_default();
                let appended = Timestamp::from_micros(appended.int());
                found.replays.push((webhook, run.int(), appended));
            }
        }
        let rows = [
            found.attempts.len(),
            found.parked.len(),
            found.replays.len(),
        ];
        if rows.iter().any(|rows| *rows >= EVENT_ROWS_MAX) {
            found.truncated = true;
            break;
        }
    }
    found.attempts.sort_unstable_by_key(Entry::key);
    found.parked.sort_unstable_by_key(Entry::key);
    debug_assert!(found.attempts.iter().all(|entry| entry.tenant == tenant));
    Ok(found)
}

/// The highest run that was asked for of each of these events.
pub(crate) fn runs(
    session: &mut dyn Session,
    webhook: Uuid,
    events: &[Uuid],
) -> Result<HashMap<Uuid, i64>, StoreError> {
    let mut runs = HashMap::new();
    let places: Vec<_> = (2..EVENTS + 2).map(|place| format!("${place}")).collect();
    let places = places.join(", ");
    let sql = format!(
        "SELECT event, max(run) FROM replays@ WHERE webhook = $1 AND event IN ({places})
         GROUP BY event"
    );
    for slice in session.slices()? {
        for chunk in events.chunks(EVENTS) {
            // One statement for all: the last stands for those that are missing.
            let padded = chunk.iter().chain(chunk.last().into_iter().cycle());
            let mut values = vec![bytes(&webhook)];
            values.extend(padded.take(EVENTS).map(bytes));
            for row in session.query(slice, &sql, &values)? {
                if let [event, run] = row.as_slice()
                    && let Ok(event) = Uuid::from_slice(event.bytes())
                {
                    let highest = runs.entry(event).or_insert(0);
                    *highest = run.int().max(*highest);
                }
            }
        }
    }
    Ok(runs)
}

/// How much was parked for a webhook, by reason.
pub(crate) fn parked_counts(
    session: &mut dyn Session,
    webhook: Uuid,
) -> Result<BTreeMap<String, i64>, StoreError> {
    let mut counts = BTreeMap::new();
    let sql = "SELECT reason, n FROM parked_counts@ WHERE webhook = $1";
    for slice in session.slices()? {
        for row in session.query(slice, sql, &[bytes(&webhook)])? {
            if let [reason, n] = row.as_slice() {
                *counts.entry(reason.text().to_owned()).or_insert(0) += n.int();
            }
        }
    }
    Ok(counts)
}

/// What became of what a replay asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) delivered: u64,
    /// Parked again.
    pub(crate) failed: u64,
}

/// What became of what each of these replays asked for, so far.
pub(crate) fn replayed(
    session: &mut dyn Session,
    replays: &[Uuid],
) -> Result<HashMap<Uuid, Replayed>, StoreError> {
    let mut all = HashMap::new();
    let sql = "SELECT failed, n FROM replayed@ WHERE replay = $1";
    for slice in session.slices()? {
        for replay in replays {
            let found: &mut Replayed = all.entry(*replay).or_default();
            for row in session.query(slice, sql, &[bytes(replay)])? {
                if let [failed, n] = row.as_slice() {
                    let n = u64::try_from(n.int()).unwrap_or(0);
                    match failed.int() {
                        0 => found.delivered += n,
                        _ => found.failed += n,
                    }
                }
            }
        }
    }
    Ok(all)
}

/// Tallies by class, by the first minute of each step. Only steps in which there was something.
pub(crate) fn series(
    session: &mut dyn Session,
    webhook: Uuid,
    minutes: Range<i64>,
    step: i64,
) -> Result<BTreeMap<i64, [Tally; CLASSES.len()]>, StoreError> {
    let mut series: BTreeMap<i64, [Tally; CLASSES.len()]> = BTreeMap::new();
    let sql = "SELECT minute, class, n, ms, b0, b1, b2, b3, b4, b5, b6, b7, b8 FROM minutes@
               WHERE webhook = $1 AND minute >= $2 AND minute < $3";
    let values = [
        bytes(&webhook),
        Value::Int(minutes.start),
        Value::Int(minutes.end),
    ];
    for slice in session.slices()? {
        for row in session.query(slice, sql, &values)? {
            let [minute, class, n, ms, buckets @ ..] = row.as_slice() else {
                continue;
            };
            let minute = minute.int();
            let first = minute - minute.rem_euclid(step.max(1));
            let tallies = series.entry(first).or_default();
            let class = usize::try_from(class.int()).unwrap_or(usize::MAX);
            let Some(tally) = tallies.get_mut(class) else {
                continue;
            };
            tally.n += n.int();
            tally.ms = tally.ms.saturating_add(ms.int());
            for (sum, bucket) in tally.buckets.iter_mut().zip(buckets) {
                *sum += bucket.int();
            }
        }
    }
    Ok(series)
}

/// The bound below which this share of what was tallied stays; `None` when nothing was, or it is
/// beyond the last bound.
pub(crate) fn quantile(tally: &Tally, share: f64) -> Option<u64> {
    if tally.n <= 0 {
        return None;
    }
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "counts"
    )]
    let wanted = (tally.n as f64 * share).ceil() as i64;
    let mut sum = 0;
    let at = tally.buckets.iter().position(|bucket| {
        sum += bucket;
        sum >= wanted
    });
    BOUNDS_MS.get(at?).copied()
}

fn bytes(id: &Uuid) -> Value<'_> {
    Value::Bytes(Cow::Borrowed(id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::projection::engine::{Database as _, Work};
    use crate::projection::sqlite::Sqlite;

    /// A session that notes how each query would be answered.
    struct Explaining {
        session: Box<dyn Session>,
        plans: Vec<String>,
    }

    impl Session for Explaining {
        fn slices(&mut self) -> Result<Vec<Slice>, StoreError> {
            self.session.slices()
        }

        fn lead(&mut self) -> Result<bool, StoreError> {
            self.session.lead()
        }

        fn write(&mut self, slice: Slice, work: Work<'_>) -> Result<(), StoreError> {
            self.session.write(slice, work)
        }

        fn query(
            &mut self,
            slice: Slice,
            sql: &str,
            values: &[Value<'_>],
        ) -> Result<Rows, StoreError> {
            let explain = format!("EXPLAIN QUERY PLAN {sql}");
            let plan = self.session.query(slice, &explain, values)?;
            let steps = plan.iter().map(|step| step[3].text());
            self.plans.push(steps.collect::<Vec<_>>().join("; "));
            self.session.query(slice, sql, values)
        }

        fn drop_slices(&mut self, slices: &[Slice]) -> Result<(), StoreError> {
            self.session.drop_slices(slices)
        }
    }

    /// However many rows a webhook has: each query is a range of an index, in its order.
    #[test]
    fn every_query_is_answered_by_an_index() {
        let dir = tempfile::tempdir().unwrap();
        let mut session = Explaining {
            session: Sqlite::new(dir.path()).open().unwrap(),
            plans: Vec::new(),
        };
        assert!(session.lead().unwrap());
        let slice = Slice::of(Timestamp::EPOCH, Duration::from_secs(3600));
        session.write(slice, &mut |_| Ok(())).unwrap();
        let id = Uuid::from_u128(1);
        let below = Cursor {
            slice,
            appended: 5,
            id: 5,
        };
        for (event, below) in [(None, None), (None, Some(below)), (Some(id), None)] {
            let query = Query {
                webhook: id,
                event,
                since: None,
                below,
                limit: 50,
            };
            for wanted in [Wanted::All, Wanted::Failed, Wanted::Code(503)] {
                attempts(&mut session, &query, wanted).unwrap();
            }
            parked(&mut session, &query, None).unwrap();
            parked(&mut session, &query, Some("paused")).unwrap();
        }
        runs(&mut session, id, &[id]).unwrap();
        parked_counts(&mut session, id).unwrap();
        series(&mut session, id, 0..10, 1).unwrap();
        let ordered = session.plans.len();
        event(&mut session, "acme", id).unwrap();
        assert!(ordered > 15);
        for (at, plan) in session.plans.iter().enumerate() {
            assert!(
                plan.contains("USING INDEX") && !plan.contains("SCAN"),
                "{plan}"
            );
            // What is grouped, or of one event, is sorted: it is little.
            let sorts = plan.contains("TEMP B-TREE");
            assert!(
                !sorts || plan.contains("_event") && (at >= ordered || plan.contains("replays")),
                "{plan}"
            );
        }
    }
}
