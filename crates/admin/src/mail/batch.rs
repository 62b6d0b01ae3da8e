//! Notices on their way to be mailed, and who has got them. Pure: no log, no clock, no mail server.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use ringback_core::log::{Committed, Offset};
use ringback_core::notice::Notice;
use ringback_core::time::Timestamp;
use uuid::Uuid;

/// Most notices in one batch; the others stay in the log.
const NOTICES_MAX: usize = 10_000;
/// A notice that could not be mailed for so long is not mailed any more.
const EXPIRES: Duration = Duration::from_secs(86_400);
/// How often a mail is tried that the server will not take for now, while it takes others.
const TRIES_MAX: u32 = 8;
/// Waits after failures: the first, and the longest.
const PAUSE: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// All notices below `until` have been mailed to everybody up to `after`, in the order of their keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    until: Offset,
    after: Uuid,
}

/// The notices that are gathered, or being mailed.
#[derive(Debug)]
pub(super) struct Batch {
    /// Where it begins: the position to commit while it is not mailed to everybody.
    start: Offset,
    /// The next record to read.
    position: Offset,
    /// How far somebody before us had come with it.
    mark: Option<Mark>,
    notices: Vec<Notice>,
    /// When the first notice came, by the steady clock.
    opened: Option<Duration>,
    closed: bool,
    /// Who has got it, by the keys of letters.
    done: BTreeSet<Uuid>,
    tries: HashMap<Uuid, u32>,
}

impl Batch {
    /// Goes on where the group was.
    pub(super) fn resume(committed: &Committed) -> Self {
        let mark = parse(&committed.metadata).filter(|mark| mark.until > committed.offset);
        Self {
            mark,
            ..Self::at(committed.offset)
        }
    }

    /// Begins at this record.
    pub(super) fn at(position: Offset) -> Self {
        Self {
            start: position,
            position,
            mark: None,
            notices: Vec::new(),
            opened: None,
            closed: false,
            done: BTreeSet::new(),
            tries: HashMap::new(),
        }
    }

    /// How many more records it takes.
    pub(super) fn room(&self) -> usize {
        if self.closed {
            return 0;
        }
        let room = NOTICES_MAX - self.notices.len().min(NOTICES_MAX);
        match self.mark {
            Some(mark) => room.min(usize::try_from(mark.until - self.position).unwrap_or(0)),
            None => room,
        }
    }

    /// Takes the record at this offset: a notice, or nothing that is mailed.
    pub(super) fn take(&mut self, offset: Offset, notice: Option<Notice>, now: Duration) {
        self.position = offset + 1;
        if let Some(notice) = notice {
            self.notices.push(notice);
            self.opened.get_or_insert(now);
        }
        if self.notices.is_empty() && self.mark.is_none() {
            self.start = self.position;
        }
    }

    /// How long until it is to be mailed; `None` while there is nothing to mail.
    pub(super) fn due_in(&self, gather: Duration, now: Duration) -> Option<Duration> {
        if self.closed || self.room() == 0 {
            return Some(Duration::ZERO);
        }
        Some((self.opened? + gather).saturating_sub(now))
    }

    /// Takes no more, and gives the notices that are still worth a mail, with how many are not.
    pub(super) fn close(&mut self, now: Timestamp) -> (Vec<Notice>, usize) {
        self.closed = true;
        let before = self.notices.len();
        self.notices
            .retain(|notice| now.since(notice.since) <= EXPIRES);
        (self.notices.clone(), before - self.notices.len())
    }

    /// Whether the letter with this key is still to be sent.
    pub(super) fn is_open(&self, key: Uuid) -> bool {
        !self.done.contains(&key) && self.mark.is_none_or(|mark| key > mark.after)
    }

    /// The letter with this key is sent, or given up.
    pub(super) fn done(&mut self, key: Uuid) {
        self.done.insert(key);
        self.tries.remove(&key);
    }

    /// The server will not take the letter with this key for now; how long to wait before it is tried
    /// again, if it is.
    pub(super) fn put_off(&mut self, key: Uuid) -> Option<Duration> {
        let tries = self.tries.entry(key).or_default();
        *tries += 1;
        (*tries < TRIES_MAX).then(|| pause(*tries))
    }

    /// How often the letter with this key was put off.
    pub(super) fn tries(&self, key: Uuid) -> u32 {
        self.tries.get(&key).copied().unwrap_or_default()
    }

    /// What to commit while these letters (their keys, in order) are being sent.
    pub(super) fn progress(&self, keys: impl Iterator<Item = Uuid>) -> Committed {
        let sent = keys.take_while(|key| !self.is_open(*key)).last();
        let mark = match sent {
            Some(after) => Some(Mark {
                until: self.position,
                after,
            }),
            None => self.mark,
        };
        Committed {
            offset: self.start,
            metadata: mark.map_or_else(String::new, write),
        }
    }

    /// Everybody has got it: what to commit, and the batch after it.
    pub(super) fn finish(&self) -> (Committed, Self) {
        let committed = Committed {
            offset: self.position,
            metadata: String::new(),
        };
        (committed, Self::at(self.position))
    }

    /// What to commit when there is nothing to mail yet.
    pub(super) fn position(&self) -> Committed {
        let mark = self.mark.map_or_else(String::new, write);
        Committed {
            offset: self.start,
            metadata: mark,
        }
    }
}

