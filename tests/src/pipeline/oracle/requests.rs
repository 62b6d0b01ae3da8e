//! What is checked when a request is made (DL4 to DL7, R14), and when it is answered.

use std::time::Duration;

use bytes::Bytes;
use ringback_core::record::Delivery;
use ringback_core::time::Timestamp;
use ringback_core::verdict::{Acknowledge, Outcome, Verdict};
use ringback_core::webhook::Webhook;
use ringback_log::sim::ProcessId;

use super::Check;
use super::books::{Books, Key, Made as Attempted, short};

/// What was taken up is sent within so long, also when it waits in its lane and its process stands.
const TAKEN_UP: Duration = Duration::from_secs(60);
/// Records that an intake takes of a partition in one turn.
const TURN: usize = 64;
/// Webhooks that may want one event, beside the first.
const FAN_OUT_MAX: usize = 8;

/// A request as it arrives.
pub(super) struct Made<'a> {
    pub(super) process: ProcessId,
    pub(super) webhook: &'a Webhook,
    pub(super) delivery: &'a Delivery,
    pub(super) body: &'a Bytes,
    pub(super) at: Timestamp,
    /// By how much the time of day is wrong there, in microseconds.
    pub(super) skew: i64,
}

impl Books {
    pub(super) fn request(&mut self, made: &Made<'_>) -> u64 {
        let Made {
            process,
            delivery,
            at,
            ..
        } = *made;
        self.sums.requests += 1;
        let number = self.sums.requests;
        let (event, webhook) = (delivery.event.id, delivery.webhook);
        let (run, attempt) = (delivery.run, delivery.attempt);
        self.trace.add(
            "request",
            &[
                process,
                short(event),
                short(webhook),
                u64::from(run),
                u64::from(attempt),
                at.as_micros() as u64,
            ],
            format_args!("{at} {process} {event} {webhook} run {run} attempt {attempt}"),
        );
        let key = (event, webhook, run);
        self.check_content(made);
        self.check_due(made, key);
        self.check_wanted(made);
        let track = self.tracks.entry(key).or_default();
        let index = usize::from(attempt);
        if track.attempts.len() <= index {
            track.attempts.resize_with(index + 1, Attempted::default);
        }
        let first = &mut track.attempts[index];
        if first.count == 0 {
            first.first = at;
        }
        first.count += 1;
        first.open += 1;
        first.generations.push(made.webhook.generation);
        self.requests.insert(number, process);
        self.check_caps(made, number, key);
        number
    }

    /// DL7: what was accepted, and nothing else.
    fn check_content(&mut self, made: &Made<'_>) {
        let event = self.events.get(&made.delivery.event.id);
        let same = |event: &super::books::EventInfo| {
            event.body[..] == made.body[..] && event.tenant == made.webhook.tenant
        };
        if !event.is_some_and(same) {
            let event = made.delivery.event.id;
            let body = String::from_utf8_lossy(made.body);
            self.violated(Check::DL7, format!("sent for event {event}: {body}"));
        }
    }

