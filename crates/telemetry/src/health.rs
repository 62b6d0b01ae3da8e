//! What `/readyz` says: whether every part of a process can do its work now.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The parts of a process and their readiness. Clones share it.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>);

impl Health {
    /// No parts yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part, which is not ready until it says so.
    pub fn component(&self, name: &'static str) -> ComponentHealth {
        let component = ComponentHealth {
            health: self.clone(),
            name,
        };
        component.not_ready("starting");
        component
    }

    /// Every part that is not ready, and why.
    pub fn not_ready(&self) -> BTreeMap<&'static str, String> {
        let parts = self.0.lock();
        parts
            .iter()
            .filter_map(|(name, state)| Some((*name, state.clone().err()?)))
            .collect()
    }

    /// The names of all parts.
    pub fn parts(&self) -> Vec<&'static str> {
        self.0.lock().keys().copied().collect()
    }
}

/// One part of a process.
#[derive(Clone)]
pub struct ComponentHealth {
    health: Health,
    name: &'static str,
}

impl ComponentHealth {
    /// It can do its work.
    pub fn ready(&self) {
        self.set(Ok(()));
    }

    /// It cannot, because of this.
    pub fn not_ready(&self, reason: &str) {
        self.set(Err(reason.to_owned()));
    }

    fn set(&self, state: Result<(), String>) {
        let mut parts = self.health.0.lock();
        let old = parts.insert(self.name, state.clone());
        drop(parts);
        match (old, state) {
            (Some(Err(_)), Ok(())) => tracing::info!(part = self.name, "ready"),
            (Some(Ok(())), Err(reason)) => {
                tracing::warn!(part = self.name, reason, "no longer ready");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_not_ready_until_it_says_so() {
        let health = Health::new();
        assert!(health.not_ready().is_empty());
        let log = health.component("log");
        let sender = health.component("sender");
        log.ready();
        assert_eq!(
            health.not_ready(),
            BTreeMap::from([("sender", "starting".to_owned())])
        );
        sender.ready();
        log.not_ready("the broker is away");
        assert_eq!(
            health.not_ready(),
            BTreeMap::from([("log", "the broker is away".to_owned())])
        );
        assert_eq!(health.parts(), ["log", "sender"]);
    }
}
