//! The whole pipeline, simulated in one thread: one seed gives one story. `cargo xtask sim` tells many
//! more of them, optimised; here is what must hold of the simulation itself.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::panic)]

use ringback_tests::pipeline::bugs::Bug;
use ringback_tests::pipeline::{Story, Told, clock_is_set, tell};

fn story(seed: u64) -> Told {
    let told = tell(Story {
        seed,
        ..Story::default()
    });
    if let Some(violation) = &told.violation {
        panic!("seed {seed}: {violation}\nto see it: cargo xtask sim --trace {seed}");
    }
    told
}

#[test]
fn one_seed_gives_one_story() {
    let (first, second) = (story(3), story(3));
    assert_eq!(
        (first.hash, first.sums),
        (second.hash, second.sums),
        "it is told differently the second time"
    );
    assert!(first.sums.requests > 0 && first.sums.commits > 0);
    assert_ne!(first.hash, story(5).hash);
}

/// DL4: found by the first seed that was ever told. The log's time was estimated by the time of day.
#[test]
fn a_clock_that_is_set_makes_no_attempt_early() {
    let told = clock_is_set();
    assert!(told.violation.is_none(), "{:?}", told.violation);
    let sums = told.sums;
    let ended = sums.delivered + sums.parked;
    assert_eq!((sums.events, ended), (10, 10), "{sums:?}");
    assert!(sums.requests >= 20, "there were retries: {sums:?}");
}

/// Seeds that were reported once: a process that stood still until the end of its drain, which was not
/// killed then; a delivery taken up before the log's first acknowledgement.
#[test]
fn what_was_reported_once_is_not_reported_again() {
    for seed in [1962, 2496] {
        story(seed);
    }
}

/// One of those that show at once; `cargo xtask sim --planted` looks for all.
#[test]
fn a_planted_bug_is_found_by_the_checker_it_was_made_for() {
    let (bug, by) = Bug::ALL
        .into_iter()
        .find(|(bug, _)| *bug == Bug::ClaimUnsent)
        .unwrap();
    let found = (1..=20).any(|seed| {
        let told = tell(Story {
            seed,
            bug: Some(bug),
            ..Story::default()
        });
        told.violation
            .is_some_and(|violation| violation.check == by)
    });
    assert!(found, "{bug:?} is not found by {by:?} within 20 seeds");
}
