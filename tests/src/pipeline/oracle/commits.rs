//! What is checked when a partition changes hands, when a position is committed (DL1 to DL3, DL10),
//! and at rest.

use ringback_core::log::{Assignment, Committed, Offset};
use ringback_core::topics::{Partition, group};
use ringback_core::tracker::Finished;
use ringback_log::sim::ProcessId;
use uuid::Uuid;

use super::Check;
use super::books::{Books, Entry, Key, number_of};

impl Books {
    pub(super) fn assigned(&mut self, process: ProcessId, name: &str, assignment: &Assignment) {
        let Assignment {
            partition,
            committed,
            log_start,
        } = assignment;
        let from = committed.as_ref().map_or(-1, |committed| committed.offset);
        self.trace.add(
            "assigned",
            &[process, number_of(*partition), from as u64],
            format_args!("{process} {name} {partition:?} from {from}, log from {log_start}"),
        );
        let process = self.process(process);
        process.owns.insert(*partition);
        if name != group::ATTEMPTS
            && let Some(committed) = committed
        {
            let lost = (log_start - committed.offset).max(0);
            process.lost += lost.unsigned_abs();
        }
    }

    pub(super) fn committed(
        &mut self,
        process: ProcessId,
        name: &str,
        partition: Partition,
        committed: &Committed,
    ) {
        let offset = committed.offset;
        self.sums.commits += 1;
        let metadata = &committed.metadata;
        let bytes = metadata.bytes().fold(0_u64, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(byte))
        });
        self.trace.add(
            "committed",
            &[process, number_of(partition), offset as u64, bytes],
            format_args!("{process} {name} {partition:?} {offset} {metadata:?}"),
        );
        let position = self.positions.entry(partition).or_default();
        let before = std::mem::replace(&mut position.committed, offset);
        if offset < before {
            let what =
                format!("process {process} commits {offset} of {partition:?} after {before}");
            self.violated(Check::DL2, what);
        }
        if !self.process(process).owns.contains(&partition) {
            let what = format!("process {process} commits {partition:?}, which is not its own");
            self.violated(Check::DL8, what);
        }
        if name != group::ATTEMPTS {
            self.check_finished(process, partition, committed);
        }
    }

    /// Everything that is newly said to be finished.
    fn check_finished(&mut self, process: ProcessId, partition: Partition, committed: &Committed) {
        let finished = Finished::of(Some(committed), 0);
        let end = self.records.get(&partition).map_or(0, Vec::len) as Offset;
        let position = self.positions.entry(partition).or_default();
        let from = position.checked.max(position.start);
        let news: Vec<Offset> = (from..end)
            .filter(|offset| finished.contains(*offset) && !position.beyond.contains(offset))
            .collect();
        position.beyond.extend(&news);
        position.checked = position.checked.max(committed.offset.min(end));
        position.beyond = position.beyond.split_off(&position.checked);
        if committed.offset > end {
            let offset = committed.offset;
            let what = format!("process {process} commits {offset} of {partition:?}, end {end}");
            self.violated(Check::DL2, what);
        }
        for offset in news {
            let entries = self.records.get(&partition);
            let entry = entries.and_then(|entries| *entries.get(usize::try_from(offset).ok()?)?);
            match entry {
                None => {}
                Some(Entry::Event(event, appended)) => {
                    let subscribed = self.subscribed(event, appended);
                    let keys = subscribed.iter().map(|webhook| (event, *webhook, 0));
                    let done = keys.clone().any(|key| self.is_beyond(key, 0, 0));
                    for key in keys {
                        self.tracks.entry(key).or_default().expected = true;
                        self.check_outcome((partition, offset), key, (0, 0), done);
                    }
                }
                Some(Entry::Delivery(key, attempt, deferrals)) => {
                    let asked = (attempt, deferrals);
                    self.check_outcome((partition, offset), key, asked, false);
                }
            }
        }
    }

    /// The webhooks that must get an event: those that wanted it whoever looked.
    fn subscribed(&self, event: Uuid, appended: ringback_core::time::Timestamp) -> Vec<Uuid> {
        let Some(info) = self.events.get(&event) else {
            return Vec::new();
        };
        let name = info.name.as_str();
        let mut webhooks = self.configuration.wanting(&info.tenant, name, appended);
        webhooks.retain(|webhook| info.about != Some(*webhook));
        webhooks
    }

    fn is_beyond(&self, key: Key, attempt: u8, deferrals: u8) -> bool {
        let track = self.tracks.get(&key);
        track.is_some_and(|track| track.is_beyond(attempt, deferrals))
    }

    fn check_outcome(
        &mut self,
        (partition, offset): (Partition, Offset),
        key: Key,
        (attempt, deferrals): (u8, u8),
        done_for_others: bool,
    ) {
        if self.is_beyond(key, attempt, deferrals) {
            return;
        }
        let made = self.tracks.get(&key).and_then(|track| track.made(attempt));
        let (check, why) = match made {
            Some(made) if made.open > 0 => (Check::DL2, "its request is under way"),
            Some(_) => (Check::DL3, "what came of it is not in the log"),
            // Done for others of the same event, or not begun at all.
            None if done_for_others => (Check::DL1, "nothing was done, unlike for others"),
            None => (Check::DL2, "nothing was done yet"),
        };
        let name = &self.rules.topics.spec(partition.topic).name;
        let index = partition.index;
        let what = format!(
            "{name}/{index}@{offset} is committed, but of attempt {attempt} (deferred {deferrals}) of {key:?} {why}"
        );
        self.violated(check, what);
    }

    /// Records before this were removed: what was not finished of them needs no end (DL10).
    pub(crate) fn removed(&mut self, partition: Partition, before: Offset) {
        let position = self.positions.entry(partition).or_default();
        position.start = position.start.max(before);
    }

    /// DL1 when nothing is left to do.
    pub(crate) fn at_rest(&mut self, allowed: u64) {
        let mut left: Vec<Key> = self
            .tracks
            .iter()
            .filter(|(_, track)| track.expected && !track.is_over())
            .map(|(key, _)| *key)
            .collect();
        left.sort_unstable();
        let lost = self.positions.values().any(|position| position.start > 0);
        if let Some(key) = left.first()
            && !lost
        {
            let (count, asks) = (left.len(), &self.tracks[key].asks);
            let what = format!("at rest {count} deliveries have not ended, so {key:?}: {asks:?}");
            self.violated(Check::DL1, what);
        }
        self.sums.allowed = allowed;
        let duplicates = self.sums().duplicates;
        if duplicates > allowed {
            let what = format!("{duplicates} requests were repeated, {allowed} are explained");
            self.violated(Check::Duplicates, what);
        }
    }
}
