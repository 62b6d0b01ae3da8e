//! What is appended to `attempts`, told to whoever waits for it.
//!
//! One thread reads for all who wait, and is there only while somebody waits. It looks a few times a
//! second, from where each of them is; who does not take what is told falls behind, and loses nothing.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use ringback_core::log::{Log, LogError, Offset, Reader, Record};
use ringback_core::record::Attempt;
use ringback_core::time::Timestamp;
use ringback_core::topics::Partition;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::problem::Problem;
use crate::state::{Admin, key_of};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(200);
/// How long it waits when the log fails.
const BACKOFF: Duration = Duration::from_secs(1);
/// Offsets of a partition that one look takes.
const WINDOW: Offset = 2048;
/// Attempts that wait to be taken, for each who waits.
const QUEUE: usize = 64;
/// Who waits, at most.
const WAITING_MAX: usize = 512;
/// Looks for which somebody may take nothing of what there is: about two minutes.
const STALLED_MAX: u32 = 600;

/// An attempt and where it is in its partition.
pub(crate) struct Told {
    pub(crate) offset: Offset,
    pub(crate) appended: Timestamp,
    pub(crate) attempt: Arc<Attempt>,
}

#[derive(Default)]
pub(crate) struct Tail(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    news: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// Those that the thread has not taken over yet.
    new: Vec<Subscriber>,
    /// All.
    count: usize,
    is_read: bool,
}

struct Subscriber {
    partition: Partition,
    webhook: Uuid,
    key: String,
    /// Everything before was told.
    next: Offset,
    to: mpsc::Sender<Told>,
    /// Looks since the last attempt was taken, while there are some.
    stalled: u32,
    /// It cannot take more in this look.
    full: bool,
}

impl Tail {
    /// Blocking: tells the attempts of a webhook from this offset on. Drop the receiver to end it.
    pub(crate) fn subscribe<L: Log>(
        &self,
        admin: &Admin<L>,
        (webhook, partition): (Uuid, Partition),
        next: Offset,
    ) -> Result<mpsc::Receiver<Told>, Problem> {
        let (to, told) = mpsc::channel(QUEUE);
        let subscriber = Subscriber {
            partition,
            webhook,
            key: key_of(webhook),
            next,
            to,
            stalled: 0,
            full: false,
        };
        let mut waiting = self.0.waiting.lock();
        if waiting.count >= WAITING_MAX {
            let detail = format!(
                "{WAITING_MAX} requests wait for attempts already; close some, or ask again later"
            );
            return Err(Problem::unavailable("too_many_streams", detail));
        }
        waiting.count += 1;
        waiting.new.push(subscriber);
        if !waiting.is_read {
            let (shared, log) = (self.0.clone(), admin.log.clone());
            let thread = std::thread::Builder::new()
                .name("admin-tail".to_owned())
                .spawn(move || match log.reader() {
                    Ok(reader) => shared.run(reader),
                    Err(error) => shared.give_up(&error),
                });
            if let Err(error) = thread {
                *waiting = Waiting::default();
                return Err(LogError::retriable("starting a thread", error).into());
            }
            waiting.is_read = true;
        }
        drop(waiting);
        self.0.news.notify_one();
        Ok(told)
    }
}

impl Shared {
    /// Nobody is told anything: their receivers end.
    fn give_up(&self, error: &LogError) {
        tracing::warn!(%error, "attempts cannot be told as they are made");
        *self.waiting.lock() = Waiting::default();
    }

    fn run(&self, mut reader: impl Reader) {
        let mut subscribers: Vec<Subscriber> = Vec::new();
        let mut pause = Duration::ZERO;
        loop {
            subscribers.retain(|subscriber| {
                !subscriber.to.is_closed() && subscriber.stalled < STALLED_MAX
            });
            {
                let mut waiting = self.waiting.lock();
                if waiting.new.is_empty() && !subscribers.is_empty() {
                    self.news.wait_for(&mut waiting, pause);
                }
                subscribers.append(&mut waiting.new);
                waiting.count = subscribers.len();
                if subscribers.is_empty() {
                    waiting.is_read = false;
                    return;
                }
            }
            pause = match look(&mut reader, &mut subscribers) {
                Ok(()) => EVERY,
                Err(error) => {
                    tracing::warn!(%error, "attempts cannot be told as they are made");
                    BACKOFF
                }
            };
        }
    }
}

/// Tells everybody what there is.
fn look(reader: &mut impl Reader, subscribers: &mut [Subscriber]) -> Result<(), LogError> {
    subscribers.sort_by_key(|subscriber| subscriber.partition);
    for subscribers in subscribers.chunk_by_mut(|a, b| a.partition == b.partition) {
        let Some(first) = subscribers.first() else {
            continue;
        };
        let partition = first.partition;
        let bounds = reader.bounds(partition)?;
        for subscriber in subscribers.iter_mut() {
            subscriber.next = subscriber.next.max(bounds.start);
            subscriber.full = false;
        }
        // Who is furthest behind is read for; the others go along.
        let behind = subscribers.iter().map(|subscriber| subscriber.next).min();
        let from = behind.unwrap_or(bounds.end);
        let to = bounds.end.min(from.saturating_add(WINDOW));
        if from >= to {
            continue;
        }
        reader.read(partition, from..to, &mut |record| {
            let mut read = None;
            for subscriber in subscribers.iter_mut() {
                subscriber.tell(&record, &mut read);
            }
        })?;
        for subscriber in subscribers.iter_mut().filter(|subscriber| !subscriber.full) {
            subscriber.next = subscriber.next.max(to);
        }
    }
    Ok(())
}

impl Subscriber {
    /// `read`: the record, once it was read for somebody.
    fn tell(&mut self, record: &Record<'_>, read: &mut Option<Arc<Attempt>>) {
        if self.full || record.offset < self.next || record.key != Some(self.key.as_bytes()) {
            return;
        }
        if read.is_none() {
            let value = record.value.unwrap_or_default();
            *read = serde_json::from_slice(value).ok().map(Arc::new);
        }
        let Some(attempt) = read.as_ref().filter(|read| read.webhook == self.webhook) else {
            return;
        };
        let told = Told {
            offset: record.offset,
            appended: record.appended,
            attempt: attempt.clone(),
        };
        match self.to.try_send(told) {
            Ok(()) => {
                self.next = record.offset + 1;
                self.stalled = 0;
            }
            Err(_) => {
                self.next = record.offset;
                self.stalled += 1;
                self.full = true;
            }
        }
    }
}
