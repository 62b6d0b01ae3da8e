//! An installation on the local engine that has run for a while, and a log to move it to.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod looking;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringback_core::catalogue::Family;
use ringback_core::health::Snapshot;
use ringback_core::log::{
    Append, AppendError, Appended, Appender, AppenderOptions, Completion, Header, Log, Offset,
};
use ringback_core::secret::{KeyRing, Secret};
use ringback_core::topics::{Partition, Role, Topics, TopicsConfig, group};
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_log::sim::{Sim, SimClock, SimLog, SimOptions};

use self::looking::consume;
pub(crate) use self::looking::{Seen, Worker, all_records, each, newest, seen, values, waiting};

pub(crate) const CDR: Role = Role::Events(Family::Cdr);
pub(crate) const WEBHOOK: &str = "0190b5f0-0000-7000-8000-000000000001";
pub(crate) const OTHER: &str = "0190b5f0-0000-7000-8000-000000000002";
/// The groups that have something to work off.
pub(crate) const GROUPS: [&str; 4] = [
    group::CDR_EVENTS,
    group::RETRIES,
    group::DEFERRALS,
    group::ATTEMPTS,
];

pub(crate) fn table(prefix: &str, event_partitions: u32, tiers: &[u64]) -> Arc<Topics> {
    let config = TopicsConfig {
        prefix: prefix.to_owned(),
        event_partitions,
        work_partitions: 2,
        replication: 1,
        ..TopicsConfig::default()
    };
    let tiers: Vec<_> = tiers
        .iter()
        .map(|tier| Duration::from_secs(*tier))
        .collect();
    Topics::new(&config, &tiers)
}

pub(crate) fn keys(key: &str) -> KeyRing {
    KeyRing::new("k", [("k", key)]).unwrap()
}

pub(crate) const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
pub(crate) const OTHER_KEY: &str = "QUJDREVGR0g0OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Nothing fails in the source.
pub(crate) struct Reply;

impl Completion for Reply {
    type Token = ();

    fn done(&self, (): (), result: Result<Appended, AppendError>) {
        result.unwrap();
    }
}

/// An installation that has run for a while on the local engine.
pub(crate) struct Source {
    pub(crate) log: LocalLog,
    pub(crate) clock: SimClock,
    pub(crate) appender: <LocalLog as Log>::Appender<Reply>,
}

impl Source {
    pub(crate) fn open(dir: &Path, clock: SimClock) -> Self {
        let options = LocalOptions {
            clock: clock.clock(),
            ..LocalOptions::default()
        };
        let log = LocalLog::open(dir, table("old.", 2, &[32, 240]), options).unwrap();
        assert_eq!(log.create_topics().unwrap(), []);
        let appender = log.appender(AppenderOptions::default(), Reply).unwrap();
        Self {
            log,
            clock,
            appender,
        }
    }

    pub(crate) fn append(
        &self,
        role: Role,
        key: Option<&str>,
        headers: &[(&str, &str)],
        value: &str,
    ) {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| Header {
                name,
                value: value.as_bytes(),
            })
            .collect();
        let record = Append {
            topic: self.log.topics().find(role).unwrap(),
            key: key.map(str::as_bytes),
            headers: &headers,
            value: Some(value.as_bytes()),
        };
        assert!(self.appender.append(record, ()).is_ok());
    }

    /// Waits until everything is there.
    pub(crate) fn settle(&self) {
        assert!(self.appender.flush(Duration::from_secs(60)));
    }

    pub(crate) fn set(&self, role: Role, key: &str, value: Option<&str>) {
        let topic = self.log.topics().find(role).unwrap();
        let there = newest(&self.log, role).contains_key(key);
        let revision = there.then(|| revision(&self.log, role, key));
        let value = value.map(str::as_bytes);
        self.log
            .compare_and_set(topic, key, revision, value)
            .unwrap();
    }

    /// Works off what a group reads, but for records whose value `wants` says no to.
    pub(crate) fn work_off(&self, name: &str, wants: fn(&str) -> bool) {
        self.settle();
        let mut worker = Worker::new(wants);
        consume(&self.log, name, &mut worker);
    }
}

pub(crate) fn revision<L: Log>(log: &L, role: Role, key: &str) -> ringback_core::log::Revision {
    let mut found = None;
    each(log, role, |record| {
        if record.key == Some(key.as_bytes()) {
            found = Some(ringback_core::log::Revision(record.offset));
        }
    });
    found.unwrap()
}

pub(crate) fn webhook(keys: &KeyRing) -> String {
    let id = WEBHOOK.parse().unwrap();
    let sealed = keys
        .seal(&Secret::new("secret"), id, "token", [7; 24])
        .unwrap();
    let sealed = serde_json::to_value(sealed).unwrap();
    serde_json::json!({
        "version": 1, "id": id, "tenant": "acme", "name": "cdr", "subscription": ["cdr.*"],
        "url": "https://example.com/", "authentication": { "method": "bearer", "token": sealed },
        "enabled": true, "generation": 3,
        "created": "2026-11-21T09:00:00Z", "updated": "2026-11-21T09:00:00Z",
    })
    .to_string()
}

