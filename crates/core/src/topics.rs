//! The table of topics: the one place their names, keys, partitions and retention come from.
//! Creation, checks, documentation and Helm are generated from it.

mod config;
pub mod group;

use std::sync::Arc;
use std::time::Duration;

use crate::catalogue::Family;
use crate::time::{duration_label, parse_duration};

pub use config::TopicsConfig;

const DAY: Duration = Duration::from_secs(86_400);

/// What a topic is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Accepted events of one family.
    Events(Family),
    /// Our own notices (`webhook.*`) and the canary.
    SystemEvents,
    /// Failed deliveries that wait for tier `0..`, see [`crate::schedule::Schedule`].
    Retry(usize),
    /// Deliveries put off without an attempt, rung `0..`.
    Defer(usize),
    /// Deliveries that a person asked for: replays and test events.
    Replay,
    /// Deliveries that ended without success.
    Parked,
    /// One record per attempt.
    Attempts,
    /// Configuration: tenants.
    Tenants,
    /// Configuration: webhooks.
    Webhooks,
    /// Configuration: API tokens.
    Tokens,
    /// Configuration: people's accounts, and sessions that have ended.
    Accounts,
    /// When tokens were used last.
    Uses,
    /// Replays that were asked for, and how far they are.
    Jobs,
    /// Who changed what.
    Audit,
    /// What is no longer to be shown.
    Erasures,
    /// Verdicts about webhooks.
    Health,
    /// Snapshots of the windows that verdicts are made from.
    Windows,
    /// Foreign records of source `0..` of [`TopicsConfig::raw`], to be made events.
    Raw(usize),
}

/// How a topic forgets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cleanup {
    /// Records are dropped when they are older than this.
    Delete {
        /// How long a record is kept.
        retention: Duration,
    },
    /// The newest record of each key is kept for good.
    Compact,
}

/// What a topic's records are keyed by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyedBy {
    /// `tenant/subject`, so that one call stays in one partition.
    TenantSubject,
    /// The tenant.
    Tenant,
    /// The webhook's id.
    Webhook,
    /// The configuration record's own key.
    Id,
    /// No key: spread evenly.
    Nothing,
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    /// What it is for.
    pub role: Role,
    /// Name without the prefix: `retry.32s`.
    pub name: String,
    /// Name with the prefix, as it is called in the log: `ringback.retry.32s`.
    pub full_name: String,
    /// Number of partitions.
    pub partitions: u32,
    /// How it forgets.
    pub cleanup: Cleanup,
    /// What its records are keyed by.
    pub key: KeyedBy,
    /// The components that write it.
    pub writer: &'static str,
    /// The components that read it.
    pub readers: &'static str,
}

/// A row of [`Topics`]; cheap to copy and compare.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TopicId(u16);

impl TopicId {
    /// The row's position in the table.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The rungs of deferral, shortest first.
pub const DEFER_RUNGS: [Duration; 5] = [
    Duration::from_secs(2),
    Duration::from_secs(15),
    Duration::from_secs(120),
    Duration::from_secs(900),
    Duration::from_secs(3600),
];

/// The table of topics of one installation.
#[derive(Debug)]
pub struct Topics {
    specs: Vec<TopicSpec>,
    replication: u16,
    tiers: Vec<Duration>,
}

/// The tiers among these full names of topics that the schedule does not have (any more): what waits
/// there is still due, so they are read until retention has emptied them.
pub fn retired_tiers<'a>(
    config: &TopicsConfig,
    tiers: &[Duration],
    names: impl IntoIterator<Item = &'a str>,
) -> Vec<Duration> {
    let tier = |name: &str| {
        let label = name.strip_prefix(&config.prefix)?.strip_prefix("retry.")?;
        let tier = parse_duration(label).ok()?;
        (duration_label(tier) == label && !tiers.contains(&tier)).then_some(tier)
    };
    let mut retired: Vec<_> = names.into_iter().filter_map(tier).collect();
    retired.sort_unstable();
    retired
}

