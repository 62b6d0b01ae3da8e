//! What is found.

use std::collections::HashMap;
use std::time::Duration;

use ringback_core::record::{Attempt, DELIVERED};
use ringback_core::time::Timestamp;
use ringback_telemetry::Counter;
use uuid::Uuid;

use super::fake::{attempt, delivery};
use super::{Bench, Fresh};
use crate::projection::pages::{self, Cursor, Query, Replayed, Wanted};
use crate::projection::rows::{CLASSES, code_of};
use crate::projection::{ProjectionConfig, rows};

/// Numbers that look random (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Every page of it; each as long as it may be, but the last.
fn all_attempts(
    bench: &Bench,
    webhook: Uuid,
    limit: usize,
    event: Option<Uuid>,
    since: Option<Timestamp>,
    wanted: Wanted,
) -> Vec<String> {
    let (mut all, mut below) = (Vec::new(), None);
    loop {
        let query = Query {
            webhook,
            event,
            since,
            below,
            limit,
        };
        let page = bench
            .projection
            .read(|session| pages::attempts(session, &query, wanted))
            .unwrap();
        assert!(page.entries.len() == limit || page.cursor.is_none());
        all.extend(page.entries.into_iter().map(|entry| entry.record));
        match page.cursor {
            Some(cursor) => below = Some(Cursor::parse(&cursor.to_string()).unwrap()),
            None => return all,
        }
    }
}

pub(super) fn page_by_page_equals_a_naive_list(fresh: Fresh<'_>, seed: u64) {
    let mut random = Random(seed);
    let mut bench = Bench::new(fresh());
    let mut naive: Vec<(Timestamp, Attempt)> = Vec::new();
    let outcomes = [200, 200, 200, 404, 503, 500, 429];
    for number in 0..1500 {
        // Some at the same moment, some days apart; a few before those that were appended earlier.
        match random.below(300) {
            0 => bench.pass(Duration::from_secs(86_400 / 2)),
            1..=200 => bench.pass(Duration::from_millis(random.below(5000))),
            _ => {}
        }
        let appended = bench.now() - Duration::from_millis(random.below(2) * random.below(3000));
        let webhook = u128::from(random.below(3)) + 1;
        let event = u128::from(random.below(200));
        let outcome = outcomes[usize::try_from(random.below(7)).unwrap()];
        let mut made = attempt(webhook, event, 0, outcome);
        if random.below(10) == 0 {
            made.status = None;
            made.outcome = "timeout".to_owned();
            made.next = "retry.32s".to_owned();
        }
        made.duration_ms = number;
        bench.log.attempt(appended, &made);
        naive.push((appended, made));
        match random.below(100) {
            0 => bench.catch_up(),
            // It ends, somehow, and another begins.
            1 => {
                bench.projector.turn();
                let next = bench.beside();
                drop(std::mem::replace(&mut bench, next));
            }
            _ => {}
        }
    }
    bench.catch_up();
    let config = ProjectionConfig::default();
    let gone = bench.now() - config.retention - config.slice;
    assert!(naive[0].0 > gone, "the test is longer than the retention");
    let since = naive[700].0;
    for webhook in 1..=4 {
        let webhook = Uuid::from_u128(webhook);
        for wanted in [
            Wanted::All,
            Wanted::Delivered,
            Wanted::Failed,
            Wanted::Code(503),
            Wanted::Code(200),
            Wanted::Code(code_of(None, "timeout")),
            Wanted::Code(999),
        ] {
            let event = Uuid::from_u128(u128::from(random.below(200)));
            for (event, since) in [(None, None), (None, Some(since)), (Some(event), None)] {
                let limit = usize::try_from(random.below(40)).unwrap() + 1;
                let found = all_attempts(&bench, webhook, limit, event, since, wanted);
                let mut expected: Vec<_> = naive
                    .iter()
                    .enumerate()
                    .filter(|(_, (appended, attempt))| {
                        attempt.webhook == webhook
                            && event.is_none_or(|event| event == attempt.event)
                            && since.is_none_or(|since| *appended >= since)
                            && match wanted {
                                Wanted::All => true,
                                Wanted::Delivered => attempt.next == DELIVERED,
                                Wanted::Failed => attempt.next != DELIVERED,
                                Wanted::Code(code) => {
                                    code_of(attempt.status, &attempt.outcome) == code
                                }
                            }
                    })
                    .map(|(number, (appended, attempt))| {
                        let text = serde_json::to_string(attempt).unwrap();
                        (*appended, number, text)
                    })
                    .collect();
                expected.sort_by_key(|entry| std::cmp::Reverse((entry.0, entry.1)));
                let expected: Vec<_> = expected.into_iter().map(|(_, _, text)| text).collect();
                assert_eq!(
                    found, expected,
                    "seed {seed}, {webhook} {wanted:?} {event:?}"
                );
            }
        }
    }
}

