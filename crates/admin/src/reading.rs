//! Reading the log backward, newest first, a bounded piece per request.
//!
//! A page begins where its cursor says and ends when it is full, when its budget of offsets is spent,
//! or when the records become older than asked for; its own cursor leads on.

use std::collections::VecDeque;

use ringback_core::log::{LogError, Offset, Reader, Record};
use ringback_core::time::Timestamp;
use ringback_core::topics::Partition;

use crate::problem::Problem;

/// Offsets that one request may look at.
pub(crate) const BUDGET: u64 = 20_000;
/// Entries that one page may have.
pub(crate) const LIMIT_MAX: usize = 500;
/// Entries of a page when the request does not say.
pub(crate) const LIMIT: usize = 50;

/// Offsets that are read at a time: few at first, because the newest are wanted most often.
const WINDOW_MIN: Offset = 128;
const WINDOW_MAX: Offset = 4096;

/// How much to read.
pub(crate) struct Extent {
    /// Entries in the page.
    pub(crate) limit: usize,
    /// Offsets to look at, over all partitions.
    pub(crate) budget: u64,
    /// Records appended before this are not wanted.
    pub(crate) since: Option<Timestamp>,
}

/// Entries, newest first.
pub(crate) struct Page<T> {
    pub(crate) entries: Vec<T>,
    /// Where the next page begins; `None` when there is nothing more.
    pub(crate) cursor: Option<String>,
    /// Offsets that were looked at.
    pub(crate) scanned: u64,
}

/// One partition on its way down.
struct Descent<T> {
    partition: Partition,
    /// Ascending by offset.
    found: VecDeque<Entry<T>>,
    /// Whether older entries were found than the page can hold.
    overfull: bool,
    /// Everything from here on was looked at.
    bottom: Offset,
    /// Nothing that is wanted lies below `bottom`.
    ended: bool,
}

struct Entry<T> {
    offset: Offset,
    appended: Timestamp,
    content: T,
}

