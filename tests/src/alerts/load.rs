//! A steady stream of events, whatever the ingest says to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::installation::eventually;

/// Goes on until it is dropped.
pub struct Load {
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Load {
    /// Posts that many events per second to the ingest at this address.
    pub fn start(client: reqwest::Client, ingest: &str, token: &str, per_second: u32) -> Self {
        let accepted = Arc::<AtomicUsize>::default();
        let (counted, token) = (accepted.clone(), token.to_owned());
        let url = format!("{ingest}/v1/events");
        let task = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                pace.tick().await;
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
