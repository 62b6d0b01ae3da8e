//! What a database must do to be one of the projection's: one suite for all of them, see
//! [`all`]. Whoever tests a database hands it in.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a suite of tests")]

pub mod bulk;
mod erased;
mod fake;
mod pages;
mod trouble;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ringback_core::time::{Clock, Timestamp};

use self::fake::FakeLog;
use super::projector::{Projector, Turn};
use super::{Projection, ProjectionConfig};

/// Makes the configuration of an empty database; each call another.
pub type Fresh<'a> = &'a dyn Fn() -> ProjectionConfig;

/// Runs the whole suite.
pub fn all(fresh: Fresh<'_>) {
    for seed in 1..=3 {
        pages::page_by_page_equals_a_naive_list(fresh, seed);
    }
    pages::everything_about_an_event_is_found(fresh);
    pages::series_count_what_is_not_kept(fresh);
    pages::replays_know_what_became_of_them(fresh);
    erased::nothing_erased_is_shown_or_comes_back(fresh);
    trouble::a_batch_that_is_repeated_changes_nothing(fresh);
    trouble::retention_drops_slices_and_keeps_positions(fresh);
    trouble::what_the_log_dropped_is_counted(fresh);
    trouble::another_log_is_told_apart(fresh);
    trouble::another_takes_over(fresh);
    trouble::what_somebody_removed_is_read_again(fresh);
    trouble::rebuilding_gives_the_same(fresh);
}

/// A server that ends and comes back, as these have it.
pub fn outage(config: ProjectionConfig, end: &mut dyn FnMut(), begin: &mut dyn FnMut()) {
    trouble::a_server_that_ends_is_waited_for(config, end, begin);
}

/// Noon of a day.
const START: i64 = 1_795_262_400_000_000;

/// A projection with a clock that stands still until it is moved.
struct Bench {
    log: FakeLog,
    config: ProjectionConfig,
    clock: Arc<AtomicI64>,
    projection: Projection,
    projector: Projector<FakeLog>,
}

impl Bench {
    fn new(config: ProjectionConfig) -> Self {
        Self::on(
            FakeLog::new(),
            "fake",
            config,
            Arc::new(AtomicI64::new(START)),
        )
    }

    fn on(log: FakeLog, name: &str, config: ProjectionConfig, clock: Arc<AtomicI64>) -> Self {
        let (now, steady) = (clock.clone(), clock.clone());
        let time = Clock::new(
            move || Timestamp::from_micros(now.load(Ordering::SeqCst)),
            move || Duration::from_micros(u64::try_from(steady.load(Ordering::SeqCst)).unwrap()),
        );
        let projection = Projection::new(&config, name, "unused".as_ref(), time).unwrap();
        let projector = Projector::of(
            projection.clone(),
            log.clone(),
            log.partitions(),
            Some(log.erasures()),
        );
        Self {
            log,
            config,
            clock,
            projection,
            projector,
        }
    }

    /// Another process on the same log and database.
    fn beside(&self) -> Self {
        let clock = self.clock.clone();
        Self::on(self.log.clone(), "fake", self.config.clone(), clock)
    }

    fn now(&self) -> Timestamp {
        self.projection.now()
    }

    fn pass(&self, time: Duration) {
        let micros = i64::try_from(time.as_micros()).unwrap();
        self.clock.fetch_add(micros, Ordering::SeqCst);
    }

    /// Projects all there is.
    fn catch_up(&mut self) {
        for _ in 0..1000 {
            match self.projector.turn() {
                Turn::More => {}
                // A server learns in its own time that the one that projected is gone.
                Turn::Standby => std::thread::sleep(Duration::from_millis(20)),
                Turn::AtEnd => return,
                turn => panic!("{turn:?}: {:?}", self.projection.status().failing),
            }
        }
        panic!("there is no end");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_conforms() {
        let dir = tempfile::tempdir().unwrap();
        let count = AtomicI64::new(0);
        all(&|| ProjectionConfig {
            dir: Some(
                dir.path()
                    .join(count.fetch_add(1, Ordering::Relaxed).to_string()),
            ),
            ..ProjectionConfig::default()
        });
    }
}
