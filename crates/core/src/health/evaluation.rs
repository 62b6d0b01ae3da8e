//! What a policy does to receivers of many kinds, by simulation of the whole ladder of attempts:
//! for people who choose the numbers (contract R14).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::time::Duration;

use super::State;
use super::policy::HealthPolicy;
use super::window::Window;
use crate::schedule::{Next, Schedule};
use crate::time::{Timestamp, duration_label};
use crate::verdict::Verdict;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// How long each receiver is watched.
const WATCHED: i64 = 21 * DAY;

/// A kind of receiver: when events come, and how it answers.
pub struct Receiver {
    /// What it is like.
    pub name: &'static str,
    /// Events within this day and second of the day.
    events: fn(i64) -> f64,
    /// Chance that an attempt at this second succeeds.
    succeeds: fn(i64) -> f64,
    /// Whether it works well enough that it must never be disabled.
    pub healthy: bool,
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Attempts made in all.
    pub attempts: u64,
    /// Of these, failed.
    pub failed: u64,
    /// How often it was announced as failing.
    pub failing: u32,
    /// When it was announced as failing for the first time.
    pub failing_first: Option<Timestamp>,
    /// When it was disabled.
    pub disabled: Option<Timestamp>,
}

fn per_day(events: f64) -> f64 {
    events / DAY as f64
}

const RECEIVERS: &[Receiver] = &[
    Receiver {
        name: "healthy, 1 % of attempts fail",
        events: |_| per_day(1000.0),
        succeeds: |_| 0.99,
        healthy: true,
    },
    Receiver {
        name: "healthy, one event a day",
        events: |_| per_day(1.0),
        succeeds: |_| 1.0,
        healthy: true,
    },
    Receiver {
        name: "10 % of attempts fail, one event a day",
        events: |_| per_day(1.0),
        succeeds: |_| 0.9,
        healthy: true,
    },
    Receiver {
        name: "dead from the beginning, 1,000 events a day",
        events: |_| per_day(1000.0),
        succeeds: |_| 0.0,
        healthy: false,
    },
    Receiver {
        name: "dead from the beginning, one event a day",
        events: |_| per_day(1.0),
        succeeds: |_| 0.0,
        healthy: false,
    },
    Receiver {
        name: "dies after 7 days, 1,000 events a day",
        events: |_| per_day(1000.0),
        succeeds: |t| if t < 7 * DAY { 1.0 } else { 0.0 },
        healthy: false,
    },
    Receiver {
        name: "dies after 7 days, one event a day",
        events: |_| per_day(1.0),
        succeeds: |t| if t < 7 * DAY { 1.0 } else { 0.0 },
        healthy: false,
    },
    Receiver {
        name: "flapping: half of all attempts fail",
        events: |_| per_day(1000.0),
        succeeds: |_| 0.5,
        healthy: true,
    },
    Receiver {
        name: "flapping: every other hour down",
        events: |_| per_day(1000.0),
        succeeds: |t| if t / HOUR % 2 == 0 { 1.0 } else { 0.0 },
        healthy: true,
    },
    Receiver {
        name: "nightly maintenance of 2 h",
        events: |_| per_day(1000.0),
        succeeds: |t| if t % DAY < 2 * HOUR { 0.0 } else { 1.0 },
        healthy: true,
    },
    Receiver {
        name: "office hours only: no answer for 14 h a day",
        events: |t| {
            if (8 * HOUR..18 * HOUR).contains(&(t % DAY)) {
                per_day(1000.0)
            } else {
                per_day(10.0)
            }
        },
        succeeds: |t| {
            if (8 * HOUR..18 * HOUR).contains(&(t % DAY)) {
                1.0
            } else {
                0.0
            }
        },
        healthy: true,
    },
    Receiver {
        name: "an outage of 5 h after 7 days",
        events: |_| per_day(1000.0),
        succeeds: |t| {
            if (7 * DAY..7 * DAY + 5 * HOUR).contains(&t) {
                0.0
            } else {
                1.0
            }
        },
        healthy: true,
    },
    Receiver {
        name: "an outage of 2 days after 7 days",
        events: |_| per_day(1000.0),
        succeeds: |t| {
            if (7 * DAY..9 * DAY).contains(&t) {
                0.0
            } else {
                1.0
            }
        },
        healthy: false,
    },
    Receiver {
        name: "slow decay over 14 days",
        events: |_| per_day(1000.0),
        succeeds: |t| (1.0 - t as f64 / (14 * DAY) as f64).max(0.0),
        healthy: false,
    },
    Receiver {
        name: "a flood of 20,000 events in 30 min, answered with 500",
        events: |t| {
            if in_flood(t) {
                20_000.0 / (30 * MINUTE) as f64
            } else {
                per_day(100.0)
            }
        },
        succeeds: |t| if in_flood(t) { 0.0 } else { 1.0 },
        healthy: true,
    },
];

