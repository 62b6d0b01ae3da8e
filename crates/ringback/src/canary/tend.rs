//! Looking after what the canary needs, as its customer would: tenant, webhook and token are made when they
//! are missing, and put right when somebody has changed them.

use ringback_core::canary::event_type;
use ringback_core::catalogue::Family;
use ringback_core::secret::Secret;
use ringback_core::signature::Verifier;
use serde_json::{Map, Value, json};

use super::api::{Api, Trouble};

/// The name of its webhook and of its tokens.
pub(super) const NAME: &str = "canary";
/// Pages of tokens that are looked through.
const PAGES_MAX: usize = 20;

/// What is to be there.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) tenant: String,
    /// Where the webhook leads.
    pub(super) url: String,
}

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The id of the token that events are handed in with, and itself.
    pub(super) token: Option<(String, Secret)>,
    /// What verifies requests.
    pub(super) keys: Vec<Verifier>,
    /// The keys as the webhook lists them, to see when they change.
    signing: Value,
}

/// What a look came to.
#[derive(Debug)]
pub(super) struct Tended {
    pub(super) known: Known,
    /// What was made or put right.
    pub(super) mended: Vec<String>,
    /// The webhook was not there or off: what was sent meanwhile does not come by itself.
    pub(super) was_off: bool,
}

/// What a look failed at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Tenant,
    Webhook,
    Token,
}

impl Step {
    pub(super) const ALL: [Self; 3] = [Self::Tenant, Self::Webhook, Self::Token];

    /// Its name in metrics and messages.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Webhook => "webhook",
            Self::Token => "token",
        }
    }
}

/// A look that failed, and why.
pub(super) type Failed = (Step, String);

/// Looks at everything, and makes or mends what is not as it must be, up to what fails.
pub(super) async fn tend(api: &Api, wanted: &Wanted, known: Known) -> (Tended, Result<(), Failed>) {
    let mut tended = Tended {
        known,
        mended: Vec::new(),
        was_off: false,
    };
    let ended = steps(api, wanted, &mut tended).await;
    (tended, ended)
}

async fn steps(api: &Api, wanted: &Wanted, tended: &mut Tended) -> Result<(), Failed> {
    let at = |step: Step| move |why: Trouble| (step, why.to_string());
    let ended = tenant(api, wanted, tended).await;
    ended.map_err(at(Step::Tenant))?;
    let ended = webhook(api, wanted, tended).await;
    ended.map_err(at(Step::Webhook))?;
    token(api, wanted, tended).await.map_err(at(Step::Token))
}

async fn tenant(api: &Api, wanted: &Wanted, tended: &mut Tended) -> Result<(), Trouble> {
    let tenant = &wanted.tenant;
    match api.get(&["tenants", tenant], &[]).await {
        Ok(_) => return Ok(()),
        Err(trouble) if trouble.is("no_such_tenant") => {}
        Err(trouble) => return Err(trouble),
    }
    let form = json!({ "id": tenant, "title": "Canary: Ringback watches itself" });
    match api.post(&["tenants"], &form).await {
        Ok(_) => {
            tended.mended.push(format!("made tenant {tenant}"));
            Ok(())
        }
        Err(trouble) if trouble.is("tenant_exists") => Ok(()),
        // A tenant's token is told that the route does not exist.
        Err(Trouble::Refused {
            status,
            code,
            detail,
        }) => Err(Trouble::Refused {
            status,
            code,
            detail: format!(
                "{detail}; only operators add tenants: `ringback tenant add {tenant}`, or give canary.token the operator's"
            ),
        }),
        Err(trouble) => Err(trouble),
    }
}

async fn webhook(api: &Api, wanted: &Wanted, tended: &mut Tended) -> Result<(), Trouble> {
    let tenant = wanted.tenant.as_str();
    let path = ["tenants", tenant, "webhooks", NAME];
    let mut found = match api.get(&path, &[]).await {
        Ok(found) => found,
        Err(trouble) if trouble.is("no_such_webhook") => {
            let mut form = form(wanted);
            form.insert("name".to_owned(), NAME.into());
            tended.was_off = true;
            let made = api.post(&path[..3], &form.into()).await?;
            tended.mended.push(format!("made webhook {NAME}"));
            made
        }
        Err(trouble) => return Err(trouble),
    };
    let wrong = wrong(&found.body, wanted);
    if !wrong.is_empty() {
        tended.was_off |= wrong.contains_key("enabled");
        let names: Vec<_> = wrong.keys().map(String::as_str).collect();
        let said = format!("put the webhook's {} right", names.join(", "));
        found = api
            .patch(&path, found.etag.as_deref(), &wrong.into())
            .await?;
        tended.mended.push(said);
    }
    if found.body["health"]["state"] == "disabled" {
        let enable = [&path[..], &["enable"]].concat();
        tended.was_off = true;
        found = api.post(&enable, &json!({})).await?;
        tended
            .mended
            .push("enabled the webhook, which was disabled for its errors".to_owned());
    }
    let signing = listed(&found.body["signing"]);
    if tended.known.keys.is_empty() || tended.known.signing != signing {
        tended.known.keys = keys(api, &path, tended).await?;
        tended.known.signing = signing;
    }
    Ok(())
}

