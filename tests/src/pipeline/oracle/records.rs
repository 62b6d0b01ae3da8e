//! What is checked when a record is handed to the log (DL7, DL8), and when it is in it (R14).

use ringback_core::event::Subject;
use ringback_core::health::{Health, State};
use ringback_core::log::{Append, Record};
use ringback_core::record::{
    Attempt, DELIVERED, Delivery, Reason, decode_delivery, decode_event, header,
};
use ringback_core::topics::{Partition, Role};
use ringback_core::webhook::Webhook;
use ringback_log::sim::ProcessId;
use uuid::Uuid;

use super::Check;
use super::books::{Asks, Books, Entry, EventInfo, Key, number_of, short};

impl Books {
    pub(super) fn handed(&mut self, process: ProcessId, append: &Append<'_>) {
        let role = self.role(append.topic);
        if !matches!(role, Role::Retry(_) | Role::Defer(_) | Role::Parked) {
            return;
        }
        let record = Record {
            partition: Partition {
                topic: append.topic,
                index: 0,
            },
            offset: 0,
            appended: self.now,
            key: append.key,
            headers: append.headers,
            value: append.value,
        };
        let Ok(delivery) = decode_delivery(&record) else {
            return;
        };
        self.check_data(&delivery);
        self.check_owned(process, role, &delivery);
    }

    /// DL7 for what goes on: the data of the event that was accepted.
    fn check_data(&mut self, delivery: &Delivery) {
        let event = self.events.get(&delivery.event.id);
        if event.is_none_or(|event| event.data != delivery.event.data) {
            let event = delivery.event.id;
            self.violated(Check::DL7, format!("written for event {event}: other data"));
        }
    }

    /// DL8: whoever writes what comes next owns the record that it comes from.
    fn check_owned(&mut self, process: ProcessId, role: Role, delivery: &Delivery) {
        let key = key_of(delivery);
        let (attempt, deferrals) = (delivery.attempt, delivery.deferrals);
        let comes_from = |(at, put_off): (u8, u8)| match role {
            Role::Retry(_) => (at + 1, put_off) == (attempt, deferrals),
            Role::Defer(_) => (at, put_off + 1) == (attempt, deferrals),
            _ => put_off == deferrals && (at == attempt || at + 1 == attempt),
        };
        let owns = |partition: &Partition| {
            let process = self.processes.get(&process);
            process.is_some_and(|process| process.owns.contains(partition))
        };
        let track = self.tracks.get(&key);
        let asks = track.into_iter().flat_map(|track| &track.asks);
        let asks = asks.filter(|asks| comes_from((asks.attempt, asks.deferrals)));
        let event = self.events.get(&key.0);
        let event = event.filter(|_| key.2 == 0 && comes_from((0, 0)));
        let places = event.into_iter().flat_map(|event| &event.places);
        let from: Vec<&Partition> = asks.map(|asks| &asks.partition).chain(places).collect();
        let what = match from.is_empty() {
            true => "comes from no record",
            false if from.into_iter().any(owns) => return,
            false => "comes from a partition that is not its own any more",
        };
        let what = format!("process {process} writes {role:?} of {key:?}, which {what}");
        self.violated(Check::DL8, what);
    }

    pub(super) fn appended(&mut self, process: ProcessId, record: &Record<'_>) {
        let number = number_of(record.partition);
        let name = &self.rules.topics.spec(record.partition.topic).name;
        let (offset, index) = (record.offset, record.partition.index);
        self.trace.add(
            "appended",
            &[
                process,
                number,
                offset as u64,
                record.appended.as_micros() as u64,
            ],
            format_args!(
                "{} {process} {name}/{index}@{offset} {} {}",
                record.appended,
                told(record, header::ID),
                told(record, header::ATTEMPT),
            ),
        );
        let entry = match self.role(record.partition.topic) {
            Role::Events(_) | Role::SystemEvents => self.event(record),
            Role::Retry(_) | Role::Defer(_) | Role::Replay => self.delivery(record),
            Role::Parked => {
                self.parked(record);
                None
            }
            Role::Attempts => {
                self.attempt(record);
                None
            }
            Role::Health => {
                self.verdict(record);
                None
            }
            _ => None,
        };
        let Ok(at) = usize::try_from(offset) else {
            return;
        };
        let entries = self.records.entry(record.partition).or_default();
        entries.resize(entries.len().max(at + 1), None);
        entries[at] = entry;
    }

    fn event(&mut self, record: &Record<'_>) -> Option<Entry> {
        let event = decode_event(record).ok()?;
        let about = event.subject.as_ref().map(Subject::as_str);
        let about = about.and_then(|subject| subject.strip_prefix("webhook/"));
        let info = self.events.entry(event.id).or_insert_with(|| EventInfo {
            tenant: event.tenant.clone(),
            name: event.name.clone(),
            body: event.standard_body(),
            data: event.data.clone(),
            about: about.and_then(|id| Uuid::try_parse(id).ok()),
            appended: record.appended,
            places: Vec::new(),
        });
        info.places.push(record.partition);
        Some(Entry::Event(event.id, record.appended))
    }