fn in_flood(second: i64) -> bool {
    (7 * DAY..7 * DAY + 30 * MINUTE).contains(&second)
}

/// A number from 0 to 1 that looks random and is the same every time.
fn chance(n: u64) -> f64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(second * 1000)
}

/// What the policy does to every kind of receiver.
pub fn evaluate(policy: &HealthPolicy, schedule: &Schedule) -> Vec<(&'static Receiver, Seen)> {
    RECEIVERS
        .iter()
        .map(|receiver| (receiver, watch(receiver, policy, schedule)))
        .collect()
}

fn watch(receiver: &Receiver, policy: &HealthPolicy, schedule: &Schedule) -> Seen {
    let mut window = Window::new(0);
    let mut seen = Seen {
        attempts: 0,
        failed: 0,
        failing: 0,
        failing_first: None,
        disabled: None,
    };
    // Waiting retries: when, which attempt, when the event was.
    let mut waiting: BinaryHeap<Reverse<(i64, u8, i64)>> = BinaryHeap::new();
    let mut due = 0.5;
    for second in 0..WATCHED {
        due += (receiver.events)(second);
        while due >= 1.0 {
            due -= 1.0;
            waiting.push(Reverse((second, 0, second)));
        }
        while let Some(&Reverse((when, attempt, event))) = waiting.peek()
            && when <= second
        {
            waiting.pop();
            seen.attempts += 1;
            let succeeded = chance(seen.attempts) < (receiver.succeeds)(second);
            if !succeeded {
                seen.failed += 1;
                let next = schedule.next(Verdict::Failed, attempt, at(event), at(second));
                if let Next::Retry { tier } = next {
                    let wait = i64::try_from(schedule.tiers()[tier].as_secs()).unwrap_or(DAY);
                    waiting.push(Reverse((second + wait, attempt + 1, event)));
                }
            }
            window.count(succeeded, at(second), policy);
            let state = window.decide(policy, at(second)).state;
            if state == State::Disabled {
                seen.disabled = Some(at(second));
                return seen;
            }
            if state == State::Failing && window.state == State::Healthy {
                seen.failing += 1;
                seen.failing_first = seen.failing_first.or(Some(at(second)));
            }
            window.state = state;
        }
    }
    seen
}

/// The evaluation as a table in Markdown.
pub fn table(policy: &HealthPolicy, schedule: &Schedule) -> String {
    let mut text = String::from(
        "| receiver, watched for 21 days | attempts | failed | first announced as failing | disabled |\n|---|---|---|---|---|\n",
    );
    for (receiver, seen) in evaluate(policy, schedule) {
        let failing = match seen.failing_first {
            Some(first) if seen.failing == 1 => day(first),
            Some(first) => format!("{}, {} times in all", day(first), seen.failing),
            None => "never".to_owned(),
        };
        let disabled = seen.disabled.map_or("never".to_owned(), day);
        let percent = seen.failed as f64 * 100.0 / seen.attempts.max(1) as f64;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {percent:.1} % | {failing} | {disabled} |",
            receiver.name, seen.attempts
        );
    }
    text
}

/// `7d 23h`.
fn day(time: Timestamp) -> String {
    let seconds = time.as_secs();
    let (days, hours) = (seconds / DAY, seconds % DAY / HOUR);
    match (days, hours) {
        (0, 0) => duration_label(Duration::from_secs(seconds.unsigned_abs())),
        (0, hours) => format!("{hours}h"),
        (days, hours) => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contract R14: nobody who works is disabled, everybody who is dead is, within the stated time.
    #[test]
    fn the_default_policy_spares_the_healthy_and_ends_the_dead() {
        let seen = evaluate(&HealthPolicy::default(), &Schedule::default());
        for (receiver, seen) in &seen {
            assert_eq!(
                seen.disabled.is_none(),
                receiver.healthy,
                "{}",
                receiver.name
            );
        }
        let disabled = |name: &str| {
            let of = seen
                .iter()
                .find(|(receiver, _)| receiver.name.starts_with(name));
            of.unwrap().1.disabled.unwrap().as_secs()
        };
        assert!(disabled("dead from the beginning, 1,000") <= 7 * HOUR);
        assert!(disabled("dead from the beginning, one") <= 6 * DAY);
        assert!(disabled("dies after 7 days, 1,000") <= 8 * DAY);
        assert!(disabled("dies after 7 days, one") <= 13 * DAY);
    }
}
