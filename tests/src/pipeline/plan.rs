//! What happens to the installation, by the seed: which kinds of trouble there are in this story, and
//! when.

use std::time::Duration;

use axum::http::Method;
use ringback_core::time::Timestamp;
use ringback_core::topics::group;
use ringback_log::sim::Chances;
use uuid::Uuid;

use super::bugs::Bug;
use super::deeds::{ask, behaviour, chances, events, forget, go_on, path, tell};
use super::oracle::Check;
use super::receivers::Behaviour;
use super::world::World;

/// Actions of a story.
const ACTIONS: u64 = 120;
/// Nothing takes longer to come to rest than every ladder and every run.
const REST_WITHIN: Duration = Duration::from_secs(4 * 86_400);

const SUBSCRIPTIONS: [&[&str]; 5] = [
    &["cdr.*"],
    &["*"],
    &["extension.*", "queue.*"],
    &["call.started", "webhook.*"],
    &["*"],
];
pub(super) const TENANTS: [&str; 2] = ["acme", "other"];
const GROUPS: [&str; 7] = [
    group::CDR_EVENTS,
    group::EXTENSION_EVENTS,
    group::RESOURCE_EVENTS,
    group::SYSTEM_EVENTS,
    group::RETRIES,
    group::DEFERRALS,
    group::ATTEMPTS,
];

/// A kind of thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Events,
    Flood,
    Start,
    Kill,
    Drain,
    Stand,
    GoOn,
    Skew,
    Rebalance,
    Expel,
    Faults,
    Away,
    Hold,
    Receiver,
    Heal,
    Pause,
    Resume,
    Enable,
    Change,
    Remove,
    Add,
    Replay,
    RestartMetrics,
    Retention,
}

/// How often each happens, where it happens at all.
const ACTIONS_BY_WEIGHT: [(Action, u64); 24] = [
    (Action::Events, 30),
    (Action::Flood, 2),
    (Action::Start, 4),
    (Action::Kill, 4),
    (Action::Drain, 2),
    (Action::Stand, 3),
    (Action::GoOn, 4),
    (Action::Skew, 3),
    (Action::Rebalance, 3),
    (Action::Expel, 4),
    (Action::Faults, 5),
    (Action::Away, 2),
    (Action::Hold, 2),
    (Action::Receiver, 10),
    (Action::Heal, 3),
    (Action::Pause, 5),
    (Action::Resume, 5),
    (Action::Enable, 4),
    (Action::Change, 4),
    (Action::Remove, 1),
    (Action::Add, 1),
    (Action::Replay, 5),
    (Action::RestartMetrics, 3),
    (Action::Retention, 2),
];

/// The part of the story that the dice decide on.
struct Plan {
    actions: Vec<(Action, u64)>,
    /// What an administrator has read of a webhook and may still act on.
    read: Option<(usize, String, String)>,
    /// When the log, or what follows it, is well again.
    back: Option<Timestamp>,
}

/// Tells the story.
pub(super) fn run(world: &mut World) {
    let mut plan = Plan::new(world);
    for number in 0..5 {
        world.add_webhook(TENANTS[number % 2], SUBSCRIPTIONS[number]);
    }
    for _ in 0..=world.dice.roll(3) {
        world.start();
    }
    world.start_folder();
    for _ in 0..ACTIONS {
        if world.oracle.violation().is_some() {
            return;
        }
        plan.act(world);
        let wait = plan.wait(world);
        world.until(world.now() + wait);
    }
    let healed = world.dice.roll(2) == 0;
    come_to_rest(world, healed);
}

/// Bursts over a day, and receivers that fail for hours.
pub(super) fn day(world: &mut World) {
    const BURST: u64 = 50;
    world.add_webhook(TENANTS[0], SUBSCRIPTIONS[1]);
    world.add_webhook(TENANTS[1], SUBSCRIPTIONS[1]);
    world.start();
    let wait = Duration::from_secs(86_400) / (10_000 / BURST) as u32;
    for burst in 0..10_000 / BURST {
        let failing = Uuid::from_u128(2 << 64);
        let behaviour = match burst % 50 {
            0..15 => Behaviour::Status(500),
            _ => Behaviour::Good,
        };
        world.setting.receivers.set(failing, behaviour);
        events(world, BURST);
        world.until(world.now() + wait);
    }
    let healed = world.dice.roll(2) == 0;
    come_to_rest(world, healed);
}

/// A dispatcher's time of day is set to an hour later, and back, while retries wait.
pub(super) fn clock_is_set(world: &mut World) {
    world.add_webhook(TENANTS[0], SUBSCRIPTIONS[1]);
    world.add_webhook(TENANTS[1], SUBSCRIPTIONS[1]);
    world.start();
    for number in 1..=2 {
        let behaviour = Behaviour::Status(500);
        let id = Uuid::from_u128(number << 64);
        world.setting.receivers.set(id, behaviour);
    }
    events(world, 10);
    for hours in [1, 0, -1, 0] {
        world.until(world.now() + Duration::from_secs(10));
        let time = world.machines[0].host.time();
        time.set_skew(hours * 3_600_000_000);
    }
    come_to_rest(world, false);
}

