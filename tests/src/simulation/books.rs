//! The books of a simulation at rest: what must be true of any run, whatever failed.

use std::collections::{BTreeMap, BTreeSet};

use ringback_core::invariant::{Invariant, violations};
use ringback_core::log::{Log, Reader};
use ringback_core::record::decode_delivery;
use ringback_core::time::Timestamp;
use ringback_core::topics::Role;
use uuid::Uuid;

use super::Simulation;

/// An event on its way to a webhook.
type Key = (Uuid, Uuid);

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    /// Accepted events times their subscriptions.
    pub deliveries: usize,
    pub delivered: usize,
    /// Parked and not delivered.
    pub parked: usize,
    pub requests: usize,
    /// Requests beyond the first of their delivery and attempt.
    pub duplicates: usize,
    /// What the faults allow of them.
    pub allowed: u64,
}

/// Checks DL1 to DL4, DL7 and DL8, and that duplicates are explained.
pub fn check(simulation: &Simulation) -> Sums {
    let (parked, requests) = (parked(simulation), simulation.receivers.requests());
    let mut delivered = BTreeSet::new();
    // When each attempt was first made, and how often.
    let mut made: BTreeMap<(Key, u8), (Timestamp, usize)> = BTreeMap::new();
    let events: BTreeMap<_, _> = simulation
        .producer
        .events()
        .iter()
        .map(|event| (event.id, event))
        .collect();
    for request in &requests {
        let event = events[&request.event];
        assert_eq!(request.body, event.standard_body(), "DL7: {request:?}");
        let key = (request.event, request.webhook);
        if request.status == 200 {
            delivered.insert(key);
        }
        let first = made
            .entry((key, request.attempt))
            .or_insert((request.at, 0));
        *first = (first.0.min(request.at), first.1 + 1);
        let latest = event.time + simulation.schedule.expires_after();
        assert!(request.at <= latest, "R13: {request:?}");
    }
    check_waits(simulation, &made);

    let mut sums = Sums {
        requests: requests.len(),
        duplicates: made.values().map(|(_, count)| count - 1).sum(),
        ..Sums::default()
    };
    for event in events.values() {
        for webhook in &simulation.webhooks {
            if webhook.tenant != event.tenant || !webhook.wants(event.name.as_str()) {
                continue;
            }
            let key = (event.id, webhook.id);
            sums.deliveries += 1;
            match (delivered.contains(&key), parked.contains(&key)) {
                (true, _) => sums.delivered += 1,
                (false, true) => sums.parked += 1,
                (false, false) => panic!("DL1: {key:?} is neither delivered nor parked"),
            }
        }
    }
    let keys: BTreeSet<_> = made.keys().map(|(key, _)| *key).collect();
    assert!(
        keys.len() <= sums.deliveries,
        "sent to who did not subscribe"
    );
    check_faults(simulation, &mut sums);
    sums
}

/// DL4: no attempt before its wait is over.
fn check_waits(simulation: &Simulation, made: &BTreeMap<(Key, u8), (Timestamp, usize)>) {
    for ((key, attempt), (at, _)) in made {
        let Some(before) = attempt.checked_sub(1) else {
            continue;
        };
        let (earlier, _) = made[&(*key, before)];
        let wait = simulation.schedule.tiers()[usize::from(before)];
        assert!(
            *at >= earlier + wait,
            "DL4: attempt {attempt} of {key:?} at {at}, {before} at {earlier}"
        );
    }
}

fn check_faults(simulation: &Simulation, sums: &mut Sums) {
    let seen = simulation.sim.seen();
    assert_eq!(
        (seen.commits_back, seen.commits_unowned),
        (0, 0),
        "DL2, DL8"
    );
    for invariant in Invariant::ALL {
        // DL10 is counted where a test lets retention remove something.
        if invariant != Invariant::DL10 {
            assert_eq!(violations(invariant), 0, "{invariant:?}");
        }
    }
    // Each record that is there again or is read again makes at most one more ladder for each delivery
    // in it, with the attempts that are left of it.
    let topics = simulation.log.topics();
    let ladder = simulation.schedule.tiers().len() as u64 + 1;
    let most = |topic: &str| match topics.find_name(topic).map(|topic| topics.spec(topic).role) {
        Some(Role::Events(_)) => simulation.fan_out() * ladder,
        Some(Role::Retry(tier)) => ladder - 1 - tier as u64,
        Some(Role::Defer(_)) => ladder,
        _ => 0,
    };
    let repeats = simulation.sim.repeats();
    sums.allowed = repeats.iter().map(|(topic, n)| n * most(topic)).sum();
    assert!(
        sums.duplicates as u64 <= sums.allowed,
        "{sums:?} from {seen:?}, {repeats:?}"
    );
}

/// Deliveries that were parked.
fn parked(simulation: &Simulation) -> BTreeSet<Key> {
    let log = &simulation.log;
    let topic = log.topics().find(Role::Parked).unwrap();
    let mut reader = log.reader().unwrap();
    let mut parked = BTreeSet::new();
    for partition in log.topics().partitions(topic) {
        let bounds = reader.bounds(partition).unwrap();
        let read = reader.read(partition, bounds, &mut |record| {
            let delivery = decode_delivery(&record).unwrap();
            parked.insert((delivery.event.id, delivery.webhook));
        });
        read.unwrap();
    }
    parked
}
