//! Metrics: the one table of names, and the registry of a process.
//!
//! Labels have few values: never a tenant or a webhook, of which there may be 100,000.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder,
};
use ringback_core::health::State;
use ringback_core::invariant::{Invariant, violations};
use ringback_core::record::Reason;

use crate::inventory::{BUILD, START, VIOLATED};

macro_rules! table {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal [$($label:literal),*] $help:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name {
            $(#[doc = $help] $variant,)+
        }

        impl $name {
            /// All rows of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name in the exposition.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// What it counts or measures.
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => $help),+ }
            }

            /// Its labels, in the order in which values are given.
            pub fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label),*]),+ }
            }
        }
    };
}

table! {
    /// What only grows.
    Counter {
        EventsAccepted = "ringback_events_accepted_total" ["family"]
            "Events accepted: acknowledged by the log",
        EventsRefused = "ringback_events_refused_total" ["code"]
            "Events refused, by the reason's code",
        RawRecords = "ringback_raw_records_total" ["source", "outcome"]
            "Foreign records: accepted as events, left out by the mapping, or parked",
        Unrouted = "ringback_events_unrouted_total" []
            "Events that no webhook is subscribed to",
        Begun = "ringback_deliveries_begun_total" []
            "Deliveries that events and replays were made; what a crash left unfinished is made again",
        Attempts = "ringback_attempts_total" ["outcome", "attempt"]
            "Attempts, by outcome and number of the attempt",
        Delivered = "ringback_deliveries_delivered_total" []
            "Deliveries that arrived",
        Retried = "ringback_deliveries_retried_total" ["topic"]
            "Failed deliveries put on a retry tier",
        Deferred = "ringback_deliveries_deferred_total" ["topic"]
            "Deliveries put off without an attempt",
        Parked = "ringback_deliveries_parked_total" ["reason"]
            "Deliveries that ended without success",
        LateResults = "ringback_results_late_total" []
            "Attempts that ended after their partition was taken away",
        AppendsFailed = "ringback_appends_failed_total" []
            "Appends of results that the log did not acknowledge",
        AppendsRetried = "ringback_appends_retried_total" []
            "Appends of results that were tried again",
        Spans = "ringback_spans_total" ["result"]
            "Spans of traces: made, exported to the collector, or failed; made and neither is waiting or was dropped",
        CommitFailures = "ringback_commit_failures_total" []
            "Positions of partitions whose commit failed; they are committed again",
        Rebalances = "ringback_rebalances_total" ["event"]
            "Partitions assigned, revoked or lost",
        RecordsLost = "ringback_records_lost_total" ["topic"]
            "Offsets that retention dropped before they were read (DL10): of `attempts` statistics, of any other topic events",
        RecordsIgnored = "ringback_records_ignored_total" ["topic"]
            "Records that could not be read and need no parking: attempts and windows, which are counted without them",
        AttemptsCounted = "ringback_health_attempts_total" []
            "Attempts read to judge the health of their webhooks; after a crash, some of them again",
        Verdicts = "ringback_health_verdicts_total" ["state"]
            "Verdicts on webhooks that changed, by the new one",
        KafkaRequests = "ringback_kafka_requests_total" ["client"]
            "Requests sent to Kafka's brokers, by kind of client",
        KafkaConnections = "ringback_kafka_connections_total" ["client"]
            "Connections made to Kafka's brokers, by kind of client; they break when it keeps growing",
        ProjectionRows = "ringback_projection_rows_total" ["table"]
            "Rows that the projection wrote to its database",
        ProjectionSampledOut = "ringback_projection_sampled_out_total" []
            "Successful attempts that the projection counted and did not keep, because there were too many",
        ProjectionLost = "ringback_projection_records_lost_total" []
            "Records that retention dropped before they were projected",
        ProjectionErrors = "ringback_projection_errors_total" ["of"]
            "Turns of the projection that failed, by what failed: the database or the log",
        SignIns = "ringback_sign_ins_total" ["result"]
            "Tries to sign in to the administration: ok or refused",
        Mail = "ringback_mail_total" ["outcome"]
            "Mails about webhooks: sent, refused by the server, or put off while it is away; and notices that expired before they could be mailed",
        CanaryEvents = "ringback_canary_events_total" ["family", "outcome"]
            "Events of the canary: accepted or refused by the ingest; received by it, a duplicate, lost because it did not come within an hour or its webhook was off, or a stray that was not waited for",
        TlsReloads = "ringback_tls_reloads_total" ["server", "result"]
            "Certificates of our own servers that were replaced: ok, or failed when the one of before stays",
        HttpRequests = "ringback_http_requests_total" ["server", "status"]
            "Requests to our own servers",
    }
}

