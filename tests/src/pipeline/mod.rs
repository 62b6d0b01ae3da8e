//! The whole pipeline in one thread, in steps: the producer's publisher, dispatchers, metrics and the
//! administration's API as they are in production, on hosts whose clocks go when they are driven, over
//! the simulated log. One seed gives one story.
//!
//! | file | subject |
//! |---|---|
//! | `world` | the installation, and what lets time pass in it |
//! | `host` | a machine: a runtime and a clock |
//! | `parts` | processes on hosts |
//! | `plan` | what happens to the installation, by the seed |
//! | `deeds` | what can be done to it |
//! | `receivers` | what answers |
//! | `oracle` | what must be, checked at every step |
//! | `bugs` | planted bugs, which the oracle must find |
//! | `trace` | what happened |

pub mod bugs;
mod deeds;
mod host;
pub mod oracle;
mod parts;
mod plan;
mod receivers;
mod trace;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ringback_core::invariant::{Invariant, violations};

use self::bugs::Bug;
use self::oracle::{Sums, Violation};
use self::world::World;

/// Which story.
#[derive(Clone, Copy, Debug, Default)]
pub struct Story {
    pub seed: u64,
    pub bug: Option<Bug>,
    /// Keep its text.
    pub verbose: bool,
}

/// How it went.
#[derive(Debug)]
pub struct Told {
    pub sums: Sums,
    /// Equal for equal stories.
    pub hash: u64,
    pub happenings: u64,
    /// How much time passed in it.
    pub simulated: Duration,
    pub violation: Option<Violation>,
    pub lines: Vec<String>,
}

/// Tells a story to its end, or to the first thing that must not be.
pub fn tell(story: Story) -> Told {
    told(story, plan::run)
}

/// A day of 10,000 events, of which one in five meets a receiver that fails for hours; nothing else
/// goes wrong.
pub fn day() -> Told {
    told(Story::default(), plan::day)
}

/// A dispatcher's time of day is set while retries wait: none may be early.
pub fn clock_is_set() -> Told {
    told(Story::default(), plan::clock_is_set)
}

fn told(story: Story, run: fn(&mut World)) -> Told {
    // What production counts, where it does not panic as in tests.
    let counted = || {
        let all = Invariant::ALL.into_iter();
        let ours = all.filter(|invariant| *invariant != Invariant::DL10);
        ours.map(violations).sum::<u64>()
    };
    let before = counted();
    let mut world = World::new(story);
    let ran = catch_unwind(AssertUnwindSafe(|| run(&mut world)));
    let mut told = world.told();
    if counted() > before {
        told.violation.get_or_insert(Violation {
            check: oracle::Check::Counted,
            at: world.now(),
            what: "an invariant was violated, and counted".to_owned(),
        });
    }
    if let Err(panic) = ran {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let what = format!("panicked: {}", text.unwrap_or_default());
        let at = world.now();
        told.violation.get_or_insert(Violation {
            check: oracle::Check::Rest,
            at,
            what,
        });
        // Its locks may be held, its threads of thought are broken: nothing more is asked of it.
        std::mem::forget(world);
    }
    told
}
