//! A producer that appends an event until it is acknowledged.

use std::sync::Arc;

use parking_lot::Mutex;
use ringback_core::catalogue::Family;
use ringback_core::event::Event;
use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Completion, Log,
};
use ringback_core::record::HeaderBuf;
use ringback_core::topics::Role;
use ringback_log::sim::{SimAppender, SimLog};

/// See the module.
pub struct Producer {
    log: SimLog,
    appender: SimAppender<Ends>,
    ends: Ends,
    events: Vec<Event>,
}

#[derive(Clone, Default)]
struct Ends(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    unacknowledged: usize,
    failed: Vec<usize>,
}

impl Completion for Ends {
    /// Position of the event.
    type Token = usize;

    fn done(&self, event: usize, result: Result<Appended, AppendError>) {
        let mut state = self.0.lock();
        match result {
            Ok(_) => state.unacknowledged -= 1,
            Err(_) => state.failed.push(event),
        }
    }
}

impl Producer {
    pub(super) fn new(log: &SimLog) -> Self {
        let ends = Ends::default();
        let appender = log.appender(AppenderOptions::default(), ends.clone());
        Self {
            appender: appender.unwrap(),
            log: log.clone(),
            ends,
            events: Vec::new(),
        }
    }

    /// Everything that was produced; at rest all of it is accepted.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Events whose acknowledgement has not come.
    pub fn unacknowledged(&self) -> usize {
        self.ends.0.lock().unacknowledged
    }

    /// Appends an event.
    pub fn produce(&mut self, event: Event) {
        self.events.push(event);
        self.ends.0.lock().unacknowledged += 1;
        self.append(self.events.len() - 1);
    }

    /// Appends again what was reported as failed.
    pub fn produce_again(&mut self) {
        let failed = std::mem::take(&mut self.ends.0.lock().failed);
        for at in failed {
            self.append(at);
        }
    }

    fn append(&self, at: usize) {
        let event = &self.events[at];
        let mut buf = HeaderBuf::default();
        buf.push_event(event);
        let role = Role::Events(Family::of(event.name.as_str()));
        let key = event.id.to_string();
        let record = Append {
            topic: self.log.topics().find(role).unwrap(),
            key: Some(key.as_bytes()),
            headers: &buf.headers(),
            value: Some(&event.data),
        };
        if let Err((at, error)) = self.appender.append(record, at) {
            assert_eq!(error, AppendError::QueueFull);
            self.ends.0.lock().failed.push(at);
        }
    }
}
