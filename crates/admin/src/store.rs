//! Writing configuration: compare-and-set with the audit's entry beside, then waiting until the directory
//! knows of it.

use std::time::Duration;

use ringback_core::log::{Append, Log, Revision, WriteError};
use ringback_core::topics::Role;
use serde::Serialize;

use crate::audit::Told;
use crate::problem::Problem;
use crate::state::Admin;

/// How long an answer waits for the directory, so that everybody can read what they have written.
const APPLIED_WITHIN: Duration = Duration::from_secs(5);
/// How often a change that does not care about the revision is tried.
const TRIES_MAX: usize = 8;

/// A configuration record was not written.
pub(crate) enum NotWritten {
    /// Somebody else wrote first.
    Conflict,
    /// Anything else.
    Failed(Problem),
}

impl NotWritten {
    /// As a problem; a conflict is this one.
    pub(crate) fn or_conflict(self, conflict: impl FnOnce() -> Problem) -> Problem {
        match self {
            Self::Conflict => conflict(),
            Self::Failed(problem) => problem,
        }
    }
}

impl From<Problem> for NotWritten {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

impl<L: Log> Admin<L> {
    /// Blocking: writes a record if its revision still is `expected` (`None`: if there is none).
    pub(crate) fn put<T: Serialize>(
        &self,
        role: Role,
        key: &str,
        expected: Option<Revision>,
        value: &T,
    ) -> Result<Revision, NotWritten> {
        let value = serde_json::to_vec(value).map_err(|error| {
            Problem::invalid(
                "invalid_body",
                format!("{key} cannot be written as JSON: {error}"),
            )
        })?;
        self.compare_and_set(role, key, expected, Some(&value))
    }

    /// Blocking: removes a record if its revision still is `expected`.
    pub(crate) fn delete(
        &self,
        role: Role,
        key: &str,
        expected: Revision,
    ) -> Result<(), NotWritten> {
        self.compare_and_set(role, key, Some(expected), None)
            .map(|_| ())
    }

    /// Blocking: tries again as long as somebody else was faster, a few times. `write` reads what
    /// is there each time.
    pub(crate) fn retrying<R>(
        &self,
        what: &str,
        mut write: impl FnMut() -> Result<R, NotWritten>,
    ) -> Result<R, Problem> {
        for _ in 0..TRIES_MAX {
            match write() {
                Ok(done) => return Ok(done),
                Err(NotWritten::Conflict) => {}
                Err(NotWritten::Failed(problem)) => return Err(problem),
            }
        }
        Err(Problem::changed(what))
    }

    fn compare_and_set(
        &self,
        role: Role,
        key: &str,
        expected: Option<Revision>,
        value: Option<&[u8]>,
    ) -> Result<Revision, NotWritten> {
        // How far a replay is, is nobody's change: who asks for one, or ends it, is told of then.
        if role == Role::Jobs {
            return self.write(role, key, expected, value, None);
        }
        let entry = self.entry_of_change(role, key, expected, value);
        let told = Told::new(&entry)?;
        let told = told.append(self.topic(Role::Audit)?);
        self.write(role, key, expected, value, Some(told))
    }

    /// Blocking: removes a record that is of no use any more, which is no change that anybody made.
    pub(crate) fn forget(
        &self,
        role: Role,
        key: &str,
        expected: Revision,
    ) -> Result<(), NotWritten> {
        self.write(role, key, Some(expected), None, None)
            .map(|_| ())
    }

    fn write(
        &self,
        role: Role,
        key: &str,
        expected: Option<Revision>,
        value: Option<&[u8]>,
        told: Option<Append<'_>>,
    ) -> Result<Revision, NotWritten> {
        let topic = self.topic(role)?;
        let written = self
            .log
            .compare_and_set_beside(topic, key, expected, value, told);
        match written {
            Ok(revision) => {
                self.wait_for(role, revision);
                Ok(revision)
            }
            Err(WriteError::Conflict { current }) => {
                // Whoever tries again must see what was written instead.
                if let Some(current) = current {
                    self.wait_for(role, current);
                }
                Err(NotWritten::Conflict)
            }
            Err(WriteError::Log(error)) => Err(Problem::from(error).into()),
        }
    }

    fn wait_for(&self, role: Role, revision: Revision) {
        if !self.live().wait_applied(role, revision, APPLIED_WITHIN) {
            tracing::warn!(
                ?role,
                ?revision,
                "written, but the directory does not show it yet"
            );
        }
    }
}
