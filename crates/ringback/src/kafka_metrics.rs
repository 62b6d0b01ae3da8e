//! What librdkafka counts, as metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use ringback_log::kafka::{ClientFigures, ClientKind, KafkaLog};
use ringback_telemetry::{Counter, Gauge, Metrics};

/// Between two looks; librdkafka tells every 15 s.
const EVERY: Duration = Duration::from_secs(5);

/// Keeps the metrics up to date for as long as it is polled.
pub(crate) async fn watch(log: KafkaLog, metrics: Metrics) {
    let mut known = BTreeMap::new();
    let mut every = tokio::time::interval(EVERY);
    loop {
        every.tick().await;
        publish(&metrics, log.clients(), &mut known);
    }
}

fn publish(
    metrics: &Metrics,
    figures: BTreeMap<ClientKind, ClientFigures>,
    known: &mut BTreeMap<ClientKind, ClientFigures>,
) {
    for (kind, now) in figures {
        let client = [kind.name()];
        let before = known.insert(kind, now).unwrap_or_default();
        let more = |now: u64, before: u64| now.saturating_sub(before);
        let (requests, connections) = (
            more(now.requests, before.requests),
            more(now.connections, before.connections),
        );
        metrics.add(Counter::KafkaRequests, &client, requests);
        metrics.add(Counter::KafkaConnections, &client, connections);
        metrics.set(Gauge::KafkaRoundTrip, &client, now.round_trip);
        metrics.set(Gauge::KafkaThrottled, &client, now.throttled);
        metrics.set(Gauge::KafkaWaiting, &client, now.waiting as f64);
        metrics.set(Gauge::KafkaQueued, &client, now.queued as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_become_counters_and_the_rest_gauges() {
        let (metrics, mut known) = (Metrics::new(), BTreeMap::new());
        let mut figures = ClientFigures {
            requests: 100,
            connections: 3,
            waiting: 2,
            ..ClientFigures::default()
        };
        for _ in 0..2 {
            let told = BTreeMap::from([(ClientKind::Reader, figures)]);
            publish(&metrics, told, &mut known);
            assert_eq!(metrics.count(Counter::KafkaRequests, &["reader"]), 100);
        }
        (figures.requests, figures.waiting) = (150, 0);
        let told = BTreeMap::from([(ClientKind::Reader, figures)]);
        publish(&metrics, told, &mut known);
        assert_eq!(metrics.count(Counter::KafkaRequests, &["reader"]), 150);
        assert_eq!(metrics.count(Counter::KafkaConnections, &["reader"]), 3);
        let waiting = "ringback_kafka_requests_waiting{client=\"reader\"} 0";
        assert!(metrics.expose().contains(waiting));
    }
}
