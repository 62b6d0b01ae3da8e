//! What attempts and parked deliveries are read from: the projection, or the log where there is none or
//! it is far behind.

use ringback_core::log::Log;
use ringback_core::time::Timestamp;

use crate::problem::Problem;
use crate::projection::{Cursor, Freshness, Projection, SessionRef, StoreError};
use crate::state::Admin;

pub(crate) enum Source<'a> {
    Log,
    Projection(ProjectionSource<'a>),
}

pub(crate) struct ProjectionSource<'a> {
    projection: &'a Projection,
    /// What was appended before is there; `None`: that is not known.
    pub(crate) as_of: Option<Timestamp>,
    /// Where the page begins.
    pub(crate) below: Option<Cursor>,
}

impl ProjectionSource<'_> {
    /// Blocking: reads.
    pub(crate) fn read<R>(
        &self,
        work: impl FnOnce(SessionRef<'_>) -> Result<R, StoreError>,
    ) -> Result<R, Problem> {
        self.projection
            .read(work)
            .map_err(|error| out_of_order(&error))
    }
}

impl<L: Log> Admin<L> {
    /// Blocking: where a page with this cursor is to be read. One that was begun is ended in the same
    /// place.
    pub(crate) fn source(&self, cursor: Option<&str>) -> Result<Source<'_>, Problem> {
        let Some(projection) = self.projection.get() else {
            return Ok(Source::Log);
        };
        let below = match cursor {
            Some(text) if !Cursor::is_ours(text) => return Ok(Source::Log),
            Some(text) => Some(Cursor::parse(text).ok_or_else(|| {
                let detail = "the cursor is not one of ours; leave it out to begin at the newest";
                Problem::invalid("invalid_cursor", detail).with("field", "cursor")
            })?),
            None => None,
        };
        let as_of = match projection.freshen() {
            Freshness::AsOf(as_of) => Some(as_of),
            Freshness::Behind if below.is_none() => return Ok(Source::Log),
            Freshness::Behind => None,
            Freshness::Failing(error) => return Err(out_of_order(&error)),
        };
        Ok(Source::Projection(ProjectionSource {
            projection,
            as_of,
            below,
        }))
    }

    /// Blocking: the projection, for what cannot be read from the log in good time.
    pub(crate) fn projection_only(&self) -> Result<ProjectionSource<'_>, Problem> {
        let projection = self.projection()?;
        let as_of = match projection.freshen() {
            Freshness::AsOf(as_of) => Some(as_of),
            Freshness::Behind => None,
            Freshness::Failing(error) => return Err(out_of_order(&error)),
        };
        Ok(ProjectionSource {
            projection,
            as_of,
            below: None,
        })
    }

    pub(crate) fn projection(&self) -> Result<&Projection, Problem> {
        self.projection.get().ok_or_else(|| {
            let detail =
                "this needs the projection, which is not configured: set admin.projection.engine";
            Problem::unavailable("no_projection", detail)
        })
    }
}

/// Said to tenants too, so without the names of files; operators see those in the status.
fn out_of_order(error: &StoreError) -> Problem {
    tracing::debug!(%error, "a page cannot be read from the projection");
    let detail = "attempts and parked deliveries cannot be shown now, because their database is out of \
                  order; deliveries and configuration go on. Operators see why with: ringback \
                  projection status";
    Problem::unavailable("projection_unavailable", detail)
}