    fn delivery(&mut self, record: &Record<'_>) -> Option<Entry> {
        let delivery = decode_delivery(record).ok()?;
        let key = key_of(&delivery);
        let role = self.role(record.partition.topic);
        if role == Role::Replay {
            self.check_data(&delivery);
            self.sums.replayed += 1;
        }
        self.sums.deferred += u64::from(matches!(role, Role::Defer(_)));
        let track = self.tracks.entry(key).or_default();
        track.expected = true;
        let (attempt, deferrals) = (delivery.attempt, delivery.deferrals);
        track.furthest = track.furthest.max(Some((attempt, deferrals)));
        track.asks.push(Asks {
            partition: record.partition,
            attempt,
            deferrals,
            due: record.appended + self.rules.topics.delay(record.partition.topic),
        });
        Some(Entry::Delivery(key, attempt, deferrals))
    }

    fn parked(&mut self, record: &Record<'_>) {
        let Ok(delivery) = decode_delivery(record) else {
            let what = format!("a record that was good is parked as unreadable: {record:?}");
            return self.violated(Check::DL1, what);
        };
        let undeliverable =
            record.header(header::REASON) == Some(Reason::Undeliverable.as_str().as_bytes());
        if undeliverable {
            let key = key_of(&delivery);
            self.violated(
                Check::DL1,
                format!("{key:?} can be delivered, but is parked"),
            );
        }
        self.tracks.entry(key_of(&delivery)).or_default().parked = true;
    }

    fn attempt(&mut self, record: &Record<'_>) {
        let attempt = record
            .value
            .and_then(|value| serde_json::from_slice(value).ok());
        let Some(attempt): Option<Attempt> = attempt else {
            let what = format!("an attempt record cannot be read: {record:?}");
            return self.violated(Check::DL1, what);
        };
        self.sums.late += u64::from(attempt.late);
        let key = (attempt.event, attempt.webhook, attempt.run);
        let track = self.tracks.entry(key).or_default();
        let made = track.attempts.get(usize::from(attempt.attempt));
        let generation = attempt.generation;
        let ours = made.is_some_and(|made| made.generations.contains(&generation));
        let (acknowledged, delivered) = (track.acknowledged, attempt.next == DELIVERED);
        track.delivered |= delivered;
        if made.is_none_or(|made| made.count == 0) || (delivered && !acknowledged) {
            let number = attempt.attempt;
            let what =
                format!("attempt {number} of {key:?} is recorded, but no receiver had it so");
            self.violated(Check::DL1, what);
        } else if !ours {
            let what = format!("an attempt of {key:?} is recorded as of generation {generation}");
            self.violated(Check::R14, what);
        }
        if !ringback_core::verdict::Outcome::is_ours(&attempt.outcome) {
            let count = self.lives.entry((attempt.webhook, generation)).or_default();
            count.0 += 1;
            count.1 += u64::from(!delivered);
        }
    }

    fn verdict(&mut self, record: &Record<'_>) {
        let key = record.key.and_then(|key| Uuid::try_parse_ascii(key).ok());
        let Some(webhook) = key else { return };
        let value = record.value.map(serde_json::from_slice::<Health>);
        let Ok(health) = value.transpose() else {
            let what = format!("a verdict cannot be read: {record:?}");
            return self.violated(Check::R14, what);
        };
        if let Some(health) = &health
            && health.state == State::Disabled
        {
            self.sums.disabled += 1;
            let life = (webhook, health.generation);
            let (attempts, failed) = self.lives.get(&life).copied().unwrap_or_default();
            let policy = self.rules.policy;
            let needed = u64::from(policy.attempts.min(policy.slow_attempts));
            if attempts < needed || failed < needed / 2 {
                let what = format!("{life:?} is disabled for {failed} of {attempts} attempts");
                self.violated(Check::R14, what);
            }
        }
        self.configuration.health(webhook, record.appended, health);
    }

    pub(super) fn set(&mut self, record: &Record<'_>) {
        let number = number_of(record.partition);
        let text = record.key.unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let gone = u64::from(record.value.is_none());
        let at = record.appended;
        self.trace.add(
            "set",
            &[number, record.offset as u64, gone],
            format_args!(
                "{at} {text} @{} {}",
                record.offset,
                record
                    .value
                    .map_or("removed".into(), String::from_utf8_lossy)
            ),
        );
        if self.role(record.partition.topic) == Role::Webhooks {
            let webhook = record.value.map(serde_json::from_slice::<Webhook>);
            if let Ok(webhook) = webhook.transpose() {
                self.configuration.webhook(&text, at, webhook);
            }
        }
    }

    pub(super) fn accepted(&mut self, event: Uuid) {
        self.trace
            .add("accepted", &[short(event)], format_args!("{event}"));
        if !self.events.contains_key(&event) {
            let what = format!("event {event} is accepted, but not in the log");
            self.violated(Check::DL1, what);
        }
    }
}

pub(super) fn key_of(delivery: &Delivery) -> Key {
    (delivery.event.id, delivery.webhook, delivery.run)
}

fn told<'a>(record: &Record<'a>, name: &str) -> &'a str {
    let value = record.header(name).unwrap_or_default();
    std::str::from_utf8(value).unwrap_or_default()
}