pub(super) fn everything_about_an_event_is_found(fresh: Fresh<'_>) {
    let mut bench = Bench::new(fresh());
    let event = Uuid::from_u128(7);
    for number in 0..3 {
        bench.log.attempt(bench.now(), &attempt(1, 7, number, 503));
        bench.log.attempt(bench.now(), &attempt(2, 7, number, 503));
        bench.log.attempt(bench.now(), &attempt(1, 8, number, 503));
        bench.pass(Duration::from_secs(86_400));
    }
    let mut theirs = attempt(3, 7, 0, 200);
    theirs.tenant = ringback_core::event::TenantId::parse("other").unwrap();
    bench.log.attempt(bench.now(), &theirs);
    bench
        .log
        .parked(bench.now(), &delivery(1, 7, 0), "exhausted");
    bench.log.parked(bench.now(), &delivery(1, 9, 0), "paused");
    bench
        .log
        .parked(bench.now(), &delivery(2, 7, 0), "nobody knows this");
    bench.catch_up();
    bench.log.replay(bench.now(), &delivery(1, 7, 1));
    bench.catch_up();

    let found = bench
        .projection
        .read(|session| pages::event(session, "acme", event));
    let found = found.unwrap();
    assert_eq!(found.attempts.len(), 6);
    assert_eq!(found.parked.len(), 2);
    assert_eq!(found.replays.len(), 1);
    assert!(!found.truncated);
    let found = bench
        .projection
        .read(|session| pages::event(session, "nobody", event));
    assert!(found.unwrap().attempts.is_empty());

    let webhook = Uuid::from_u128(1);
    let query = |event| Query {
        webhook,
        event,
        since: None,
        below: None,
        limit: 10,
    };
    let parked = |event, reason: Option<&str>| {
        let page = bench
            .projection
            .read(|session| pages::parked(session, &query(event), reason))
            .unwrap();
        page.entries
            .into_iter()
            .map(|entry| entry.event.as_u128())
            .collect::<Vec<_>>()
    };
    assert_eq!(parked(None, None), [9, 7]);
    assert_eq!(parked(None, Some("paused")), [9]);
    assert_eq!(parked(None, Some("removed")), [0; 0]);
    assert_eq!(parked(Some(event), None), [7]);
    assert_eq!(parked(Some(event), Some("paused")), [0; 0]);
    let (runs, counts) = bench
        .projection
        .read(|session| {
            let events: Vec<_> = (0..120).map(Uuid::from_u128).collect();
            let runs = pages::runs(session, webhook, &events)?;
            Ok((runs, pages::parked_counts(session, webhook)?))
        })
        .unwrap();
    assert_eq!(runs, HashMap::from([(event, 1)]));
    let counts: Vec<_> = counts
        .iter()
        .map(|(reason, n)| (reason.as_str(), *n))
        .collect();
    assert_eq!(counts, [("exhausted", 1), ("paused", 1)]);
}

