//! Which offsets of a partition are done, and how far may be committed (invariants DL2, DL3).
//!
//! Records finish in any order. The committed offset stays at the lowest unfinished one; what is
//! finished beyond it travels, run-length encoded, in the commit's metadata, so that the next owner
//! does not repeat it.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::ops::Range;

use crate::check_invariant;
use crate::log::{Committed, Offset};

/// At most this many records of a partition are unfinished at a time.
pub const UNFINISHED_MAX: usize = 1000;
/// Most that Kafka takes as metadata of a commit by default (`offset.metadata.max.bytes`).
pub const METADATA_BYTES_MAX: usize = 4096;

/// Tracks one partition from its assignment to its revocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tracker {
    /// Ascending.
    unfinished: VecDeque<Offset>,
    /// The offset after the last record that was begun or skipped.
    next: Offset,
    /// Ranges that an earlier owner finished, ascending, not yet passed.
    finished_before: VecDeque<Range<Offset>>,
    /// What the last commit said.
    committed: Option<Committed>,
    /// The last commit failed.
    again: bool,
}

/// What to do with a record that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// Work on it; [`Tracker::finish`] when all is durable.
    New,
    /// An earlier owner finished it, or it was begun already: pass over it.
    Done,
}

impl Tracker {
    /// Begins where the group left off.
    ///
    /// `committed` `None` means that nothing was committed, and reading starts at `log_start`.
    /// Metadata that cannot be read costs repetitions, nothing else.
    pub fn new(committed: Option<&Committed>, log_start: Offset) -> Self {
        let (next, metadata) = committed.map_or((log_start, ""), |committed| {
            (committed.offset, &committed.metadata)
        });
        Self {
            unfinished: VecDeque::new(),
            next,
            finished_before: decode(next, metadata).unwrap_or_default().into(),
            committed: committed.cloned(),
            again: false,
        }
    }

    /// A record was read. Offsets must come in ascending order; gaps are normal.
    pub fn begin(&mut self, offset: Offset) -> Begin {
        if offset < self.next {
            // Read twice, after a seek or a reconnect: it is unfinished here or done.
            return Begin::Done;
        }
        self.next = offset + 1;
        while self
            .finished_before
            .front()
            .is_some_and(|range| range.end <= offset)
        {
            self.finished_before.pop_front();
        }
        if self
            .finished_before
            .front()
            .is_some_and(|range| range.contains(&offset))
        {
            return Begin::Done;
        }
        self.unfinished.push_back(offset);
        check_invariant!(
            DL5,
            self.unfinished.len() <= UNFINISHED_MAX,
            "{} records of a partition are unfinished",
            self.unfinished.len()
        );
        Begin::New
    }

    /// All deliveries of the record have a durable outcome. `false` when it was not unfinished.
    pub fn finish(&mut self, offset: Offset) -> bool {
        match self.unfinished.binary_search(&offset) {
            Ok(index) => self.unfinished.remove(index).is_some(),
            Err(_) => false,
        }
    }

    /// How many more records can be begun.
    pub fn room(&self) -> usize {
        UNFINISHED_MAX.saturating_sub(self.unfinished.len())
    }

    /// How many are unfinished.
    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    /// The offset that may be committed: everything before it is done.
    pub fn committable(&self) -> Offset {
        self.unfinished.front().copied().unwrap_or(self.next)
    }

    /// What to commit, if it differs from the last commit. The caller commits it, says
    /// [that it failed](Self::commit_failed), or drops the tracker.
    pub fn commit(&mut self) -> Option<Committed> {
        let news = Committed {
            offset: self.committable(),
            metadata: self.metadata(),
        };
        if self.committed.as_ref() == Some(&news) && !self.again {
            return None;
        }
        self.again = false;
        if let Some(last) = &self.committed {
            check_invariant!(
                DL2,
                news.offset >= last.offset,
                "commit would go back from {} to {}",
                last.offset,
                news.offset
            );
        }
        self.committed = Some(news.clone());
        Some(news)
    }

