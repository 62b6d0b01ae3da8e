//! What can be done to the installation.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use bytes::Bytes;
use ringback_core::event::{Event, EventName, Source, Subject, TenantId};
use ringback_core::log::{Log, Reader};
use ringback_core::topics::{Partition, Role};
use ringback_log::sim::Chances;
use uuid::Uuid;

use super::plan::TENANTS;
use super::receivers::Behaviour;
use super::world::World;

const TYPES: [&str; 4] = [
    "cdr.completed",
    "extension.presence_changed",
    "call.started",
    "queue.status_changed",
];
pub(super) fn path(webhook: usize) -> String {
    let tenant = TENANTS[(webhook + 1) % 2];
    format!("/v1/tenants/{tenant}/webhooks/hook{webhook}")
}

pub(super) fn ask(world: &mut World, webhook: usize, what: &str, body: &str) {
    let path = path(webhook) + what;
    tell(world, Method::POST, &path, None, body);
}

/// One of the administrators asks; both know of the answer only what a person would.
pub(super) fn tell(
    world: &mut World,
    method: Method,
    path: &str,
    matching: Option<&str>,
    body: &str,
) {
    let admin = world.dice.roll(2) as usize;
    world.admins[admin].host.run_until(world.now());
    let (status, _, answer) = world.admins[admin].ask(method, path, matching, body);
    assert_ne!(
        status,
        StatusCode::INTERNAL_SERVER_ERROR,
        "{path}: {answer}"
    );
    assert_ne!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path}: {answer}");
    let text = format_args!("{path}: {status} {answer}");
    world
        .oracle
        .did("asked", &[u64::from(status.as_u16())], text);
}

pub(super) fn go_on(world: &mut World, at: usize) {
    let now = world.now();
    let machine = &mut world.machines[at];
    if std::mem::take(&mut machine.stands) {
        machine.host.stood_until(now);
        machine.log.resume();
    }
}

pub(super) fn events(world: &mut World, count: u64) {
    let mut batch = Vec::new();
    // A flood is about a few things.
    let flood = count > 100;
    for _ in 0..count {
        world.events += 1;
        let number = world.events;
        let name = match flood {
            true => TYPES[1],
            false => TYPES[world.dice.roll(4) as usize],
        };
        let subject = match world.dice.roll(3) {
            0 => None,
            _ => Some(Subject::parse(&format!("call/{}", number / 3)).unwrap()),
        };
        let data = format!("{{ \"n\" : {number}, \"dice\":{} }}", world.dice.roll(1000));
        // Some happened a while ago: what R13 counts from.
        let age = match world.dice.roll(30) {
            0 => world.dice.roll(90_000),
            _ => 0,
        };
        batch.push(Event {
            id: Uuid::from_u128(u128::from(number)),
            name: EventName::parse(name).unwrap(),
            time: world.now() - Duration::from_secs(age),
            tenant: TenantId::parse(TENANTS[world.dice.roll(2) as usize]).unwrap(),
            source: Source::parse("pbx").unwrap(),
            subject,
            data: Bytes::from(data),
            backfill: world.dice.roll(50) == 0,
            traceparent: None,
        });
    }
    world.producer.host.run_until(world.now());
    world.producer.publish(batch);
}

pub(super) fn behaviour(world: &mut World) -> Behaviour {
    let dice = &mut world.dice;
    match dice.roll(10) {
        0 => Behaviour::Good,
        1 => Behaviour::Slow(Duration::from_millis(100 + dice.roll(9_000))),
        2 | 3 => Behaviour::Status([500, 502, 404, 410, 301][dice.roll(5) as usize]),
        4 | 5 => Behaviour::Flapping,
        6 => Behaviour::Hanging,
        7 => Behaviour::Lying,
        8 => Behaviour::Busy,
        _ => Behaviour::Away,
    }
}

/// A new mixture; sometimes none.
pub(super) fn chances(world: &mut World) -> Chances {
    let dice = &mut world.dice;
    let mut chance = || match dice.roll(3) {
        0 => dice.roll(200) as u16,
        _ => 0,
    };
    Chances {
        fail: chance(),
        lose_acknowledgement: chance(),
        duplicate: chance(),
        gap: chance(),
        delay: chance(),
        delay_max: Duration::from_secs(12),
        reorder: chance(),
        lose_commit: chance(),
        fail_commit: chance(),
        fail_commit_later: chance(),
        conflict: chance(),
        lose_answer: chance(),
        fail_set: chance(),
    }
}

/// Retention removes what is in a partition of events, read or not.
pub(super) fn forget(world: &mut World) {
    let roles = world.log.topics().iter();
    let events = roles.filter(|(_, spec)| matches!(spec.role, Role::Events(_)));
    let topics: Vec<_> = events
        .map(|(topic, spec)| (topic, spec.full_name.clone()))
        .collect();
    let (topic, name) = &topics[world.dice.roll(topics.len() as u64) as usize];
    let index = world.dice.roll(2) as u32;
    let partition = Partition {
        topic: *topic,
        index,
    };
    let bounds = world
        .log
        .reader()
        .and_then(|mut reader| reader.bounds(partition));
    if let Ok(bounds) = bounds {
        world.sim.forget_before(name, index, bounds.end);
        world.oracle.books().removed(partition, bounds.end);
    }
}
