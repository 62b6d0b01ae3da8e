//! Erasures.

use std::time::Duration;

use ringback_core::event::Subject;
use uuid::Uuid;

use super::fake::{attempt, delivery};
use super::{Bench, Fresh};
use crate::projection::pages::{self, Query, Wanted};

/// Events that are shown of each table.
fn shown(bench: &Bench) -> [Vec<u128>; 3] {
    let query = Query {
        webhook: Uuid::from_u128(1),
        event: None,
        since: None,
        below: None,
        limit: 100,
    };
    let found = bench.projection.read(|session| {
        let attempts = pages::attempts(session, &query, Wanted::All)?.entries;
        let parked = pages::parked(session, &query, None)?.entries;
        let all: Vec<_> = (0..20).map(Uuid::from_u128).collect();
        let replays = pages::runs(session, query.webhook, &all)?;
        let of = |entries: Vec<crate::projection::Entry>| {
            let events = entries.iter().map(|entry| entry.event.as_u128());
            events.rev().collect::<Vec<_>>()
        };
        let mut replays: Vec<_> = replays.keys().map(Uuid::as_u128).collect();
        replays.sort_unstable();
        Ok([of(attempts), of(parked), replays])
    });
    found.unwrap()
}

/// An attempt, a parked delivery and a replay of each of these events.
fn append(bench: &Bench, events: &[(u128, &str)]) {
    for (event, subject) in events {
        let subject = Some(Subject::parse(subject).unwrap());
        let mut attempt = attempt(1, *event, 0, 500);
        attempt.subject.clone_from(&subject);
        // Who quotes a subject is not about it.
        attempt.response = Some("{\"subject\":\"call/a%\"}".to_owned());
        let mut delivery = delivery(1, *event, 0);
        let mut inner = (*delivery.event).clone();
        inner.subject = subject;
        delivery.event = inner.into();
        let log = &bench.log;
        log.attempt(bench.now(), &attempt);
        log.parked(bench.now(), &delivery, "exhausted");
        delivery.run = 1;
        log.replay(bench.now(), &delivery);
        bench.pass(Duration::from_secs(1));
    }
}

pub(super) fn nothing_erased_is_shown_or_comes_back(fresh: Fresh<'_>) {
    let mut bench = Bench::new(fresh());
    let calls = [
        (1, "call/a%"),
        (2, "call/A%"),
        (3, "call/ab"),
        (4, "call/a%"),
    ];
    append(&bench, &calls);
    // One that did not name its subject.
    bench.log.attempt(bench.now(), &attempt(1, 4, 1, 500));
    bench.pass(Duration::from_secs(86_400));
    bench.catch_up();
    let same = |events: &[u128]| [events.to_vec(), events.to_vec(), events.to_vec()];
    assert_eq!(shown(&bench)[0], [1, 2, 3, 4, 4]);
    // It is about what came before, wherever that is by now, and not about what comes after.
    append(&bench, &[(5, "call/a%")]);
    bench.log.erase(bench.now(), Some("call/a%"));
    bench.pass(Duration::from_secs(1));
    append(&bench, &[(6, "call/a%")]);
    bench.catch_up();
    let left = [2, 3, 6];
    assert_eq!(shown(&bench), same(&left));
    // Not after a restart either, nor for another process, nor built anew.
    let mut other = bench.beside();
    drop(bench);
    other.catch_up();
    assert_eq!(shown(&other), same(&left));
    assert!(other.projection.rebuild());
    other.catch_up();
    let again = shown(&other);
    assert_eq!(again[1..], same(&left)[1..]);
    // What did not name its subject is known by the parked delivery alone, which is not there now.
    assert_eq!(again[0], [2, 3, 4, 6]);
    let counts = other
        .projection
        .read(|session| pages::parked_counts(session, Uuid::from_u128(1)))
        .unwrap();
    let counts: Vec<_> = counts
        .iter()
        .map(|(reason, n)| (reason.as_str(), *n))
        .collect();
    assert_eq!(counts, [("exhausted", 6)], "numbers stay");

    other.log.erase(other.now(), None);
    other.pass(Duration::from_secs(1));
    append(&other, &[(7, "call/b")]);
    other.catch_up();
    assert_eq!(shown(&other), same(&[7]));
}
