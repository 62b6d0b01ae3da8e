//! Every metric there is: for the documentation, dashboards and rules, and who wants to know.

use serde::Serialize;

use crate::metrics::{Counter, Gauge, Histogram};

/// A metric, as it is described.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Described {
    /// Its name in the exposition.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it counts or measures.
    pub help: &'static str,
}

/// Which build this is.
pub(crate) const BUILD: Described = Described {
    name: "ringback_build_info",
    kind: "gauge",
    labels: &["version", "component"],
    help: "Version of this build, and the component that it runs, or `up` for all of them; always 1",
};

/// Since when it runs.
pub(crate) const START: Described = Described {
    name: "process_start_time_seconds",
    kind: "gauge",
    labels: &[],
    help: "When this process began to count, in seconds since the Unix epoch",
};

/// What `core` counts.
pub(crate) const VIOLATED: Described = Described {
    name: "ringback_invariant_violations_total",
    kind: "counter",
    labels: &["invariant"],
    help: "Violations of the numbered invariants",
};

/// All of them, by name.
pub fn inventory() -> Vec<Described> {
    let counters = Counter::ALL.iter().map(|row| Described {
        name: row.name(),
        kind: "counter",
        labels: row.labels(),
        help: row.help(),
    });
    let gauges = Gauge::ALL.iter().map(|row| Described {
        name: row.name(),
        kind: "gauge",
        labels: row.labels(),
        help: row.help(),
    });
    let histograms = Histogram::ALL.iter().map(|row| Described {
        name: row.name(),
        kind: "histogram",
        labels: row.labels(),
        help: row.help(),
    });
    let mut all: Vec<_> = counters.chain(gauges).chain(histograms).collect();
    all.extend([BUILD, START, VIOLATED]);
    all.sort_by_key(|metric| metric.name);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metrics;

    #[test]
    fn what_is_exposed_is_in_the_inventory() {
        let metrics = Metrics::new();
        let values = ["a", "b", "c"];
        for row in Counter::ALL {
            metrics.inc(*row, &values[..row.labels().len()]);
        }
        for row in Gauge::ALL {
            metrics.set(*row, &values[..row.labels().len()], 1.0);
        }
        for row in Histogram::ALL {
            metrics.observe(*row, &values[..row.labels().len()], 0.1);
        }
        let text = metrics.expose();
        let mut exposed: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        exposed.sort_unstable();
        let described: Vec<_> = inventory()
            .iter()
            .map(|one| format!("{} {}", one.name, one.kind))
            .collect();
        assert_eq!(exposed, described);
    }

    /// The conventions: base units, in plural where that is said; counters end in `_total`.
    #[test]
    fn names_keep_to_the_conventions() {
        for one in inventory() {
            assert_eq!(
                one.kind == "counter",
                one.name.ends_with("_total"),
                "{}",
                one.name
            );
            for wrong in ["_ms", "_millis", "_minutes", "_kb", "_percent"] {
                assert!(!one.name.contains(wrong), "{}", one.name);
            }
            // There may be 100,000 of each.
            for label in ["tenant", "webhook", "url", "host"] {
                assert!(!one.labels.contains(&label), "{}", one.name);
            }
        }
    }
}
