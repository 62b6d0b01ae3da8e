//! What moves the log: records are taken in and their ends reported, one step at a time, by a thread
//! of the log's own or by the test.

use std::collections::BTreeMap;

use parking_lot::{Condvar, Mutex};
use ringback_core::log::{AppendError, Appended, Offset};
use ringback_core::time::Timestamp;

use super::appender::{Ack, Waiting};
use super::clock::SimClock;
use super::faults::{AppendFault, draw, happens};
use super::state::{Place, State, Stored};
use super::watch::Happening;

/// Shared by every handle.
pub(super) struct Engine {
    pub(super) clock: SimClock,
    /// The test takes the steps; nobody ever waits.
    pub(super) stepped: bool,
    pub(super) state: Mutex<State>,
    /// There may be something for the engine to do.
    pub(super) work: Condvar,
    /// [`State::version`] was raised.
    pub(super) changed: Condvar,
}

impl Engine {
    /// Takes steps until everything is done, and waits for more, until the last handle is gone.
    pub(super) fn run(&self) {
        loop {
            while self.step() {}
            let mut state = self.state.lock();
            let now = self.clock.now();
            if has_work(&state, now) {
                continue;
            }
            if state.stop {
                return;
            }
            match next_due(&state) {
                Some(due) if self.clock.runs() => {
                    // Rounded up, so that it is due then.
                    let wait = due.since(now) + std::time::Duration::from_millis(1);
                    self.work.wait_for(&mut state, wait);
                }
                _ => self.work.wait(&mut state),
            }
        }
    }

    /// Does one thing: takes a record in, or reports the end of an append. `false` when there is
    /// nothing to do at this time.
    pub(super) fn step(&self) -> bool {
        let mut state = self.state.lock();
        let now = self.clock.now();
        if take_in(&mut state, now) {
            drop(state);
            self.changed.notify_all();
            return true;
        }
        let Some(ack) = next_ack(&mut state, now) else {
            return false;
        };
        if ack.result.is_ok() {
            state.tell(Happening::Acknowledged(ack.client));
        }
        drop(state);
        // Without the lock: a completion may append again.
        ack.source.complete(ack.ticket, ack.result);
        true
    }

    /// Something changed that anybody may wait for.
    pub(super) fn announce(&self) {
        self.state.lock().version += 1;
        self.changed.notify_all();
        self.work.notify_all();
    }

    /// When the next report is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        next_due(&self.state.lock())
    }
}

fn has_work(state: &State, now: Timestamp) -> bool {
    let over = |waiting: &&Waiting| !state.faults.away || waiting.until <= now;
    let waiting = state.waiting.iter().find(over);
    waiting.is_some() || fronts(state).any(|(_, ack)| ack.due <= now)
}

fn next_due(state: &State) -> Option<Timestamp> {
    let runs = |client: &u64| !state.suspended.contains(client);
    let acks = fronts(state).map(|(_, ack)| ack.due);
    let waiting = state.waiting.iter();
    let waiting = waiting.filter(|waiting| runs(&waiting.client));
    let waiting = waiting.map(|waiting| waiting.until);
    acks.chain(waiting).min()
}

/// The next end to report of each appender and partition.
fn fronts(state: &State) -> impl Iterator<Item = ((u64, Place), &Ack)> {
    let acks = state.acks.iter();
    acks.filter_map(|(lane, acks)| Some((*lane, acks.front()?)))
        .filter(|(_, ack)| !state.suspended.contains(&ack.client))
}