/// Blocking: reads a page of what `pick` makes entries of. Within a partition entries are in order;
/// those of several partitions are merged by their append times.
pub(crate) fn newest_first<T>(
    reader: &mut impl Reader,
    partitions: &[Partition],
    cursor: Option<&str>,
    extent: &Extent,
    mut pick: impl FnMut(&Record<'_>) -> Option<T>,
) -> Result<Page<T>, Problem> {
    let uppers = cursor
        .map(|cursor| parse_cursor(cursor, partitions.len()))
        .transpose()?;
    let share = extent.budget / u64::try_from(partitions.len()).unwrap_or(1).max(1);
    let mut scanned = 0;
    let mut descents = Vec::with_capacity(partitions.len());
    for (index, partition) in partitions.iter().enumerate() {
        let upper = uppers.as_ref().map(|uppers| uppers[index]);
        let (descent, looked_at) = descend(reader, *partition, upper, extent, share, &mut pick)?;
        scanned += looked_at;
        descents.push(descent);
    }
    let entries = merge(&mut descents, extent.limit);
    let cursor = cursor_after(&descents);
    Ok(Page {
        entries,
        cursor,
        scanned,
    })
}

fn descend<T>(
    reader: &mut impl Reader,
    partition: Partition,
    upper: Option<Offset>,
    extent: &Extent,
    budget: u64,
    pick: &mut impl FnMut(&Record<'_>) -> Option<T>,
) -> Result<(Descent<T>, u64), LogError> {
    let bounds = reader.bounds(partition)?;
    let top = upper.map_or(bounds.end, |upper| upper.min(bounds.end));
    let mut descent = Descent {
        partition,
        found: VecDeque::new(),
        overfull: false,
        bottom: top,
        ended: false,
    };
    let budget = Offset::try_from(budget).unwrap_or(Offset::MAX).max(1);
    let floor = bounds.start.max(top.saturating_sub(budget));
    let mut window = WINDOW_MIN;
    while descent.found.len() < extent.limit && !descent.ended && descent.bottom > floor {
        let from = floor.max(descent.bottom - window);
        let older = descent.read(reader, from, extent, pick)?;
        descent.ended = older;
        window = (window * 2).min(WINDOW_MAX);
    }
    descent.ended |= descent.bottom <= bounds.start;
    let scanned = u64::try_from(top.saturating_sub(descent.bottom)).unwrap_or(0);
    Ok((descent, scanned))
}

impl<T> Descent<T> {
    /// Reads the offsets from `from` to the bottom. Whether records older than wanted were there.
    fn read(
        &mut self,
        reader: &mut impl Reader,
        from: Offset,
        extent: &Extent,
        pick: &mut impl FnMut(&Record<'_>) -> Option<T>,
    ) -> Result<bool, LogError> {
        let mut window = VecDeque::new();
        let mut older = false;
        // What is above is newer and goes into the page first.
        let room = extent.limit.saturating_sub(self.found.len());
        let overfull = &mut self.overfull;
        reader.read(self.partition, from..self.bottom, &mut |record| {
            if extent.since.is_some_and(|since| record.appended < since) {
                older = true;
                return;
            }
            let Some(content) = pick(&record) else { return };
            if window.len() == room {
                window.pop_front();
                *overfull = true;
            }
            window.push_back(Entry {
                offset: record.offset,
                appended: record.appended,
                content,
            });
        })?;
        window.append(&mut self.found);
        self.found = window;
        self.bottom = from;
        Ok(older)
    }
}

/// Takes the newest entries out of all partitions.
fn merge<T>(descents: &mut [Descent<T>], limit: usize) -> Vec<T> {
    let mut entries = Vec::new();
    while entries.len() < limit {
        let newest = descents
            .iter_mut()
            .filter(|descent| !descent.found.is_empty())
            .max_by_key(|descent| descent.found.back().map(|entry| entry.appended));
        let Some(descent) = newest else { break };
        if let Some(entry) = descent.found.pop_back() {
            if descent.found.is_empty() && descent.overfull {
                // What did not fit lies below the last entry that did.
                descent.bottom = entry.offset;
                descent.ended = false;
            }
            entries.push(entry.content);
        }
    }
    entries
}

/// The upper bound of what remains, for each partition.
fn cursor_after<T>(descents: &[Descent<T>]) -> Option<String> {
    let uppers: Vec<_> = descents
        .iter()
        .map(|descent| match descent.found.back() {
            Some(next) => next.offset + 1,
            None if descent.ended => 0,
            None => descent.bottom,
        })
        .collect();
    let text: Vec<_> = uppers.iter().map(Offset::to_string).collect();
    uppers
        .iter()
        .any(|&upper| upper > 0)
        .then(|| text.join("."))
}

fn parse_cursor(text: &str, partitions: usize) -> Result<Vec<Offset>, Problem> {
    let wrong = || {
        let detail = "the cursor is not one of ours; leave it out to begin at the newest";
        Problem::invalid("invalid_cursor", detail).with("field", "cursor")
    };
    // No more parts than needed are looked at, however long the text is.
    let parts = text.split('.').take(partitions + 1);
    let uppers: Vec<Offset> = parts
        .map(|part| part.parse().ok().filter(|upper| *upper >= 0))
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    if uppers.len() == partitions {
        Ok(uppers)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use ringback_core::schedule::Schedule;
    use ringback_core::topics::{Role, Topics, TopicsConfig};

    use super::*;

    /// Partitions of numbers: the record's key is its number, its time the number in seconds.
    struct Numbers {
        start: Offset,
        partitions: Vec<Vec<i64>>,
    }

    impl Reader for Numbers {
        fn bounds(&mut self, partition: Partition) -> Result<Range<Offset>, LogError> {
            let numbers = &self.partitions[partition.index as usize];
            Ok(self.start..self.start + i64::try_from(numbers.len()).unwrap())
        }

        fn read(
            &mut self,
            partition: Partition,
            range: Range<Offset>,
            handler: &mut dyn FnMut(Record<'_>),
        ) -> Result<(), LogError> {
            let numbers = &self.partitions[partition.index as usize];
            for (offset, number) in (self.start..).zip(numbers) {
                if range.contains(&offset) {
                    handler(Record {
                        partition,
                        offset,
                        appended: Timestamp::from_millis(number * 1000),
                        key: Some(number.to_string().as_bytes()),
                        headers: &[],
                        value: None,
                    });
                }
            }
            Ok(())
        }
    }

    fn partitions(count: u32) -> Vec<Partition> {
        let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let topic = topics.find(Role::Parked).unwrap();
        (0..count).map(|index| Partition { topic, index }).collect()
    }

    /// Every page's entries, and the largest number of offsets one page looked at.
    fn all(numbers: &mut Numbers, extent: &Extent, wanted: fn(i64) -> bool) -> (Vec<i64>, u64) {
        let partitions = partitions(u32::try_from(numbers.partitions.len()).unwrap());
        let (mut entries, mut most, mut cursor) = (Vec::new(), 0, None::<String>);
        for _ in 0..100_000 {
            let page = newest_first(numbers, &partitions, cursor.as_deref(), extent, |record| {
                let number = std::str::from_utf8(record.key?).ok()?.parse().ok()?;
                wanted(number).then_some(number)
            })
            .unwrap();
            assert!(page.entries.len() <= extent.limit);
            entries.extend(page.entries);
            most = most.max(page.scanned);
            cursor = page.cursor;
            if cursor.is_none() {
                return (entries, most);
            }
        }
        panic!("the cursor does not end: {cursor:?}");
    }

    #[test]
    fn pages_give_every_entry_once_and_newest_first() {
        let mut numbers = Numbers {
            start: 17,
            partitions: vec![(0..3000).collect()],
        };
        for (limit, budget) in [(1, 1), (7, 100), (50, 20_000), (5000, 20_000), (3, 129)] {
            let extent = Extent {
                limit,
                budget,
                since: None,
            };
            let (entries, most) = all(&mut numbers, &extent, |number| number % 3 == 0);
            let expected: Vec<i64> = (0..3000).rev().filter(|number| number % 3 == 0).collect();
            assert_eq!(entries, expected, "limit {limit}, budget {budget}");
            assert!(most <= budget, "{most} of {budget}");
        }
    }

    #[test]
    fn partitions_are_merged_by_time() {
        let spread = |part| (0..900).filter(move |number| number % 4 == part).collect();
        let mut numbers = Numbers {
            start: 0,
            partitions: vec![spread(0), spread(1), spread(2), vec![]],
        };
        let extent = Extent {
            limit: 10,
            budget: 20_000,
            since: None,
        };
        let (entries, _) = all(&mut numbers, &extent, |_| true);
        let expected: Vec<i64> = (0..900).rev().filter(|number| number % 4 != 3).collect();
        assert_eq!(entries, expected);
    }

    #[test]
    fn what_is_older_than_asked_for_is_not_looked_for() {
        let mut numbers = Numbers {
            start: 0,
            partitions: vec![(0..100_000).collect()],
        };
        let since = Some(Timestamp::from_millis(99_990_000));
        let (entries, most) = all(
            &mut numbers,
            &Extent {
                limit: 50,
                budget: 20_000,
                since,
            },
            |_| true,
        );
        assert_eq!(entries, (99_990..100_000).rev().collect::<Vec<_>>());
        assert!(most < 1000, "{most}");
    }

    #[test]
    fn foreign_cursors_are_refused() {
        for cursor in ["", "x", "-1", "1.2", "99999999999999999999"] {
            assert!(parse_cursor(cursor, 1).is_err(), "{cursor}");
        }
        assert_eq!(parse_cursor("3.0", 2).unwrap(), [3, 0]);
    }
}
