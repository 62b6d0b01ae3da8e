//! What the handlers share.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::StatusCode;
use parking_lot::RwLockReadGuard;
use ringback_core::account::{Session, same_secret};
use ringback_core::directory::{Directory, Versioned};
use ringback_core::event::TenantId;
use ringback_core::log::{AppenderOptions, Log, LogError, partition_of};
use ringback_core::redaction::Redaction;
use ringback_core::secret::{KeyRing, Secret};
use ringback_core::time::Clock;
use ringback_core::topics::{Partition, Role, TopicId};
use ringback_core::webhook::{Tenant, Webhook};
use ringback_log::batch::{Acknowledgement, IN_FLIGHT_MAX};
use ringback_log::directory::LiveDirectory;
use ringback_log::uses::UseNotes;
use ringback_telemetry::Metrics;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::access::no_such_tenant;
use crate::asker;
use crate::config::Config;
use crate::cookie::Cookies;
use crate::names::Names;
use crate::passwords::Passwords;
use crate::problem::Problem;
use crate::projection::Projection;
use crate::replay_runner::Runner;
use crate::sign_in_limits::SignInLimits;
use crate::tail::Tail;

/// Requests that may work at the log at the same time; others wait.
const WORKING_MAX: usize = 16;
/// Appends that all of them may have in flight.
const APPENDS_MAX: usize = WORKING_MAX * IN_FLIGHT_MAX;
/// After how long an append without acknowledgement is given up.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The topics that its directory must follow.
pub const ROLES: [Role; 7] = [
    Role::Tenants,
    Role::Webhooks,
    Role::Tokens,
    Role::Uses,
    Role::Accounts,
    Role::Health,
    Role::Jobs,
];

/// Why the administration does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no operator token.
    #[error("no operator token: set admin.operator_token or admin.operator_token_file")]
    NoToken,
    /// There are two.
    #[error("both admin.operator_token and admin.operator_token_file are set; remove one")]
    TwoTokens,
    /// The token can be guessed, or cannot stand in a header.
    #[error("the operator token needs at least 16 visible ASCII characters; make a longer one")]
    WeakToken,
    /// Its file cannot be read.
    #[error("reading the operator token from {path}: {reason}")]
    TokenFile {
        /// Which file.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// Something that is not to be shown cannot be recognised.
    #[error("admin.redact: {0}")]
    Redact(String),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The state of the API's server. Clones share it.
pub struct AdminState<L: Log>(Arc<Admin<L>>);

impl<L: Log> Clone for AdminState<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

pub(crate) struct Admin<L: Log> {
    pub(crate) log: L,
    live: Arc<LiveDirectory>,
    pub(crate) keys: KeyRing,
    pub(crate) config: Config,
    pub(crate) names: Names,
    pub(crate) redaction: Redaction,
    uses: UseNotes,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    pub(crate) appender: L::Appender<Acknowledgement>,
    /// Without one, attempts and parked deliveries are read from the log.
    pub(crate) projection: OnceLock<Projection>,
    pub(crate) passwords: Passwords,
    pub(crate) sign_in_limits: SignInLimits,
    operator_token: Secret,
    working: Arc<Semaphore>,
    /// Attempts as they are made.
    pub(crate) tail: Tail,
    /// Done when the server ends: answers without an end do, too.
    pub(crate) closing: CancellationToken,
    /// Who works on replays here.
    pub(crate) runner: Runner,
}

impl<L: Log> AdminState<L> {
    /// Refuses to start without an operator token. `directory` must follow tenants, webhooks and
    /// accounts.
    pub fn new(
        log: L,
        directory: Arc<LiveDirectory>,
        keys: KeyRing,
        config: Config,
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        Self::with_clock(
            ringback_log::system_clock(),
            log,
            directory,
            keys,
            config,
            metrics,
        )
    }

    /// The same, with a clock of the caller's.
    pub fn with_clock(
        clock: Clock,
        log: L,
        directory: Arc<LiveDirectory>,
        keys: KeyRing,
        config: Config,
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        let operator_token = config.read_operator_token()?;
        if let Some(problem) = config.redact.problems().pop() {
            return Err(StartError::Redact(problem));
        }
        let options = AppenderOptions {
            timeout: APPEND_TIMEOUT,
            queue: APPENDS_MAX,
            ..AppenderOptions::default()
        };
        let appender = log.appender(options, Acknowledgement)?;
        Ok(Self(Arc::new(Admin {
            uses: UseNotes::new(log.topics()),
            log,
            live: directory,
            keys,
            names: Names::new(&config),
            redaction: Redaction::new(&config.redact),
            config,
            metrics,
            clock,
            appender,
            projection: OnceLock::new(),
            passwords: Passwords::default(),
            sign_in_limits: SignInLimits::default(),
            operator_token,
            working: Arc::new(Semaphore::new(WORKING_MAX)),
            tail: Tail::default(),
            closing: CancellationToken::new(),
            runner: Runner::new(),
        })))
    }

    /// Shows attempts and parked deliveries from this projection. The first one stays.
    pub fn show(&self, projection: Projection) {
        let _ = self.0.projection.set(projection);
    }

    pub(crate) fn admin(&self) -> &Admin<L> {
        &self.0
    }

    /// Resolves the name in the URL that a webhook shall get, unless it has it already: refuses what is
    /// known to lead nowhere, and warns of what may not work. What does not exist is not resolved; who
    /// comes to it next says so.
    pub(crate) async fn check_name(
        &self,
        tenant: &str,
        webhook: Option<&str>,
        url: &str,
    ) -> Result<Option<String>, Problem> {
        let admin = &*self.0;
        let asked = match webhook {
            None => admin.tenant(tenant).is_ok(),
            Some(name) => {
                let url = admin.config.reach.check(url)?;
                let current = admin.webhook(tenant, name);
                current.is_ok_and(|current| current.value.url != url.as_str())
            }
        };
        match asked {
            true => Ok(admin.names.check(&admin.config.reach, url).await?),
            false => Ok(None),
        }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Whether this is the operator's token, in constant time.
    pub(crate) fn is_operator(&self, token: &str) -> bool {
        same_secret(token, self.0.operator_token.expose())
    }

    /// Notes that a token was used; nobody waits for that.
    pub(crate) fn note_use(&self, token: Uuid) {
        let admin = &*self.0;
        let (unheard, _) = sync_channel(1);
        admin
            .uses
            .note(&admin.appender, unheard, token, &admin.clock);
    }

    /// Whether somebody signed in with what still is the operator's token.
    pub(crate) fn is_operator_session(&self, session: &Session) -> bool {
        session.who.is_operator(self.0.operator_token.expose())
    }

    /// The cookies of sessions.
    pub(crate) fn cookies(&self) -> Cookies<'_> {
        Cookies {
            keys: &self.0.keys,
            secure: self.0.config.session.secure || self.0.config.tls.is_on(),
        }
    }

    /// Does blocking work on a thread for such. It goes on to its end even if nobody waits any more,
    /// so that nothing is left half done by a client that hangs up.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Admin<L>) -> Result<R, Problem> + Send + 'static,
    ) -> Result<R, Problem> {
        let failed = |reason: String| {
            tracing::error!(reason, "a request could not be worked on");
            let detail = "the request failed inside Ringback; its log says more";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
        };
        let permit = self.0.working.clone().acquire_owned().await;
        let permit = permit.map_err(|error| failed(error.to_string()))?;
        let (admin, asker) = (self.0.clone(), asker::current());
        tokio::task::spawn_blocking(move || {
            let result = asker::going_on(asker, || work(&admin));
            drop(permit);
            result
        })
        .await
        .map_err(|error| failed(error.to_string()))?
    }
}

