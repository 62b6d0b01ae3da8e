//! Consumer groups, and which topics they work off. Names are without the prefix of the deployment.

use super::Role;
use crate::catalogue::Family;

/// Dispatchers, first attempts of CDR events.
pub const CDR_EVENTS: &str = "dispatcher.events.cdr";
/// Dispatchers, first attempts of extension events.
pub const EXTENSION_EVENTS: &str = "dispatcher.events.extension";
/// Dispatchers, first attempts of resource events.
pub const RESOURCE_EVENTS: &str = "dispatcher.events.resource";
/// Dispatchers, first attempts of system events.
pub const SYSTEM_EVENTS: &str = "dispatcher.events.system";
/// Dispatchers, further attempts.
pub const RETRIES: &str = "dispatcher.retries";
/// Dispatchers, what was put off and what is replayed.
pub const DEFERRALS: &str = "dispatcher.deferrals";
/// All that a dispatcher is in. Each events topic has a group of its own, because Kafka's cooperative
/// protocol evens out how many partitions a member has in the whole group: in one group for all, the
/// busiest topic could stay with the oldest members (ADR 0015).
pub const DISPATCHER: [&str; 6] = [
    CDR_EVENTS,
    EXTENSION_EVENTS,
    RESOURCE_EVENTS,
    SYSTEM_EVENTS,
    RETRIES,
    DEFERRALS,
];
/// Metrics.
pub const ATTEMPTS: &str = "metrics.attempts";
/// Administrations, notices to be mailed. Beside the dispatchers', so a move does not carry it.
pub const NOTICES: &str = "admin.notices";
/// Producers, foreign records.
pub const RAW: &str = "producer.raw";

impl Role {
    /// The consumer group that works the topic off, record by record; `None` for topics that are
    /// only looked up or followed.
    pub fn group(self) -> Option<&'static str> {
        match self {
            Self::Events(Family::Cdr) => Some(CDR_EVENTS),
            Self::Events(Family::Extension) => Some(EXTENSION_EVENTS),
            Self::Events(Family::Resource) => Some(RESOURCE_EVENTS),
            Self::SystemEvents => Some(SYSTEM_EVENTS),
            Self::Retry(_) => Some(RETRIES),
            Self::Defer(_) | Self::Replay => Some(DEFERRALS),
            Self::Attempts => Some(ATTEMPTS),
            Self::Raw(_) => Some(RAW),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::topics::{DEFER_RUNGS, Topics, TopicsConfig};

    #[test]
    fn every_topic_of_work_has_a_group_and_every_events_topic_one_of_its_own() {
        let config = TopicsConfig {
            raw: vec!["pbx".to_owned()],
            ..TopicsConfig::default()
        };
        let topics = Topics::new(&config, &[Duration::from_secs(32)]);
        let of = |group| {
            let mut names: Vec<_> = topics
                .iter()
                .filter(|(_, spec)| spec.role.group() == Some(group))
                .map(|(_, spec)| spec.name.as_str())
                .collect();
            names.sort_unstable();
            names
        };
        let groups = [
            "dispatcher.events.cdr",
            "dispatcher.events.extension",
            "dispatcher.events.resource",
            "dispatcher.events.system",
            "dispatcher.retries",
            "dispatcher.deferrals",
        ];
        assert_eq!(super::DISPATCHER, groups);
        for group in &groups[..4] {
            assert_eq!(of(group), [group.trim_start_matches("dispatcher.")]);
        }
        assert_eq!(of(super::RETRIES), ["retry.32s"]);
        let deferrals = of(super::DEFERRALS);
        assert_eq!(deferrals.len(), 1 + DEFER_RUNGS.len());
        assert!(deferrals.contains(&"replay"));
        assert_eq!(of(super::ATTEMPTS), ["attempts"]);
        assert_eq!(of(super::RAW), ["raw.pbx"]);
        let parked = topics.find(Role::Parked).unwrap();
        assert_eq!(topics.spec(parked).role.group(), None);
    }
}
