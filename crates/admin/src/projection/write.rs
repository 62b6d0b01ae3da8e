//! Writing batches, and where they end.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use ringback_core::log::Offset;
use ringback_core::time::Timestamp;

use super::engine::{Session, Statements, StoreError, Value};
use super::rows::{Batch, Head, Position, Topic};

/// Rows that one statement inserts.
const ROWS: usize = 64;
/// The name under which positions have the time up to which everything was read.
const AS_OF: &str = "as_of";
/// The name under which each slice has the erasures that it has been through.
pub(crate) const ERASED: &str = "erased";
/// Beginning of the name under which they have the log that was read.
const LOG: &str = "log ";

/// How far everything was read.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Positions {
    /// The next offset, by topic and partition.
    pub(crate) next: HashMap<(Topic, u32), Offset>,
    /// Records that retention dropped before they were read.
    pub(crate) lost: u64,
    /// Records that could not be read.
    pub(crate) unreadable: u64,
    /// What was appended before is there; `None`: nothing is known.
    pub(crate) as_of: Option<Timestamp>,
    /// The names of the logs that were read: one.
    pub(crate) logs: BTreeSet<String>,
}

/// What became of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Written {
    Now,
    /// It, or some of it, was written before: read the positions again.
    Before,
}

/// Reads the positions of all slices.
pub(crate) fn positions(session: &mut dyn Session) -> Result<Positions, StoreError> {
    let mut positions = Positions::default();
    let sql = "SELECT topic, part, next, lost, unreadable FROM positions@";
    for slice in session.slices()? {
        for row in session.query(slice, sql, &[])? {
            let [topic, part, next, lost, unreadable] = row.as_slice() else {
                continue;
            };
            if topic.text() == AS_OF {
                positions.as_of = positions
                    .as_of
                    .max(Some(Timestamp::from_micros(next.int())));
                continue;
            }
            if let Some(log) = topic.text().strip_prefix(LOG) {
                positions.logs.insert(log.to_owned());
                continue;
            }
            positions.lost += u64::try_from(lost.int()).unwrap_or(0);
            positions.unreadable += u64::try_from(unreadable.int()).unwrap_or(0);
            let known = Topic::ALL
                .into_iter()
                .find(|known| known.name() == topic.text());
            if let (Some(topic), Ok(part)) = (known, u32::try_from(part.int())) {
                let highest = positions.next.entry((topic, part)).or_default();
                *highest = next.int().max(*highest);
            }
        }
    }
    Ok(positions)
}

/// Writes a batch with its positions: all of it, or nothing.
pub(crate) fn write(
    session: &mut dyn Session,
    batch: &Batch,
    log: &str,
    as_of: Option<Timestamp>,
) -> Result<Written, StoreError> {
    let log = format!("{LOG}{log}");
    let mut written = Written::Now;
    session.write(batch.slice, &mut |statements| {
        if was_written(statements, &batch.positions)? {
            written = Written::Before;
            return Ok(());
        }
        insert_attempts(statements, batch)?;
        insert_parked(statements, batch)?;
        insert_replays(statements, batch)?;
        add_counts(statements, batch)?;
        for (&(topic, part), position) in &batch.positions {
            put_position(statements, topic.name(), part, position)?;
        }
        put_position(statements, &log, 0, &mark(0))?;
        match as_of {
            Some(as_of) => put_position(statements, AS_OF, 0, &mark(as_of.as_micros())),
            None => Ok(()),
        }
    })?;
    Ok(written)
}

/// A position that is none.
pub(crate) fn mark(next: Offset) -> Position {
    Position {
        from: 0,
        next,
        lost: 0,
        unreadable: 0,
    }
}

fn was_written(
    statements: &mut dyn Statements,
    positions: &HashMap<(Topic, u32), Position>,
) -> Result<bool, StoreError> {
    let rows = statements.query("SELECT topic, part, next FROM positions@", &[])?;
    Ok(rows.iter().any(|row| {
        let [topic, part, next] = row.as_slice() else {
            return false;
        };
        positions.iter().any(|((known, partition), position)| {
            known.name() == topic.text()
                && i64::from(*partition) == part.int()
                && next.int() > position.from
        })
    }))
}

pub(crate) fn put_position(
    statements: &mut dyn Statements,
    topic: &str,
    part: u32,
    position: &Position,
) -> Result<(), StoreError> {
    statements.execute(
        "INSERT INTO positions@ (topic, part, next, lost, unreadable) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (topic, part) DO UPDATE SET next = excluded.next,
             lost = positions@.lost + excluded.lost,
             unreadable = positions@.unreadable + excluded.unreadable",
        &[
            text(topic),
            Value::Int(part.into()),
            Value::Int(position.next),
            Value::Int(position.lost),
            Value::Int(position.unreadable),
        ],
    )
}

