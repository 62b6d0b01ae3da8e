//! Simulated receivers: good, slow, flapping, hanging, lying and recovering ones. What one answers
//! depends on how it behaves at that moment, on the seed and on the request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ringback_core::record::Delivery;
use ringback_core::time::Timestamp;
use ringback_core::verdict::{Outcome, parse_retry_after};
use ringback_core::webhook::Webhook;
use ringback_dispatcher::{Sent, Unsendable};
use ringback_log::sim::ProcessId;
use uuid::Uuid;

use super::bugs::Bug;
use super::host::HostTime;
use super::oracle::Oracle;
use crate::simulation::Dice;

/// How long a dispatcher waits for an answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);

/// How a receiver behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Behaviour {
    /// Answers 200 soon.
    Good,
    /// Answers 200 after up to so long.
    Slow(Duration),
    /// Answers this.
    Status(u16),
    /// Answers 200 or 500, as it comes.
    Flapping,
    /// Does not answer in time.
    Hanging,
    /// Claims success in ways that are none (contract R9).
    Lying,
    /// Wants less, and says so more or less well.
    Busy,
    /// Is not there.
    Away,
}

/// All receivers.
#[derive(Clone, Default)]
pub(super) struct Receivers {
    seed: u64,
    behaviours: Arc<Mutex<BTreeMap<Uuid, Behaviour>>>,
}

struct Answer {
    outcome: Outcome,
    after: Duration,
    retry_after: Option<Duration>,
}

impl Receivers {
    /// All of them good.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            behaviours: Arc::default(),
        }
    }

    /// From now on the receiver of this webhook behaves so.
    pub(super) fn set(&self, webhook: Uuid, behaviour: Behaviour) {
        self.behaviours.lock().insert(webhook, behaviour);
    }

    /// From now on all are good.
    pub(super) fn heal(&self) {
        self.behaviours.lock().clear();
    }

    fn answer(&self, delivery: &Delivery, number: u64, now: Timestamp) -> Answer {
        let behaviours = self.behaviours.lock();
        let behaviour = behaviours.get(&delivery.webhook).copied();
        let mut dice = Dice::new(self.seed ^ number.wrapping_mul(0x9e37_79b9));
        let soon = Duration::from_millis(1 + dice.roll(40));
        let status = |status| Answer {
            outcome: Outcome::Status(status),
            after: soon,
            retry_after: None,
        };
        match behaviour.unwrap_or(Behaviour::Good) {
            Behaviour::Good => status(200),
            Behaviour::Slow(most) => Answer {
                after: Duration::from_millis(dice.roll(most.as_millis() as u64 + 1)),
                ..status(200)
            },
            Behaviour::Status(code) => status(code),
            Behaviour::Flapping => status([200, 500][dice.roll(2) as usize]),
            Behaviour::Hanging => Answer {
                outcome: Outcome::Timeout,
                after: TIMEOUT,
                retry_after: None,
            },
            Behaviour::Lying => status([201, 202, 204, 302, 203, 206][dice.roll(6) as usize]),
            Behaviour::Busy => {
                let said = ["3", "90", "-1", "never", "99999999999", "0", ""];
                let said = said[dice.roll(7) as usize];
                Answer {
                    retry_after: parse_retry_after(said, now),
                    ..status([429, 503][dice.roll(2) as usize])
                }
            }
            Behaviour::Away => {
                let outcomes = [
                    Outcome::Refused,
                    Outcome::Reset,
                    Outcome::Dns,
                    Outcome::Tls,
                    Outcome::Resolver,
                    Outcome::Proxy,
                ];
                Answer {
                    outcome: outcomes[dice.roll(6) as usize],
                    after: soon,
                    retry_after: None,
                }
            }
        }
    }
}

/// What a dispatcher sends through.
pub(super) struct Transport {
    pub(super) process: ProcessId,
    pub(super) receivers: Receivers,
    pub(super) oracle: Oracle,
    pub(super) time: HostTime,
    pub(super) bug: Option<Bug>,
}

impl ringback_dispatcher::Transport for Transport {
    async fn send(
        &self,
        webhook: &Webhook,
        delivery: &Delivery,
        body: Bytes,
        _now: Timestamp,
    ) -> Result<Sent, Unsendable> {
        let at = self.time.reached();
        let sent = |outcome, took, retry_after| Sent {
            outcome,
            error: None,
            response: None,
            headers: None,
            took,
            retry_after,
        };
        if self.bug == Some(Bug::ClaimUnsent) && delivery.event.id.as_u128().is_multiple_of(3) {
            return Ok(sent(Outcome::Status(200), Duration::ZERO, None));
        }
        let body = match self.bug {
            Some(Bug::AlterBytes) => Bytes::from([&body[..], b" "].concat()),
            _ => body,
        };
        let request =
            self.oracle
                .request(self.process, webhook, delivery, &body, at, self.time.skew());
        let answer = self.receivers.answer(delivery, request, at);
        tokio::time::sleep(answer.after).await;
        self.oracle.answered(
            request,
            answer.outcome,
            webhook.acknowledge,
            self.time.reached(),
        );
        Ok(sent(answer.outcome, answer.after, answer.retry_after))
    }
}
