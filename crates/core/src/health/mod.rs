//! The health of webhooks: from attempts to the verdict that disables one (contract R14).
//!
//! Everything is folded from attempt records with the log's own times, so that reading them again
//! gives the same verdicts.

mod advice;
mod evaluation;
mod policy;
mod window;

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use advice::{Failure, advice};
pub use evaluation::{Receiver, Seen, evaluate, table};
pub use policy::{HealthPolicy, InvalidPolicy};
pub use window::{Bucket, Decision, Window};

use crate::event::TenantId;
use crate::record::Attempt;
use crate::time::Timestamp;
use crate::verdict::Outcome;

/// Version of the health and window records written here.
pub const HEALTH_VERSION: u32 = 1;

/// What is thought of a webhook.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It works, or too little is known to say otherwise.
    #[default]
    Healthy,
    /// It fails, and will be disabled if that goes on.
    Failing,
    /// It is disabled: nothing is sent until an administrator enables it again.
    Disabled,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Failing, Self::Disabled];

    /// Its name in records, metrics and lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Failing => "failing",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A verdict on a webhook, in topic `health`. It holds for one generation only: enabling a webhook
/// raises its generation, so that no old verdict reaches the repaired one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Health {
    /// Version of the record.
    pub version: u32,
    /// The webhook's id, which is the record's key.
    pub webhook: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which of its lives.
    pub generation: u64,
    /// The verdict.
    pub state: State,
    /// Append time of the attempt that led to it.
    pub since: Timestamp,
    /// Why, for people.
    pub reason: String,
    /// What the window had then, for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub figures: Option<Figures>,
}

/// What a window has, as the first rule of the policy looks at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Attempts that are charged to the webhook.
    pub attempts: u64,
    /// Of these, failed.
    pub failed: u64,
    /// The first failure since the last success.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_failure: Option<Timestamp>,
    /// The last success.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_success: Option<Timestamp>,
    /// The last attempt.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_attempt: Option<Timestamp>,
}

/// What a component that obeys verdicts needs to know of one.
impl Health {
    /// Whether this verdict switches off a webhook of this generation.
    pub fn disables(&self, generation: u64) -> bool {
        self.state == State::Disabled && self.generation == generation
    }
}

/// A snapshot of a webhook's window, in topic `windows`: what the attempts before `next` add up to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of the record.
    pub version: u32,
    /// Whose webhook it is.
    pub tenant: TenantId,
    /// Offset in the same partition of `attempts` of the first attempt that is not counted in it.
    pub next: i64,
    /// The window.
    pub window: Window,
    /// The generation before was disabled, and this one has not succeeded yet.
    #[serde(default)]
    pub repaired: bool,
}

/// Whether an attempt says something about its webhook, and if so, whether it succeeded. Faults of
/// our own are never charged to a webhook.
pub fn charge(attempt: &Attempt) -> Option<bool> {
    if Outcome::is_ours(&attempt.outcome) {
        return None;
    }
    Some(attempt.next == crate::record::DELIVERED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventName;
    use crate::record::{DELIVERED, VERSION};

    #[test]
    fn states_have_the_names_that_records_carry() {
        for state in [State::Healthy, State::Failing, State::Disabled] {
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(json, format!("\"{state}\""));
        }
    }

    #[test]
    fn only_a_disablement_of_its_own_generation_disables() {
        for (state, generation, disables) in [
            (State::Disabled, 3, true),
            (State::Disabled, 2, false),
            (State::Failing, 3, false),
        ] {
            let health = Health {
                version: HEALTH_VERSION,
                webhook: Uuid::from_u128(1),
                tenant: TenantId::parse("acme").unwrap(),
                generation,
                state,
                since: Timestamp::EPOCH,
                reason: String::new(),
                figures: None,
            };
            assert_eq!(health.disables(3), disables);
        }
    }

    #[test]
    fn receivers_are_charged_for_their_own_faults() {
        for (outcome, next, charged) in [
            ("status", DELIVERED, Some(true)),
            ("status", "retry.32s", Some(false)),
            ("timeout", "exhausted", Some(false)),
            ("resolver", "retry.32s", None),
            ("proxy", "retry.32s", None),
        ] {
            let attempt = Attempt {
                version: VERSION,
                event: Uuid::nil(),
                name: EventName::parse("cdr.completed").unwrap(),
                tenant: TenantId::parse("acme").unwrap(),
                webhook: Uuid::from_u128(1),
                generation: 0,
                run: 0,
                attempt: 0,
                started: Timestamp::EPOCH,
                duration_ms: 1,
                outcome: outcome.to_owned(),
                status: None,
                error: None,
                response: None,
                next_at: None,
                request_headers: None,
                response_headers: None,
                next: next.to_owned(),
                late: false,
                dispatcher: "d".to_owned(),
                trace: None,
                subject: None,
                replay: None,
            };
            assert_eq!(charge(&attempt), charged, "{outcome}");
        }
    }
}
