//! From a record to its deliveries: which webhooks want it, and what may not be sent at all.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ringback_core::event::{Event, InvalidEvent, Subject, check_data};
use ringback_core::log::{Offset, Record};
use ringback_core::record::{Delivery, InvalidRecord, Reason, decode_delivery, decode_event};
pub(crate) use ringback_core::sendable::Parking;
use ringback_core::time::Timestamp;
use ringback_core::topics::Role;
use ringback_log::directory::LiveDirectory;
use uuid::Uuid;

use crate::partition::{Owned, Work};

/// A delivery with the record it came from.
pub(crate) struct Job {
    pub(crate) work: Arc<Work>,
    pub(crate) delivery: Delivery,
    /// The body that is sent, written once for all webhooks of a record.
    body: Arc<OnceLock<Bytes>>,
}

impl Job {
    pub(crate) fn new(work: Arc<Work>, delivery: Delivery) -> Self {
        Self {
            work,
            delivery,
            body: Arc::default(),
        }
    }

    pub(crate) fn body(&self) -> Bytes {
        self.body
            .get_or_init(|| self.delivery.event.standard_body().into())
            .clone()
    }
}

/// What a record turns into.
pub(crate) enum Routed {
    /// Nobody wants it.
    Nobody,
    /// These deliveries; each is to be sent, or parked at once.
    Deliveries(Vec<(Job, Option<Parking>)>),
    /// It cannot be read; it is parked as it is.
    Unreadable(InvalidRecord),
}

/// Decides for one record.
pub(crate) fn route(record: &Record<'_>, owned: &Arc<Owned>, directory: &LiveDirectory) -> Routed {
    match owned.role {
        Role::Events(_) | Role::SystemEvents => route_event(record, owned, directory),
        _ => match decode_sendable(record) {
            Ok(delivery) => {
                let work = Work::begin(owned, record.offset, 1, delivery.event.data.len());
                Routed::Deliveries(vec![(Job::new(work, delivery), None)])
            }
            Err(error) => Routed::Unreadable(error),
        },
    }
}

/// A delivery that was written by us, if nothing happened to it since.
///
/// Its data is looked at again: what was parked for its data can be replayed, and a receiver that gets
/// JSON objects (contract R5) must get nothing else however a record was damaged.
pub(crate) fn decode_sendable(record: &Record<'_>) -> Result<Delivery, InvalidRecord> {
    let delivery = decode_delivery(record)?;
    check_data(&delivery.event.data)?;
    Ok(delivery)
}

fn route_event(record: &Record<'_>, owned: &Arc<Owned>, directory: &LiveDirectory) -> Routed {
    let event = match decode_event(record) {
        Ok(event) => Arc::new(event),
        Err(error) => return Routed::Unreadable(error),
    };
    let webhooks: Vec<_> = directory
        .read()
        .subscribed(&event.tenant, event.name.as_str())
        .map(|webhook| webhook.id)
        .filter(|webhook| owned.role != Role::SystemEvents || !is_about(&event, *webhook))
        .collect();
    if webhooks.is_empty() {
        return Routed::Nobody;
    }
    // A direct producer is trusted with every tenant, but not with being right.
    let problem = match check_data(&event.data) {
        Ok(()) => None,
        // One copy for each webhook may be more than the log takes.
        Err(error @ InvalidEvent::TooLarge { .. }) => return Routed::Unreadable(error.into()),
        Err(error) => Some(error.to_string()),
    };
    let work = Work::begin(owned, record.offset, webhooks.len(), event.data.len());
    let body = Arc::default();
    let deliveries = webhooks.into_iter().map(|webhook| {
        let delivery = Delivery {
            event: event.clone(),
            webhook,
            attempt: 0,
            run: 0,
            accepted: record.appended,
            deferrals: 0,
            replay: None,
        };
        let parking = problem.clone().map(|detail| Parking {
            reason: Reason::Undeliverable,
            detail: Some(detail),
        });
        (
            Job {
                work: work.clone(),
                delivery,
                body: Arc::clone(&body),
            },
            parking,
        )
    });
    Routed::Deliveries(deliveries.collect())
}

/// Whether a notice is about this very webhook: what fails is not told so by itself.
fn is_about(notice: &Event, webhook: Uuid) -> bool {
    let subject = notice.subject.as_ref().map(Subject::as_str);
    subject
        .and_then(|subject| subject.strip_prefix("webhook/"))
        .is_some_and(|id| Uuid::try_parse(id).is_ok_and(|id| id == webhook))
}

/// A record of a delay topic that is not due yet, kept as it was read.
pub(crate) struct Held {
    pub(crate) due: Timestamp,
    pub(crate) offset: Offset,
    pub(crate) delivery: Delivery,
}