fn insert_attempts(statements: &mut dyn Statements, batch: &Batch) -> Result<(), StoreError> {
    let columns = "failed, code, stands_for, record";
    insert(statements, "attempts@", columns, &batch.attempts, |row| {
        let rest = [
            Value::Int(row.failed.into()),
            Value::Int(row.code),
            Value::Int(row.stands_for),
            text(&row.record),
        ];
        (&row.head, rest)
    })
}

fn insert_parked(statements: &mut dyn Statements, batch: &Batch) -> Result<(), StoreError> {
    let columns = "run, reason, record";
    insert(statements, "parked@", columns, &batch.parked, |row| {
        let rest = [Value::Int(row.run), text(&row.reason), text(&row.record)];
        (&row.head, rest)
    })
}

fn insert_replays(statements: &mut dyn Statements, batch: &Batch) -> Result<(), StoreError> {
    insert(statements, "replays@", "run", &batch.replays, |row| {
        (&row.head, [Value::Int(row.run)])
    })
}

/// Inserts rows of a head and the rest, many at a time, then one by one, so that there are two
/// statements to prepare.
fn insert<'a, T, const REST: usize>(
    statements: &mut dyn Statements,
    table: &str,
    columns: &str,
    rows: &'a [T],
    parts: impl Fn(&'a T) -> (&'a Head, [Value<'a>; REST]),
) -> Result<(), StoreError> {
    let width = 5 + REST;
    let statement = |rows: usize| {
        let row = |row: usize| {
            let places: Vec<_> = (1..=width)
                .map(|at| format!("${}", row * width + at))
                .collect();
            format!("({})", places.join(", "))
        };
        let all: Vec<_> = (0..rows).map(row).collect();
        let all = all.join(", ");
        format!(
            "INSERT INTO {table} (id, appended, webhook, event, tenant, {columns}) VALUES {all}
             ON CONFLICT (id) DO NOTHING"
        )
    };
    let values = |rows: &'a [T]| {
        let values = rows.iter().flat_map(|row| {
            let (head, rest) = parts(row);
            let head = [
                Value::Int(head.id),
                Value::Int(head.appended),
                bytes(head.webhook.as_bytes()),
                bytes(head.event.as_bytes()),
                text(&head.tenant),
            ];
            head.into_iter().chain(rest)
        });
        values.collect::<Vec<_>>()
    };
    let chunks = rows.chunks_exact(ROWS);
    let rest = chunks.remainder();
    let many = statement(ROWS);
    for chunk in chunks {
        statements.execute(&many, &values(chunk))?;
    }
    let one = statement(1);
    for row in rest.chunks(1) {
        statements.execute(&one, &values(row))?;
    }
    Ok(())
}

fn add_counts(statements: &mut dyn Statements, batch: &Batch) -> Result<(), StoreError> {
    for ((webhook, reason), n) in &batch.parked_counts {
        statements.execute(
            "INSERT INTO parked_counts@ (webhook, reason, n) VALUES ($1, $2, $3)
             ON CONFLICT (webhook, reason) DO UPDATE SET n = parked_counts@.n + excluded.n",
            &[bytes(webhook.as_bytes()), text(reason), Value::Int(*n)],
        )?;
    }
    for ((replay, failed), n) in &batch.replayed {
        statements.execute(
            "INSERT INTO replayed@ (replay, failed, n) VALUES ($1, $2, $3)
             ON CONFLICT (replay, failed) DO UPDATE SET n = replayed@.n + excluded.n",
            &[
                bytes(replay.as_bytes()),
                Value::Int((*failed).into()),
                Value::Int(*n),
            ],
        )?;
    }
    for ((webhook, minute, class), tally) in &batch.minutes {
        let mut values = vec![
            bytes(webhook.as_bytes()),
            Value::Int(*minute),
            Value::Int(i64::try_from(*class).unwrap_or(0)),
            Value::Int(tally.n),
            Value::Int(tally.ms),
        ];
        values.extend(tally.buckets.map(Value::Int));
        statements.execute(
            "INSERT INTO minutes@
                 (webhook, minute, class, n, ms, b0, b1, b2, b3, b4, b5, b6, b7, b8)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
             ON CONFLICT (webhook, minute, class) DO UPDATE SET
                 n = minutes@.n + excluded.n, ms = minutes@.ms + excluded.ms,
                 b0 = minutes@.b0 + excluded.b0, b1 = minutes@.b1 + excluded.b1,
                 b2 = minutes@.b2 + excluded.b2, b3 = minutes@.b3 + excluded.b3,
                 b4 = minutes@.b4 + excluded.b4, b5 = minutes@.b5 + excluded.b5,
                 b6 = minutes@.b6 + excluded.b6, b7 = minutes@.b7 + excluded.b7,
                 b8 = minutes@.b8 + excluded.b8",
            &values,
        )?;
    }
    Ok(())
}

fn text(text: &str) -> Value<'_> {
    Value::Text(Cow::Borrowed(text))
}

fn bytes(bytes: &[u8]) -> Value<'_> {
    Value::Bytes(Cow::Borrowed(bytes))
}
