//! The installation, and what lets time pass in it.

use std::time::Duration;

use ringback_core::health::HealthPolicy;
use ringback_core::log::Log;
use ringback_core::schedule::Schedule;
use ringback_core::time::Timestamp;
use ringback_core::topics::{Role, Topics, TopicsConfig, group};
use ringback_log::sim::{Drive, Sim, SimClock, SimLog, SimOptions};
use serde_json::json;
use uuid::Uuid;

use super::oracle::{Check, Limits, Oracle, Rules, Violation};
use super::parts::{Admin, Folder, Machine, Producer, Setting};
use super::receivers::Receivers;
use super::trace::Trace;
use super::{Story, Told};
use crate::simulation::{Dice, START};

/// The longest step while something is under way.
const STEP_MAX: Duration = Duration::from_millis(200);
/// So many steps are enough for any story; more, and it does not come to rest.
const STEPS_MAX: u64 = 2_000_000;
/// Groups whose work is to be finished at rest.
const GROUPS: [&str; 6] = group::DISPATCHER;

/// See the module.
pub(super) struct World {
    pub(super) story: Story,
    pub(super) dice: Dice,
    pub(super) sim: Sim,
    pub(super) log: SimLog,
    pub(super) setting: Setting,
    pub(super) policy: HealthPolicy,
    pub(super) machines: Vec<Machine>,
    pub(super) folder: Option<Folder>,
    pub(super) admins: Vec<Admin>,
    pub(super) producer: Producer,
    pub(super) oracle: Oracle,
    /// Events and webhooks made so far.
    pub(super) events: u64,
    pub(super) webhooks: u64,
    /// Grows while nothing happens.
    pace: Duration,
    seen: u64,
    steps: u64,
}

impl World {
    pub(super) fn new(story: Story) -> Self {
        let mut dice = Dice::new(story.seed);
        let sim = Sim::new(SimOptions {
            seed: story.seed,
            clock: SimClock::steered(START),
            drive: Drive::Steps,
            ..SimOptions::default()
        });
        let sim = sim.unwrap();
        let schedule = Schedule::default();
        let config = TopicsConfig {
            event_partitions: 2,
            work_partitions: 1 + dice.roll(2) as u32,
            ..TopicsConfig::default()
        };
        let log = sim.open(Topics::new(&config, schedule.tiers()));
        assert_eq!(log.create_topics().unwrap(), []);
        let hour = Duration::from_secs(3600);
        let policy = HealthPolicy {
            window: hour,
            failed_percent: 90,
            attempts: 10,
            silence: hour / 6,
            slow_window: 4 * hour,
            slow_attempts: 6,
        };
        let limits = Limits {
            concurrency: 1 + dice.roll(6) as usize,
            slots: 16 + dice.roll(64) as usize,
        };
        let rules = Rules {
            topics: log.topics().clone(),
            schedule: schedule.clone(),
            policy,
            limits,
        };
        let trace = match story.verbose {
            true => Trace::verbose(),
            false => Trace::default(),
        };
        let oracle = Oracle::new(rules, trace);
        oracle.now(START);
        sim.watch(oracle.clone());
        let receivers = Receivers::new(story.seed);
        let mut world = Self {
            producer: Producer::start(&sim, &log, &oracle, story.bug),
            admins: Vec::new(),
            folder: None,
            machines: Vec::new(),
            setting: Setting {
                limits,
                schedule,
                receivers,
                oracle: oracle.clone(),
            },
            policy,
            events: 0,
            webhooks: 0,
            pace: Duration::from_millis(1),
            seen: 0,
            steps: 0,
            story,
            dice,
            sim,
            log,
            oracle,
        };
        for tenant in ["acme", "other"] {
            let value = json!({"version": 1, "id": tenant, "title": tenant, "created": START});
            world.write(Role::Tenants, tenant, &value);
        }
        world.admins = (0..2)
            .map(|_| Admin::start(&world.sim, &world.log))
            .collect();
        world
    }

    /// The true time.
    pub(super) fn now(&self) -> Timestamp {
        self.sim.clock().now()
    }

    fn write(&self, role: Role, key: &str, value: &serde_json::Value) {
        let topic = self.log.topics().find(role).unwrap();
        let value = serde_json::to_vec(value).unwrap();
        // With chances of a fault, it may not be written: then there is one less.
        let _ = self.log.compare_and_set(topic, key, None, Some(&value));
    }

    /// Adds a webhook of a tenant.
    pub(super) fn add_webhook(&mut self, tenant: &str, subscription: &[&str]) {
        self.webhooks += 1;
        let name = format!("hook{}", self.webhooks);
        let value = json!({
            "version": 1, "id": Uuid::from_u128(u128::from(self.webhooks) << 64), "tenant": tenant,
            "name": name, "subscription": subscription, "url": "https://simulated.example/",
            "authentication": {"method": "none"}, "enabled": true, "generation": 1,
            "created": self.now(), "updated": self.now(),
        });
        self.write(Role::Webhooks, &format!("{tenant}/{name}"), &value);
    }

    /// Starts a dispatcher.
    pub(super) fn start(&mut self) {
        let bug = self.story.bug;
        // The bug is in one of them, as long as it lives; the others are as they should be.
        let here = self.machines.is_empty();
        let machine = Machine::start(&self.sim, &self.log, &self.setting, bug.filter(|_| here));
        let process = machine.log.process();
        self.oracle
            .did("start", &[process], format_args!("{process}"));
        self.machines.push(machine);
    }

