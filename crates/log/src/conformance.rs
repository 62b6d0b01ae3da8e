//! The conformance suite: one function per promise of [`ringback_core::log`], run against every
//! engine. It says what the interface means; an engine that passes can stand in for another.
//!
//! It is compiled normally, so that the tests of any crate can run it against their engine. Each
//! function panics with what was promised and what happened instead.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test suite: a broken promise is a panic"
)]

mod append;
mod configuration;
mod consume;
mod read;
mod support;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use ringback_core::log::Log;
use ringback_core::topics::Topics;

pub use self::append::{
    acknowledges_with_position_and_time, append_refuses_what_is_too_large, full_queue_says_so,
    records_without_a_key_are_spread,
};
pub use self::configuration::{
    compare_and_set_loses_no_update, compare_and_set_needs_the_revision,
    follower_reaches_the_end_and_follows, what_is_told_of_a_change_is_there_with_it,
};
pub use self::consume::{
    a_failed_commit_is_told, a_group_is_seen_from_outside, close_asks_until_nothing_is_in_flight,
    close_ends_when_the_time_is_over, commits_come_back_with_their_metadata,
    every_record_once_from_the_earliest, groups_are_independent,
    no_room_holds_records_without_ending_the_wait, waker_ends_the_wait,
    what_was_not_committed_is_read_again,
};
pub use self::read::{reader_knows_bounds_and_ranges, records_come_back_as_they_were};
pub use self::topics::topics_are_created_once_and_checked;

/// How long a promise may take before it counts as broken. A group of Kafka takes seconds to form.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A promise: its name, and the function that checks it.
pub type Promise<L> = (&'static str, fn(&L));

/// Runs the whole suite on topics with one copy.
///
/// `open` opens the engine with a table; only one handle is open at a time. Topics and groups of a
/// run have names of their own, so that runs do not see each other.
pub fn all<L: Log>(open: impl Fn(Arc<Topics>) -> L) {
    all_replicated(1, open);
}

/// Runs the whole suite on topics with this many copies.
pub fn all_replicated<L: Log>(replication: u16, open: impl Fn(Arc<Topics>) -> L) {
    topics_are_created_once_and_checked(replication, &open);
    let log = open(support::table(replication));
    let problems = log.create_topics().expect("creating the topics");
    assert!(
        problems.is_empty(),
        "fresh topics differ from the table: {problems:?}"
    );
    for (name, promise) in promises() {
        tracing::info!(name, "promise");
        promise(&log);
    }
}

/// The promises that need nothing but an open log whose topics exist and are empty, by name. Each
/// uses topics of its own.
pub fn promises<L: Log>() -> Vec<Promise<L>> {
    macro_rules! named {
        ($($promise:ident),* $(,)?) => {
            vec![$((stringify!($promise), $promise::<L> as fn(&L))),*]
        };
    }
    named![
        acknowledges_with_position_and_time,
        records_without_a_key_are_spread,
        append_refuses_what_is_too_large,
        full_queue_says_so,
        records_come_back_as_they_were,
        reader_knows_bounds_and_ranges,
        every_record_once_from_the_earliest,
        no_room_holds_records_without_ending_the_wait,
        waker_ends_the_wait,
        commits_come_back_with_their_metadata,
        a_failed_commit_is_told,
        what_was_not_committed_is_read_again,
        groups_are_independent,
        a_group_is_seen_from_outside,
        close_asks_until_nothing_is_in_flight,
        close_ends_when_the_time_is_over,
        follower_reaches_the_end_and_follows,
        compare_and_set_needs_the_revision,
        compare_and_set_loses_no_update,
        what_is_told_of_a_change_is_there_with_it,
    ]
}
