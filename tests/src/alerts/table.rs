//! The table: for each alert of the rules the fault that raises it. A new alert needs a row here, or the
//! test fails; `src/bin/alerts.rs` fails also when a row was not tried. Where no fault fits, a new one is a
//! variant of [`Fault`], its words in [`Fault::told`], and a trial in `local` or `kafka`.

use std::collections::BTreeSet;

/// What is done to an installation, and undone. One fault may raise several alerts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    ReceiversFail,
    ProxyAway,
    DatabaseLocked,
    ReceiversHang,
    ReceiversSlow,
    CertificateOld,
    IntruderInGroup,
    DispatcherGone,
    RecordsDeleted,
    GarbageInConfiguration,
    DispatcherPaused,
    TopicChanged,
    PositionsRefused,
    KafkaAway,
    CanaryUnreachable,
    CanaryLockedOut,
    CanaryGone,
    ServersStandStill,
    AttemptsDeleted,
}

/// Alerts that stay for hours after the mending, because the shortest time that they look at is so long;
/// promtool shows that they end (tests/deploy/alerts.yaml).
pub const STAYING: [&str; 2] = [
    "RingbackIngestBudgetSlowBurn",
    "RingbackDeliveryBudgetSlowBurn",
];

/// Each alert, and what raises it.
pub const TABLE: &[(&str, Fault)] = &[
    ("RingbackNotKeepingUp", Fault::ReceiversHang),
    ("RingbackTierLate", Fault::ReceiversHang),
    ("RingbackPartitionStuck", Fault::ReceiversHang),
    ("RingbackPartitionsUnowned", Fault::IntruderInGroup),
    ("RingbackNoDispatcher", Fault::DispatcherGone),
    ("RingbackNoIngest", Fault::KafkaAway),
    ("RingbackNoAdmin", Fault::ServersStandStill),
    ("RingbackNoMetrics", Fault::ServersStandStill),
    ("RingbackErrorRatioHigh", Fault::ReceiversFail),
    ("RingbackOwnFaults", Fault::ProxyAway),
    ("RingbackParkedGrowing", Fault::ReceiversFail),
    ("RingbackWebhooksDisabled", Fault::ReceiversFail),
    // Retention that drops what nobody has read is DL10, the one that is not our code's doing.
    ("RingbackInvariantViolated", Fault::RecordsDeleted),
    ("RingbackRecordsLost", Fault::RecordsDeleted),
    ("RingbackAttemptsLost", Fault::AttemptsDeleted),
    ("RingbackConfigurationStale", Fault::KafkaAway),
    (
        "RingbackConfigurationUnreadable",
        Fault::GarbageInConfiguration,
    ),
    ("RingbackTopicMisconfigured", Fault::TopicChanged),
    ("RingbackAppendsFailing", Fault::TopicChanged),
    ("RingbackCommitsFailing", Fault::PositionsRefused),
    ("RingbackRebalancing", Fault::DispatcherPaused),
    ("RingbackProjectionBehind", Fault::DatabaseLocked),
    ("RingbackCertificateExpiring", Fault::CertificateOld),
    ("RingbackIngestBudgetBurning", Fault::KafkaAway),
    ("RingbackIngestBudgetSlowBurn", Fault::KafkaAway),
    ("RingbackDeliveryBudgetBurning", Fault::ReceiversSlow),
    ("RingbackDeliveryBudgetSlowBurn", Fault::ReceiversSlow),
    ("RingbackCanaryFailing", Fault::CanaryUnreachable),
    ("RingbackCanarySetUpFailed", Fault::CanaryLockedOut),
    ("RingbackNoCanary", Fault::CanaryGone),
];

impl Fault {
    /// What it is, and how it is mended.
    pub fn told(self) -> [&'static str; 2] {
        match self {
            Self::ReceiversFail => [
                "receivers answer 500, one of them 404",
                "they answer 200 again, and the webhooks are enabled",
            ],
            Self::ProxyAway => [
                "the proxy that all requests go through is away",
                "the proxy is back",
            ],
            Self::DatabaseLocked => [
                "somebody else holds the write lock of the projection's database",
                "the lock is given back",
            ],
            Self::ReceiversHang => [
                "receivers take connections and never answer, first attempts and retries alike",
                "they answer",
            ],
            Self::ReceiversSlow => [
                "receivers take some seconds to answer",
                "they answer at once",
            ],
            Self::CertificateOld => [
                "the ingest's certificate is replaced by one with a day left",
                "it is replaced by one with a month left",
            ],
            Self::IntruderInGroup => [
                "a foreign program joins the dispatchers' consumer group",
                "it leaves",
            ],
            Self::DispatcherGone => [
                "the only dispatcher is killed",
                "another one is started, at another address",
            ],
            Self::RecordsDeleted => [
                "while no dispatcher runs, the records of events that wait are deleted; one starts",
                "nothing more is deleted",
            ],
            Self::GarbageInConfiguration => [
                "a record that is none is written to the topic of webhooks",
                "it is removed",
            ],
            Self::DispatcherPaused => [
                "the dispatcher stands still beyond its session, again and again",
                "it runs",
            ],
            Self::TopicChanged => [
                "the topic of attempts is changed: more copies in sync, and records of a few bytes",
                "it is put back",
            ],
            Self::PositionsRefused => [
                "the topic of the groups' positions takes only records of a few bytes",
                "it is put back",
            ],
            Self::CanaryUnreachable => [
                "the way to the canary's receiver swallows everything",
                "it lets everything through",
            ],
            Self::CanaryLockedOut => [
                "the canary's way to the administration swallows everything",
                "it lets everything through",
            ],
            Self::CanaryGone => ["the canary is killed", "it is started again"],
            Self::ServersStandStill => [
                "the administration and what judges webhooks stand still",
                "they run",
            ],
            Self::AttemptsDeleted => [
                "while nobody counts attempts, their records are deleted; then somebody does",
                "nothing more is deleted",
            ],
            Self::KafkaAway => ["nothing gets through to Kafka", "everything gets through"],
        }
    }

    /// The alerts that it raises.
    pub fn alerts(self) -> impl Iterator<Item = &'static str> {
        let rows = TABLE.iter().filter(move |(_, fault)| *fault == self);
        rows.map(|(alert, _)| *alert)
    }
}

/// What is wrong with the table, compared with the alerts that there are.
pub fn problems(alerts: &[&str]) -> Vec<String> {
    let rules: BTreeSet<_> = alerts.iter().copied().collect();
    let table: BTreeSet<_> = TABLE.iter().map(|(alert, _)| *alert).collect();
    let missing = rules.difference(&table);
    let missing = missing.map(|alert| format!("{alert} has no fault in tests/src/alerts/table.rs"));
    let dead = table.difference(&rules);
    let dead = dead.map(|alert| format!("{alert} of tests/src/alerts/table.rs is no alert"));
    missing.chain(dead).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::rules::alerts;

    #[test]
    fn every_alert_has_its_fault() {
        let rules = include_str!("../../../helm/ringback/files/rules.yaml");
        assert_eq!(problems(&alerts(rules)), [] as [&str; 0]);
        let more = format!("{rules}      - alert: RingbackNew\n");
        let told = problems(&alerts(&more));
        assert_eq!(
            told,
            ["RingbackNew has no fault in tests/src/alerts/table.rs"]
        );
        assert_eq!(problems(&[]).len(), TABLE.len());
    }
}