table! {
    /// What goes up and down.
    Gauge {
        Ready = "ringback_ready" ["component"]
            "Whether this process is ready, as `/readyz` says it",
        InFlight = "ringback_requests_in_flight" []
            "Requests to webhooks in flight",
        Lanes = "ringback_lanes_active" []
            "Webhooks with something in flight or queued",
        LanesSaturated = "ringback_lanes_saturated" []
            "Webhooks with as much in flight as their receiver takes, and more waiting",
        BreakersOpen = "ringback_breakers_open" []
            "Webhooks whose receiver let one request after the other time out, and is only asked now and then",
        SlotsUsed = "ringback_intake_slots_used" ["class"]
            "Deliveries taken in and not settled, by class of work",
        LagRecords = "ringback_lag_records" ["group", "topic"]
            "Records that are not finished, in the partitions of this process",
        OldestWaiting = "ringback_oldest_waiting_seconds" ["group", "topic"]
            "For how long the oldest unfinished record has been due, in the partitions of this process; exact to 5 s",
        PartitionStalled = "ringback_partition_stalled_seconds" ["group"]
            "For how long the lowest unfinished record of a partition has been due and not moved; the longest of this process",
        PartitionsOwned = "ringback_partitions_owned" ["group"]
            "Partitions that this process works on",
        Partitions = "ringback_partitions" ["group"]
            "Partitions that the members of the group share",
        TopicsDiffering = "ringback_topics_differing" []
            "Settings of topics that are not as they must be; compared every `dispatcher.topic_check_interval`",
        WebhooksHealth = "ringback_webhooks_health" ["state"]
            "Webhooks with recent attempts, by verdict, in the partitions of this process",
        ConfigUnreadable = "ringback_config_records_unreadable" []
            "Configuration records that cannot be used and are the newest of their keys; what they are about stays as it was",
        KafkaRoundTrip = "ringback_kafka_round_trip_seconds" ["client"]
            "Within what 99 % of requests were answered by the slowest of Kafka's brokers; waiting for something to fetch counts",
        KafkaThrottled = "ringback_kafka_throttled_seconds" ["client"]
            "For how long one of Kafka's brokers put requests off because of a quota, at most",
        KafkaWaiting = "ringback_kafka_requests_waiting" ["client"]
            "Requests to Kafka's brokers that wait to be sent or answered",
        KafkaQueued = "ringback_kafka_records_queued" ["client"]
            "Records on their way to Kafka's brokers that are not acknowledged",
        ProjectionLag = "ringback_projection_lag_records" []
            "Records that are not projected yet; 0 where another process projects",
        ProjectionAge = "ringback_projection_age_seconds" []
            "For how long the projection has not had all that the log has; until it had it once, since the start",
        CanaryOldest = "ringback_canary_oldest_seconds" ["family"]
            "For how long the oldest event of the canary that was accepted has not come; 0 when all have",
        CanarySetUpFailed = "ringback_canary_setup_failed" ["step"]
            "Whether the canary last failed to look after what it needs: its tenant, webhook or token; its log says why",
        TlsExpiry = "ringback_tls_certificate_expiry_seconds" ["server"]
            "When the certificate of one of our own servers expires, in seconds since 1970",
        ConfigAgeSeconds = "ringback_config_age_seconds" []
            "Time since the configuration was known to be current",
    }
}

table! {
    /// Distributions, in seconds.
    Histogram {
        DeliverySeconds = "ringback_delivery_seconds" []
            "From acceptance to delivery at the first attempt",
        AttemptSeconds = "ringback_attempt_seconds" []
            "Duration of attempts",
        LatenessSeconds = "ringback_retry_lateness_seconds" []
            "How long after it was due a waiting delivery was taken up",
        CanarySeconds = "ringback_canary_seconds" ["family"]
            "From the acceptance of an event of the canary to its arrival there, all attempts counted",
        HttpSeconds = "ringback_http_request_seconds" ["server"]
            "Duration of requests to our own servers",
    }
}

/// From half a millisecond to the longest request.
const BUCKETS: [f64; 15] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
];

