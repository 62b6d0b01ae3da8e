//! What was erased: kept out of the database, and taken out of it.
//!
//! Each slice remembers how many erasures it has been through, so a crash repeats some of one and forgets
//! none. Nothing is updated: rows go, the counts of minutes and reasons stay.

use std::borrow::Cow;

use ringback_core::erasure::{Erasure, Erasures};
use ringback_core::event::{Subject, TenantId};
use ringback_core::log::{LogError, Offset, Reader};
use ringback_core::time::Timestamp;
use ringback_core::topics::Partition;

use super::engine::{Session, Statements, StoreError, Value};
use super::write::{ERASED, mark, put_position};

/// The erasures of the log, as far as they were read.
pub(crate) struct Erasing {
    partition: Option<Partition>,
    next: Offset,
    known: Erasures,
    listed: Vec<(Offset, Erasure, Timestamp)>,
    /// Every slice there was has been through all of them.
    applied: bool,
}

impl Erasing {
    pub(crate) fn new(partition: Option<Partition>) -> Self {
        Self {
            partition,
            next: 0,
            known: Erasures::default(),
            listed: Vec::new(),
            applied: false,
        }
    }

    /// Blocking: reads what is new. To be done before anything else is read, so that nothing comes in
    /// that is erased already.
    pub(crate) fn read(&mut self, reader: &mut impl Reader) -> Result<(), LogError> {
        let Some(partition) = self.partition else {
            return Ok(());
        };
        let bounds = reader.bounds(partition)?;
        let start = self.next.max(bounds.start);
        if start < bounds.end {
            let (known, listed) = (&mut self.known, &mut self.listed);
            reader.read(partition, start..bounds.end, &mut |record| {
                let Some(erasure) = Erasure::read(&record) else {
                    let offset = record.offset;
                    tracing::error!(offset, "a record of erasures cannot be read");
                    return;
                };
                known.add(&erasure, record.appended);
                listed.push((record.offset, erasure, record.appended));
            })?;
            self.next = bounds.end;
            self.applied = false;
        }
        self.listed.retain(|(offset, ..)| *offset >= bounds.start);
        Ok(())
    }

    /// Whether what was appended then is erased.
    pub(crate) fn covers(
        &self,
        tenant: &TenantId,
        subject: Option<&Subject>,
        appended: Timestamp,
    ) -> bool {
        self.known.cover(tenant, subject, appended)
    }

    /// Another may have written meanwhile.
    pub(crate) fn apply_again(&mut self) {
        self.applied = false;
    }

    /// Takes what is erased out of every slice that still has it.
    pub(crate) fn apply(&mut self, session: &mut dyn Session) -> Result<(), StoreError> {
        if self.applied || self.listed.is_empty() {
            return Ok(());
        }
        for slice in session.slices()? {
            let asked = "SELECT next FROM positions@ WHERE topic = $1";
            let name = [Value::Text(Cow::Borrowed(ERASED))];
            let rows = session.query(slice, asked, &name)?;
            let done = rows.first().and_then(|row| row.first());
            let done = done.map_or(0, Value::int);
            if done >= self.next {
                continue;
            }
            session.write(slice, &mut |statements| {
                for (_, erasure, at) in self.listed.iter().filter(|(o, ..)| *o >= done) {
                    erase(statements, erasure, *at)?;
                }
                put_position(statements, ERASED, 0, &mark(self.next))
            })?;
        }
        self.applied = true;
        tracing::info!("what was erased is out of the projection");
        Ok(())
    }
}

fn erase(
    statements: &mut dyn Statements,
    erasure: &Erasure,
    at: Timestamp,
) -> Result<(), StoreError> {
    let tenant = Value::Text(Cow::Borrowed(erasure.tenant.as_str()));
    let until = Value::Int(at.as_micros());
    let Some(subject) = &erasure.subject else {
        for table in ["attempts@", "parked@", "replays@"] {
            let sql = format!("DELETE FROM {table} WHERE tenant = $1 AND appended <= $2");
            statements.execute(&sql, &[tenant.clone(), until.clone()])?;
        }
        return Ok(());
    };
    // As it stands in the records, which are JSON without white space. Within a text of theirs it would
    // have its quotes escaped.
    let member = serde_json::json!({ "subject": subject }).to_string();
    let member = Value::Text(member.trim_matches(['{', '}']).to_owned().into());
    let about = "tenant = $1 AND appended <= $2 AND REPLACE(record, $3, '') <> record";
    let events = |table: &str| format!("event IN (SELECT event FROM {table} WHERE {about})");
    let (attempts, parked) = (events("attempts@"), events("parked@"));
    // The last are those that the others are found by. Attempts of before did not name their subject.
    for sql in [
        format!(
            "DELETE FROM replays@ WHERE tenant = $1 AND appended <= $2 AND ({attempts} OR {parked})"
        ),
        format!("DELETE FROM attempts@ WHERE tenant = $1 AND appended <= $2 AND {parked}"),
        format!("DELETE FROM attempts@ WHERE {about}"),
        format!("DELETE FROM parked@ WHERE {about}"),
    ] {
        statements.execute(&sql, &[tenant.clone(), until.clone(), member.clone()])?;
    }
    Ok(())
}