fn come_to_rest(world: &mut World, healed: bool) {
    world.oracle.did("healed", &[], format_args!("everything"));
    world.sim.chances(Chances::default());
    world.sim.away(false);
    for topic in ["ringback.webhooks", "ringback.health"] {
        world.sim.release(topic);
    }
    if healed {
        world.setting.receivers.heal();
    }
    for at in 0..world.machines.len() {
        go_on(world, at);
    }
    if world.machines.iter().all(|m| m.draining.is_some()) {
        world.start();
    }
    if world.sim.seen().commits_lost > 0 {
        // Nobody can know of a lost commit until something new is committed or somebody else takes
        // over; here nothing new comes.
        for group in GROUPS {
            for member in world.sim.members(group) {
                world.sim.expel(group, member);
            }
        }
    }
    let until = world.now() + REST_WITHIN;
    while !world.is_at_rest() && world.now() < until && world.oracle.violation().is_none() {
        // Not beyond the next moment at which something may be over.
        world.step(until);
    }
    let (at_rest, allowed) = (world.is_at_rest(), world.allowed());
    let mut books = world.oracle.books();
    if books.violation.is_some() {
        return;
    }
    if !at_rest {
        let left = GROUPS.map(|group| (group, world.sim.unfinished(group)));
        let (pending, open) = (world.producer.pending(), world.sim.open_appends());
        let busy = world
            .machines
            .iter()
            .filter(|machine| machine.is_busy())
            .count();
        let what = format!(
            "not at rest {REST_WITHIN:?} after the last trouble: {pending} events are not accepted, \
             {open} appends open, {busy} dispatchers busy, unfinished {left:?}"
        );
        books.violated(Check::Rest, what);
    }
    books.at_rest(allowed);
}

impl Plan {
    fn new(world: &mut World) -> Self {
        let mut actions = ACTIONS_BY_WEIGHT.to_vec();
        // Stories differ in the kinds of trouble they have: what is rare beside everything else is
        // frequent where little else happens.
        actions.retain(|(action, _)| match action {
            Action::Events | Action::Start | Action::GoOn | Action::Heal | Action::Resume => true,
            Action::Retention => world.dice.roll(10) == 0,
            Action::Skew => world.dice.roll(3) == 0,
            _ => world.dice.roll(2) == 0,
        });
        // A planted bug shows only where something happens that it gets wrong.
        let needed: &[Action] = match world.story.bug {
            Some(Bug::SettleBeforeAcknowledgement | Bug::AcceptUnacknowledged) => &[Action::Faults],
            Some(Bug::RewriteAfterRevoke | Bug::CommitAfterRevoke) => &[Action::Expel],
            Some(Bug::SendWhilePaused) => &[Action::Pause],
            Some(Bug::HideLoss) => &[Action::Retention, Action::Kill],
            _ => &[],
        };
        for (action, weight) in ACTIONS_BY_WEIGHT {
            let has = actions.iter().any(|(has, _)| *has == action);
            if needed.contains(&action) && !has {
                actions.push((action, weight));
            }
        }
        Self {
            actions,
            read: None,
            back: None,
        }
    }

    /// Mostly a moment, sometimes hours.
    fn wait(&self, world: &mut World) -> Duration {
        let dice = &mut world.dice;
        let millis = match dice.roll(20) {
            0..8 => dice.roll(300),
            8..14 => dice.roll(4000),
            14..18 => dice.roll(60_000),
            18 => dice.roll(1_200_000),
            _ => dice.roll(7_200_000),
        };
        let wait = Duration::from_millis(millis);
        // No trouble of the log for hours.
        match self.back {
            Some(back) => wait.min(back.since(world.now())),
            None => wait,
        }
    }

    fn act(&mut self, world: &mut World) {
        if self.back.is_some_and(|back| back <= world.now()) {
            self.back = None;
            world.sim.away(false);
            for topic in ["ringback.webhooks", "ringback.health"] {
                world.sim.release(topic);
            }
        }
        let all: u64 = self.actions.iter().map(|(_, weight)| weight).sum();
        let mut at = world.dice.roll(all);
        let mut actions = self.actions.iter();
        let action = actions.find_map(|(action, weight)| match at < *weight {
            true => Some(*action),
            false => {
                at -= weight;
                None
            }
        });
        let action = action.unwrap_or(Action::Events);
        world
            .oracle
            .did("action", &[action as u64], format_args!("{action:?}"));
        self.carry_out(world, action);
    }

