//! `POST /v1/import`: a document of `/v1/export`, or a part of one, becomes configuration here, with
//! the same ids and its secrets under our own master key.

use axum::Json;
use axum::extract::State;
use ringback_core::account::{Account, Key, Token};
use ringback_core::custom_headers::check_headers;
use ringback_core::log::{Log, Revision};
use ringback_core::secret::{KeyRing, Secret};
use ringback_core::topics::Role;
use ringback_core::webhook::{Tenant, Webhook};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::authentication::Vault;
use crate::carried_account;
use crate::export::{FORMAT, FORMAT_VERSION, KeyMaking};
use crate::problem::Problem;
use crate::request::Body;
use crate::sealed;
use crate::state::{Admin, AdminState};
use crate::store::NotWritten;

/// Things that are named in an answer.
const NAMED_MAX: usize = 100;

/// A document, or a part of one.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct ImportForm {
    #[schemars(with = "String")]
    passphrase: Secret,
    /// Overwrite what is there and differs.
    #[serde(default)]
    replace: bool,
    format: String,
    version: u32,
    #[schemars(with = "serde_json::Value")]
    key: KeyMaking,
    #[serde(default)]
    #[schemars(with = "Vec<serde_json::Value>")]
    tenants: Vec<Tenant>,
    #[serde(default)]
    #[schemars(with = "Vec<serde_json::Value>")]
    webhooks: Vec<Webhook>,
    #[serde(default)]
    #[schemars(with = "Vec<serde_json::Value>")]
    tokens: Vec<Token>,
    #[serde(default)]
    accounts: Vec<serde_json::Value>,
}

/// What became of the parts of a document.
#[derive(Default, Serialize)]
struct Imported {
    added: u64,
    replaced: u64,
    unchanged: u64,
    /// There already, and different.
    conflicts: Vec<String>,
}

pub(crate) async fn import<L: Log>(
    State(state): State<AdminState<L>>,
    Body(form): Body<ImportForm>,
) -> Result<Json<Value>, Problem> {
    if form.format != FORMAT || form.version != FORMAT_VERSION {
        let detail = format!(
            "this is not a document of format {FORMAT}, version {FORMAT_VERSION}; make one with `ringback export`"
        );
        let field = match form.format == FORMAT {
            true => "version",
            false => "format",
        };
        return Err(Problem::invalid("invalid_document", detail).with("field", field));
    }
    state
        .run(move |admin| import_now(admin, form))
        .await
        .map(Json)
}

fn import_now<L: Log>(admin: &Admin<L>, form: ImportForm) -> Result<Value, Problem> {
    let ring = form.key.open(&form.passphrase)?;
    let mut import = Import {
        admin,
        ring,
        replace: form.replace,
        done: Imported::default(),
    };
    for tenant in &form.tenants {
        import.tenant(tenant)?;
    }
    for webhook in &form.webhooks {
        import.webhook(webhook)?;
    }
    for token in &form.tokens {
        import.token(token)?;
    }
    for account in form.accounts {
        let account = carried_account::open(account, &import.ring)?;
        import.account(account)?;
    }
    let mut done = import.done;
    let conflicts = done.conflicts.len();
    done.conflicts.truncate(NAMED_MAX);
    tracing::info!(
        done.added,
        done.replaced,
        done.unchanged,
        conflicts,
        "imported"
    );
    let mut answer = json!(done);
    answer["conflicting"] = conflicts.into();
    Ok(answer)
}

struct Import<'a, L: Log> {
    admin: &'a Admin<L>,
    ring: KeyRing,
    replace: bool,
    done: Imported,
}

