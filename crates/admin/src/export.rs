//! `POST /v1/export`: the whole configuration as a readable document, its secrets sealed with a
//! passphrase instead of the master keys, so that it can be read back anywhere.

use argon2::{Algorithm, Argon2, Params, Version};
use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringback_core::account::{Account, Token};
use ringback_core::event::TenantId;
use ringback_core::log::Log;
use ringback_core::secret::{KEY_BYTES, KeyRing, Sealed, Secret};
use ringback_core::webhook::{Tenant, Webhook};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::authentication::{Vault, fill_random};
use crate::carried_account;
use crate::problem::Problem;
use crate::request::Body;
use crate::sealed;
use crate::state::{Admin, AdminState};

/// What a document calls itself.
pub(crate) const FORMAT: &str = "ringback-export";
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Id of the key that is made of the passphrase.
const KEY_ID: &str = "export";
/// Shortest passphrase, in bytes.
const PASSPHRASE_BYTES_MIN: usize = 12;
const SALT_BYTES: usize = 16;
/// Tenants of one page.
const PAGE: usize = 200;
/// What the passphrase is checked by, before anything is imported with a wrong one.
const CHECK: &str = "the passphrase is right";

/// How a passphrase becomes a key: Argon2id (RFC 9106) with these parameters.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyMaking {
    kdf: String,
    /// KiB of memory.
    memory: u32,
    passes: u32,
    lanes: u32,
    /// Base64.
    salt: String,
    /// A known text, sealed.
    check: Option<Sealed>,
}

impl KeyMaking {
    fn fresh() -> Result<Self, Problem> {
        let mut salt = [0; SALT_BYTES];
        fill_random(&mut salt)?;
        Ok(Self {
            kdf: "argon2id".to_owned(),
            memory: Params::DEFAULT_M_COST,
            passes: Params::DEFAULT_T_COST,
            lanes: Params::DEFAULT_P_COST,
            salt: STANDARD.encode(salt),
            check: None,
        })
    }

    /// The key ring that a passphrase makes.
    fn ring(&self, passphrase: &Secret) -> Result<KeyRing, Problem> {
        let wrong = |what: &str| {
            Problem::invalid("invalid_document", format!("key: {what}")).with("field", "key")
        };
        if self.kdf != "argon2id" {
            return Err(wrong("its kdf is not argon2id"));
        }
        // A document is foreign: it may not ask for all of our memory and time.
        if self.memory > 1 << 20 || self.passes > 16 || self.lanes > 16 {
            return Err(wrong("its parameters are far too large"));
        }
        let params = Params::new(self.memory, self.passes, self.lanes, Some(KEY_BYTES))
            .map_err(|error| wrong(&error.to_string()))?;
        let salt = STANDARD
            .decode(&self.salt)
            .map_err(|_| wrong("its salt is not base64"))?;
        let mut key = [0; KEY_BYTES];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.expose().as_bytes(), &salt, &mut key)
            .map_err(|error| wrong(&error.to_string()))?;
        Ok(KeyRing::new(
            KEY_ID,
            [(KEY_ID, STANDARD.encode(key).as_str())],
        )?)
    }

    /// The ring of a document, if the passphrase is its own.
    pub(crate) fn open(&self, passphrase: &Secret) -> Result<KeyRing, Problem> {
        let ring = self.ring(passphrase)?;
        let Some(check) = &self.check else {
            let detail = "key.check is missing from the document";
            return Err(Problem::invalid("invalid_document", detail).with("field", "key.check"));
        };
        match ring.open(check, Uuid::nil(), "check") {
            Ok(_) => Ok(ring),
            Err(_) => {
                let detail = "the passphrase is not the one that the document was exported with";
                Err(Problem::invalid("wrong_passphrase", detail).with("field", "passphrase"))
            }
        }
    }
}

