//! Random faults of the simulated log under whole dispatchers, and the books at the end.
//!
//! `RINGBACK_SIM_SEEDS=500` runs more seeds, `RINGBACK_SIM_FIRST=17` begins with another one.

// Test code: a broken expectation should panic, and figures are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::time::{Duration, Instant};

use ringback_core::invariant::{Invariant, violations};
use ringback_log::sim::Chances;
use ringback_tests::simulation::books::{self, Sums};
use ringback_tests::simulation::{Dice, GROUPS, Process, Simulation};

/// Seeds of the ordinary run.
const SEEDS: u64 = 20;
/// Seeds that run side by side: they mostly wait for each other's threads.
const TOGETHER: usize = 10;
/// Actions of a run.
const ACTIONS: usize = 40;

fn number(variable: &str, otherwise: u64) -> u64 {
    let set = std::env::var(variable).ok();
    set.map_or(otherwise, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_balance_whatever_fails() {
    let first = number("RINGBACK_SIM_FIRST", 1);
    let last = first + number("RINGBACK_SIM_SEEDS", SEEDS);
    let began = Instant::now();
    let (mut seeds, mut broken) = (first..last, Vec::new());
    let mut running = tokio::task::JoinSet::new();
    loop {
        while running.len() < TOGETHER
            && let Some(seed) = seeds.next()
        {
            running.spawn(async move { (seed, tokio::spawn(random_faults(seed)).await) });
        }
        let Some(ended) = running.join_next().await else {
            break;
        };
        let (seed, result) = ended.unwrap();
        match result {
            Ok(sums) => println!(
                "seed {seed} in {:.1} s: {sums:?}",
                began.elapsed().as_secs_f64()
            ),
            // Its panic has been printed.
            Err(error) => broken.push(format!("seed {seed}: {error}")),
        }
    }
    assert!(
        broken.is_empty(),
        "RINGBACK_SIM_FIRST=<seed> RINGBACK_SIM_SEEDS=1 runs one again:\n{}",
        broken.join("\n")
    );
}

/// With nothing asked for, nothing fails and nothing is sent twice, however dispatchers come and go in
/// good order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_faults_nothing_is_sent_twice() {
    let mut simulation = Simulation::new(0);
    let mut dice = Dice::new(0);
    let process = simulation.start();
    for _ in 0..60 {
        simulation.event(&mut dice);
    }
    simulation.until_at_rest().await;
    let second = simulation.start();
    process.drain(simulation.sim.clock()).await;
    for _ in 0..20 {
        simulation.event(&mut dice);
    }
    simulation.until_at_rest().await;
    second.drain(simulation.sim.clock()).await;
    let sums = books::check(&simulation);
    assert_eq!((sums.duplicates, sums.allowed), (0, 0), "{sums:?}");
    assert!(sums.delivered > 0 && sums.parked > 0, "{sums:?}");
}

/// A commit that fails, at once or later, is made again, even if nothing finishes after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_commit_is_made_again() {
    let at_once = Chances {
        fail_commit: 1000,
        ..Chances::default()
    };
    let later = Chances {
        fail_commit_later: 1000,
        ..Chances::default()
    };
    for chances in [at_once, later] {
        failed_commits(chances).await;
    }
}

async fn failed_commits(chances: Chances) {
    let mut simulation = Simulation::new(3);
    let mut dice = Dice::new(3);
    simulation.sim.chances(chances);
    let process = simulation.start();
    simulation.event(&mut dice);
    until(
        &simulation,
        "its result is in the log and a commit has failed",
        || {
            !simulation.receivers.requests().is_empty()
                && simulation.sim.open_appends() == 0
                && simulation.sim.seen().commits_failed > 0
        },
    )
    .await;
    assert_ne!(unread_events(&simulation), 0);
    simulation.sim.chances(Chances::default());
    simulation.until_at_rest().await;
    process.drain(simulation.sim.clock()).await;
    books::check(&simulation);
}

/// DL6: a dispatcher that does not hear of changes sends nothing, and when it hears again, what was
/// paused meanwhile is not sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_on_stale_configuration() {
    let mut simulation = Simulation::new(6);
    let mut dice = Dice::new(6);
    let process = simulation.start();
    until(&simulation, "it is ready", || {
        process.health.troubles().is_empty()
    })
    .await;
    simulation.sim.hold("ringback.webhooks");
    simulation.pause();
    until(&simulation, "it knows that it is stale", || {
        GROUPS
            .iter()
            .all(|group| process.health.troubles().contains_key(group))
    })
    .await;
    for _ in 0..10 {
        simulation.event(&mut dice);
    }
    until(&simulation, "they are accepted", || {
        simulation.producer.unacknowledged() == 0
    })
    .await;
    // The time a dispatcher that is wrong would need.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let unread = unread_events(&simulation);
    assert_eq!(unread, 10, "nothing is taken in");
    simulation.sim.release("ringback.webhooks");
    simulation.until_at_rest().await;
    process.drain(simulation.sim.clock()).await;
    let sums = books::check(&simulation);
    assert_eq!(
        (sums.requests, sums.delivered, sums.parked),
        (0, 0, sums.deliveries)
    );
}

