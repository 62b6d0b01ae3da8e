//! What goes wrong.

use std::time::Duration;

use ringback_core::log::Reader as _;
use ringback_core::redaction::Redaction;
use ringback_core::time::Timestamp;
use ringback_telemetry::Counter;
use uuid::Uuid;

use super::fake::{FakeLog, attempt, delivery};
use super::{Bench, Fresh, START};
use crate::projection::engine::Value;
use crate::projection::erasing::Erasing;
use crate::projection::pages::{self, Query, Wanted};
use crate::projection::projector::Turn;
use crate::projection::rows::{Batch, Hidden, Position, Topic};
use crate::projection::slice::Slice;
use crate::projection::write::{self, Written};
use crate::projection::{Freshness, ProjectionConfig, StoreError};

const DAY: Duration = Duration::from_secs(86_400);

/// The events of the attempts of webhook 1, newest first.
fn events(bench: &Bench) -> Vec<u128> {
    let query = Query {
        webhook: Uuid::from_u128(1),
        event: None,
        since: None,
        below: None,
        limit: 10_000,
    };
    let page = bench
        .projection
        .read(|session| pages::attempts(session, &query, Wanted::All))
        .unwrap();
    page.entries
        .into_iter()
        .map(|entry| entry.event.as_u128())
        .collect()
}

/// All that was counted of webhook 1.
fn counted(bench: &Bench) -> i64 {
    let minutes = 0..i64::MAX / 2;
    let series = bench
        .projection
        .read(|session| pages::series(session, Uuid::from_u128(1), minutes, 1));
    let series = series.unwrap();
    series.values().flatten().map(|tally| tally.n).sum()
}

pub(super) fn a_batch_that_is_repeated_changes_nothing(fresh: Fresh<'_>) {
    let bench = Bench::new(fresh());
    let slice = Slice::of(bench.now(), DAY);
    let mut source = bench.log.clone();
    for number in 0..100 {
        bench.log.attempt(bench.now(), &attempt(1, number, 0, 200));
    }
    bench.log.parked(bench.now(), &delivery(1, 5, 0), "paused");
    let mut batch = Batch::new(slice);
    for (topic, partition) in bench.log.partitions() {
        let bounds = source.bounds(partition).unwrap();
        let position = Position {
            from: bounds.start,
            next: bounds.end,
            lost: 0,
            unreadable: 0,
        };
        batch.positions.insert((topic, partition.index), position);
        source
            .read(partition, bounds, &mut |record| {
                let hidden = Hidden {
                    erased: &Erasing::new(None),
                    redaction: &Redaction::default(),
                };
                assert!(batch.take(topic, &record, &hidden, |_| Some(1)));
            })
            .unwrap();
    }
    let mut session = bench.projection.database().open().unwrap();
    assert!(session.lead().unwrap());
    // One that does not come to its end leaves nothing.
    let webhook = Uuid::from_u128(1);
    let failed = session.write(slice, &mut |statements| {
        let sql = "INSERT INTO parked_counts@ (webhook, reason, n) VALUES ($1, $2, $3)";
        let values = [
            Value::Bytes(webhook.as_bytes().as_slice().into()),
            Value::Text("paused".into()),
            Value::Int(7),
        ];
        statements.execute(sql, &values)?;
        Err(StoreError::new("testing", "killed"))
    });
    assert_eq!(failed.unwrap_err().reason, "killed");
    let as_of = Some(bench.now());
    for expected in [Written::Now, Written::Before, Written::Before] {
        let written = write::write(session.as_mut(), &batch, "fake", as_of).unwrap();
        assert_eq!(written, expected);
        assert_eq!(events(&bench).len(), 100);
        assert_eq!(counted(&bench), 100);
        let counts = bench
            .projection
            .read(|session| pages::parked_counts(session, Uuid::from_u128(1)));
        assert_eq!(counts.unwrap()["paused"], 1);
    }
    let found = write::positions(session.as_mut()).unwrap();
    assert_eq!(found.as_of, as_of);
    assert_eq!(found.next[&(Topic::Attempts, 1)], 100);
}

