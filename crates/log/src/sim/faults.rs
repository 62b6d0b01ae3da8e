//! Faults: what may be asked for, by count or by chance, and what has happened.
//!
//! A chance is not drawn from a stream but computed from the seed, the topic (or group) and the number
//! of the operation there. So the n-th append to a topic meets the same fault however threads
//! interleave, and equal calls in equal order give equal histories.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What happens to an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendFault {
    /// It is not in the log, and the appender hears that the log is unavailable.
    Fail,
    /// It is in the log, and the appender hears that the log is unavailable.
    LoseAcknowledgement,
    /// It is in the log twice, and acknowledged once.
    Duplicate,
    /// It is acknowledged so much later; at the appender's timeout it hears that the log is
    /// unavailable.
    Delay(Duration),
    /// An offset before it stays empty, as compaction and transactions leave them.
    Gap,
}

/// What happens to a compare-and-set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetFault {
    /// Somebody else writes first: what is there once more, or, where nothing is, what we wanted to
    /// write. The caller hears of the conflict.
    Conflict,
    /// It is written, and the caller hears that the log failed.
    LoseAnswer,
    /// It is not written, and the caller hears that the log failed.
    Fail,
}

/// How often faults happen by themselves, each of 1,000; never by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chances {
    /// [`AppendFault::Fail`].
    pub fail: u16,
    /// [`AppendFault::LoseAcknowledgement`].
    pub lose_acknowledgement: u16,
    /// [`AppendFault::Duplicate`].
    pub duplicate: u16,
    /// [`AppendFault::Gap`].
    pub gap: u16,
    /// [`AppendFault::Delay`], by up to `delay_max`, beside the others.
    pub delay: u16,
    /// See `delay`.
    pub delay_max: Duration,
    /// An acknowledgement overtakes those of other partitions. Within a partition they keep their
    /// order, as they do on Kafka.
    pub reorder: u16,
    /// A commit is forgotten.
    pub lose_commit: u16,
    /// A call of `commit` fails as a whole.
    pub fail_commit: u16,
    /// A call of `commit` begins well and fails: the next poll tells.
    pub fail_commit_later: u16,
    /// [`SetFault::Conflict`].
    pub conflict: u16,
    /// [`SetFault::LoseAnswer`].
    pub lose_answer: u16,
    /// [`SetFault::Fail`].
    pub fail_set: u16,
}

/// What has happened so far, asked for or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// Appends that failed and are not in the log.
    pub failed: u64,
    /// Appends that are in the log and were reported as failed, timeouts included.
    pub acknowledgements_lost: u64,
    /// Records that are in the log once more than they were appended.
    pub duplicates: u64,
    /// Acknowledgements that were delayed.
    pub delayed: u64,
    /// Offsets that were left empty.
    pub gaps: u64,
    /// Acknowledgements that overtook one of another partition.
    pub reordered: u64,
    /// Positions whose commit was forgotten.
    pub commits_lost: u64,
    /// Calls of `commit` that failed, at once or later.
    pub commits_failed: u64,
    /// Conflicts that were made up.
    pub conflicts: u64,
    /// Compare-and-sets with an unknown result.
    pub unknown_sets: u64,
    /// Partitions that a member gave up on being asked, or on leaving.
    pub revoked: u64,
    /// Partitions that a member lost without being asked.
    pub lost: u64,
    /// Members whose session ended.
    pub expired: u64,
    /// Handles that were killed.
    pub killed: u64,
    /// Records that retention removed before a group that has them to read had committed them.
    pub removed_unread: u64,
    /// Records that a member had taken and not committed when the partition left it, however it did:
    /// the next owner reads them again.
    pub exposed: u64,
    /// Commits that went back while the partition was owned (invariant DL2). Never allowed.
    pub commits_back: u64,
    /// Commits for a partition that the member knows not to be its own (invariant DL8). Never allowed.
    pub commits_unowned: u64,
}

/// Everything that was asked for.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) chances: Chances,
    /// Asked for by topic (full name), in order.
    pub(super) appends: BTreeMap<String, VecDeque<AppendFault>>,
    pub(super) sets: BTreeMap<String, VecDeque<SetFault>>,
    /// The log is out of reach.
    pub(super) away: bool,
}

/// What an append meets: a fault of its own, and a delay of its acknowledgement.
pub(super) struct Meets {
    pub(super) fault: Option<AppendFault>,
    pub(super) delay: Duration,
}

impl Faults {
    /// For the `number`th append to a topic.
    pub(super) fn of_append(&mut self, seed: u64, topic: &str, number: u64) -> Meets {
        let asked = self.appends.get_mut(topic).and_then(VecDeque::pop_front);
        if let Some(AppendFault::Delay(delay)) = asked {
            return Meets { fault: None, delay };
        }
        let Chances {
            fail,
            lose_acknowledgement,
            duplicate,
            gap,
            ..
        } = self.chances;
        let fault = asked.or_else(|| {
            let faults = [
                (fail, AppendFault::Fail),
                (lose_acknowledgement, AppendFault::LoseAcknowledgement),
                (duplicate, AppendFault::Duplicate),
                (gap, AppendFault::Gap),
            ];
            pick(draw(seed, topic, number), &faults)
        });
        let delayed = draw(seed ^ 1, topic, number);
        let delay = match happens(delayed, self.chances.delay) {
            true => part_of(self.chances.delay_max, delayed),
            false => Duration::ZERO,
        };
        Meets { fault, delay }
    }

    /// For the `number`th compare-and-set of a topic.
    pub(super) fn of_set(&mut self, seed: u64, topic: &str, number: u64) -> Option<SetFault> {
        let asked = self.sets.get_mut(topic).and_then(VecDeque::pop_front);
        asked.or_else(|| {
            let faults = [
                (self.chances.conflict, SetFault::Conflict),
                (self.chances.lose_answer, SetFault::LoseAnswer),
                (self.chances.fail_set, SetFault::Fail),
            ];
            pick(draw(seed ^ 2, topic, number), &faults)
        })
    }
}

/// A number that looks random and depends on nothing but these (FNV-1a, then SplitMix64's mixer).
pub(super) fn draw(seed: u64, stream: &str, number: u64) -> u64 {
    let bytes = stream.bytes().chain(number.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325 ^ mix(seed), |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(hash)
}

fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Whether something with this chance of 1,000 happens.
pub(super) fn happens(drawn: u64, of_thousand: u16) -> bool {
    drawn % 1000 < u64::from(of_thousand)
}

fn pick<F: Copy>(drawn: u64, faults: &[(u16, F)]) -> Option<F> {
    let mut left = drawn % 1000;
    for (chance, fault) in faults {
        let chance = u64::from(*chance);
        if left < chance {
            return Some(*fault);
        }
        left -= chance;
    }
    None
}

fn part_of(whole: Duration, drawn: u64) -> Duration {
    let micros = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros((drawn >> 10) % micros.max(1))
}