impl Topics {
    /// The table for these settings and these tiers: those of the schedule in its order, then
    /// [`retired_tiers`].
    pub fn new(config: &TopicsConfig, tiers: &[Duration]) -> Arc<Self> {
        let retention = config.retention;
        let work = Cleanup::Delete { retention };
        let events = config.event_partitions;
        let others = config.work_partitions;
        let mut specs = Vec::new();
        let mut row = |role, name: String, partitions, cleanup, key, writer, readers| {
            let full_name = format!("{}{name}", config.prefix);
            let spec = TopicSpec {
                role,
                name,
                full_name,
                partitions,
                cleanup,
                key,
                writer,
                readers,
            };
            specs.push(spec);
        };
        for family in Family::ALL {
            let name = format!("events.{family}");
            let key = KeyedBy::TenantSubject;
            row(
                Role::Events(family),
                name,
                events,
                work,
                key,
                "producer",
                "dispatcher",
            );
        }
        let name = "events.system".to_owned();
        row(
            Role::SystemEvents,
            name,
            1,
            work,
            KeyedBy::Tenant,
            "metrics",
            "dispatcher, admin",
        );
        for (index, tier) in tiers.iter().enumerate() {
            let name = format!("retry.{}", duration_label(*tier));
            let key = KeyedBy::Nothing;
            row(
                Role::Retry(index),
                name,
                others,
                work,
                key,
                "dispatcher",
                "dispatcher",
            );
        }
        for (index, rung) in DEFER_RUNGS.iter().enumerate() {
            let name = format!("defer.{}", duration_label(*rung));
            let key = KeyedBy::Nothing;
            row(
                Role::Defer(index),
                name,
                others,
                work,
                key,
                "dispatcher",
                "dispatcher",
            );
        }
        let two_weeks = Cleanup::Delete {
            retention: 2 * retention,
        };
        let by_webhook = KeyedBy::Webhook;
        row(
            Role::Replay,
            "replay".into(),
            others,
            two_weeks,
            by_webhook,
            "admin",
            // The administration looks up what it has asked for already.
            "dispatcher, admin",
        );
        row(
            Role::Parked,
            "parked".into(),
            others,
            work,
            by_webhook,
            // The producer parks what stands on `raw.*` and makes no event.
            match config.raw.is_empty() {
                true => "dispatcher",
                false => "dispatcher, producer",
            },
            "admin",
        );
        let readers = "metrics, admin";
        row(
            Role::Attempts,
            "attempts".into(),
            events,
            work,
            by_webhook,
            "dispatcher",
            readers,
        );
        for (role, name, readers) in [
            (Role::Tenants, "tenants", "all"),
            (Role::Webhooks, "webhooks", "all"),
            (Role::Tokens, "tokens", "producer, admin"),
            // Hashes of passwords: nobody else reads it.
            (Role::Accounts, "accounts", "admin"),
            (Role::Jobs, "jobs", "admin"),
        ] {
            row(
                role,
                name.into(),
                1,
                Cleanup::Compact,
                KeyedBy::Id,
                "admin",
                readers,
            );
        }
        row(
            Role::Uses,
            "uses".into(),
            1,
            Cleanup::Compact,
            KeyedBy::Id,
            "producer, admin",
            "admin",
        );
        let year = Cleanup::Delete {
            retention: 365 * DAY,
        };
        row(
            Role::Audit,
            "audit".into(),
            1,
            year,
            KeyedBy::Tenant,
            "admin",
            "admin",
        );
        // Longer than whatever they are about.
        let outliving = Cleanup::Delete {
            retention: 3 * retention,
        };
        row(
            Role::Erasures,
            "erasures".into(),
            1,
            outliving,
            KeyedBy::Tenant,
            "admin",
            "admin",
        );
        let readers = "dispatcher, admin";
        row(
            Role::Health,
            "health".into(),
            1,
            Cleanup::Compact,
            by_webhook,
            "metrics",
            readers,
        );
        let compact = Cleanup::Compact;
        row(
            Role::Windows,
            "windows".into(),
            events,
            compact,
            by_webhook,
            "metrics",
            // The administration shows what a verdict is made from.
            "metrics, admin",
        );
        for (index, source) in config.raw.iter().enumerate() {
            let key = KeyedBy::Nothing;
            row(
                Role::Raw(index),
                format!("raw.{source}"),
                events,
                work,
                key,
                "outside",
                "producer",
            );
        }
        Arc::new(Self {
            specs,
            replication: config.replication,
            tiers: tiers.to_vec(),
        })
    }

    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = (TopicId, &TopicSpec)> {
        self.specs
            .iter()
            .enumerate()
            .map(|(index, spec)| (id_of(index), spec))
    }

    /// One row.
    pub fn spec(&self, topic: TopicId) -> &TopicSpec {
        &self.specs[topic.index()]
    }

    /// The row with this role. `None` for a tier or rung that this table does not have.
    pub fn find(&self, role: Role) -> Option<TopicId> {
        self.specs
            .iter()
            .position(|spec| spec.role == role)
            .map(id_of)
    }

    /// The row with this full name.
    pub fn find_name(&self, full_name: &str) -> Option<TopicId> {
        self.specs
            .iter()
            .position(|spec| spec.full_name == full_name)
            .map(id_of)
    }

    /// The partitions of a topic.
    pub fn partitions(&self, topic: TopicId) -> impl Iterator<Item = Partition> {
        (0..self.spec(topic).partitions).map(move |index| Partition { topic, index })
    }

    /// The waits that have a topic, as the deployment's schedule orders them.
    pub fn tiers(&self) -> &[Duration] {
        &self.tiers
    }

    /// Copies of each partition (Kafka).
    pub fn replication(&self) -> u16 {
        self.replication
    }

    /// The topic with the shortest delay of at least `wait`; the longest, when none is that long.
    pub fn delayed_by(&self, wait: Duration) -> Option<TopicId> {
        let delays = || {
            self.iter()
                .map(|(topic, _)| (self.delay(topic), topic))
                .filter(|(delay, _)| !delay.is_zero())
        };
        let enough = delays().filter(|(delay, _)| *delay >= wait).min();
        enough.or_else(|| delays().max()).map(|(_, topic)| topic)
    }

