//! Watches what waits in the partitions that this dispatcher owns, and whether the topics are as they must
//! be. It only looks; nothing here is on the way of a delivery.

use std::collections::BTreeMap;
use std::time::Duration;

use ringback_core::log::{Log, LogError};
use ringback_core::topics::group;
use ringback_telemetry::Gauge;
use ringback_telemetry::waiting::{LOOK_EVERY, Waiting};
use tokio_util::sync::CancellationToken;

use crate::dispatcher::Shared;
use crate::send::Transport;

/// See the module.
pub(crate) struct Watch<L: Log> {
    log: L,
    waiting: Waiting<L::Reader>,
    /// When the topics were last compared, by the steady clock.
    compared: Duration,
}

impl<L: Log> Watch<L> {
    pub(crate) fn new<T: Transport>(log: &L, shared: &Shared<L, T>) -> Result<Self, LogError> {
        Ok(Self {
            log: log.clone(),
            waiting: Waiting::new(log, group::DISPATCHER.into(), shared.metrics.clone())?,
            compared: shared.steady(),
        })
    }

    /// Looks again and again until it is told to stop. Blocking.
    pub(crate) fn run<T: Transport>(mut self, shared: &Shared<L, T>, stop: &CancellationToken) {
        // They were right a moment ago, or it would not have started.
        shared.metrics.set(Gauge::TopicsDiffering, &[], 0.0);
        while !stop.is_cancelled() {
            if let Err(error) = self.look(shared) {
                // That the log is away is said by those who need it.
                tracing::debug!(%error, "looking at what waits");
            }
            let wait = async { tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await };
            let _ = shared.runtime.block_on(wait);
        }
    }

    fn look<T: Transport>(&mut self, shared: &Shared<L, T>) -> Result<(), LogError> {
        let owned = shared.owned().into_iter();
        let unfinished: BTreeMap<_, _> = owned
            .map(|(partition, owned)| (partition, owned.tracker.lock().committable()))
            .collect();
        let (now, steady) = (shared.log_now(), shared.steady());
        self.waiting.look(&unfinished, now, steady)?;
        if steady.saturating_sub(self.compared) >= shared.config.topic_check_interval {
            self.compared = steady;
            let differing = self.log.check_topics()?;
            for problem in &differing {
                tracing::error!(%problem, "a topic is not as it must be");
            }
            let differing = differing.len() as f64;
            shared.metrics.set(Gauge::TopicsDiffering, &[], differing);
        }
        Ok(())
    }
}
