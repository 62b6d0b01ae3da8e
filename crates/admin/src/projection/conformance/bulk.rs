//! As many attempts as wanted, for figures.

use std::ops::Range;
use std::time::{Duration, Instant};

use ringback_core::event::{EventName, TenantId};
use ringback_core::log::{LogError, Offset, Reader, Record};
use ringback_core::record::Attempt;
use ringback_core::schedule::Schedule;
use ringback_core::time::{Clock, Timestamp};
use ringback_core::topics::{Partition, Topics, TopicsConfig};
use uuid::Uuid;

use super::START;
use crate::projection::pages::{self, Query, Wanted};
use crate::projection::projector::{Projector, Turn};
use crate::projection::rows::Topic;
use crate::projection::{Projection, ProjectionConfig};

/// Of so many attempts one fails.
const ONE_FAILS: u128 = 100;

/// A projection of many attempts of one webhook on one day.
pub struct Bulk {
    projection: Projection,
    webhook: Uuid,
    count: u64,
}

/// How long requests for the first page took.
pub struct FirstPages {
    /// Of everything.
    pub all: Duration,
    /// Of what failed.
    pub failed: Duration,
    /// Of one event.
    pub event: Duration,
}

impl Bulk {
    /// Blocking: projects so many attempts, made as they are read. `progress` is told how many there
    /// are.
    pub fn fill(config: ProjectionConfig, count: u64, mut progress: impl FnMut(u64)) -> Self {
        let clock = Clock::new(|| Timestamp::from_micros(START), || Duration::ZERO);
        let projection = Projection::new(&config, "bulk", "unused".as_ref(), clock).unwrap();
        let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let partition = Partition {
            topic: topics.find(Topic::Attempts.role()).unwrap(),
            index: 0,
        };
        let webhook = Uuid::from_u128(0xdeca_fbad);
        let reader = Made {
            webhook,
            count: Offset::try_from(count).unwrap(),
        };
        let mut projector = Projector::of(
            projection.clone(),
            reader,
            vec![(Topic::Attempts, partition)],
            None,
        );
        loop {
            match projector.turn() {
                Turn::More => progress(count - projection.status().told.behind),
                Turn::AtEnd => break,
                turn => panic!("{turn:?}: {:?}", projection.status().failing),
            }
        }
        Self {
            projection,
            webhook,
            count,
        }
    }

    /// Blocking: asks for first pages, as requests do.
    pub fn first_pages(&self) -> FirstPages {
        let event = event_of(Offset::try_from(self.count / 2).unwrap());
        let page = |event, wanted, expected| {
            let query = Query {
                webhook: self.webhook,
                event,
                since: None,
                below: None,
                limit: 50,
            };
            let began = Instant::now();
            let page = self
                .projection
                .read(|session| pages::attempts(session, &query, wanted))
                .unwrap();
            let took = began.elapsed();
            assert_eq!(page.entries.len(), expected);
            took
        };
        FirstPages {
            all: page(None, Wanted::All, 50),
            failed: page(None, Wanted::Failed, 50),
            event: page(Some(event), Wanted::All, 1),
        }
    }
}

/// Makes records where they are read.
struct Made {
    webhook: Uuid,
    count: Offset,
}

impl Reader for Made {
    fn bounds(&mut self, _: Partition) -> Result<Range<Offset>, LogError> {
        Ok(0..self.count)
    }

    fn read(
        &mut self,
        partition: Partition,
        range: Range<Offset>,
        handler: &mut dyn FnMut(Record<'_>),
    ) -> Result<(), LogError> {
        let key = self.webhook.to_string();
        for offset in range {
            // All within the twelve hours before START.
            let before = (self.count - offset).saturating_mul(43_200_000_000) / self.count.max(1);
            let appended = Timestamp::from_micros(START - before);
            let failed = event_of(offset).as_u128().is_multiple_of(ONE_FAILS);
            let attempt = made(self.webhook, offset, appended, failed);
            let value = serde_json::to_vec(&attempt).unwrap();
            handler(Record {
                partition,
                offset,
                appended,
                key: Some(key.as_bytes()),
                headers: &[],
                value: Some(&value),
            });
        }
        Ok(())
    }
}

/// In no order.
fn event_of(offset: Offset) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &offset.to_be_bytes())
}

fn made(webhook: Uuid, offset: Offset, started: Timestamp, failed: bool) -> Attempt {
    Attempt {
        version: 1,
        event: event_of(offset),
        name: EventName::parse("cdr.completed").unwrap(),
        tenant: TenantId::parse("acme").unwrap(),
        webhook,
        generation: 3,
        run: 0,
        attempt: 0,
        started,
        duration_ms: u64::try_from(offset % 300).unwrap_or(0),
        outcome: "status".to_owned(),
        status: Some(if failed { 503 } else { 200 }),
        error: failed.then(|| "answered 503".to_owned()),
        response: Some("{\"ok\":true}".to_owned()),
        next_at: None,
        request_headers: None,
        response_headers: None,
        next: if failed { "retry.32s" } else { "delivered" }.to_owned(),
        late: false,
        dispatcher: "dispatcher-1:4711".to_owned(),
        trace: None,
        subject: None,
        replay: None,
    }
}