/// The metrics of a process. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    component: &'static str,
    registry: Registry,
    counters: Vec<IntCounterVec>,
    gauges: Vec<GaugeVec>,
    histograms: Vec<HistogramVec>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A set in which nothing has been counted, of no component: for tools and tests.
    pub fn new() -> Self {
        Self::of("")
    }

    /// The set of a process that runs this component, or `up`, which is all of them.
    pub fn of(component: &'static str) -> Self {
        let registry = Registry::new();
        let counters = Counter::ALL.iter().map(|row| {
            let opts = Opts::new(row.name(), row.help());
            registered(&registry, IntCounterVec::new(opts, row.labels()))
        });
        let counters: Vec<_> = counters.collect();
        let gauges = Gauge::ALL.iter().map(|row| {
            let opts = Opts::new(row.name(), row.help());
            registered(&registry, GaugeVec::new(opts, row.labels()))
        });
        let gauges = gauges.collect();
        let histograms = Histogram::ALL.iter().map(|row| {
            let opts = HistogramOpts::new(row.name(), row.help()).buckets(BUCKETS.into());
            registered(&registry, HistogramVec::new(opts, row.labels()))
        });
        let histograms: Vec<_> = histograms.collect();
        // What has no labels is there from the start, as 0: an alarm on its increase sees the first.
        for (vec, row) in counters.iter().zip(Counter::ALL) {
            if row.labels().is_empty() {
                vec.with_label_values::<&str>(&[]).inc_by(0);
            }
        }
        // The same for those of which an alarm asks, where all values of their labels are known.
        for (counter, value) in known_labels() {
            counters[counter as usize]
                .with_label_values(&[value])
                .inc_by(0);
        }
        for (vec, row) in histograms.iter().zip(Histogram::ALL) {
            if row.labels().is_empty() {
                vec.with_label_values::<&str>(&[]);
            }
        }
        registered(&registry, Ok(Violations));
        describe_process(&registry, component);
        Self(Arc::new(Inner {
            component,
            registry,
            counters,
            gauges,
            histograms,
        }))
    }

    /// Counts one.
    pub fn inc(&self, counter: Counter, labels: &[&str]) {
        self.add(counter, labels, 1);
    }

    /// Counts several.
    pub fn add(&self, counter: Counter, labels: &[&str], count: u64) {
        match self.0.counters[counter as usize].get_metric_with_label_values(labels) {
            Ok(metric) => metric.inc_by(count),
            Err(error) => debug_assert!(false, "{}: {error}", counter.name()),
        }
    }

    /// The count so far.
    pub fn count(&self, counter: Counter, labels: &[&str]) -> u64 {
        self.0.counters[counter as usize]
            .get_metric_with_label_values(labels)
            .map_or(0, |metric| metric.get())
    }

    /// The count so far, whatever its labels.
    pub fn total(&self, counter: Counter) -> u64 {
        let families = self.0.counters[counter as usize].collect();
        let counts = families.iter().flat_map(MetricFamily::get_metric);
        counts.map(|one| one.get_counter().get_value() as u64).sum()
    }

    /// Sets a gauge.
    pub fn set(&self, gauge: Gauge, labels: &[&str], value: f64) {
        match self.0.gauges[gauge as usize].get_metric_with_label_values(labels) {
            Ok(metric) => metric.set(value),
            Err(error) => debug_assert!(false, "{}: {error}", gauge.name()),
        }
    }

    /// Adds an observation, in seconds.
    pub fn observe(&self, histogram: Histogram, labels: &[&str], seconds: f64) {
        match self.0.histograms[histogram as usize].get_metric_with_label_values(labels) {
            Ok(metric) => metric.observe(seconds),
            Err(error) => debug_assert!(false, "{}: {error}", histogram.name()),
        }
    }

    /// Says whether this process is ready.
    pub fn set_ready(&self, ready: bool) {
        self.set(
            Gauge::Ready,
            &[self.0.component],
            f64::from(u8::from(ready)),
        );
    }

    /// All metrics in the text exposition format.
    pub fn expose(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.0.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written as text");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Counters of one label that are there from the start, with its values.
fn known_labels() -> impl Iterator<Item = (Counter, &'static str)> {
    let parked = Reason::ALL.map(|reason| (Counter::Parked, reason.as_str()));
    let verdicts = State::ALL.map(|state| (Counter::Verdicts, state.as_str()));
    let rebalances = ["assigned", "revoked", "lost"].map(|event| (Counter::Rebalances, event));
    parked.into_iter().chain(verdicts).chain(rebalances)
}

#[allow(clippy::expect_used)] // Names and labels are constants; a test makes them all.
fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> C {
    let collector = made.expect("the table of metrics is well-formed");
    registry
        .register(Box::new(collector.clone()))
        .expect("names are unique");
    collector
}

/// Which build this is, what it runs, and since when.
fn describe_process(registry: &Registry, component: &str) {
    let opts = Opts::new(BUILD.name, BUILD.help);
    let build = registered(registry, GaugeVec::new(opts, BUILD.labels));
    build
        .with_label_values(&[env!("CARGO_PKG_VERSION"), component])
        .set(1.0);
    let opts = Opts::new(START.name, START.help);
    let start = registered(registry, GaugeVec::new(opts, START.labels));
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    start
        .with_label_values::<&str>(&[])
        .set(now.map_or(0.0, |since| since.as_secs_f64()));
}

/// Violations are counted in `core`, which knows no metrics; they are fetched when somebody looks.
#[derive(Clone)]
struct Violations;

impl Violations {
    fn counters() -> prometheus::Result<IntCounterVec> {
        IntCounterVec::new(Opts::new(VIOLATED.name, VIOLATED.help), VIOLATED.labels)
    }
}

impl Collector for Violations {
    fn desc(&self) -> Vec<&Desc> {
        // Not registered by description: its one name is used nowhere else.
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(counters) = Self::counters() else {
            return Vec::new();
        };
        for invariant in Invariant::ALL {
            counters
                .with_label_values(&[invariant.as_str()])
                .inc_by(violations(invariant));
        }
        counters.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_used_and_is_exposed() {
        let metrics = Metrics::of("admin");
        let values = ["a", "b", "c"];
        for row in Counter::ALL {
            metrics.inc(*row, &values[..row.labels().len()]);
            assert!(row.name().ends_with("_total"), "{}", row.name());
        }
        for row in Gauge::ALL {
            metrics.set(*row, &values[..row.labels().len()], 1.0);
        }
        for row in Histogram::ALL {
            metrics.observe(*row, &values[..row.labels().len()], 0.1);
            assert!(row.name().ends_with("_seconds"), "{}", row.name());
        }
        let text = metrics.expose();
        let names = Counter::ALL.iter().map(|row| row.name());
        let names = names.chain(Gauge::ALL.iter().map(|row| row.name()));
        for name in names.chain(Histogram::ALL.iter().map(|row| row.name())) {
            assert!(name.starts_with("ringback_"));
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
        assert!(text.contains("# TYPE process_start_time_seconds gauge"));
        assert!(text.contains("ringback_build_info{component=\"admin\",version="));
        assert_eq!(metrics.count(Counter::Delivered, &[]), 1);
    }

    #[test]
    fn what_has_no_labels_is_there_from_the_start() {
        let text = Metrics::new().expose();
        assert!(
            text.contains("\nringback_deliveries_delivered_total 0\n"),
            "{text}"
        );
        assert!(
            text.contains("\nringback_delivery_seconds_count 0\n"),
            "{text}"
        );
    }

    /// An increase from nothing to ten is none to Prometheus.
    #[test]
    fn what_alarms_ask_for_is_there_from_the_start() {
        let text = Metrics::new().expose();
        for row in [
            r#"ringback_health_verdicts_total{state="disabled"} 0"#,
            r#"ringback_deliveries_parked_total{reason="exhausted"} 0"#,
            r#"ringback_rebalances_total{event="lost"} 0"#,
        ] {
            assert!(text.contains(&format!("\n{row}\n")), "{row}\n{text}");
        }
    }

    #[test]
    fn violations_are_shown_as_core_counted_them_however_often_one_looks() {
        let row = |text: &str| {
            let line = text.lines().find(|line| {
                line.starts_with("ringback_invariant_violations_total{invariant=\"DL9\"}")
            });
            line.unwrap()
                .rsplit(' ')
                .next()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        let metrics = Metrics::new();
        let before = row(&metrics.expose());
        ringback_core::invariant::count(Invariant::DL9);
        assert_eq!(row(&metrics.expose()), before + 1);
        assert_eq!(row(&metrics.expose()), before + 1);
    }

    /// Clones are one registry; two registries share nothing.
    #[test]
    fn clones_share_and_others_do_not() {
        let metrics = Metrics::new();
        metrics.clone().add(Counter::Unrouted, &[], 3);
        assert_eq!(metrics.count(Counter::Unrouted, &[]), 3);
        metrics.add(Counter::RecordsLost, &["attempts"], 2);
        metrics.add(Counter::RecordsLost, &["replay"], 5);
        assert_eq!(metrics.total(Counter::RecordsLost), 7);
        assert_eq!(Metrics::new().count(Counter::Unrouted, &[]), 0);
    }
}
