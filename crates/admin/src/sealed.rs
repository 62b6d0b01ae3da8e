//! All that is sealed in a webhook, at once: under the primary key, with other keys, and compared.

use ringback_core::time::Timestamp;
use ringback_core::webhook::{PreviousAuthentication, Webhook};

use crate::authentication::{self, Vault};
use crate::problem::Problem;
use crate::{signing, tls_form};

/// The webhook with all its secrets under the primary key; `None` when they already are.
pub(crate) fn under_primary(
    webhook: &Webhook,
    vault: &Vault<'_>,
    now: Timestamp,
) -> Result<Option<Webhook>, Problem> {
    let primary = vault.keys.primary();
    if webhook
        .secrets()
        .all(|(sealed, _)| sealed.key_id() == primary)
    {
        return Ok(None);
    }
    transfer(webhook, vault, vault, now).map(Some)
}

/// The webhook with its secrets opened with the keys of `from` and sealed with those of `to`. What is
/// no longer in force is left out.
pub(crate) fn transfer(
    webhook: &Webhook,
    from: &Vault<'_>,
    to: &Vault<'_>,
    now: Timestamp,
) -> Result<Webhook, Problem> {
    let previous = webhook.previous_authentication(now).map(|previous| {
        Ok::<_, Problem>(PreviousAuthentication {
            authentication: authentication::transfer(&previous.authentication, from, to)?,
            until: previous.until,
        })
    });
    Ok(Webhook {
        authentication: authentication::transfer(&webhook.authentication, from, to)?,
        previous_authentication: previous.transpose()?,
        signing: signing::transfer(&webhook.signing, from, to, now)?,
        tls: tls_form::transfer(webhook.tls.as_ref(), from, to)?,
        ..webhook.clone()
    })
}

/// Whether both are configured alike, with the same secrets, whatever these are sealed with.
pub(crate) fn same(
    (a, ours): (&Webhook, &Vault<'_>),
    (b, theirs): (&Webhook, &Vault<'_>),
    now: Timestamp,
) -> Result<bool, Problem> {
    let alike = Webhook {
        authentication: a.authentication.clone(),
        previous_authentication: a.previous_authentication.clone(),
        signing: a.signing.clone(),
        tls: a.tls.clone(),
        ..b.clone()
    };
    let previous = match (
        a.previous_authentication(now),
        b.previous_authentication(now),
    ) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            a.until == b.until
                && authentication::same((&a.authentication, ours), (&b.authentication, theirs))?
        }
        _ => false,
    };
    Ok(alike == *a
        && previous
        && tls_form::same((a.tls.as_ref(), ours), (b.tls.as_ref(), theirs))?
        && authentication::same((&a.authentication, ours), (&b.authentication, theirs))?
        && signing::same((&a.signing, ours), (&b.signing, theirs), now)?)
}