pub(crate) fn window(next: Offset) -> String {
    let window = ringback_core::health::Window::new(3);
    let snapshot = Snapshot {
        version: 1,
        tenant: ringback_core::event::TenantId::parse("acme").unwrap(),
        next,
        window,
        repaired: false,
    };
    serde_json::to_string(&snapshot).unwrap()
}

/// Configures, delivers some and leaves some, two hours long.
pub(crate) fn live(source: &Source) {
    source.set(Role::Tenants, "acme", Some(r#"{"id":"acme"}"#));
    source.set(Role::Tenants, "gone", Some(r#"{"id":"gone"}"#));
    source.set(Role::Tenants, "gone", None);
    source.set(Role::Webhooks, "acme/cdr", Some(&webhook(&keys(KEY))));
    source.set(Role::Tokens, "token", Some(r#"{"hash":"…"}"#));
    source.append(Role::Health, Some(WEBHOOK), &[], "verdict 1");
    source.append(Role::Health, Some(WEBHOOK), &[], "verdict 2");
    let id = "0190b5f0-0000-7000-8000-00000000";
    for number in 0..2400 {
        let (id, subject) = (
            format!("{id}{number:04}"),
            format!("acme/call/{}", number % 7),
        );
        let mut headers = vec![
            ("ce_id", id.as_str()),
            ("ce_source", "pbx"),
            ("ce_type", "cdr.completed"),
            ("ce_tenant", "acme"),
        ];
        // One has no time, and one a clock that is ahead: what stands for it must not change.
        if number % 5 == 1 {
            headers.push(("ce_time", "2026-11-23T09:00:00.000Z"));
        } else if number % 5 > 1 {
            headers.push(("ce_time", "2026-11-20T09:00:00.000Z"));
            headers.push(("ce_unknown", "kept"));
        }
        source.append(
            CDR,
            Some(&subject),
            &headers,
            &format!("{{\"n\":{number}}}"),
        );
    }
    // The first are finished, then every second, in gaps of the metadata.
    source.work_off(group::CDR_EVENTS, |value| {
        let number: u32 = value[5..value.len() - 1].parse().unwrap();
        number < 300 || number.is_multiple_of(2)
    });
    for number in 0..40 {
        source.append(Role::Retry(1), None, &[], &format!("long {number}"));
        source.append(
            Role::Defer(4),
            None,
            &[("rb_deferrals", "3")],
            &format!("hour {number}"),
        );
        source.append(
            Role::Replay,
            Some(WEBHOOK),
            &[],
            &format!("replay {number}"),
        );
        source.append(
            Role::Parked,
            Some(WEBHOOK),
            &[],
            &format!("parked {number}"),
        );
        source.append(
            Role::Attempts,
            Some(WEBHOOK),
            &[],
            &format!("attempt {number}"),
        );
        source.append(Role::Attempts, Some(OTHER), &[], &format!("other {number}"));
    }
    source.settle();
    // The window of one webhook is ahead of what its group commits; the other has none.
    let attempts = source.log.topics().find(Role::Attempts).unwrap();
    let index = ringback_core::log::partition_of(WEBHOOK.as_bytes(), 2);
    let mut next = 0;
    each(&source.log, Role::Attempts, |record| {
        let of_it = record.partition
            == Partition {
                topic: attempts,
                index,
            };
        if of_it && record.value == Some(b"attempt 29") {
            next = record.offset + 1;
        }
    });
    source.append(Role::Windows, Some(WEBHOOK), &[], &window(next));
    source.work_off(group::ATTEMPTS, |value| {
        let number: u32 = value.rsplit_once(' ').unwrap().1.parse().unwrap();
        number < 20
    });
    source.work_off(group::DEFERRALS, |value| value.ends_with('5'));
    source.clock.advance(Duration::from_secs(100));
    for number in 0..40 {
        source.append(Role::Retry(0), None, &[], &format!("short {number}"));
    }
    source.work_off(group::RETRIES, |value| value.ends_with('3'));
    source.clock.advance(Duration::from_secs(20));
}

pub(crate) struct Target {
    pub(crate) sim: Sim,
    pub(crate) topics: Arc<Topics>,
}

impl Target {
    pub(crate) fn new(seed: u64, clock: SimClock, topics: Arc<Topics>) -> Self {
        let options = SimOptions {
            seed,
            clock,
            session: Duration::ZERO,
            ..SimOptions::default()
        };
        let sim = Sim::new(options).unwrap();
        let target = Self { sim, topics };
        target.open().create_topics().unwrap();
        target
    }

    pub(crate) fn open(&self) -> SimLog {
        self.sim.open(self.topics.clone())
    }
}