    /// The last commit failed: the next one is due even if nothing finishes until then. Otherwise
    /// whoever owns a quiet partition next, maybe days later, would repeat what it said.
    pub fn commit_failed(&mut self) {
        self.again = true;
    }

    fn metadata(&self) -> String {
        let mut done = Vec::new();
        let mut from = self.committable();
        for &offset in &self.unfinished {
            push_range(&mut done, from..offset);
            from = offset + 1;
        }
        push_range(&mut done, from..self.next);
        // What an earlier owner finished and we have not reached yet.
        for range in &self.finished_before {
            push_range(&mut done, range.start.max(self.next)..range.end);
        }
        encode(self.committable(), &done)
    }
}

/// What a group has finished of a partition by its last commit, for whoever looks on from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finished {
    next: Offset,
    beyond: Vec<Range<Offset>>,
}

impl Finished {
    /// Reads a commit. `None`: nothing was committed, and reading starts at `log_start`.
    pub fn of(committed: Option<&Committed>, log_start: Offset) -> Self {
        let (next, metadata) = committed.map_or((log_start, ""), |committed| {
            (committed.offset, committed.metadata.as_str())
        });
        Self {
            next,
            beyond: decode(next, metadata).unwrap_or_default(),
        }
    }

    /// Everything before this is finished.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Whether a record is finished.
    pub fn contains(&self, offset: Offset) -> bool {
        let after = self.beyond.partition_point(|range| range.end <= offset);
        let within = |range: &Range<Offset>| range.contains(&offset);
        offset < self.next || self.beyond.get(after).is_some_and(within)
    }
}

fn push_range(ranges: &mut Vec<Range<Offset>>, range: Range<Offset>) {
    if range.is_empty() {
        return;
    }
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

/// Version letter of the metadata.
const VERSION: char = 'a';

/// Run lengths from `base` on, alternately not done and done, in base 36, comma-separated. What does
/// not fit is left out from the end: it will be repeated, not lost.
fn encode(base: Offset, done: &[Range<Offset>]) -> String {
    let mut text = String::new();
    let mut at = base;
    for range in done {
        let before = text.len();
        let separator = if text.is_empty() { VERSION } else { ',' };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{separator}{},{}",
            Base36(range.start.abs_diff(at)),
            Base36(range.end.abs_diff(range.start))
        );
        if text.len() > METADATA_BYTES_MAX {
            text.truncate(before);
            break;
        }
        at = range.end;
    }
    text
}

/// Reads what [`encode`] wrote. `None` when it is something else.
fn decode(base: Offset, text: &str) -> Option<Vec<Range<Offset>>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let mut lengths = text.strip_prefix(VERSION)?.split(',');
    let mut at = base;
    let mut done = Vec::new();
    while let Some(gap) = lengths.next() {
        let start = at.checked_add(parse36(gap)?)?;
        let end = start.checked_add(parse36(lengths.next()?)?)?;
        if start == end {
            return None;
        }
        done.push(start..end);
        at = end;
    }
    Some(done)
}

fn parse36(text: &str) -> Option<i64> {
    if text.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(text, 36).ok()
}

struct Base36(u64);