fn write(mark: Mark) -> String {
    format!("{}/{}", mark.until, mark.after)
}

fn parse(metadata: &str) -> Option<Mark> {
    let (until, after) = metadata.split_once('/')?;
    Some(Mark {
        until: until.parse().ok()?,
        after: after.parse().ok()?,
    })
}

/// How long to wait after so many failures in series.
pub(super) fn pause(failures: u32) -> Duration {
    let doubled = PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use ringback_core::event::TenantId;
    use ringback_core::health::State;
    use ringback_core::notice::About;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn notice(webhook: u128, second: i64) -> Notice {
        Notice {
            tenant: TenantId::parse("acme").unwrap(),
            since: Timestamp::from_millis(second * 1000),
            about: About {
                webhook: Uuid::from_u128(webhook),
                name: None,
                generation: 1,
                state: State::Failing,
                reason: String::new(),
            },
        }
    }

    fn keys() -> [Uuid; 3] {
        [1, 2, 3].map(Uuid::from_u128)
    }

    #[test]
    fn notices_are_gathered_from_the_first_one_on() {
        let mut batch = Batch::at(10);
        batch.take(10, None, SECOND);
        assert_eq!(batch.due_in(5 * SECOND, 9 * SECOND), None);
        assert_eq!(batch.position().offset, 11);
        batch.take(11, Some(notice(1, 0)), 9 * SECOND);
        batch.take(12, Some(notice(2, 0)), 12 * SECOND);
        assert_eq!(batch.due_in(5 * SECOND, 12 * SECOND), Some(2 * SECOND));
        assert_eq!(batch.due_in(5 * SECOND, 15 * SECOND), Some(Duration::ZERO));
        assert_eq!(batch.position().offset, 11, "not mailed yet");
        let (notices, expired) = batch.close(Timestamp::from_millis(9000));
        assert_eq!((notices.len(), expired, batch.room()), (2, 0, 0));
        let (committed, next) = batch.finish();
        assert_eq!((committed.offset, next.room()), (13, NOTICES_MAX));
    }

    #[test]
    fn a_full_batch_does_not_wait() {
        let mut batch = Batch::at(0);
        for offset in 0..NOTICES_MAX as i64 {
            assert!(batch.room() > 0);
            batch.take(offset, Some(notice(1, 0)), SECOND);
        }
        assert_eq!(batch.room(), 0);
        assert_eq!(batch.due_in(5 * SECOND, SECOND), Some(Duration::ZERO));
    }

    #[test]
    fn who_has_got_it_does_not_get_it_again_from_another() {
        let mut batch = Batch::at(5);
        batch.take(5, Some(notice(1, 0)), SECOND);
        batch.take(6, Some(notice(2, 0)), SECOND);
        batch.close(Timestamp::EPOCH);
        let [first, second, third] = keys();
        assert_eq!(batch.progress(keys().into_iter()), batch.position());
        batch.done(first);
        batch.done(third);
        assert!(!batch.is_open(first) && batch.is_open(second) && !batch.is_open(third));
        let committed = batch.progress(keys().into_iter());
        assert_eq!(committed.offset, 5);

        let mut other = Batch::resume(&committed);
        assert_eq!(other.room(), 2, "no more than what was mailed");
        other.take(5, Some(notice(1, 0)), SECOND);
        assert_eq!(other.position(), committed);
        other.take(6, Some(notice(2, 0)), SECOND);
        assert_eq!(other.due_in(5 * SECOND, SECOND), Some(Duration::ZERO));
        other.close(Timestamp::EPOCH);
        assert!(!other.is_open(first) && other.is_open(second) && other.is_open(third));
        other.done(second);
        other.done(third);
        let all = other.progress(keys().into_iter());
        assert_eq!(all.metadata, format!("7/{third}"));
        assert_eq!(other.finish().0.offset, 7);
    }

    #[test]
    fn damaged_metadata_is_none() {
        for damaged in [
            "",
            "x",
            "7/",
            "7/x",
            "5/00000000-0000-0000-0000-000000000001",
        ] {
            let committed = Committed {
                offset: 5,
                metadata: damaged.to_owned(),
            };
            assert_eq!(Batch::resume(&committed).mark, None, "{damaged}");
        }
    }

    #[test]
    fn nothing_is_mailed_a_day_later_or_tried_for_ever() {
        let mut batch = Batch::at(0);
        batch.take(0, Some(notice(1, 0)), SECOND);
        batch.take(1, Some(notice(2, 10)), SECOND);
        let (notices, expired) = batch.close(Timestamp::from_millis(86_405_000));
        assert_eq!((notices.len(), expired), (1, 1));
        let (again, expired) = batch.close(Timestamp::from_millis(86_405_000));
        assert_eq!((again.len(), expired), (1, 0), "counted once");
        let key = keys()[0];
        let waits = std::iter::from_fn(|| batch.put_off(key)).count();
        assert_eq!(waits as u32 + 1, TRIES_MAX);
        assert_eq!(batch.tries(key), TRIES_MAX);
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let pauses = [1, 2, 3, 9, 1000].map(|failures| pause(failures).as_secs());
        assert_eq!(pauses, [2, 4, 8, 300, 300]);
    }
}