pub(super) fn retention_drops_slices_and_keeps_positions(fresh: Fresh<'_>) {
    let mut bench = Bench::new(ProjectionConfig {
        retention: 2 * DAY,
        ..fresh()
    });
    for number in 0..5 {
        bench.log.attempt(bench.now(), &attempt(1, number, 0, 200));
        bench.catch_up();
        bench.pass(DAY);
    }
    // It is noon of the sixth day; whatever is older than noon of the fourth may go, day by day.
    bench.catch_up();
    assert_eq!(events(&bench), [4, 3]);
    bench.pass(30 * DAY);
    bench.catch_up();
    assert_eq!(events(&bench), [0; 0]);
    let mut session = bench.projection.database().open().unwrap();
    assert_eq!(session.slices().unwrap().len(), 1);
    let found = write::positions(session.as_mut()).unwrap();
    assert_eq!(found.next[&(Topic::Attempts, 1)], 5);
    // What is too old is not taken up by another, and counted as nothing.
    let mut other = Bench::on(
        bench.log.clone(),
        "fake",
        ProjectionConfig {
            retention: 2 * DAY,
            ..fresh()
        },
        bench.clock.clone(),
    );
    other.catch_up();
    assert_eq!(events(&other), [0; 0]);
    assert_eq!(other.projection.status().told.lost, 0);
}

pub(super) fn what_the_log_dropped_is_counted(fresh: Fresh<'_>) {
    let mut bench = Bench::new(fresh());
    for number in 0..10 {
        bench.log.attempt(bench.now(), &attempt(1, number, 0, 200));
    }
    bench.log.forget(3);
    bench.log.nonsense(bench.now(), Uuid::from_u128(1));
    bench.catch_up();
    let told = |bench: &Bench| {
        let told = bench.projection.status().told;
        (told.lost, told.unreadable)
    };
    // What was gone before it began is not missed.
    assert_eq!(told(&bench), (0, 1));
    for number in 10..20 {
        bench.log.attempt(bench.now(), &attempt(1, number, 0, 200));
    }
    bench.log.forget(12);
    bench.catch_up();
    assert_eq!(told(&bench), (4, 1));
    assert_eq!(events(&bench).len(), 13);
    let count = |counter, labels: &[&str]| bench.projector.metrics.count(counter, labels);
    assert_eq!(count(Counter::ProjectionLost, &[]), 4);
    assert_eq!(count(Counter::ProjectionRows, &["attempts"]), 13);
    assert_eq!(count(Counter::ProjectionErrors, &["database"]), 0);
    // It is known for longer than a process lives.
    let mut next = bench.beside();
    drop(bench);
    next.catch_up();
    assert_eq!(told(&next), (4, 1));
}

pub(super) fn another_log_is_told_apart(fresh: Fresh<'_>) {
    let mut bench = Bench::new(fresh());
    for number in 0..10 {
        bench.log.attempt(bench.now(), &attempt(1, number, 0, 200));
    }
    bench.catch_up();
    bench.log.lose(4);
    assert_eq!(bench.projector.turn(), Turn::Failed);
    let (_, error) = bench.projection.status().failing.unwrap();
    assert!(
        error.reason.contains("ringback projection rebuild"),
        "{error}"
    );
    assert!(bench.projection.rebuild());
    bench.catch_up();
    assert!(bench.projection.status().failing.is_none());
    assert_eq!(events(&bench), [5, 4, 3, 2, 1, 0]);
    // One with another name is no trouble, however long it is.
    let (config, clock) = (bench.config.clone(), bench.clock.clone());
    drop(bench);
    let log = FakeLog::new();
    for number in 100..120 {
        log.attempt(Timestamp::from_micros(START), &attempt(1, number, 0, 200));
    }
    let mut moved = Bench::on(log, "another", config, clock);
    moved.catch_up();
    assert_eq!(events(&moved), (100..120).rev().collect::<Vec<_>>());
    assert_eq!(counted(&moved), 20);
}