impl std::fmt::Display for Base36 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut digits = [0u8; 13];
        let mut at = digits.len();
        let mut rest = self.0;
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        f.write_str(std::str::from_utf8(&digits[at..]).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The naive model: every offset that exists, and those that are done.
    #[derive(Default)]
    struct Model {
        begun: BTreeSet<Offset>,
        done: BTreeSet<Offset>,
    }

    impl Model {
        fn committable(&self, start: Offset) -> Offset {
            let lowest = self.begun.difference(&self.done).next();
            let after_last = self.begun.last().map_or(start, |last| last + 1);
            lowest.copied().unwrap_or(after_last)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Read the next record, after a gap of so many offsets.
        Begin {
            gap: i64,
        },
        /// Finish the nth unfinished one.
        Finish {
            nth: usize,
        },
        /// Crash or rebalance: the next owner begins with the last commit.
        Restart,
        Commit,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0i64..4).prop_map(|gap| Step::Begin { gap }),
            4 => any::<usize>().prop_map(|nth| Step::Finish { nth }),
            1 => Just(Step::Restart),
            2 => Just(Step::Commit),
        ]
    }

    proptest! {
        /// Against the model, with gaps, crashes and re-reading: the committed offset never passes an
        /// unfinished record (DL2), nothing that is unfinished is passed over (DL3), and nothing that
        /// a commit knew to be done is worked on again.
        #[test]
        fn like_the_naive_model(steps in proptest::collection::vec(step(), 1..200), start in 0i64..1_000_000) {
            let mut log: Vec<Offset> = Vec::new();
            let mut model = Model::default();
            let mut read = 0;
            let mut known_done = BTreeSet::new();
            let mut committed: Option<Committed> = None;
            let mut tracker = Tracker::new(None, start);
            for step in steps {
                match step {
                    Step::Begin { gap } => {
                        if read == log.len() {
                            let last = log.last().copied().unwrap_or(start - 1);
                            log.push(last + 1 + gap);
                        }
                        let offset = log[read];
                        read += 1;
                        model.begun.insert(offset);
                        let was_done = known_done.contains(&offset);
                        prop_assert_eq!(tracker.begin(offset) == Begin::Done, was_done);
                        if was_done {
                            prop_assert!(model.done.contains(&offset));
                        } else {
                            model.done.remove(&offset);
                        }
                        prop_assert_eq!(tracker.begin(offset), Begin::Done);
                    }
                    Step::Finish { nth } => {
                        let open: Vec<_> = model.begun.difference(&model.done).copied().collect();
                        if let Some(&offset) = open.get(nth % open.len().max(1)) {
                            prop_assert!(tracker.finish(offset));
                            prop_assert!(!tracker.finish(offset));
                            model.done.insert(offset);
                        }
                    }
                    Step::Commit => {
                        if let Some(news) = tracker.commit() {
                            prop_assert_eq!(news.offset, model.committable(start));
                            prop_assert!(news.metadata.len() <= METADATA_BYTES_MAX);
                            known_done = model.done.clone();
                            // What was known done beyond what this owner has read stays known.
                            prop_assert_eq!(tracker.commit(), None);
                            committed = Some(news);
                        }
                    }
                    Step::Restart => {
                        tracker = Tracker::new(committed.as_ref(), start);
                        let from = committed.as_ref().map_or(start, |c| c.offset);
                        read = log.partition_point(|&offset| offset < from);
                        if committed.is_none() {
                            known_done.clear();
                        }
                        model.begun = log[..read].iter().copied().collect();
                        model.done = &model.begun | &known_done;
                        model.begun = &model.begun | &known_done.iter().copied().filter(|o| *o < from).collect();
                        model.done = model.done.iter().copied().filter(|o| model.begun.contains(o) || known_done.contains(o)).collect();
                    }
                }
                let open = model.begun.difference(&model.done).count();
                prop_assert_eq!(tracker.unfinished(), open);
            }
        }

        #[test]
        fn metadata_reads_back(base in 0i64..i64::MAX / 2, lengths in proptest::collection::vec((0i64..5000, 1i64..5000), 0..800)) {
            let mut at = base;
            let mut done = Vec::new();
            for (gap, length) in lengths {
                push_range(&mut done, at + gap..at + gap + length);
                at += gap + length;
            }
            let text = encode(base, &done);
            prop_assert!(text.len() <= METADATA_BYTES_MAX);
            let read = decode(base, &text).unwrap();
            prop_assert_eq!(&done[..read.len()], &read[..]);
            if text.len() < METADATA_BYTES_MAX - 16 {
                prop_assert_eq!(read.len(), done.len());
            }
        }

        #[test]
        fn any_metadata_is_read_or_ignored(text in "\\PC{0,50}|a[0-9a-z,]{0,50}", base in any::<i64>()) {
            let committed = Committed { offset: base, metadata: text };
            let mut tracker = Tracker::new(Some(&committed), 0);
            if base < i64::MAX - 10 {
                tracker.begin(base);
                tracker.commit();
            }
        }
    }

    /// The worst case of the design: every second of 2,000 records done. It must fit, so that a crash
    /// repeats only what was unfinished.
    #[test]
    fn a_thousand_unfinished_fit_into_the_metadata() {
        let mut tracker = Tracker::new(None, 0);
        for offset in 0..1999 {
            assert_eq!(tracker.begin(offset), Begin::New);
            if offset % 2 == 1 {
                tracker.finish(offset);
            }
        }
        assert_eq!(tracker.room(), 0);
        let committed = tracker.commit().unwrap();
        assert_eq!(committed.offset, 0);
        let mut next = Tracker::new(Some(&committed), 0);
        let finished = Finished::of(Some(&committed), 0);
        assert_eq!(finished.next(), 0);
        for offset in 0..1999 {
            assert_eq!(finished.contains(offset), offset % 2 == 1, "{offset}");
            let expected = if offset % 2 == 1 {
                Begin::Done
            } else {
                Begin::New
            };
            assert_eq!(next.begin(offset), expected, "{offset}");
        }
    }

    #[test]
    fn a_failed_commit_is_due_again() {
        let mut tracker = Tracker::new(None, 0);
        tracker.begin(0);
        tracker.finish(0);
        let first = tracker.commit();
        assert!(first.is_some());
        assert_eq!(tracker.commit(), None);
        tracker.commit_failed();
        assert_eq!(tracker.commit(), first);
        assert_eq!(tracker.commit(), None);
    }

    #[test]
    fn metadata_is_as_short_as_it_can_be_and_never_too_long() {
        let done = |count: i64| -> Vec<_> { (0..count).map(|n| 2 * n + 1..2 * n + 2).collect() };
        // A letter or a comma, a digit, a comma, a digit: 4 bytes each.
        let most = METADATA_BYTES_MAX as i64 / 4;
        for count in [most, most + 1] {
            let text = encode(0, &done(count));
            assert_eq!(text.len(), METADATA_BYTES_MAX);
            assert_eq!(decode(0, &text).unwrap(), done(most));
        }
        // What this owner has passed and what it has not reached yet are told as one.
        let metadata = "a1,2".to_owned();
        let mut tracker = Tracker::new(
            Some(&Committed {
                offset: 0,
                metadata,
            }),
            0,
        );
        assert_eq!(
            [0, 1].map(|at| tracker.begin(at)),
            [Begin::New, Begin::Done]
        );
        tracker.commit_failed();
        assert_eq!(tracker.commit().unwrap().metadata, "a1,2");
    }

    #[test]
    fn room_is_what_is_left() {
        let mut tracker = Tracker::new(None, 5);
        assert_eq!(tracker.room(), UNFINISHED_MAX);
        tracker.begin(5);
        assert_eq!(
            (tracker.room(), tracker.unfinished()),
            (UNFINISHED_MAX - 1, 1)
        );
        tracker.finish(5);
        assert_eq!(tracker.room(), UNFINISHED_MAX);
    }

    #[test]
    fn who_looks_on_sees_what_is_finished() {
        let metadata = "a1,2,1,1".to_owned();
        let finished = Finished::of(
            Some(&Committed {
                offset: 7,
                metadata,
            }),
            0,
        );
        assert_eq!(finished.next(), 7);
        let seen: Vec<_> = (5..14).filter(|at| finished.contains(*at)).collect();
        assert_eq!(seen, [5, 6, 8, 9, 11]);
        let nothing = Finished::of(None, 3);
        assert!(nothing.next() == 3 && nothing.contains(2) && !nothing.contains(3));
    }
}
