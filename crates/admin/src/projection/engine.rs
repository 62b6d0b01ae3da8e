//! What is needed of a database: a thin driver, below SQL that is the same for all.

use std::borrow::Cow;
use std::fmt;

use super::slice::Slice;

/// The steps that make a slice what this program knows, oldest first. A slice remembers how many of
/// them it has been through.
pub(crate) const MIGRATIONS: [&str; 2] = [
    include_str!("migrations/0001_slices.sql"),
    include_str!("migrations/0002_replayed.sql"),
];

/// Why what was written a moment ago is not there any more.
pub(crate) const GONE: &str =
    "what was there was removed, by somebody else; it is built anew from the log";

/// A value on its way in or out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value<'a> {
    Int(i64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
}

impl Value<'_> {
    /// Columns have one type and no nulls, so what is something else is damage: it is seen as empty.
    pub(crate) fn int(&self) -> i64 {
        match self {
            Self::Int(value) => *value,
            _ => 0,
        }
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(value) => value,
            _ => "",
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(value) => value,
            _ => &[],
        }
    }
}

/// What a query found.
pub(crate) type Rows = Vec<Vec<Value<'static>>>;

/// The database cannot be used as it should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{doing}: {reason}")]
pub(crate) struct StoreError {
    /// What was being done, to what. Never with a password.
    pub(crate) doing: String,
    /// What went wrong and, where known, what to do.
    pub(crate) reason: String,
}

impl StoreError {
    pub(crate) fn new(doing: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self {
            doing: doing.into(),
            reason: reason.to_string(),
        }
    }
}

/// Statements within a transaction on one slice.
pub(crate) trait Statements {
    /// Parameters are `$1`, `$2`…; `@` behind a table's name stands for the slice.
    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<(), StoreError>;

    fn query(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Rows, StoreError>;
}

/// What is done in a transaction.
pub(crate) type Work<'a> = &'a mut dyn FnMut(&mut dyn Statements) -> Result<(), StoreError>;

/// A session with the database, for one thread at a time. After an error it is not used again.
pub(crate) trait Session: Send {
    /// The slices there are, newest first.
    fn slices(&mut self) -> Result<Vec<Slice>, StoreError>;

    /// Whether this session is the one that may write, now or still. Another may be.
    fn lead(&mut self) -> Result<bool, StoreError>;

    /// Writes to a slice, which is made if it is not there: all of it or nothing.
    fn write(&mut self, slice: Slice, work: Work<'_>) -> Result<(), StoreError>;

    /// Asks a slice; one that is not there has nothing.
    fn query(&mut self, slice: Slice, sql: &str, values: &[Value<'_>]) -> Result<Rows, StoreError>;

    /// Drops slices with all that is in them.
    fn drop_slices(&mut self, slices: &[Slice]) -> Result<(), StoreError>;
}

/// A database, as configured.
pub(crate) trait Database: Send + Sync {
    /// Begins a session.
    fn open(&self) -> Result<Box<dyn Session>, StoreError>;

    /// Whether other processes read what one writes, so that it must tell them how far it is, and a
    /// session is worth keeping.
    fn is_shared(&self) -> bool;

    /// What it is, for people.
    fn name(&self) -> String;
}