/// Takes in the next record, if there is one.
fn take_in(state: &mut State, now: Timestamp) -> bool {
    // While the log is away nothing gets through; whose time is over, ends.
    let next = state.waiting.iter().position(|waiting| {
        let over = !state.faults.away || waiting.until <= now;
        over && !state.suspended.contains(&waiting.client)
    });
    let Some(waiting) = next.and_then(|at| state.waiting.remove(at)) else {
        return false;
    };
    let (mut due, result) = match state.faults.away {
        false => append(state, &waiting, now),
        true => {
            state.seen.failed += 1;
            (now, Err("the log is out of reach".to_owned()))
        }
    };
    let result = match result {
        Ok(appended) if due < waiting.until || due == now => Ok(appended),
        Ok(_) => {
            due = waiting.until;
            state.seen.acknowledgements_lost += 1;
            state.topics[waiting.place.topic].repeats += 1;
            Err("it took too long".to_owned())
        }
        Err(reason) => Err(reason),
    };
    let name = || state.topics[waiting.place.topic].name.clone();
    let result = result.map_err(|reason| AppendError::Unavailable {
        topic: name(),
        reason,
    });
    let order = state.id();
    let lane = (waiting.appender, waiting.place);
    state.acks.entry(lane).or_default().push_back(Ack {
        source: waiting.source,
        client: waiting.client,
        ticket: waiting.ticket,
        due,
        order,
        result,
    });
    state.version += 1;
    true
}

/// Appends, with the faults that are in store: when to report what.
fn append(
    state: &mut State,
    waiting: &Waiting,
    now: Timestamp,
) -> (Timestamp, Result<Appended, String>) {
    let seed = state.seed;
    let topic = &mut state.topics[waiting.place.topic];
    topic.appends += 1;
    let meets = state.faults.of_append(seed, &topic.name, topic.appends);
    let due = now + meets.delay;
    if !meets.delay.is_zero() {
        state.seen.delayed += 1;
    }
    if meets.fault == Some(AppendFault::Fail) {
        state.seen.failed += 1;
        return (due, Err("asked to fail".to_owned()));
    }
    let index = waiting.place.index as usize;
    let Some(records) = topic.partitions.get_mut(index) else {
        return (due, Err("the partition is gone".to_owned()));
    };
    if meets.fault == Some(AppendFault::Gap) {
        records.end += 1;
        state.seen.gaps += 1;
    }
    let (offset, at) = records.push(waiting.content.clone(), now);
    let twice = meets.fault == Some(AppendFault::Duplicate);
    if twice {
        records.push(waiting.content.clone(), now);
        state.seen.duplicates += 1;
        topic.repeats += 1;
    }
    for offset in offset..=offset + Offset::from(twice) {
        let content = waiting.content.clone();
        let stored = Stored {
            offset,
            appended: at,
            content,
        };
        stored.lend(waiting.partition, &mut |record| {
            state.tell(Happening::Appended(waiting.client, record));
        });
    }
    if meets.fault == Some(AppendFault::LoseAcknowledgement) {
        state.seen.acknowledgements_lost += 1;
        state.topics[waiting.place.topic].repeats += 1;
        return (due, Err("asked to lose the acknowledgement".to_owned()));
    }
    let appended = Appended {
        partition: waiting.partition,
        offset,
        at,
    };
    (due, Ok(appended))
}

/// The next end to report, if one is due.
fn next_ack(state: &mut State, now: Timestamp) -> Option<Ack> {
    let due: BTreeMap<u64, (u64, Place)> = fronts(state)
        .filter(|(_, ack)| ack.due <= now)
        .map(|(lane, ack)| (ack.order, lane))
        .collect();
    let (&order, &first) = due.iter().next()?;
    let drawn = draw(state.seed ^ 3, "reorder", order);
    let mut lane = first;
    if due.len() > 1 && happens(drawn, state.faults.chances.reorder) {
        // Any but the first.
        let at = 1 + (drawn >> 10) as usize % (due.len() - 1);
        lane = due.values().nth(at).copied().unwrap_or(first);
        state.seen.reordered += 1;
    }
    let acks = state.acks.get_mut(&lane)?;
    let ack = acks.pop_front();
    if acks.is_empty() {
        state.acks.remove(&lane);
    }
    ack
}
