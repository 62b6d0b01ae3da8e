//! A steady stream of events, whatever the ingest says to them, as long as it is ready: a Service leads
//! nobody to one that is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::installation::eventually;
use crate::process::Process;

/// Goes on until it is dropped.
pub struct Load {
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Load {
    /// Posts that many events per second to the ingest of this process (`http` or `https`).
    pub fn start(
        client: reqwest::Client,
        (producer, scheme): (&Process, &str),
        token: &str,
        per_second: u32,
    ) -> Self {
        let accepted = Arc::<AtomicUsize>::default();
        let (counted, token) = (accepted.clone(), token.to_owned());
        let url = format!("{scheme}://{}/v1/events", producer.addresses["ingest"]);
        let ready = format!("{}/readyz", producer.url("telemetry"));
        let task = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                pace.tick().await;
                let is_ready = client.get(&ready).send().await;
                if !is_ready.is_ok_and(|answer| answer.status().is_success()) {
                    continue;
                }
                let event = json!({ "type": "cdr.completed", "data": { "n": 1 } });
                let post = client.post(&url).bearer_auth(&token).json(&event);
                let answer = post.send().await;
                if answer.is_ok_and(|answer| answer.status() == 202) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { accepted, task }
    }

    /// Waits until so many more events are accepted.
    pub async fn more(&self, events: usize) {
        let accepted = || self.accepted.load(Ordering::Relaxed);
        let enough = accepted() + events;
        eventually("events are accepted", async || accepted() >= enough).await;
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}