/// What to export. Pages after the first send `key` and `after` back.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExportForm {
    #[schemars(with = "String")]
    passphrase: Secret,
    #[schemars(with = "Option<Value>")]
    key: Option<KeyMaking>,
    after: Option<String>,
}

pub(crate) async fn export<L: Log>(
    State(state): State<AdminState<L>>,
    Body(form): Body<ExportForm>,
) -> Result<Json<Value>, Problem> {
    if form.passphrase.expose().len() < PASSPHRASE_BYTES_MIN {
        let detail = format!("a passphrase needs at least {PASSPHRASE_BYTES_MIN} characters");
        return Err(Problem::invalid("weak_passphrase", detail).with("field", "passphrase"));
    }
    state
        .run(move |admin| export_now(admin, &form))
        .await
        .map(Json)
}

fn export_now<L: Log>(admin: &Admin<L>, form: &ExportForm) -> Result<Value, Problem> {
    let (key, ring) = match &form.key {
        Some(key) => (key.clone(), key.open(&form.passphrase)?),
        None => {
            let mut key = KeyMaking::fresh()?;
            let ring = key.ring(&form.passphrase)?;
            let vault = Vault {
                keys: &ring,
                webhook: Uuid::nil(),
            };
            key.check = Some(vault.seal(&Secret::new(CHECK), "check")?);
            (key, ring)
        }
    };
    let after = form.after.as_deref().map(TenantId::parse).transpose()?;
    // A further page belongs to the export that the first began.
    if form.key.is_none() {
        admin.tell_of("configuration.export", "configuration", Value::Null)?;
    }
    let Page {
        tenants,
        webhooks: found,
        tokens,
        accounts,
    } = Page::after(admin, after.as_ref())?;
    let next = (tenants.len() == PAGE).then(|| tenants.last().map(|tenant| tenant.id.clone()));
    let now = admin.clock.now();
    let mut webhooks = Vec::with_capacity(found.len());
    for webhook in found {
        let keys = |keys| Vault {
            keys,
            webhook: webhook.id,
        };
        let carried = sealed::transfer(&webhook, &keys(&admin.keys), &keys(&ring), now);
        webhooks.push(carried.map_err(|problem| problem.with("webhook", webhook.key()))?);
    }
    let accounts = accounts
        .iter()
        .map(|account| carried_account::seal(account, &ring))
        .collect::<Result<Vec<_>, _>>()?;
    tracing::info!(
        tenants = tenants.len(),
        webhooks = webhooks.len(),
        accounts = accounts.len(),
        "exported"
    );
    Ok(json!({
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "exported": now,
        "key": key,
        "tenants": tenants,
        "webhooks": webhooks,
        "tokens": tokens,
        "accounts": accounts,
        "next": next.flatten(),
    }))
}

/// What a page is made of.
struct Page {
    tenants: Vec<Tenant>,
    webhooks: Vec<Webhook>,
    tokens: Vec<Token>,
    accounts: Vec<Account>,
}

impl Page {
    fn after<L: Log>(admin: &Admin<L>, after: Option<&TenantId>) -> Result<Self, Problem> {
        let directory = admin.directory()?;
        let tenants: Vec<Tenant> = directory
            .tenants()
            .into_iter()
            .map(|tenant| tenant.value.clone())
            .filter(|tenant| after.is_none_or(|after| tenant.id > *after))
            .take(PAGE)
            .collect();
        let webhooks = tenants
            .iter()
            .flat_map(|tenant| directory.webhooks(&tenant.id))
            .map(|webhook| Webhook::clone(&webhook.value))
            .collect();
        // Tokens and accounts are few: all of them go with the first page.
        let first = after.is_none();
        let tokens = directory.tokens().filter(|_| first);
        let accounts = directory.accounts().filter(|_| first);
        Ok(Self {
            webhooks,
            tokens: tokens.map(|token| token.value.clone()).collect(),
            accounts: accounts.map(|account| account.value.clone()).collect(),
            tenants,
        })
    }
}
