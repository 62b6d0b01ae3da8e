//! Receivers whose answer depends on the seed, the delivery and the attempt alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ringback_core::record::Delivery;
use ringback_core::time::Timestamp;
use ringback_core::verdict::Outcome;
use ringback_core::webhook::Webhook;
use ringback_dispatcher::{Sent, Unsendable};
use uuid::Uuid;

use super::Dice;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub event: Uuid,
    pub webhook: Uuid,
    pub attempt: u8,
    pub at: Timestamp,
    pub body: Bytes,
    pub status: u16,
}

/// All receivers, and what they got.
#[derive(Clone)]
pub struct Receivers {
    seed: u64,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Receivers {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            requests: Arc::default(),
        }
    }

    /// Everything that arrived so far, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().clone()
    }

    /// The way to them from one process.
    pub(super) fn transport(&self, killed: Arc<AtomicBool>) -> Transport {
        Transport {
            receivers: self.clone(),
            killed,
        }
    }

    /// Of ten deliveries five succeed at once, three after some failures, one never, and one is
    /// refused for good.
    fn status(&self, delivery: &Delivery) -> u16 {
        let (event, webhook) = (delivery.event.id.as_u128(), delivery.webhook.as_u128());
        let mut dice = Dice::new(self.seed ^ (event ^ (webhook >> 56)) as u64);
        match dice.roll(10) {
            0..5 => 200,
            5..8 if u64::from(delivery.attempt) > dice.roll(5) => 200,
            5..9 => 500,
            _ => 404,
        }
    }
}

/// What a dispatcher sends through.
#[derive(Clone)]
pub struct Transport {
    receivers: Receivers,
    killed: Arc<AtomicBool>,
}

impl ringback_dispatcher::Transport for Transport {
    async fn send(
        &self,
        _webhook: &Webhook,
        delivery: &Delivery,
        body: Bytes,
        now: Timestamp,
    ) -> Result<Sent, Unsendable> {
        // Some answers take their time, so that there is something in flight when a fault comes.
        let mut dice = Dice::new(delivery.event.id.as_u128() as u64 + u64::from(delivery.attempt));
        if dice.roll(4) == 0 {
            tokio::time::sleep(Duration::from_millis(dice.roll(8))).await;
        }
        if self.killed.load(Ordering::SeqCst) {
            // Nobody is there to send it.
            std::future::pending::<()>().await;
        }
        let status = self.receivers.status(delivery);
        self.receivers.requests.lock().push(Request {
            event: delivery.event.id,
            webhook: delivery.webhook,
            attempt: delivery.attempt,
            at: now,
            body,
            status,
        });
        Ok(Sent {
            outcome: Outcome::Status(status),
            error: None,
            response: None,
            headers: None,
            took: Duration::from_millis(1),
            retry_after: None,
        })
    }
}