impl<L: Log> Import<'_, L> {
    fn tenant(&mut self, tenant: &Tenant) -> Result<(), Problem> {
        let there = self.admin.directory()?.tenant(&tenant.id).cloned();
        let there = there.map(|there| (there.value == *tenant, there.revision));
        let what = format!("tenant {}", tenant.id);
        self.write(Role::Tenants, tenant.id.as_str(), &what, there, tenant)
    }

    fn webhook(&mut self, webhook: &Webhook) -> Result<(), Problem> {
        let what = format!("webhook {} of tenant {}", webhook.name, webhook.tenant);
        // It may be written by hand: the rules of the API hold.
        let in_document = |problem: Problem| problem.with("field", "webhooks");
        let url = self.admin.config.reach.check(&webhook.url);
        let url = url.map_err(|error| in_document(error.into()))?;
        if self.admin.config.forbid_http && url.scheme() == "http" {
            let detail = format!("{what}: plain http URLs are forbidden here (admin.forbid_http)");
            return Err(Problem::invalid("http_forbidden", detail).with("field", "webhooks"));
        }
        if self.admin.directory()?.tenant(&webhook.tenant).is_none() {
            let detail =
                format!("{what}: there is no such tenant, neither here nor in the document");
            return Err(Problem::invalid("no_such_tenant", detail).with("field", "webhooks"));
        }
        let vault = |keys| Vault {
            keys,
            webhook: webhook.id,
        };
        let theirs = vault(&self.ring);
        let ours = vault(&self.admin.keys);
        let now = self.admin.clock.now();
        let there = self
            .admin
            .directory()?
            .webhook(&webhook.tenant, webhook.name.as_str())
            .cloned();
        let there = match there {
            None => None,
            Some(there) => {
                let equal = sealed::same((&there.value, &ours), (webhook, &theirs), now)?;
                Some((equal, there.revision))
            }
        };
        let sealed = Webhook {
            headers: check_headers(&webhook.headers)?,
            ..sealed::transfer(webhook, &theirs, &ours, now)?
        };
        self.write(Role::Webhooks, &webhook.key(), &what, there, &sealed)
    }

    fn token(&mut self, token: &Token) -> Result<(), Problem> {
        let there = self.admin.directory()?.token(token.id).cloned();
        let there = there.map(|there| (there.value == *token, there.revision));
        let what = format!("token {}", token.id);
        self.write(Role::Tokens, &token.id.to_string(), &what, there, token)
    }

    fn account(&mut self, account: Account) -> Result<(), Problem> {
        let what = format!("account {}", account.login);
        if let Some(tenant) = &account.tenant
            && self.admin.directory()?.tenant(tenant).is_none()
        {
            let detail =
                format!("{what}: there is no tenant {tenant}, neither here nor in the document");
            return Err(Problem::invalid("no_such_tenant", detail));
        }
        let found = self
            .admin
            .directory()?
            .account(account.login.as_str())
            .cloned();
        let (there, account) = match found {
            None => (None, account),
            Some(found) => {
                let equal = Account {
                    generation: found.value.generation,
                    updated: found.value.updated,
                    ..account.clone()
                } == found.value;
                // Sessions of another password are over, whichever of the two is the newer.
                let generation = found.value.generation.max(account.generation) + 1;
                let account = Account {
                    generation,
                    ..account
                };
                (Some((equal, found.revision)), account)
            }
        };
        let key = Key::of_account(&account.login);
        self.write(Role::Accounts, &key, &what, there, &account)
    }

    /// Writes what is new, or may replace what is there (`bool`: is equal).
    fn write<T: Serialize>(
        &mut self,
        role: Role,
        key: &str,
        what: &str,
        there: Option<(bool, Revision)>,
        value: &T,
    ) -> Result<(), Problem> {
        let expected = match there {
            None => None,
            Some((true, _)) => {
                self.done.unchanged += 1;
                return Ok(());
            }
            Some((false, revision)) if self.replace => Some(revision),
            Some((false, _)) => {
                self.done.conflicts.push(what.to_owned());
                return Ok(());
            }
        };
        match self.admin.put(role, key, expected, value) {
            Ok(_) if expected.is_some() => self.done.replaced += 1,
            Ok(_) => self.done.added += 1,
            Err(NotWritten::Conflict) => self.done.conflicts.push(what.to_owned()),
            Err(NotWritten::Failed(problem)) => return Err(problem),
        }
        Ok(())
    }
}
