//! What a webhook authenticated with before a change: kept when the change says for how long, so that
//! the receiver can change its own in that time.

use std::time::Duration;

use ringback_core::target::same_origin;
use ringback_core::time::Timestamp;
use ringback_core::webhook::{Authentication, PreviousAuthentication, Webhook};
use serde_json::Value;

use crate::authentication::{self, Vault};
use crate::problem::Problem;

/// What is tried besides `next`, which `current` is changed to. `grace` is what the change says.
pub(crate) fn after_change(
    current: &Webhook,
    next: &Webhook,
    grace: Option<Duration>,
    vault: &Vault<'_>,
    now: Timestamp,
) -> Result<Option<PreviousAuthentication>, Problem> {
    let stays = same_origin(&current.url, &next.url);
    let asked = grace.filter(|grace| !grace.is_zero());
    if !stays && asked.is_some() {
        let detail = "grace is for a receiver that stays where it is; this URL leads elsewhere, and the authentication of before is not sent there";
        return Err(
            Problem::invalid("invalid_authentication", detail).with("field", "authentication")
        );
    }
    if !stays || grace == Some(Duration::ZERO) {
        return Ok(None);
    }
    let before = &current.authentication;
    if authentication::same((before, vault), (&next.authentication, vault))? {
        return Ok(current.previous_authentication(now).cloned());
    }
    Ok(asked
        .filter(|_| *before != Authentication::None)
        .map(|grace| PreviousAuthentication {
            authentication: before.clone(),
            until: now + grace,
        }))
}

/// As the API shows it.
pub(crate) fn view(webhook: &Webhook, now: Timestamp) -> Value {
    let Some(previous) = webhook.previous_authentication(now) else {
        return Value::Null;
    };
    let mut view = authentication::view(&previous.authentication);
    view["until"] = previous.until.to_string().into();
    view
}