    fn carry_out(&mut self, world: &mut World, action: Action) {
        let webhook = 1 + world.dice.roll(world.webhooks) as usize;
        let some = world.dice.roll(world.machines.len().max(1) as u64) as usize;
        let name = GROUPS[world.dice.roll(GROUPS.len() as u64) as usize];
        match action {
            Action::Events => {
                for _ in 0..=world.dice.roll(4) {
                    let count = 1 + world.dice.roll(4);
                    events(world, count);
                }
            }
            Action::Flood => events(world, 150),
            Action::Start if world.machines.len() < 4 => world.start(),
            Action::Kill if !world.machines.is_empty() => {
                let machine = world.machines.remove(some);
                let process = machine.log.process();
                world
                    .oracle
                    .did("kill", &[process], format_args!("{process}"));
                machine.kill();
                world.oracle.ended(process);
                if world.dice.roll(3) > 0 {
                    world.start();
                }
            }
            Action::Drain if !world.machines.is_empty() => {
                let until = world.now() + Duration::from_secs(20);
                go_on(world, some);
                world.machines[some].draining.get_or_insert(until);
            }
            Action::Stand => {
                if let Some(machine) = world.machines.get_mut(some)
                    && !machine.stands
                {
                    machine.stands = true;
                    machine.log.suspend();
                }
            }
            Action::GoOn => {
                for at in 0..world.machines.len() {
                    go_on(world, at);
                }
            }
            Action::Skew => {
                if let Some(machine) = world.machines.get(some) {
                    let minutes = [-60, -10, -1, 0, 1, 10][world.dice.roll(6) as usize];
                    machine.host.time().set_skew(minutes * 60_000_000);
                }
            }
            Action::Rebalance => world.sim.rebalance(name),
            Action::Expel => {
                let members = world.sim.members(name);
                if let Some(member) = members.get(some) {
                    world.sim.expel(name, *member);
                }
            }
            Action::Faults => {
                let chances = chances(world);
                world.sim.chances(chances);
            }
            Action::Away => {
                world.sim.away(true);
                self.soon(world);
            }
            Action::Hold => {
                let topics = ["ringback.webhooks", "ringback.health"];
                world.sim.hold(topics[world.dice.roll(2) as usize]);
                self.soon(world);
            }
            Action::Receiver => {
                let behaviour = behaviour(world);
                let id = Uuid::from_u128((webhook as u128) << 64);
                world.setting.receivers.set(id, behaviour);
            }
            Action::Heal => world.setting.receivers.heal(),
            Action::Pause => ask(world, webhook, "/pause", ""),
            Action::Resume => ask(world, webhook, "/resume", ""),
            Action::Enable => ask(world, webhook, "/enable", ""),
            Action::Replay => ask(world, webhook, "/replay", r#"{"all":true}"#),
            Action::Change => self.change(world, webhook),
            Action::Remove => {
                let path = path(webhook);
                tell(world, Method::DELETE, &path, Some("*"), "");
            }
            Action::Add if world.webhooks < 9 => {
                let tenant = TENANTS[world.webhooks as usize % 2];
                let subscription = SUBSCRIPTIONS[world.dice.roll(5) as usize];
                world.add_webhook(tenant, subscription);
            }
            Action::RestartMetrics => {
                let kill = world.dice.roll(2) == 0;
                if let Some(folder) = world.folder.take() {
                    let process = folder.log.process();
                    folder.end(kill);
                    world.oracle.ended(process);
                }
                world.start_folder();
            }
            Action::Retention => forget(world),
            _ => {}
        }
    }

    /// The log is well again within a minute.
    fn soon(&mut self, world: &mut World) {
        let soon = Duration::from_millis(world.dice.roll(60_000));
        self.back = Some(world.now() + soon);
    }

    /// One administrator reads, and writes later what may be late by then.
    fn change(&mut self, world: &mut World, webhook: usize) {
        match self.read.take() {
            None => {
                let (path, admin) = (path(webhook), world.dice.roll(2) as usize);
                let host = &world.admins[admin].host;
                host.run_until(world.now());
                let (_, tag, _) = world.admins[admin].ask(Method::GET, &path, None, "");
                self.read = tag.map(|tag| (admin, path, tag));
            }
            Some((admin, path, tag)) => {
                let change = match world.dice.roll(4) {
                    0 => format!(r#"{{"rate_limit":{}}}"#, 1 + world.dice.roll(30)),
                    1 => r#"{"rate_limit":null}"#.to_owned(),
                    2 => {
                        let patterns = SUBSCRIPTIONS[world.dice.roll(5) as usize];
                        serde_json::json!({"subscription": patterns}).to_string()
                    }
                    _ => format!(r#"{{"enabled":{}}}"#, world.dice.roll(2) == 0),
                };
                world.admins[admin].host.run_until(world.now());
                let asked = &world.admins[admin];
                let (status, ..) = asked.ask(Method::PATCH, &path, Some(&tag), &change);
                let text = format_args!("{path} {change}: {status}");
                world
                    .oracle
                    .did("change", &[u64::from(status.as_u16())], text);
            }
        }
    }
}
