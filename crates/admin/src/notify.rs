//! `/v1/tenants/{tenant}/notify`: who gets mail about a tenant's webhooks.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use ringback_core::directory::Versioned;
use ringback_core::log::Log;
use ringback_core::mail_address::MailAddress;
use ringback_core::topics::Role;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::problem::Problem;
use crate::request::{Body, Precondition, etag};
use crate::state::AdminState;
use crate::store::NotWritten;
use crate::tenants;

/// Most recipients of a tenant.
const RECIPIENTS_MAX: usize = 20;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipients {
    notify: Vec<String>,
}

/// Who gets mail, and whether any is sent at all.
pub(crate) async fn show<L: Log>(
    State(state): State<AdminState<L>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    state
        .run(move |admin| {
            let tenant = admin.tenant(&id)?;
            let shown = json!({
                "notify": tenant.value.notify,
                "mailed": admin.config.mail.is_on(),
            });
            Ok((etag(tenant.revision), Json(shown)).into_response())
        })
        .await
}

pub(crate) async fn put<L: Log>(
    State(state): State<AdminState<L>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(form): Body<Recipients>,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(&headers);
    let notify = recipients(&form.notify)?;
    state
        .run(move |admin| {
            let what = format!("tenant {id}");
            let changed = admin.retrying(&what, || {
                let tenant = admin.tenant(&id)?;
                precondition.check(&what, tenant.revision)?;
                let mut value = tenant.value;
                value.notify.clone_from(&notify);
                let key = value.id.as_str();
                let revision = admin.put(Role::Tenants, key, Some(tenant.revision), &value)?;
                Ok::<_, NotWritten>(Versioned { value, revision })
            })?;
            let webhooks = admin.directory()?.webhooks(&changed.value.id).count();
            tracing::info!(tenant = %changed.value.id, recipients = notify.len(), "recipients of notices changed");
            Ok(tenants::answer(StatusCode::OK, &changed, webhooks))
        })
        .await
}

/// The addresses, each once, in the order given.
fn recipients(texts: &[String]) -> Result<Vec<MailAddress>, Problem> {
    if texts.len() > RECIPIENTS_MAX {
        let detail = format!("use at most {RECIPIENTS_MAX} addresses");
        return Err(Problem::field("notify", detail));
    }
    let mut recipients = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let address = MailAddress::parse(text)
            .map_err(|error| Problem::field(&format!("notify[{index}]"), error.to_string()))?;
        if !recipients.contains(&address) {
            recipients.push(address);
        }
    }
    Ok(recipients)
}