    pub(super) fn start_folder(&mut self) {
        let folder = Folder::start(&self.sim, &self.log, self.policy, self.story.bug);
        self.folder = Some(folder);
    }

    /// Lets time pass until then, or until something must not be.
    pub(super) fn until(&mut self, to: Timestamp) {
        while self.now() < to && self.oracle.violation().is_none() {
            self.step(to);
        }
    }

    /// Goes to the next moment at which something may happen, and lets it happen.
    pub(super) fn step(&mut self, to: Timestamp) {
        self.steps += 1;
        assert!(self.steps < STEPS_MAX, "it does not come to rest");
        let now = self.next(to);
        let clock = self.sim.clock();
        clock.advance(now.since(clock.now()));
        self.oracle.now(now);
        self.producer.host.run_until(now);
        for machine in self.machines.iter().filter(|machine| !machine.stands) {
            machine.host.run_until(now);
        }
        while self.sim.step() {}
        self.turns();
        while self.sim.step() {}
        self.check_lost();
        let version = self.sim.version();
        self.pace = match version > self.seen {
            true => Duration::from_millis(1 + self.dice.roll(25)),
            false => (self.pace * 2).min(STEP_MAX),
        };
        self.seen = version;
    }

    /// Everybody's turn, in an order by the dice.
    fn turns(&mut self) {
        let count = self.machines.len();
        let order = self.dice.roll(24) as usize;
        for turn in 0..count {
            let at = (turn + order) % count;
            self.machines[at].turn(&self.sim, order / 4);
        }
        if let Some(folder) = &mut self.folder {
            folder.host.run_until(self.sim.clock().now());
            folder.turn(&self.sim);
        }
        let now = self.now();
        while let Some(at) = self.machines.iter().position(|m| m.is_drained(now)) {
            let machine = self.machines.remove(at);
            let process = machine.log.process();
            let how = match machine.stands {
                // Nothing of it goes on; whoever waited for it has no patience left.
                true => {
                    machine.kill();
                    "kill"
                }
                false => {
                    machine.leave();
                    "left"
                }
            };
            self.oracle.did(how, &[process], format_args!("{process}"));
            self.oracle.ended(process);
        }
    }

    fn next(&self, to: Timestamp) -> Timestamp {
        let now = self.now();
        let mut next = to;
        let busy = self.machines.iter().any(Machine::is_busy) || self.producer.pending() > 0;
        let moving = self.machines.iter().any(|m| !m.stands) && self.sim.is_moving();
        if busy || moving {
            next = next.min(now + self.pace);
        }
        let version = self.sim.version();
        let wakes = self.machines.iter().filter_map(|m| m.next(version));
        let folder = self.folder.as_ref().and_then(|f| f.next(version));
        let wakes = wakes.chain(folder).chain(self.sim.next_due());
        next = wakes.fold(next, Timestamp::min);
        // Timers are exact to the millisecond: so is everything here.
        let millis = next.max(now + Duration::from_millis(1)).as_micros() + 999;
        Timestamp::from_millis(millis / 1000)
    }

    /// DL10: what retention removed unread, everybody who must have counted it has.
    fn check_lost(&self) {
        for machine in &self.machines {
            let process = machine.log.process();
            let mut books = self.oracle.books();
            let (lost, counted) = (books.lost(process), machine.counted_lost());
            if lost != counted {
                let what = format!("process {process} counted {counted} lost records of {lost}");
                let at = books.now;
                let check = Check::DL10;
                books.violation.get_or_insert(Violation { check, at, what });
            }
        }
    }

    /// Whether nothing is left to do.
    pub(super) fn is_at_rest(&self) -> bool {
        self.producer.pending() == 0
            && self.sim.open_appends() == 0
            && !self.machines.iter().any(Machine::is_busy)
            && GROUPS
                .iter()
                .all(|group| self.sim.unfinished(group).is_empty())
    }

    /// What repetitions the faults allow: each record that is there again, or is read again, makes at
    /// most one more ladder for each delivery in it, with the attempts that are left of it.
    pub(super) fn allowed(&self) -> u64 {
        let topics = self.log.topics();
        let ladder = self.setting.schedule.tiers().len() as u64 + 1;
        let most = |topic: &str| match topics.find_name(topic).map(|at| topics.spec(at).role) {
            Some(Role::Events(_) | Role::SystemEvents) => self.webhooks * ladder,
            Some(Role::Retry(tier)) => ladder - 1 - tier as u64,
            Some(Role::Defer(_) | Role::Replay) => ladder,
            _ => 0,
        };
        let repeats = self.sim.repeats();
        repeats.iter().map(|(topic, n)| n * most(topic)).sum()
    }

    pub(super) fn told(&self) -> Told {
        let books = self.oracle.books();
        Told {
            sums: books.sums(),
            hash: books.trace.hash(),
            happenings: books.trace.happenings(),
            simulated: self.now().since(START),
            violation: books.violation.clone(),
            lines: books.trace.lines().to_vec(),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for machine in self.machines.drain(..) {
            machine.kill();
        }
    }
}