async fn until(simulation: &Simulation, what: &str, done: impl Fn() -> bool) {
    for _ in 0..4000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        simulation.sim.clock().advance(Duration::from_millis(10));
    }
    panic!("waited in vain until {what}");
}

/// DL10: what retention removes before it is read is counted, and the rest goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_lost_to_retention_are_counted() {
    let mut simulation = Simulation::new(5);
    let mut dice = Dice::new(5);
    let process = simulation.start();
    for _ in 0..30 {
        simulation.event(&mut dice);
    }
    simulation.until_at_rest().await;
    process.drain(simulation.sim.clock()).await;
    let before = simulation.receivers.requests().len();
    for _ in 0..30 {
        simulation.event(&mut dice);
    }
    until(&simulation, "they are accepted", || {
        simulation.producer.unacknowledged() == 0
    })
    .await;
    // As far as it takes to remove two that nobody has read.
    let (topic, all) = ("ringback.events.cdr", unread_events(&simulation));
    let mut offset = 0;
    while simulation.sim.seen().removed_unread < 2 {
        offset += 1;
        simulation.sim.forget_before(topic, 0, offset);
    }
    assert_eq!(unread_events(&simulation), all - 2);
    let counted = violations(Invariant::DL10);
    let process = simulation.start();
    simulation.until_at_rest().await;
    assert_eq!(violations(Invariant::DL10), counted + 1, "one partition");
    assert!(simulation.receivers.requests().len() > before);
    process.drain(simulation.sim.clock()).await;
}

/// Events that no dispatcher has finished.
fn unread_events(simulation: &Simulation) -> usize {
    let groups = GROUPS
        .iter()
        .filter(|name| name.starts_with("dispatcher.events."));
    groups
        .map(|group| simulation.sim.unfinished(group).len())
        .sum()
}

async fn random_faults(seed: u64) -> Sums {
    let mut dice = Dice::new(seed);
    let mut simulation = Simulation::new(seed);
    let mut processes = vec![simulation.start(), simulation.start()];
    for _ in 0..ACTIONS {
        act(&mut simulation, &mut processes, &mut dice).await;
        simulation.producer.produce_again();
        // A little while, so that faults meet work under way; how far it gets does not matter.
        tokio::time::sleep(Duration::from_millis(dice.roll(6))).await;
    }
    simulation.sim.chances(Chances::default());
    simulation.sim.away(false);
    simulation.sim.release("ringback.webhooks");
    if simulation.sim.seen().commits_lost > 0 {
        // Nobody can know of a lost commit until something new is committed or somebody else takes
        // over; here nothing new comes.
        for group in GROUPS {
            for member in simulation.sim.members(group) {
                simulation.sim.expel(group, member);
            }
        }
    }
    simulation.until_at_rest().await;
    for process in processes {
        process.drain(simulation.sim.clock()).await;
    }
    books::check(&simulation)
}

async fn act(simulation: &mut Simulation, processes: &mut Vec<Process>, dice: &mut Dice) {
    let group = GROUPS[dice.roll(GROUPS.len() as u64) as usize];
    let sim = simulation.sim.clone();
    match dice.roll(20) {
        0..8 => {
            for _ in 0..=dice.roll(8) {
                simulation.event(dice);
            }
        }
        8..11 => sim.clock().advance(Duration::from_secs(dice.roll(400))),
        11..14 => sim.chances(chances(dice)),
        14 => sim.rebalance(group),
        15 | 16 => {
            let members = sim.members(group);
            if let Some(member) = members.get(dice.roll(2) as usize) {
                sim.expel(group, *member);
            }
        }
        17 => {
            let process = processes.swap_remove(dice.roll(2) as usize);
            processes.push(simulation.start());
            match dice.roll(3) {
                0 => process.drain(sim.clock()).await,
                _ => process.kill(),
            }
        }
        18 => sim.away(dice.roll(2) == 0),
        _ => match dice.roll(2) {
            0 => sim.hold("ringback.webhooks"),
            _ => sim.release("ringback.webhooks"),
        },
    }
}

/// A new mixture; sometimes none.
fn chances(dice: &mut Dice) -> Chances {
    let mut chance = || match dice.roll(3) {
        0 => dice.roll(300) as u16,
        _ => 0,
    };
    Chances {
        fail: chance(),
        lose_acknowledgement: chance(),
        duplicate: chance(),
        gap: chance(),
        delay: chance(),
        delay_max: Duration::from_secs(15),
        reorder: chance(),
        lose_commit: chance(),
        fail_commit: chance(),
        fail_commit_later: chance(),
        ..Chances::default()
    }
}
