//! Promises about creating and checking topics.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ringback_core::log::{Log, TopicProblem};
use ringback_core::topics::{Topics, TopicsConfig};

use super::support::{TIERS, config};

/// Missing topics are reported and created; what exists is left alone and its differences named.
pub fn topics_are_created_once_and_checked<L: Log>(
    replication: u16,
    open: &impl Fn(Arc<Topics>) -> L,
) {
    let config = config(replication);
    let table = Topics::new(&config, &TIERS);
    let log = open(table.clone());
    let names: BTreeSet<_> = table
        .iter()
        .map(|(_, spec)| spec.full_name.clone())
        .collect();
    assert_eq!(missing(&check(&log)), names, "all topics are missing");
    assert_eq!(
        log.create_topics().expect("creating"),
        [],
        "new topics are as the table says"
    );
    assert_eq!(check(&log), [], "new topics are as the table says");
    assert_eq!(
        log.create_topics().expect("creating"),
        [],
        "creating again changes nothing"
    );
    drop(log);

    // Another table: a tier more, and fewer partitions of events and attempts.
    let changed = TopicsConfig {
        event_partitions: config.event_partitions - 1,
        ..config
    };
    let tiers: Vec<_> = TIERS.into_iter().chain([Duration::from_secs(5)]).collect();
    let other = Topics::new(&changed, &tiers);
    let log = open(other.clone());
    let problems = check(&log);
    let added = format!("{}retry.5s", changed.prefix);
    assert_eq!(missing(&problems), BTreeSet::from([added]));
    let fewer = |problems: &[TopicProblem]| -> BTreeSet<_> {
        let differing = problems
            .iter()
            .filter(|problem| problem.setting == "partitions");
        differing
            .map(|problem| {
                let TopicProblem {
                    topic,
                    expected,
                    found,
                    ..
                } = problem.clone();
                (topic, expected, found)
            })
            .collect()
    };
    let expected: BTreeSet<_> = table
        .iter()
        .filter(|(_, spec)| spec.partitions == config.event_partitions)
        .map(|(_, spec)| (spec.full_name.clone(), "2".to_owned(), "3".to_owned()))
        .collect();
    assert_eq!(fewer(&problems), expected);
    assert_eq!(
        problems.len(),
        1 + expected.len(),
        "nothing else differs: {problems:?}"
    );
    let left = log.create_topics().expect("creating");
    assert_eq!(fewer(&left), expected, "partitions are not taken away");
    assert_eq!(left.len(), expected.len(), "nothing else differs: {left:?}");
    let left = check(&log);
    assert_eq!(fewer(&left), expected);
    assert_eq!(left.len(), expected.len(), "nothing else differs: {left:?}");
}

fn check<L: Log>(log: &L) -> Vec<TopicProblem> {
    log.check_topics().expect("checking")
}

fn missing(problems: &[TopicProblem]) -> BTreeSet<String> {
    let missing = problems.iter().filter(|problem| problem.found == "missing");
    missing.map(|problem| problem.topic.clone()).collect()
}
