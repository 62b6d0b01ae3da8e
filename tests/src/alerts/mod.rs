//! Every alert on a real fault: a real Prometheus and a real Alertmanager watch real installations, and
//! whoever is told hears that it fires, and after the mending that it is resolved. `src/bin/alerts.rs`
//! runs it; `cargo xtask alerts` starts that.
//!
//! | file | subject |
//! |---|---|
//! | `table` | for each alert its fault: a new alert needs a row |
//! | `rules` | the rules as they are shipped, with shorter times: what is scaled, and how |
//! | `station` | Prometheus, Alertmanager, and who is told |
//! | `local` | installations on the local log: receivers, proxy, database, certificate |
//! | `kafka` | installations on Kafka: dispatchers, their groups, topics, and Kafka itself |
//! | `load` | a steady stream of events |
//!
//! Installations that do not disturb each other run at the same time, each with its own station.

pub mod kafka;
pub mod load;
pub mod local;
pub mod rules;
pub mod station;
pub mod table;

use std::time::Duration;

use station::{Seen, read};

/// Injects every fault of the table and sees its alerts fire and resolve.
///
/// # Panics
/// When an alert has no fault, does not fire, or is not resolved.
pub async fn run() {
    let rules = read("helm/ringback/files/rules.yaml");
    let problems = table::problems(&rules::alerts(&rules));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let (failing, hanging, canary, members, sick) = tokio::join!(
        local::failing(),
        local::hanging(),
        local::canary(),
        kafka::members(),
        kafka::sick(),
    );
    let seen = [failing, hanging, canary, members, sick].concat();
    let untried = table::TABLE
        .iter()
        .filter(|(alert, _)| !seen.iter().any(|seen| seen.alert == *alert));
    let untried: Vec<_> = untried.map(|(alert, _)| alert).collect();
    assert!(untried.is_empty(), "not tried: {untried:?}");
    let slowest = |of: fn(&Seen) -> Duration| seen.iter().map(of).max().unwrap_or_default();
    println!("figure alerts.fired {} count", seen.len());
    let resolved = seen.iter().filter(|seen| seen.resolved.is_some());
    println!("figure alerts.resolved {} count", resolved.count());
    for (name, time) in [
        ("fired", slowest(|seen| seen.fired)),
        (
            "resolved",
            slowest(|seen| seen.resolved.unwrap_or_default()),
        ),
    ] {
        println!("figure alerts.{name}_slowest {:.0} s", time.as_secs_f64());
    }
}
