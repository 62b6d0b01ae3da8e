//! Metrics: the one table of names, and the registry of a process.
//!
//! Labels have few values: never a tenant or a webhook, of which there may be 100,000.

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry,
    TextEncoder,
};
use ringback_core::invariant::{Invariant, violations};

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
        Unrouted = "ringback_events_unrouted_total" []
            "Events that no webhook is subscribed to",
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
        CommitFailures = "ringback_commit_failures_total" []
            "Commits of positions that failed",
        Rebalances = "ringback_rebalances_total" ["event"]
            "Partitions assigned, revoked or lost",
        RecordsLost = "ringback_records_lost_total" []
            "Offsets that retention dropped before they were read (DL10)",
        HttpRequests = "ringback_http_requests_total" ["server", "status"]
            "Requests to our own servers",
    }
}

table! {
    /// What goes up and down.
    Gauge {
        InFlight = "ringback_requests_in_flight" []
            "Requests to webhooks in flight",
        Lanes = "ringback_lanes_active" []
            "Webhooks with something in flight or queued",
        SlotsUsed = "ringback_intake_slots_used" ["class"]
            "Deliveries taken in and not settled, by class of work",
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
    registry: Registry,
    counters: Vec<IntCounterVec>,
    gauges: Vec<GaugeVec>,
    histograms: Vec<HistogramVec>,
    violations: CounterVec,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// An empty set.
    #[allow(clippy::expect_used)] // Names and labels are constants; a test makes them all.
    pub fn new() -> Self {
        let registry = Registry::new();
        fn add<C: Collector + Clone + 'static>(
            registry: &Registry,
            made: prometheus::Result<C>,
        ) -> C {
            let collector = made.expect("the table of metrics is well-formed");
            registry
                .register(Box::new(collector.clone()))
                .expect("names are unique");
            collector
        }
        let counters = Counter::ALL
            .iter()
            .map(|row| {
                let opts = Opts::new(row.name(), row.help());
                let vec = add(&registry, IntCounterVec::new(opts, row.labels()));
                if row.labels().is_empty() {
                    // So that a counter that never moved is there, as 0.
                    vec.with_label_values::<&str>(&[]).inc_by(0);
                }
                vec
            })
            .collect();
        let gauges = Gauge::ALL
            .iter()
            .map(|row| {
                add(
                    &registry,
                    GaugeVec::new(Opts::new(row.name(), row.help()), row.labels()),
                )
            })
            .collect();
        let histograms = Histogram::ALL
            .iter()
            .map(|row| {
                let opts = HistogramOpts::new(row.name(), row.help()).buckets(BUCKETS.into());
                add(&registry, HistogramVec::new(opts, row.labels()))
            })
            .collect();
        let opts = Opts::new(
            "ringback_invariant_violations_total",
            "Violations of the numbered invariants",
        );
        let violations = add(&registry, CounterVec::new(opts, &["invariant"]));
        let opts = Opts::new("ringback_build_info", "Version of this build; always 1");
        let build = add(&registry, GaugeVec::new(opts, &["version"]));
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        Self(Arc::new(Inner {
            registry,
            counters,
            gauges,
            histograms,
            violations,
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

    /// All metrics in the text exposition format.
    pub fn expose(&self) -> String {
        for invariant in Invariant::ALL {
            let metric = self.0.violations.with_label_values(&[invariant.as_str()]);
            // Counted in core, which knows no metrics: brought up to date when somebody looks.
            let new = violations(invariant) as f64 - metric.get();
            if new > 0.0 {
                metric.inc_by(new);
            }
        }
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.0.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written as text");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_used_and_is_exposed() {
        let metrics = Metrics::new();
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
        assert!(text.contains("ringback_invariant_violations_total{invariant=\"DL10\"}"));
        assert_eq!(metrics.count(Counter::Delivered, &[]), 1);
    }
}
