//! PostgreSQL: tables per slice in a schema of their own, so that dropping one drops tables. Several
//! administrations share it; the one that has the lock projects.

mod tls;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use postgres::config::{Host, SslMode};
use postgres::error::SqlState;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, NoTls, Row, Statement, Transaction};

use super::engine::{Database, MIGRATIONS, Rows, Session, Statements, StoreError, Value, Work};
use super::slice::Slice;
pub(crate) use tls::Tls;

/// Locks of this database that are ours: of the one that projects, and of the one that makes the
/// schema. `Rbpj`.
const LEADER: i64 = 0x5262_706a_0001;
const MAKER: i64 = 0x5262_706a_0002;
/// What a slice consists of.
const TABLES: [&str; 7] = [
    "attempts",
    "parked",
    "replays",
    "replayed",
    "parked_counts",
    "minutes",
    "positions",
];
/// Sessions that are kept for the next request.
const IDLE_MAX: usize = 8;
/// Statements that a session keeps prepared.
const STATEMENTS_MAX: usize = 256;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a session that was kept may take to answer.
const ALIVE_WITHIN: Duration = Duration::from_secs(2);

/// A database, and sessions that nobody uses at the moment.
pub(crate) struct Postgres {
    config: postgres::Config,
    tls: Tls,
    name: String,
    idle: Arc<Mutex<Vec<Kept>>>,
}

impl Postgres {
    /// Of a URL that was looked at before, see [`parse`].
    pub(crate) fn new(config: &postgres::Config, tls: Tls) -> Self {
        let mut config = config.clone();
        // No server speaks TLS on a socket of its machine.
        let is_here = |host: &Host| matches!(host, Host::Unix(_));
        config.ssl_mode(match config.get_hosts().iter().all(is_here) {
            true => SslMode::Disable,
            false => tls.mode(),
        });
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("ringback");
        }
        let hosts: Vec<_> = config
            .get_hosts()
            .iter()
            .map(|host| match host {
                Host::Tcp(host) => host.clone(),
                Host::Unix(path) => path.display().to_string(),
            })
            .collect();
        let database = config.get_dbname().or(config.get_user()).unwrap_or("");
        let name = format!("PostgreSQL, database {database} on {}", hosts.join(", "));
        Self {
            config,
            tls,
            name,
            idle: Arc::default(),
        }
    }

    fn connect(&self) -> Result<Kept, StoreError> {
        let doing = format!("connecting to {}", self.name);
        let failed = |error| failed(&doing, &error);
        let connected = match self.config.get_ssl_mode() {
            SslMode::Disable => self.config.connect(NoTls),
            _ => {
                let tls = self.tls.connector();
                let tls = tls.map_err(|reason| StoreError::new(&doing, reason))?;
                self.config.connect(tls)
            }
        };
        let mut client = connected.map_err(failed)?;
        client
            .batch_execute("SET search_path TO ringback; SET lock_timeout = '5s'")
            .map_err(failed)?;
        let made = "SELECT to_regclass('ringback.slices') IS NOT NULL";
        let made: bool = client.query_one(made, &[]).map_err(failed)?.get(0);
        if !made {
            // Not twice at the same time.
            client
                .batch_execute(&format!(
                    "BEGIN;
                     SELECT pg_advisory_xact_lock({MAKER});
                     CREATE SCHEMA IF NOT EXISTS ringback;
                     CREATE TABLE IF NOT EXISTS ringback.slices
                         (name TEXT PRIMARY KEY, version BIGINT NOT NULL);
                     COMMIT"
                ))
                .map_err(failed)?;
        }
        Ok(Kept {
            client,
            statements: HashMap::new(),
        })
    }
}

/// Reads a URL. What is wrong with it is said without the URL, which has a password.
pub(crate) fn parse(url: &str) -> Result<postgres::Config, String> {
    let is_url = ["postgres://", "postgresql://"];
    if !is_url.iter().any(|scheme| url.starts_with(scheme)) {
        return Err("use postgresql://USER:PASSWORD@HOST/DATABASE".to_owned());
    }
    // It could say some of it, and its client all of it in other places.
    let said = url.rsplit_once('@').map_or(url, |(_, said)| said);
    let said = said.split_once('?').map_or("", |(_, said)| said);
    if said
        .split('&')
        .any(|said| said.starts_with("ssl") && !said.starts_with("sslneg"))
    {
        return Err(
            "leave sslmode and what belongs to it out; say it by admin.projection.sslmode and .ca_file"
                .to_owned(),
        );
    }
    let config: postgres::Config = url.parse().map_err(|error: postgres::Error| {
        let why = error.source().map(ToString::to_string);
        why.unwrap_or_else(|| "cannot be read".to_owned())
    })?;
    match (config.get_hosts(), config.get_user()) {
        ([], _) => Err("names no host".to_owned()),
        (_, None) => Err("names no user".to_owned()),
        _ => Ok(config),
    }
}