impl<L: Log> Admin<L> {
    /// The directory; refused while it is not known to be current, because its answers would be
    /// wrong. Hold it briefly.
    pub(crate) fn directory(&self) -> Result<RwLockReadGuard<'_, Directory>, Problem> {
        if !self.live.is_fresh() {
            let detail = "the configuration is not known to be current, because the log cannot be read; try again in a moment";
            return Err(Problem::unavailable("configuration_stale", detail));
        }
        Ok(self.live.read())
    }

    pub(crate) fn live(&self) -> &LiveDirectory {
        &self.live
    }

    /// A tenant that must exist, by its id as text.
    pub(crate) fn tenant(&self, id: &str) -> Result<Versioned<Tenant>, Problem> {
        let found = match TenantId::parse(id) {
            Ok(id) => self.directory()?.tenant(&id).cloned(),
            Err(_) => None,
        };
        found.ok_or_else(|| no_such_tenant(id))
    }

    /// A webhook that must exist, by its name or id.
    pub(crate) fn webhook(
        &self,
        tenant: &str,
        name: &str,
    ) -> Result<Versioned<Arc<Webhook>>, Problem> {
        let tenant = self.tenant(tenant)?.value.id;
        let found = self.directory()?.webhook(&tenant, name).cloned();
        found.ok_or_else(|| {
            let before = format!("tenant {tenant} has no webhook");
            Problem::none_called("no_such_webhook", &before, name, "")
        })
    }

    /// A topic that the table must have.
    pub(crate) fn topic(&self, role: Role) -> Result<TopicId, Problem> {
        self.log.topics().find(role).ok_or_else(|| {
            let reason = "it is not in the table of topics";
            LogError::permanent(format!("finding the topic for {role:?}"), reason).into()
        })
    }

    /// The partition that holds the records of a webhook.
    pub(crate) fn partition(&self, role: Role, webhook: Uuid) -> Result<Partition, Problem> {
        let topic = self.topic(role)?;
        let partitions = self.log.topics().spec(topic).partitions;
        let index = partition_of(key_of(webhook).as_bytes(), partitions);
        Ok(Partition { topic, index })
    }
}

/// The key of a webhook's records in `attempts`, `parked` and `replay`.
pub(crate) fn key_of(webhook: Uuid) -> String {
    webhook.as_hyphenated().to_string()
}
