//! A log in memory, of which the test says when its records were appended.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use ringback_core::erasure::Erasure;
use ringback_core::event::{Event, EventName, Source, Subject, TenantId};
use ringback_core::log::{Header, LogError, Offset, Reader, Record};
use ringback_core::record::{Attempt, Delivery, HeaderBuf, header};
use ringback_core::schedule::Schedule;
use ringback_core::time::Timestamp;
use ringback_core::topics::{Partition, Role, Topics, TopicsConfig};
use uuid::Uuid;

use crate::projection::rows::Topic;

/// Partitions of each topic.
const PARTITIONS: u32 = 2;

#[derive(Clone)]
pub(super) struct FakeLog(Arc<Mutex<Vec<Log>>>, Arc<Topics>);

#[derive(Default)]
struct Log {
    start: Offset,
    records: Vec<Kept>,
}

struct Kept {
    appended: Timestamp,
    key: String,
    headers: Vec<(String, Vec<u8>)>,
    value: Vec<u8>,
}

impl FakeLog {
    pub(super) fn new() -> Self {
        let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let log = Self(Arc::default(), topics);
        let count = log.partitions().len() + 1;
        log.0.lock().resize_with(count, Log::default);
        log
    }

    pub(super) fn partitions(&self) -> Vec<(Topic, Partition)> {
        let of = |topic: Topic| {
            let id = self.1.find(topic.role()).unwrap();
            (0..PARTITIONS).map(move |index| (topic, Partition { topic: id, index }))
        };
        Topic::ALL.into_iter().flat_map(of).collect()
    }

    /// Of erasures; the last slot.
    pub(super) fn erasures(&self) -> Partition {
        let topic = self.1.find(Role::Erasures).unwrap();
        Partition { topic, index: 0 }
    }

    fn slot(&self, partition: Partition) -> usize {
        let all = self.partitions();
        let found = all.iter().position(|(_, known)| *known == partition);
        found.unwrap_or(all.len())
    }

    pub(super) fn erase(&self, appended: Timestamp, subject: Option<&str>) {
        let erasure = Erasure {
            version: 1,
            tenant: TenantId::parse("acme").unwrap(),
            subject: subject.map(|subject| Subject::parse(subject).unwrap()),
            by: None,
        };
        let record = Kept {
            appended,
            key: "acme".to_owned(),
            headers: Vec::new(),
            value: serde_json::to_vec(&erasure).unwrap(),
        };
        self.0.lock().last_mut().unwrap().records.push(record);
    }

    fn append(&self, topic: Topic, webhook: Uuid, record: Kept) {
        let index = u32::from(webhook.as_bytes()[15]) % PARTITIONS;
        let all = self.partitions();
        let slot = all
            .iter()
            .position(|(known, partition)| *known == topic && partition.index == index);
        self.0.lock()[slot.unwrap()].records.push(record);
    }

    /// Forgets the oldest records of every partition.
    pub(super) fn forget(&self, count: usize) {
        for log in self.0.lock().iter_mut() {
            let gone = log.records.drain(..count.min(log.records.len())).count();
            log.start += Offset::try_from(gone).unwrap();
        }
    }

    /// Loses the newest records of every partition, as an unclean election does.
    pub(super) fn lose(&self, count: usize) {
        for log in self.0.lock().iter_mut() {
            let left = log.records.len().saturating_sub(count);
            log.records.truncate(left);
        }
    }

    pub(super) fn attempt(&self, appended: Timestamp, attempt: &Attempt) {
        let record = Kept {
            appended,
            key: attempt.webhook.to_string(),
            headers: Vec::new(),
            value: serde_json::to_vec(attempt).unwrap(),
        };
        self.append(Topic::Attempts, attempt.webhook, record);
    }

    pub(super) fn nonsense(&self, appended: Timestamp, webhook: Uuid) {
        let record = Kept {
            appended,
            key: webhook.to_string(),
            headers: Vec::new(),
            value: b"not JSON".to_vec(),
        };
        self.append(Topic::Attempts, webhook, record);
    }

    pub(super) fn parked(&self, appended: Timestamp, delivery: &Delivery, reason: &str) {
        self.delivery(Topic::Parked, appended, delivery, Some(reason));
    }

    pub(super) fn replay(&self, appended: Timestamp, delivery: &Delivery) {
        self.delivery(Topic::Replay, appended, delivery, None);
    }

    fn delivery(
        &self,
        topic: Topic,
        appended: Timestamp,
        delivery: &Delivery,
        reason: Option<&str>,
    ) {
        let mut buf = HeaderBuf::default();
        buf.push_delivery(delivery);
        if let Some(reason) = reason {
            buf.push(header::REASON, reason);
        }
        let headers = buf.headers().into_iter();
        let record = Kept {
            appended,
            key: delivery.webhook.to_string(),
            headers: headers
                .map(|header| (header.name.to_owned(), header.value.to_owned()))
                .collect(),
            value: delivery.event.data.to_vec(),
        };
        self.append(topic, delivery.webhook, record);
    }
}

impl Reader for FakeLog {
    fn bounds(&mut self, partition: Partition) -> Result<Range<Offset>, LogError> {
        let log = &self.0.lock()[self.slot(partition)];
        Ok(log.start..log.start + Offset::try_from(log.records.len()).unwrap())
    }

    fn read(
        &mut self,
        partition: Partition,
        range: Range<Offset>,
        handler: &mut dyn FnMut(Record<'_>),
    ) -> Result<(), LogError> {
        let log = &self.0.lock()[self.slot(partition)];
        for (offset, record) in (log.start..).zip(&log.records) {
            if !range.contains(&offset) {
                continue;
            }
            let headers = record.headers.iter();
            let headers: Vec<_> = headers
                .map(|(name, value)| Header { name, value })
                .collect();
            handler(Record {
                partition,
                offset,
                appended: record.appended,
                key: Some(record.key.as_bytes()),
                headers: &headers,
                value: Some(&record.value),
            });
        }
        Ok(())
    }
}

/// An attempt for an event of `acme`.
pub(super) fn attempt(webhook: u128, event: u128, number: u8, status: u16) -> Attempt {
    Attempt {
        version: 1,
        event: Uuid::from_u128(event),
        name: EventName::parse("cdr.completed").unwrap(),
        tenant: TenantId::parse("acme").unwrap(),
        webhook: Uuid::from_u128(webhook),
        generation: 0,
        run: 0,
        attempt: number,
        started: Timestamp::EPOCH,
        duration_ms: u64::from(status),
        outcome: "status".to_owned(),
        status: Some(status),
        error: None,
        response: Some("<ok> 'quoted' \u{0} ☎".to_owned()),
        next_at: None,
        request_headers: None,
        response_headers: None,
        next: if status == 200 {
            "delivered"
        } else {
            "retry.32s"
        }
        .to_owned(),
        late: false,
        dispatcher: "fake".to_owned(),
        trace: None,
        subject: None,
        replay: None,
    }
}

pub(super) fn delivery(webhook: u128, event: u128, run: u32) -> Delivery {
    let event = Event {
        id: Uuid::from_u128(event),
        name: EventName::parse("cdr.completed").unwrap(),
        time: Timestamp::EPOCH,
        tenant: TenantId::parse("acme").unwrap(),
        source: Source::parse("pbx").unwrap(),
        subject: None,
        data: "{}".into(),
        backfill: false,
        traceparent: None,
    };
    Delivery {
        event: event.into(),
        webhook: Uuid::from_u128(webhook),
        attempt: 6,
        run,
        accepted: Timestamp::EPOCH,
        deferrals: 0,
        replay: None,
    }
}