impl Database for Postgres {
    fn open(&self) -> Result<Box<dyn Session>, StoreError> {
        let kept = loop {
            let idle = self.idle.lock().pop();
            match idle {
                None => break self.connect()?,
                Some(mut kept) => {
                    if kept.client.is_valid(ALIVE_WITHIN).is_ok() {
                        break kept;
                    }
                }
            }
        };
        Ok(Box::new(Connection {
            kept: Some(kept),
            name: self.name.clone(),
            idle: self.idle.clone(),
            leading: false,
            current: HashSet::new(),
            failed: false,
        }))
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// Ending a session waits for the server, which no thread of a runtime may do.
impl Drop for Postgres {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        if !idle.is_empty() {
            std::thread::spawn(move || drop(idle));
        }
    }
}

/// What outlives a session.
struct Kept {
    client: Client,
    statements: HashMap<String, Statement>,
}

struct Connection {
    /// There until it is dropped.
    kept: Option<Kept>,
    name: String,
    idle: Arc<Mutex<Vec<Kept>>>,
    /// Has the lock, which ends with the session.
    leading: bool,
    /// Slices that are what this program knows.
    current: HashSet<Slice>,
    failed: bool,
}

/// What was only read with serves the next request.
impl Drop for Connection {
    fn drop(&mut self) {
        let mut idle = self.idle.lock();
        if let Some(kept) = self.kept.take()
            && !self.leading
            && !self.failed
            && idle.len() < IDLE_MAX
        {
            idle.push(kept);
        }
    }
}

impl Connection {
    /// Does something with the client, and remembers a failure.
    fn with<R>(
        &mut self,
        doing: &str,
        work: impl FnOnce(&mut Kept) -> Result<R, postgres::Error>,
    ) -> Result<R, StoreError> {
        let Some(kept) = &mut self.kept else {
            return Err(StoreError::new(doing, "the session has ended"));
        };
        work(kept).map_err(|error| {
            self.failed = true;
            failed(&format!("{doing} {}", self.name), &error)
        })
    }
}

impl Session for Connection {
    fn slices(&mut self) -> Result<Vec<Slice>, StoreError> {
        let sql = "SELECT name FROM slices ORDER BY name DESC";
        let rows = self.with("listing slices of", |kept| kept.client.query(sql, &[]))?;
        let names = rows.iter().map(|row| row.get::<_, &str>(0));
        Ok(names.filter_map(Slice::parse).collect())
    }

    fn lead(&mut self) -> Result<bool, StoreError> {
        if !self.leading {
            let sql = "SELECT pg_try_advisory_lock($1)";
            let row = self.with("locking", |kept| kept.client.query_one(sql, &[&LEADER]))?;
            self.leading = row.get(0);
        }
        Ok(self.leading)
    }

    fn write(&mut self, slice: Slice, work: Work<'_>) -> Result<(), StoreError> {
        let doing = format!("writing to slice {slice} of {}", self.name);
        let is_current = self.current.contains(&slice);
        let Some(Kept { client, statements }) = &mut self.kept else {
            return Err(StoreError::new(doing, "the session has ended"));
        };
        let mut write = || {
            let failed = |error| failed(&doing, &error);
            let mut transaction = client.transaction().map_err(failed)?;
            if !is_current {
                migrate(&mut transaction, slice, &doing)?;
            }
            work(&mut Writing {
                transaction: &mut transaction,
                statements,
                slice,
                doing: &doing,
            })?;
            transaction.commit().map_err(failed)
        };
        let written = write();
        match written.is_ok() {
            true => {
                self.current.insert(slice);
            }
            false => self.failed = true,
        }
        written
    }