pub(super) fn series_count_what_is_not_kept(fresh: Fresh<'_>) {
    let mut bench = Bench::new(ProjectionConfig {
        full_rate: 10,
        ..fresh()
    });
    let webhook = Uuid::from_u128(1);
    let began = bench.now();
    for minute in 0..3 {
        for number in 0..200 {
            let status = if number % 20 == 0 { 503 } else { 200 };
            bench
                .log
                .attempt(bench.now(), &attempt(1, number, 0, status));
        }
        if minute == 1 {
            bench.catch_up();
        }
        bench.pass(Duration::from_secs(60));
    }
    bench.catch_up();
    let first = began.as_secs() / 60;
    let series = |step| {
        bench
            .projection
            .read(|session| pages::series(session, webhook, first..first + 3, step))
            .unwrap()
    };
    let minutes = series(1);
    assert_eq!(
        minutes.keys().copied().collect::<Vec<_>>(),
        [first, first + 1, first + 2]
    );
    let class = |name| CLASSES.iter().position(|class| *class == name).unwrap();
    for tallies in minutes.values() {
        assert_eq!(tallies[class("delivered")].n, 190);
        assert_eq!(tallies[class("server_error")].n, 10);
        assert_eq!(tallies[class("delivered")].ms, 190 * 200);
        assert_eq!(pages::quantile(&tallies[0], 0.5), Some(250));
    }
    let hour = series(60);
    assert_eq!(
        hour.values().map(|tallies| tallies[0].n).sum::<i64>(),
        3 * 190
    );
    // Every row is written or left out, and what is written says how many it stands for.
    let counted = |counter, labels: &[&str]| bench.projector.metrics.count(counter, labels);
    let rows = counted(Counter::ProjectionRows, &["attempts"]);
    assert_eq!(rows + counted(Counter::ProjectionSampledOut, &[]), 3 * 200);
    assert!((3 * 20..3 * 40).contains(&rows), "{rows}");
    // Every failure is there, and of the successes some.
    let failed = all_attempts(&bench, webhook, 500, None, None, Wanted::Failed);
    assert_eq!(failed.len(), 30);
    let all = all_attempts(&bench, webhook, 500, None, None, Wanted::All).len();
    assert!((60..120).contains(&all), "{all}");
    assert!(rows::BOUNDS_MS.is_sorted());
}

pub(super) fn replays_know_what_became_of_them(fresh: Fresh<'_>) {
    let mut bench = Bench::new(fresh());
    let [first, second, none] = [71, 72, 73].map(Uuid::from_u128);
    let delivered = |event: u128, replay, late| {
        let mut one = attempt(1, event, 0, 200);
        (one.run, one.replay, one.late) = (1, replay, late);
        one
    };
    let failed = |event: u128, replay| {
        let mut one = delivery(1, event, 1);
        one.replay = replay;
        one
    };
    // Over two slices, and with what does not count: a late result, no replay's, a failure that goes on.
    for (event, replay) in [(1, first), (2, first), (3, second)] {
        bench
            .log
            .attempt(bench.now(), &delivered(event, Some(replay), false));
    }
    bench
        .log
        .attempt(bench.now(), &delivered(4, Some(first), true));
    bench.log.attempt(bench.now(), &delivered(5, None, false));
    let mut goes_on = delivered(6, Some(second), false);
    "retry.32s".clone_into(&mut goes_on.next);
    bench.log.attempt(bench.now(), &goes_on);
    bench.catch_up();
    bench.pass(Duration::from_secs(86_400));
    bench
        .log
        .attempt(bench.now(), &delivered(7, Some(first), false));
    bench
        .log
        .parked(bench.now(), &failed(8, Some(first)), "exhausted");
    bench.log.parked(bench.now(), &failed(9, None), "exhausted");
    bench.catch_up();
    let asked = [first, second, none];
    let found = bench
        .projection
        .read(|session| pages::replayed(session, &asked));
    let found = found.unwrap();
    let of = |delivered, failed| Replayed { delivered, failed };
    assert_eq!(asked.map(|id| found[&id]), [of(3, 1), of(1, 0), of(0, 0)]);
}
