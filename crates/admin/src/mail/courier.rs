//! The member of the group that reads notices and mails them: a thread that polls, sends one mail, and
//! commits, turn by turn.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ringback_core::log::{Assignment, Committed, Consumer, Handler, Log, LogError, Record, Waker};
use ringback_core::mail_address::MailAddress;
use ringback_core::notice::Notice;
use ringback_core::record::decode_event;
use ringback_core::time::{Clock, Timestamp};
use ringback_core::topics::{Partition, Role, group};
use ringback_log::directory::LiveDirectory;
use ringback_telemetry::{Counter, Metrics};
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, pause};
use super::letter::letters;
use super::post::{Post, Sent};
use crate::config::Config;

/// The longest an idle turn waits; it is woken when there is something to do.
const IDLE: Duration = Duration::from_secs(1);
/// How long it waits after the log failed.
const BACKOFF: Duration = Duration::from_millis(200);
/// How long giving up the partition may take.
const DRAIN: Duration = Duration::from_secs(5);
/// Where mail was never sent before, notices of so long before are told too, and older ones not.
const FIRST_REACHES: Duration = Duration::from_secs(3600);

/// Why mail is not sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The log cannot be used.
    #[error("starting to send mail: {0}")]
    Log(#[from] LogError),
    /// The settings cannot be used.
    #[error("starting to send mail: {0}")]
    Settings(String),
    /// The thread cannot be started.
    #[error("starting the thread that sends mail: {0}")]
    Thread(std::io::Error),
}

/// Sends mail until it is dropped, which waits for the mail that is being handed over.
pub struct Courier {
    stop: CancellationToken,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Courier {
    /// Joins the group of all administrations; `None` when no mail is to be sent. `directory` must know
    /// tenants and webhooks.
    pub fn start<L: Log>(
        log: &L,
        directory: Arc<LiveDirectory>,
        config: &Config,
        metrics: Metrics,
        clock: Clock,
    ) -> Result<Option<Self>, MailError> {
        if !config.mail.is_on() {
            return Ok(None);
        }
        let parse = |text: &String| {
            MailAddress::parse(text).map_err(|error| MailError::Settings(error.to_string()))
        };
        let operators = config.mail.operators.iter().map(parse);
        let post = Post::new(&config.mail).map_err(MailError::Settings)?;
        let missing = || LogError::permanent("finding events.system", "it is not in the table");
        let topic = log.topics().find(Role::SystemEvents).ok_or_else(missing)?;
        let consumer = log.consumer(group::NOTICES, &[topic])?;
        let waker = consumer.waker();
        let round = Round::<L> {
            consumer,
            inbox: Inbox {
                owned: None,
                first: clock.now() - FIRST_REACHES,
                clock,
            },
            post,
            directory,
            operators: operators.collect::<Result<_, _>>()?,
            portal: config.public_url.clone(),
            gather: config.mail.gather,
            metrics,
            failures: 0,
            resting: Duration::ZERO,
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name(group::NOTICES.to_owned())
            .spawn(move || round.run(&stopped))
            .map_err(MailError::Thread)?;
        Ok(Some(Self {
            stop,
            waker,
            thread: Some(thread),
        }))
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.stop.cancel();
        self.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that sends mail panicked");
        }
    }
}

/// What the thread has.
struct Round<L: Log> {
    consumer: L::Consumer,
    inbox: Inbox,
    post: Post,
    directory: Arc<LiveDirectory>,
    operators: Vec<MailAddress>,
    portal: Option<String>,
    gather: Duration,
    metrics: Metrics,
    /// In series, of the server.
    failures: u32,
    /// Until when it is left alone, by the steady clock.
    resting: Duration,
}

impl<L: Log> Round<L> {
    fn run(mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(error) = self.turn() {
                tracing::warn!(%error, "notices cannot be read for mail; trying again");
                std::thread::park_timeout(BACKOFF);
            }
        }
        if let Err(error) = self.consumer.close(DRAIN, &mut self.inbox) {
            tracing::warn!(%error, "leaving the group that sends mail");
        }
    }

    /// Reads what has come, sends one mail if one is due, and says how far it is.
    fn turn(&mut self) -> Result<(), LogError> {
        let wait = self.wait();
        self.consumer.poll(wait, &mut self.inbox)?;
        if self.wait().is_zero() && self.directory.is_fresh() {
            self.send_one();
        }
        let Some(owned) = &mut self.inbox.owned else {
            return Ok(());
        };
        let Some(news) = owned.news() else {
            return Ok(());
        };
        self.consumer.commit(&[(owned.partition, news.clone())])?;
        owned.said = Some(news);
        Ok(())
    }

