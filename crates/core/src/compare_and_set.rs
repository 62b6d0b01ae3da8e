//! Compare-and-set of configuration records, the deciding part: what a writer knows of a topic, and
//! whether it may write. The log's engine fences, reads to the end, asks here, writes and commits.

use std::collections::BTreeMap;

use crate::log::{Offset, Revision};

/// What a writer has read of a configuration topic.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Known {
    /// Everything before this has been read.
    next: Offset,
    /// The newest record of each key, own ones included as soon as they are committed: the log
    /// shows them to readers only some milliseconds later.
    newest: BTreeMap<Vec<u8>, Newest>,
    /// Where an earlier try of the write at hand may have put its record, and whether one was read
    /// there.
    perhaps: Option<(Offset, bool)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Newest {
    offset: Offset,
    /// It is a tombstone.
    removed: bool,
}

/// What to do with a write, everything before it being known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Write it.
    Write,
    /// It was written: the try before, whose end was not known, was committed after all.
    Done(Revision),
    /// Somebody else wrote first; this is there now.
    Conflict(Option<Revision>),
}

impl Known {
    /// Everything before this has been read.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Everything before this has been read now.
    pub fn read_to(&mut self, end: Offset) {
        self.next = end;
    }

    /// A write begins, or begins again: `perhaps` is where its earlier try may have put the record.
    /// To be called before the topic is read to its end: by then another writer may have changed that
    /// record, and only who reads all of it knows that it was there.
    pub fn begin(&mut self, perhaps: Option<Offset>) {
        self.perhaps = perhaps.map(|offset| (offset, false));
    }

    /// A record was read or written. One that is read may be older than what is known.
    pub fn learn(&mut self, key: &[u8], offset: Offset, removed: bool) {
        if let Some((perhaps, found)) = &mut self.perhaps {
            *found |= *perhaps == offset;
        }
        match self.newest.get_mut(key) {
            Some(newest) if newest.offset >= offset => {}
            Some(newest) => *newest = Newest { offset, removed },
            None => drop(self.newest.insert(key.to_vec(), Newest { offset, removed })),
        }
    }

    /// Decides on a write that expects this revision (`None`: no record).
    pub fn decide(&self, key: &[u8], expected: Option<Revision>) -> Decision {
        if let Some((offset, true)) = self.perhaps {
            return Decision::Done(Revision(offset));
        }
        let newest = self.newest.get(key);
        let current = newest
            .filter(|newest| !newest.removed)
            .map(|newest| Revision(newest.offset));
        match current == expected {
            true => Decision::Write,
            false => Decision::Conflict(current),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_record_of_a_key_decides() {
        let mut known = Known::default();
        let revision = |offset| Some(Revision(offset));
        assert_eq!(known.decide(b"a", None), Decision::Write);
        assert_eq!(known.decide(b"a", revision(1)), Decision::Conflict(None));
        known.learn(b"a", 3, false);
        known.learn(b"a", 1, true);
        assert_eq!(known.decide(b"a", revision(3)), Decision::Write);
        assert_eq!(known.decide(b"b", None), Decision::Write);
        assert_eq!(known.decide(b"a", None), Decision::Conflict(revision(3)));
        known.learn(b"a", 3, true);
        assert_eq!(known.decide(b"a", revision(3)), Decision::Write);
        known.learn(b"a", 4, true);
        assert_eq!(known.decide(b"a", None), Decision::Write);
        assert_eq!(known.decide(b"a", revision(4)), Decision::Conflict(None));
        assert_eq!(known.next(), 0);
        known.read_to(5);
        assert_eq!(known.next(), 5);
    }

    /// A try whose commit took place although its answer said otherwise is no conflict, also when
    /// somebody has changed the record since.
    #[test]
    fn what_an_earlier_try_wrote_is_found() {
        let mut known = Known::default();
        known.begin(Some(7));
        known.learn(b"a", 6, false);
        assert_eq!(
            known.decide(b"a", None),
            Decision::Conflict(Some(Revision(6)))
        );
        known.learn(b"a", 7, false);
        known.learn(b"a", 8, false);
        assert_eq!(known.decide(b"a", None), Decision::Done(Revision(7)));
        known.begin(None);
        assert_eq!(
            known.decide(b"a", None),
            Decision::Conflict(Some(Revision(8)))
        );
    }
}
