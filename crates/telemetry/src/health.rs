//! What `/readyz` says: whether every part of a process can do its work now.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The parts of a process and their readiness. Clones share it.
#[derive(Clone, Default)]
pub struct Health {
    /// What parts said last.
    said: Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>,
    asked: Arc<Mutex<BTreeMap<&'static str, Question>>>,
}

/// Asks a part whether it is ready.
type Question = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

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
        let questions = self.asked.lock().clone();
        for (name, question) in questions {
            self.set(name, question());
        }
        let parts = self.said.lock();
        parts
            .iter()
            .filter_map(|(name, state)| Some((*name, state.clone().err()?)))
            .collect()
    }

    /// The names of all parts.
    pub fn parts(&self) -> Vec<&'static str> {
        self.said.lock().keys().copied().collect()
    }

    /// Adds a part that does not speak up when its readiness changes: it is asked whenever somebody
    /// wants to know. The question must be quick.
    pub fn ask(
        &self,
        name: &'static str,
        question: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.set(name, question());
        self.asked.lock().insert(name, Arc::new(question));
    }

    fn set(&self, name: &'static str, state: Result<(), String>) {
        let mut parts = self.said.lock();
        let old = parts.insert(name, state.clone());
        drop(parts);
        match (old, state) {
            (Some(Err(_)), Ok(())) => tracing::info!(part = name, "ready"),
            (Some(Ok(())), Err(reason)) => {
                tracing::warn!(part = name, reason, "no longer ready");
            }
            _ => {}
        }
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
        self.health.set(self.name, state);
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

    #[test]
    fn a_part_that_is_asked_answers_anew_each_time() {
        let health = Health::new();
        let away = Arc::new(Mutex::new(true));
        health.ask("directory", {
            let away = away.clone();
            move || match *away.lock() {
                true => Err("stale".to_owned()),
                false => Ok(()),
            }
        });
        for stale in [true, false, true] {
            *away.lock() = stale;
            assert_eq!(health.not_ready().contains_key("directory"), stale);
        }
        assert_eq!(health.parts(), ["directory"]);
    }
}