    /// How long a record of this topic waits before it is due; zero where nothing waits.
    pub fn delay(&self, topic: TopicId) -> Duration {
        match self.spec(topic).role {
            Role::Retry(tier) => self.tiers[tier],
            Role::Defer(rung) => DEFER_RUNGS[rung],
            _ => Duration::ZERO,
        }
    }
}

fn id_of(index: usize) -> TopicId {
    // The table has some thirty rows; a u16 is never exceeded.
    TopicId(u16::try_from(index).unwrap_or(u16::MAX))
}

/// One partition of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Partition {
    /// The topic's row.
    pub topic: TopicId,
    /// `0..TopicSpec::partitions`.
    pub index: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;

    #[test]
    fn names_are_those_of_the_design() {
        let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let names: Vec<_> = topics
            .iter()
            .map(|(_, spec)| spec.full_name.as_str())
            .collect();
        assert_eq!(names.len(), 27);
        for name in ["events.cdr", "retry.17m", "defer.15m", "parked", "windows"] {
            let full = format!("ringback.{name}");
            assert!(names.contains(&full.as_str()), "{full} is missing");
        }
    }

    #[test]
    fn names_and_roles_are_unique() {
        let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        for (id, spec) in topics.iter() {
            assert_eq!(topics.find(spec.role), Some(id));
            assert_eq!(topics.find_name(&spec.full_name), Some(id));
        }
    }

    /// Sources of foreign records come last: no other topic's row depends on them.
    #[test]
    fn raw_topics_come_from_the_configuration() {
        let config = TopicsConfig {
            raw: vec!["asterisk".to_owned(), "kamailio".to_owned()],
            ..TopicsConfig::default()
        };
        let topics = Topics::new(&config, Schedule::default().tiers());
        let without = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let topic = topics.find_name("ringback.raw.kamailio").unwrap();
        assert_eq!(topics.spec(topic).role, Role::Raw(1));
        assert_eq!(topics.partitions(topic).count(), 12);
        assert_eq!(topics.iter().count(), without.iter().count() + 2);
        for (id, spec) in without.iter() {
            assert_eq!(topics.spec(id).full_name, spec.full_name);
        }
    }

    #[test]
    fn tiers_that_the_schedule_lost_are_still_read() {
        let config = TopicsConfig::default();
        let schedule = Schedule::default();
        let names = [
            "ringback.retry.32s",
            "ringback.retry.5m",
            "ringback.retry.300s",
            "ringback.retry.x",
            "other.retry.7m",
            "ringback.defer.15s",
        ];
        let retired = retired_tiers(&config, schedule.tiers(), names);
        assert_eq!(retired, [Duration::from_secs(300)]);
        let topics = Topics::new(&config, &[schedule.tiers(), &retired].concat());
        let old = topics.find_name("ringback.retry.5m").unwrap();
        assert_eq!(topics.delay(old), Duration::from_secs(300));
        assert_eq!(topics.spec(old).role, Role::Retry(schedule.tiers().len()));
    }

    #[test]
    fn delays_come_from_the_schedule() {
        let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let tier = topics.find(Role::Retry(3)).unwrap();
        assert_eq!(topics.delay(tier), Duration::from_secs(52 * 60));
        assert_eq!(topics.find(Role::Retry(5)), None);
        assert_eq!(
            topics.delay(topics.find(Role::Parked).unwrap()),
            Duration::ZERO
        );
    }

    #[test]
    fn a_wait_is_put_on_the_shortest_delay_that_holds_it() {
        let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let by = |wait| topics.delay(topics.delayed_by(wait).unwrap());
        assert_eq!(by(Duration::ZERO), DEFER_RUNGS[0]);
        assert_eq!(by(DEFER_RUNGS[1]), DEFER_RUNGS[1]);
        let more = DEFER_RUNGS[1] + Duration::from_millis(1);
        assert_eq!(by(more), Duration::from_secs(32));
        assert_eq!(by(Duration::MAX), Duration::from_secs(2 * 3600));
    }

    #[test]
    fn the_table_is_as_configured() {
        let config = TopicsConfig {
            replication: 2,
            ..TopicsConfig::default()
        };
        assert_eq!(config.retention, Duration::from_secs(604_800));
        let tiers = [Duration::from_secs(5), Duration::from_secs(9)];
        let topics = Topics::new(&config, &tiers);
        assert_eq!((topics.replication(), topics.tiers()), (2, &tiers[..]));
        let indices = topics.iter().map(|(topic, _)| topic.index());
        assert!(indices.eq(0..topics.iter().count()));
        let parked = topics.find(Role::Parked).unwrap();
        let partitions = topics.partitions(parked).map(|partition| partition.index);
        assert!(partitions.eq(0..config.work_partitions));
        let all = topics.partitions(parked);
        assert!(all.into_iter().all(|partition| partition.topic == parked));
    }
}
