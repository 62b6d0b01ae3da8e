//! What `/readyz` says: whether a process is to be given work.
//!
//! That is asked for two reasons. Who hands something in is led to those that can take it, so a part that
//! serves him must be in order now. And a rollout goes on when the new process works, so a part that works
//! for itself must have been in order once. Afterwards its trouble is told and changes nothing: the log is
//! everybody's, and when it is away, taking all processes out of service at once, or evicting none, mends
//! nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The parts of a process and their readiness. Clones share it.
#[derive(Clone, Default)]
pub struct Health {
    said: Arc<Mutex<Said>>,
    asked: Arc<Mutex<BTreeMap<&'static str, Question>>>,
}

/// What parts said last.
#[derive(Default)]
struct Said {
    parts: BTreeMap<&'static str, Part>,
    draining: bool,
}

/// Asks a part whether it is in order.
type Question = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// When a part that is not in order keeps its process from being ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needed {
    /// Whenever it is not: others hand something in.
    Always,
    /// Until it was in order once: it works for itself.
    Once,
}

struct Part {
    needed: Needed,
    was_in_order: bool,
    state: Result<(), String>,
}

/// What `/readyz` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The names of all parts.
    pub parts: Vec<&'static str>,
    /// What keeps it from being ready, and why. Empty: it is ready.
    pub not_ready: BTreeMap<&'static str, String>,
    /// What is not in order besides, and why.
    pub degraded: BTreeMap<&'static str, String>,
}

impl Standing {
    fn of(said: &Said) -> Self {
        let (mut not_ready, mut degraded) = (BTreeMap::new(), BTreeMap::new());
        for (name, part) in &said.parts {
            let Err(reason) = &part.state else { continue };
            let tolerated = part.needed == Needed::Once && part.was_in_order;
            let told = if tolerated {
                &mut degraded
            } else {
                &mut not_ready
            };
            told.insert(*name, reason.clone());
        }
        if said.draining {
            not_ready.insert("process", "draining".to_owned());
        }
        Self {
            parts: said.parts.keys().copied().collect(),
            not_ready,
            degraded,
        }
    }
}

impl Health {
    /// No parts yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part that works for itself, which is not in order until it says so.
    pub fn component(&self, name: &'static str) -> ComponentHealth {
        let component = ComponentHealth {
            health: self.clone(),
            name,
        };
        self.set(name, Needed::Once, Err("starting".to_owned()));
        component
    }

    /// How the process stands.
    pub fn standing(&self) -> Standing {
        let questions = self.asked.lock().clone();
        for (name, question) in questions {
            self.say(name, question());
        }
        Standing::of(&self.said.lock())
    }

    /// Every part that is not in order, and why, whether that matters to the process or not.
    pub fn troubles(&self) -> BTreeMap<&'static str, String> {
        let Standing {
            mut not_ready,
            degraded,
            ..
        } = self.standing();
        not_ready.extend(degraded);
        not_ready
    }

    /// From now on it is not ready, whatever its parts say.
    pub fn drain(&self) {
        self.said.lock().draining = true;
    }

    /// Adds a part that does not speak up when its state changes: it is asked whenever somebody
    /// wants to know. The question must be quick.
    pub fn ask(
        &self,
        name: &'static str,
        needed: Needed,
        question: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.set(name, needed, question());
        self.asked.lock().insert(name, Arc::new(question));
    }

    fn set(&self, name: &'static str, needed: Needed, state: Result<(), String>) {
        let part = Part {
            needed,
            was_in_order: state.is_ok(),
            state,
        };
        self.said.lock().parts.insert(name, part);
    }

    fn say(&self, name: &'static str, state: Result<(), String>) {
        let mut said = self.said.lock();
        let Some(part) = said.parts.get_mut(name) else {
            return;
        };
        part.was_in_order |= state.is_ok();
        let old = std::mem::replace(&mut part.state, state.clone());
        drop(said);
        match (old, state) {
            (Err(_), Ok(())) => tracing::info!(part = name, "ready"),
            (Ok(()), Err(reason)) => {
                tracing::warn!(part = name, reason, "no longer in order");
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
        self.health.say(self.name, Ok(()));
    }

    /// It cannot, because of this.
    pub fn not_ready(&self, reason: &str) {
        self.health.say(self.name, Err(reason.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(parts: &[(&'static str, &str)]) -> BTreeMap<&'static str, String> {
        parts
            .iter()
            .map(|(name, why)| (*name, (*why).to_owned()))
            .collect()
    }

    #[test]
    fn a_part_that_works_for_itself_must_have_been_in_order_once() {
        let health = Health::new();
        assert!(health.standing().not_ready.is_empty());
        let intake = health.component("intake");
        let sender = health.component("sender");
        intake.ready();
        assert_eq!(health.standing().not_ready, told(&[("sender", "starting")]));
        sender.not_ready("no certificate");
        let unready = told(&[("sender", "no certificate")]);
        assert_eq!(health.standing().not_ready, unready);
        sender.ready();
        intake.not_ready("the broker is away");
        let trouble = told(&[("intake", "the broker is away")]);
        let expected = Standing {
            parts: vec!["intake", "sender"],
            not_ready: BTreeMap::new(),
            degraded: trouble.clone(),
        };
        assert_eq!(health.standing(), expected);
        assert_eq!(health.troubles(), trouble);
        intake.ready();
        assert!(health.troubles().is_empty());
    }

    #[test]
    fn a_part_that_serves_others_must_be_in_order_now() {
        for needed in [Needed::Always, Needed::Once] {
            let health = Health::new();
            let away = Arc::new(Mutex::new(true));
            health.ask("directory", needed, {
                let away = away.clone();
                move || match *away.lock() {
                    true => Err("stale".to_owned()),
                    false => Ok(()),
                }
            });
            let stale = told(&[("directory", "stale")]);
            assert_eq!(health.standing().not_ready, stale);
            *away.lock() = false;
            assert!(health.troubles().is_empty());
            *away.lock() = true;
            let standing = health.standing();
            let (told, other) = match needed {
                Needed::Always => (standing.not_ready, standing.degraded),
                Needed::Once => (standing.degraded, standing.not_ready),
            };
            assert_eq!((told, other.len()), (stale, 0));
        }
    }

    #[test]
    fn what_drains_is_not_ready_whatever_its_parts_say() {
        let health = Health::new();
        let part = health.component("intake");
        part.ready();
        health.drain();
        part.ready();
        assert_eq!(
            health.standing().not_ready,
            told(&[("process", "draining")])
        );
    }
}