    fn query(&mut self, slice: Slice, sql: &str, values: &[Value<'_>]) -> Result<Rows, StoreError> {
        let sql = words(sql, slice);
        let asked = self.with("reading", |kept| {
            let asked = prepared(&mut kept.statements, sql, |sql| kept.client.prepare(sql))
                .and_then(|statement| kept.client.query(&statement, &references(values)));
            match asked {
                // Dropped in the meantime.
                Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(Vec::new()),
                asked => asked,
            }
        })?;
        Ok(asked.iter().map(owned).collect())
    }

    fn drop_slices(&mut self, slices: &[Slice]) -> Result<(), StoreError> {
        for slice in slices {
            self.current.remove(slice);
            let tables = TABLES.map(|table| format!("{table}_{slice}")).join(", ");
            let sql = format!(
                "BEGIN; DROP TABLE IF EXISTS {tables}; DELETE FROM slices WHERE name = '{slice}'; COMMIT"
            );
            self.with("dropping slices of", |kept| {
                kept.statements.clear();
                kept.client.batch_execute(&sql)
            })?;
        }
        Ok(())
    }
}

/// Makes a slice what this program knows.
fn migrate(transaction: &mut Transaction<'_>, slice: Slice, doing: &str) -> Result<(), StoreError> {
    let failed = |error| failed(doing, &error);
    let name = slice.to_string();
    let insert = "INSERT INTO slices (name, version) VALUES ($1, 0) ON CONFLICT DO NOTHING";
    transaction.execute(insert, &[&name]).map_err(failed)?;
    let version = "SELECT version FROM slices WHERE name = $1 FOR UPDATE";
    let version = transaction.query_one(version, &[&name]).map_err(failed)?;
    let version: i64 = version.get(0);
    let missing = usize::try_from(version).ok();
    let Some(missing) = missing.and_then(|done| MIGRATIONS.get(done..)) else {
        let reason = format!(
            "it has version {version}, this program knows version {}; use the program that wrote it, \
             or drop the schema ringback: it is built anew from the log",
            MIGRATIONS.len()
        );
        return Err(StoreError::new(doing, reason));
    };
    for migration in missing {
        let sql = words(migration, slice);
        transaction.batch_execute(&sql).map_err(failed)?;
    }
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let update = "UPDATE slices SET version = $2 WHERE name = $1";
    let updated = transaction.execute(update, &[&name, &known]);
    updated.map(|_| ()).map_err(failed)
}

struct Writing<'a, 'c> {
    transaction: &'a mut Transaction<'c>,
    statements: &'a mut HashMap<String, Statement>,
    slice: Slice,
    doing: &'a str,
}

impl Statements for Writing<'_, '_> {
    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<(), StoreError> {
        let sql = words(sql, self.slice);
        prepared(self.statements, sql, |sql| self.transaction.prepare(sql))
            .and_then(|statement| self.transaction.execute(&statement, &references(values)))
            .map(|_| ())
            .map_err(|error| failed(self.doing, &error))
    }

    fn query(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Rows, StoreError> {
        let sql = words(sql, self.slice);
        let rows = prepared(self.statements, sql, |sql| self.transaction.prepare(sql))
            .and_then(|statement| self.transaction.query(&statement, &references(values)))
            .map_err(|error| failed(self.doing, &error))?;
        Ok(rows.iter().map(owned).collect())
    }
}

fn prepared(
    statements: &mut HashMap<String, Statement>,
    sql: String,
    prepare: impl FnOnce(&str) -> Result<Statement, postgres::Error>,
) -> Result<Statement, postgres::Error> {
    if let Some(statement) = statements.get(&sql) {
        return Ok(statement.clone());
    }
    let statement = prepare(&sql)?;
    if statements.len() >= STATEMENTS_MAX {
        statements.clear();
    }
    statements.insert(sql, statement.clone());
    Ok(statement)
}

/// In PostgreSQL's words.
fn words(sql: &str, slice: Slice) -> String {
    sql.replace('@', &format!("_{slice}"))
        .replace("ROWKEY", "BIGINT PRIMARY KEY")
        .replace("BYTES", "BYTEA")
}

fn references<'a>(values: &'a [Value<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    let reference = |value: &'a Value<'a>| value as &(dyn ToSql + Sync);
    values.iter().map(reference).collect()
}

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Int(value) => value.to_sql(kind, out),
            Self::Text(value) => value.as_ref().to_sql(kind, out),
            Self::Bytes(value) => value.as_ref().to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT8, Type::TEXT, Type::BYTEA].contains(kind)
    }

    to_sql_checked!();
}

/// A row as every engine gives it. What is null or of another type is damage.
fn owned(row: &Row) -> Vec<Value<'static>> {
    let value = |at: usize| match *row.columns()[at].type_() {
        Type::INT8 => Value::Int(row.try_get(at).unwrap_or_default()),
        Type::INT4 => Value::Int(row.try_get::<_, i32>(at).unwrap_or_default().into()),
        Type::BYTEA => Value::Bytes(Cow::Owned(row.try_get(at).unwrap_or_default())),
        _ => Value::Text(Cow::Owned(row.try_get(at).unwrap_or_default())),
    };
    (0..row.len()).map(value).collect()
}

fn failed(doing: &str, error: &postgres::Error) -> StoreError {
    let advice = match error.code() {
        Some(&SqlState::DISK_FULL) => ": free some space",
        Some(&SqlState::LOCK_NOT_AVAILABLE) => ": another program has it locked; end that program",
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            ": let the user of admin.projection.url create a schema, or make the schema ringback its own"
        }
        Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
            ": see user and password of admin.projection.url, and whether the server wants TLS \
             (admin.projection.sslmode)"
        }
        _ => tls::advice(error),
    };
    let mut reason = match error.as_db_error() {
        Some(said) => said.message().to_owned(),
        None => error.to_string(),
    };
    if error.as_db_error().is_none()
        && let Some(why) = error.source()
    {
        reason = format!("{reason}: {why}");
    }
    StoreError::new(doing, format!("{reason}{advice}"))
}