    /// How long there is nothing to do but to read.
    fn wait(&self) -> Duration {
        let now = self.inbox.clock.steady();
        let owned = self.inbox.owned.as_ref();
        match owned.and_then(|owned| owned.batch.due_in(self.gather, now)) {
            Some(due) => due.max(self.resting.saturating_sub(now)).min(IDLE),
            None => IDLE,
        }
    }

    fn send_one(&mut self) {
        let clock = self.inbox.clock.clone();
        let Some(Owned { batch, say, .. }) = &mut self.inbox.owned else {
            return;
        };
        let (notices, expired) = batch.close(clock.now());
        count(&self.metrics, "expired", expired as u64);
        let portal = self.portal.as_deref();
        let letters = letters(&notices, &self.directory.read(), &self.operators, portal);
        let open = letters.iter().filter(|letter| batch.is_open(letter.key));
        // Those that the server has put off come last.
        let Some(letter) = open.min_by_key(|letter| batch.tries(letter.key)) else {
            (*say, *batch) = batch.finish();
            return;
        };
        let sent = match self.failures {
            0 => self.post.send(letter, clock.now()),
            // Finding out whether the server is back shall not cost a letter a try.
            _ => match self.post.reach() {
                Ok(()) => self.post.send(letter, clock.now()),
                Err(reason) => Sent::Away(reason),
            },
        };
        if !matches!(sent, Sent::Away(_)) {
            self.failures = 0;
        }
        let to = &letter.to;
        match sent {
            Sent::Taken => {
                batch.done(letter.key);
                count(&self.metrics, "sent", 1);
                tracing::info!(mail = %letter.id, "mail about webhooks sent");
            }
            Sent::Refused(reason) => {
                batch.done(letter.key);
                count(&self.metrics, "refused", 1);
                tracing::error!(%to, reason, "the mail server refuses a mail about webhooks; it is not sent");
            }
            Sent::NotNow(reason) => {
                let wait = batch.put_off(letter.key);
                if let Some(wait) = wait {
                    self.resting = clock.steady() + wait;
                    tracing::warn!(%to, reason, "the mail server puts a mail off; it is tried again");
                } else {
                    batch.done(letter.key);
                    count(&self.metrics, "refused", 1);
                    tracing::error!(%to, reason, "the mail server keeps putting a mail off; it is not sent");
                }
            }
            Sent::Away(reason) => {
                self.failures = self.failures.saturating_add(1);
                self.resting = clock.steady() + pause(self.failures);
                count(&self.metrics, "put_off", 1);
                tracing::warn!(reason, "mail about webhooks cannot be sent; trying again");
            }
        }
        *say = batch.progress(letters.iter().map(|letter| letter.key));
    }
}

fn count(metrics: &Metrics, outcome: &str, by: u64) {
    metrics.add(Counter::Mail, &[outcome], by);
}

/// Takes the records of the partition, while it is ours.
struct Inbox {
    owned: Option<Owned>,
    /// Older notices are not told where mail was never sent before.
    first: Timestamp,
    clock: Clock,
}

struct Owned {
    partition: Partition,
    batch: Batch,
    /// Nobody has sent mail here before.
    fresh: bool,
    /// What is to be committed, and what was.
    say: Committed,
    said: Option<Committed>,
}

impl Owned {
    fn news(&self) -> Option<Committed> {
        (self.said.as_ref() != Some(&self.say)).then(|| self.say.clone())
    }
}

impl Handler for Inbox {
    fn assigned(&mut self, assignment: Assignment) {
        let Assignment {
            partition,
            committed,
            log_start,
        } = assignment;
        let fresh = committed.is_none();
        let (batch, said) = match committed {
            Some(said) if said.offset >= log_start => (Batch::resume(&said), Some(said)),
            // What is gone is older than what is worth a mail.
            _ => (Batch::at(log_start), None),
        };
        self.owned = Some(Owned {
            partition,
            say: batch.position(),
            batch,
            fresh,
            said,
        });
    }

    fn room(&mut self, partition: Partition) -> usize {
        match &self.owned {
            Some(owned) if owned.partition == partition => owned.batch.room(),
            _ => 0,
        }
    }

    fn record(&mut self, record: Record<'_>) {
        let Some(owned) = &mut self.owned else {
            return;
        };
        let event = decode_event(&record).ok();
        let told = !owned.fresh || record.appended >= self.first;
        let notice = event.filter(|_| told).as_ref().and_then(Notice::read);
        owned.batch.take(record.offset, notice, self.clock.steady());
        owned.say = owned.batch.position();
    }

    fn revoking(&mut self, _: Partition) -> bool {
        true
    }

    fn revoked(&mut self, _: Partition) -> Option<Committed> {
        self.owned.take()?.news()
    }

    fn lost(&mut self, _: Partition) {
        self.owned = None;
    }

    fn commit_failed(&mut self, _: Partition) {
        if let Some(owned) = &mut self.owned {
            owned.said = None;
        }
    }
}
