//! Simulations of the whole pipeline: `cargo xtask sim` runs this. See `docs/reliability.md`.
//!
//! ```text
//! sim [--first S] [--seeds N] [--shard I/N] [--state FILE]   stories; FILE remembers what is done
//! sim --trace SEED [--bug NAME]                              one story, told
//! sim --twice [--first S] [--seeds N]                        each twice: are they equal?
//! sim --planted                                              is every planted bug found?
//! sim --day                                                  a day of retries with 10,000 events
//! ```

// A tool of the tests: it prints, and a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic)]

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringback_tests::pipeline::bugs::Bug;
use ringback_tests::pipeline::{Story, Told, day, tell};
use serde::{Deserialize, Serialize};

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Within so many stories every planted bug must show.
const FOUND_WITHIN: u64 = 200;
/// How often progress is remembered.
const REMEMBER_EVERY: u64 = 20;

struct Args(Vec<String>);

impl Args {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|arg| arg == name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|arg| arg == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.text(name)
            .map_or(otherwise, |text| text.parse().unwrap())
    }
}

fn main() -> ExitCode {
    let args = Args(std::env::args().skip(1).collect());
    let good = if let Some(seed) = args.text("--trace") {
        trace(seed.parse().unwrap(), args.text("--bug"))
    } else if args.has("--planted") {
        planted()
    } else if args.has("--day") {
        a_day()
    } else {
        stories(&args)
    };
    match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn story(seed: u64) -> Told {
    tell(Story {
        seed,
        ..Story::default()
    })
}

fn trace(seed: u64, bug: Option<&str>) -> bool {
    let mut planted = Bug::ALL.into_iter().map(|(bug, _)| bug);
    let told = tell(Story {
        seed,
        bug: bug.and_then(|name| planted.find(|bug| format!("{bug:?}") == name)),
        verbose: true,
    });
    told.lines.iter().for_each(|line| println!("{line}"));
    println!("{:016x} {:?}", told.hash, told.sums);
    report(seed, &told)
}

/// Says what must not be, and how to see it again.
fn report(seed: u64, told: &Told) -> bool {
    let Some(violation) = &told.violation else {
        return true;
    };
    println!("seed {seed}: {violation}\n  to see it: cargo xtask sim --trace {seed}");
    false
}

fn stories(args: &Args) -> bool {
    let (first, seeds) = (args.number("--first", 1), args.number("--seeds", 200));
    let (shard, shards) = match args.text("--shard").map(|shard| shard.split_once('/')) {
        None => (0, 1),
        Some(Some((shard, of))) => (shard.parse().unwrap(), of.parse().unwrap()),
        Some(None) => panic!("--shard I/N"),
    };
    assert!(shard < shards, "--shard counts from 0");
    let state = args.text("--state");
    let mut sums = state.and_then(Sums::remembered).unwrap_or_default();
    let began = Instant::now() - Duration::from_secs_f64(sums.seconds);
    for seed in first.max(sums.next)..first + seeds {
        if seed % shards != shard {
            continue;
        }
        let one = story(seed);
        let mut is_good = report(seed, &one);
        if args.has("--twice") {
            let again = story(seed);
            if (again.hash, again.sums) != (one.hash, one.sums) {
                println!("seed {seed} is told differently the second time");
                is_good = false;
            }
        }
        sums.add(&one, is_good);
        sums.next = seed + 1;
        sums.seconds = began.elapsed().as_secs_f64();
        if let Some(file) = state
            && sums.told.is_multiple_of(REMEMBER_EVERY)
        {
            sums.remember(file);
        }
    }
    if let Some(file) = state {
        sums.remember(file);
    }
    sums.print();
    sums.bad == 0
}

/// What all stories so far were together, those before an interruption too.
#[derive(Default, Serialize, Deserialize)]
struct Sums {
    /// The seed to go on with.
    next: u64,
    told: u64,
    bad: u64,
    seconds: f64,
    simulated: Duration,
    requests: u64,
    happenings: u64,
    deferred: u64,
    late: u64,
}

impl Sums {
    fn remembered(file: &str) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        serde_json::from_str(&text).ok()
    }

    fn remember(&self, file: &str) {
        fs::write(file, serde_json::to_vec(self).unwrap()).unwrap();
    }

    fn add(&mut self, one: &Told, is_good: bool) {
        self.told += 1;
        self.bad += u64::from(!is_good);
        self.simulated += one.simulated;
        self.requests += one.sums.requests;
        self.happenings += one.happenings;
        self.deferred += one.sums.deferred;
        self.late += one.sums.late;
    }

    fn print(&self) {
        println!("figure sim.seeds {} seeds", self.told);
        println!("figure sim.violations {} violations", self.bad);
        println!("figure sim.seconds {:.1} s", self.seconds);
        let hours = self.simulated.as_secs() / 3600;
        println!("figure sim.simulated_hours {hours} h");
        println!("figure sim.requests {} requests", self.requests);
        println!("figure sim.happenings {} happenings", self.happenings);
        println!("figure sim.deferred {} deliveries", self.deferred);
        println!("figure sim.late {} attempts", self.late);
    }
}

fn planted() -> bool {
    let (mut most, mut found) = (0, 0);
    for (bug, by) in Bug::ALL {
        let within = (1..=FOUND_WITHIN).find(|seed| {
            let told = tell(Story {
                seed: *seed,
                bug: Some(bug),
                ..Story::default()
            });
            told.violation
                .is_some_and(|violation| violation.check == by)
        });
        match within {
            Some(seeds) => {
                println!("{bug:?} is found by {by:?} within {seeds} seeds");
                found += 1;
                most = most.max(seeds);
            }
            None => println!("{bug:?} is NOT found by {by:?} within {FOUND_WITHIN} seeds"),
        }
    }
    println!("figure sim.planted {} bugs", Bug::ALL.len());
    println!("figure sim.planted_found {found} bugs");
    println!("figure sim.planted_found_within {most} seeds");
    found == Bug::ALL.len()
}

fn a_day() -> bool {
    let began = Instant::now();
    let told = day();
    println!("{:?} in {:?}", told.sums, told.simulated);
    println!(
        "figure sim.day_10k_seconds {:.3} s",
        began.elapsed().as_secs_f64()
    );
    if let Some(seconds) = processor_seconds() {
        println!("figure sim.day_10k_processor_seconds {seconds:.3} s");
    }
    if let Some(violation) = &told.violation {
        println!("{violation}");
    }
    told.violation.is_none()
}

/// What this process has used of a processor so far: on a busy machine, less than what passed.
fn processor_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/schedstat").ok()?;
    let nanos: u64 = text.split(' ').next()?.parse().ok()?;
    Some(nanos as f64 / 1e9)
}