    /// DL4.
    fn check_due(&mut self, made: &Made<'_>, key: Key) {
        let Made { delivery, at, .. } = *made;
        let (attempt, deferrals) = (delivery.attempt, delivery.deferrals);
        let what = |why: String| {
            let skew = made.skew / 1000;
            format!(
                "attempt {attempt} of {key:?} at {at} by {} (skew {skew} ms): {why}",
                made.process
            )
        };
        let track = self.tracks.get(&key);
        let first = delivery.run == 0 && attempt == 0 && deferrals == 0;
        let due = match first {
            true => self.events.get(&key.0).map(|event| event.appended),
            false => track.and_then(|track| {
                let asks = track.asks.iter();
                asks.filter(|asks| (asks.attempt, asks.deferrals) == (attempt, deferrals))
                    .map(|asks| asks.due)
                    .min()
            }),
        };
        let Some(due) = due else {
            let what = what("no record asks for it".to_owned());
            return self.violated(Check::DL4, what);
        };
        // Before the log's first word a dispatcher goes by its own clock; what it took up then may wait
        // in its lane for a while.
        let knows = self
            .processes
            .get(&made.process)
            .and_then(|process| process.knows_time)
            .is_some_and(|since| at > since + TAKEN_UP);
        let ahead = match knows {
            true => Duration::ZERO,
            false => Duration::from_micros(made.skew.max(0).unsigned_abs()),
        };
        if at + ahead < due {
            let what = what(format!("due at {due}"));
            self.violated(Check::DL4, what);
        }
        let before = attempt.checked_sub(1).map(usize::from);
        let earlier = before.and_then(|before| {
            let made = self.tracks.get(&key)?.attempts.get(before)?;
            let wait = self.rules.schedule.tiers().get(before)?;
            (made.count > 0).then(|| made.first + *wait)
        });
        if let Some(earliest) = earlier
            && at + ahead < earliest
        {
            let what = what(format!("the wait of the contract ends at {earliest}"));
            self.violated(Check::DL4, what);
        }
        // Whoever's clock is behind cannot know better.
        let behind = Duration::from_micros(made.skew.min(0).unsigned_abs());
        let latest = delivery.began() + self.rules.schedule.expires_after() + behind;
        if at > latest {
            let what = what(format!("none may start after {latest} (R13)"));
            self.violated(Check::DL4, what);
        }
    }

    /// DL6, and that the attempt belongs to the webhook's present life (R14).
    fn check_wanted(&mut self, made: &Made<'_>) {
        let (webhook, at) = (made.webhook.id, made.at);
        let generation = made.webhook.generation;
        if let Some(why) = self.configuration.forbids(webhook, at) {
            let event = made.delivery.event.id;
            let process = made.process;
            let what = format!("{event} is sent by {process} to {webhook} at {at}, but {why}");
            self.violated(Check::DL6, what);
        } else if !self.configuration.had_generation(webhook, generation, at) {
            let what = format!("{webhook} is sent to as of generation {generation}");
            self.violated(Check::R14, what);
        }
    }

    /// DL5.
    fn check_caps(&mut self, made: &Made<'_>, number: u64, key: Key) {
        let limits = self.rules.limits;
        let process = self.process(made.process);
        process
            .requests
            .insert(number, (key, made.delivery.attempt));
        let to_it = process.per_webhook.entry(made.webhook.id).or_default();
        *to_it += 1;
        let (to_it, all) = (*to_it, process.requests.len());
        // Intake looks for room per record, and a record may be of several deliveries: its fan-out, in
        // one turn of a partition, goes beyond the slots.
        let beyond = limits.slots.min(TURN) * FAN_OUT_MAX;
        if to_it > limits.concurrency || all > limits.slots + beyond {
            let process = made.process;
            let what = format!("process {process} has {all} requests in flight, {to_it} to one");
            self.violated(Check::DL5, what);
        }
    }

    pub(super) fn answered(
        &mut self,
        request: u64,
        outcome: Outcome,
        by: Acknowledge,
        at: Timestamp,
    ) {
        let Some(process) = self.requests.remove(&request) else {
            return;
        };
        let process = self.process(process);
        let Some((key, attempt)) = process.requests.remove(&request) else {
            return;
        };
        if let Some(count) = process.per_webhook.get_mut(&key.1) {
            *count -= 1;
        }
        let status = outcome.status().unwrap_or(0);
        let text = format_args!("{at} request {request}: {outcome:?}");
        self.trace
            .add("answered", &[request, u64::from(status)], text);
        if let Some(track) = self.tracks.get_mut(&key) {
            track.acknowledged |= Verdict::on(outcome, by) == Verdict::Delivered;
            if let Some(made) = track.attempts.get_mut(usize::from(attempt)) {
                made.open -= 1;
            }
        }
    }
}