/// The keys that requests are signed with. A look at them is in the audit, so it is taken only when they
/// have changed.
async fn keys(api: &Api, path: &[&str], tended: &mut Tended) -> Result<Vec<Verifier>, Trouble> {
    let secret = [path, &["secret"]].concat();
    let keys = read_keys(&api.get(&secret, &[]).await?.body);
    if !keys.is_empty() {
        return Ok(keys);
    }
    let rotate = [path, &["secret", "rotate"]].concat();
    let rotated = api.post(&rotate, &json!({})).await?;
    tended.mended.push("gave the webhook a key".to_owned());
    match read_keys(&rotated.body) {
        keys if keys.is_empty() => Err(Trouble::NoAnswer(
            "the administration shows no key that the webhook signs with".to_owned(),
        )),
        keys => Ok(keys),
    }
}

fn read_keys(answer: &Value) -> Vec<Verifier> {
    let keys = answer["signing"].as_array().into_iter().flatten();
    keys.filter_map(|key| {
        let text = key["secret"].as_str().or(key["public_key"].as_str())?;
        Verifier::read(&Secret::new(text)).ok()
    })
    .collect()
}

/// Kind and times of keys, without what they are.
fn listed(signing: &Value) -> Value {
    let keys = signing.as_array().into_iter().flatten();
    keys.map(|key| json!([key["kind"], key["created"], key["until"]]))
        .collect()
}

/// How the webhook is to be.
fn form(wanted: &Wanted) -> Map<String, Value> {
    let form = [
        ("url", wanted.url.as_str().into()),
        (
            "subscription",
            Family::ALL.map(event_type).as_slice().into(),
        ),
        ("format", "standard".into()),
        ("enabled", true.into()),
    ];
    let form = form.into_iter();
    form.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The fields of a webhook that are not as they must be, with what they must be. Others are left to who
/// looks after receivers: authentication, say, or certificates.
fn wrong(found: &Value, wanted: &Wanted) -> Map<String, Value> {
    let form = form(wanted).into_iter();
    form.filter(|(name, value)| found[name] != *value).collect()
}

async fn token(api: &Api, wanted: &Wanted, tended: &mut Tended) -> Result<(), Trouble> {
    let mine = tokens(api, wanted).await?;
    let known = tended.known.token.as_ref().map(|(id, _)| id.clone());
    if known.is_some_and(|known| mine.contains(&known)) {
        return Ok(());
    }
    let form = json!({ "name": NAME, "tenant": wanted.tenant, "scopes": ["publish"] });
    let made = api.post(&["tokens"], &form).await?.body;
    let text = |name: &str| made[name].as_str().map(str::to_owned);
    let (Some(id), Some(token)) = (text("id"), text("token")) else {
        return Err(Trouble::NoAnswer(
            "the administration does not show the token it made".to_owned(),
        ));
    };
    tended.known.token = Some((id, Secret::new(token)));
    tended.mended.push("made a token".to_owned());
    // Nobody has their texts any more.
    for old in mine {
        match api.delete(&["tokens", &old]).await {
            Ok(_) => tended.mended.push("revoked an earlier token".to_owned()),
            Err(trouble) if trouble.is("no_such_token") => {}
            Err(trouble) => return Err(trouble),
        }
    }
    Ok(())
}

/// The ids of the tokens with its name.
async fn tokens(api: &Api, wanted: &Wanted) -> Result<Vec<String>, Trouble> {
    let mut ids = Vec::new();
    let mut query = vec![("tenant", wanted.tenant.clone())];
    for _ in 0..PAGES_MAX {
        let page = api.get(&["tokens"], &query).await?.body;
        let tokens = page["tokens"].as_array().into_iter().flatten();
        let mine = tokens.filter(|token| token["name"] == NAME);
        ids.extend(mine.filter_map(|token| Some(token["id"].as_str()?.to_owned())));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        query.truncate(1);
        query.push(("after", next.to_owned()));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            tenant: "canary".to_owned(),
            url: "http://127.0.0.1:8091/".to_owned(),
        }
    }

    #[test]
    fn only_what_is_wrong_is_changed() {
        let mut found = Value::from(form(&wanted()));
        found["authentication"] = json!({ "method": "basic" });
        assert_eq!(wrong(&found, &wanted()), Map::new());
        found["enabled"] = false.into();
        found["url"] = "http://elsewhere/".into();
        let wrong = Value::from(wrong(&found, &wanted()));
        let expected = json!({ "enabled": true, "url": wanted().url });
        assert_eq!(wrong, expected);
    }

    #[test]
    fn keys_are_read_of_either_kind() {
        let answer = json!({ "signing": [
            { "kind": "hmac", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" },
            { "kind": "ed25519", "public_key": "whpk_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=" },
            { "kind": "hmac", "secret": "nonsense" },
            { "kind": "other" },
        ] });
        assert_eq!(read_keys(&answer).len(), 2);
        assert_eq!(read_keys(&json!({})).len(), 0);
        // Whether they have changed is seen without them.
        let shown = json!([{ "kind": "hmac", "created": "c", "until": null, "secret": "s" }]);
        let listed_only = json!([{ "kind": "hmac", "created": "c", "until": null }]);
        assert_eq!(listed(&shown), listed(&listed_only));
    }
}