pub(super) fn another_takes_over(fresh: Fresh<'_>) {
    let mut first = Bench::new(fresh());
    first.log.attempt(first.now(), &attempt(1, 1, 0, 200));
    first.catch_up();
    let mut second = first.beside();
    assert_eq!(second.projector.turn(), Turn::Standby);
    // It reads, knows how far it is, and does not write.
    assert_eq!(events(&second), [1]);
    let as_of: Option<Timestamp> = second.projection.status().told.as_of;
    assert_eq!(as_of, Some(first.now()));
    assert!(!second.projection.rebuild());
    first.log.attempt(first.now(), &attempt(1, 2, 0, 200));
    first.catch_up();
    assert_eq!(second.projector.turn(), Turn::Standby);
    assert_eq!(events(&second), [2, 1]);
    first.log.attempt(first.now(), &attempt(1, 3, 0, 200));
    let mut third = first.beside();
    drop(first);
    second.catch_up();
    assert_eq!(events(&second), [3, 2, 1]);
    assert_eq!(counted(&second), 3);
    assert_eq!(third.projector.turn(), Turn::Standby);
    assert_eq!(events(&third), [3, 2, 1]);
}

pub(super) fn what_somebody_removed_is_read_again(fresh: Fresh<'_>) {
    let mut bench = Bench::new(fresh());
    for number in 0..3 {
        bench.log.attempt(bench.now(), &attempt(1, number, 0, 200));
    }
    bench.catch_up();
    let mut session = bench.projection.database().open().unwrap();
    let all = session.slices().unwrap();
    session.drop_slices(&all).unwrap();
    drop(session);
    // With nothing new to write, it must not take what is left for all there is.
    assert_eq!(bench.projector.turn(), Turn::Failed);
    let Freshness::Failing(error) = bench.projection.freshen() else {
        panic!("it does not say that it fails");
    };
    assert!(error.reason.contains("removed"), "{error}");
    bench.catch_up();
    assert!(bench.projection.status().failing.is_none());
    assert_eq!(events(&bench), [2, 1, 0]);
    assert_eq!(counted(&bench), 3);
}

pub(super) fn rebuilding_gives_the_same(fresh: Fresh<'_>) {
    let mut bench = Bench::new(fresh());
    for number in 0..5000 {
        bench.log.attempt(bench.now(), &attempt(1, number, 0, 200));
        bench.pass(Duration::from_secs(60));
    }
    bench.catch_up();
    let before = events(&bench);
    assert_eq!(before.len(), 5000);
    assert!(bench.projection.rebuild());
    // One turn does not come to the end of it.
    assert_eq!(bench.projector.turn(), Turn::More);
    assert!(events(&bench).len() < 5000);
    bench.catch_up();
    assert_eq!(events(&bench), before);
    assert_eq!(counted(&bench), 5000);
}

pub(super) fn a_server_that_ends_is_waited_for(
    config: ProjectionConfig,
    end: &mut dyn FnMut(),
    begin: &mut dyn FnMut(),
) {
    let password = config.url.password().unwrap();
    let mut bench = Bench::new(config);
    bench.log.attempt(bench.now(), &attempt(1, 1, 0, 200));
    bench.catch_up();
    assert_eq!(events(&bench), [1]);
    end();
    bench.log.attempt(bench.now(), &attempt(1, 2, 0, 200));
    for _ in 0..2 {
        assert_eq!(bench.projector.turn(), Turn::Failed);
    }
    let Freshness::Failing(error) = bench.projection.freshen() else {
        panic!("it does not say that it fails");
    };
    assert!(!format!("{error:?}").contains(&password), "{error}");
    let read = bench
        .projection
        .read(|session| pages::parked_counts(session, Uuid::from_u128(1)));
    assert!(read.is_err());
    begin();
    bench.catch_up();
    assert_eq!(events(&bench), [2, 1]);
    assert_eq!(counted(&bench), 2);
    // The lock went with the session, so another could have it; who has it now keeps it.
    assert_eq!(bench.beside().projector.turn(), Turn::Standby);
}
