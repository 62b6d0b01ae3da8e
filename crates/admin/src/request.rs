//! What handlers take from a request: bodies, parameters and preconditions.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use bytes::Bytes;
use ringback_core::log::Revision;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// Largest body, in bytes. A webhook with all its fields is far smaller.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;

/// A JSON body; an absent one is an empty object.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let media = request.headers().get(header::CONTENT_TYPE).cloned();
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| {
                let detail = format!("{}; at most {BODY_BYTES_MAX} bytes", rejection.body_text());
                Problem::new(rejection.status(), "unreadable_body", detail)
            })?;
        if bytes.is_empty() {
            return parse(b"{}");
        }
        let is_json = media.is_none_or(|media| {
            let media = media.to_str().unwrap_or_default().split(';').next();
            let media = media.unwrap_or_default().trim().to_ascii_lowercase();
            media == "application/json" || media.ends_with("+json")
        });
        if !is_json {
            let detail = "send JSON, with content-type: application/json";
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not_json",
                detail,
            ));
        }
        parse(&bytes)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<Body<T>, Problem> {
    serde_json::from_slice(bytes).map(Body).map_err(|error| {
        Problem::invalid("invalid_body", format!("the body cannot be used: {error}"))
    })
}

/// Parameters after `?`.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let wrong = |rejection: QueryRejection| {
            Problem::invalid("invalid_parameter", rejection.body_text())
        };
        let Query(parameters) = Query::from_request_parts(parts, state)
            .await
            .map_err(wrong)?;
        Ok(Self(parameters))
    }
}

/// `If-Match` and `If-None-Match` (RFC 9110 §13.1), as far as the API knows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Precondition {
    /// None is given.
    Nothing,
    /// `If-None-Match: *`: only if it does not exist.
    Absent,
    /// `If-Match: *`: only if it exists.
    Present,
    /// `If-Match: "REVISION"`: only if it is unchanged.
    Unchanged(Revision),
    /// Something that can never be true, such as a list or a weak tag.
    Never,
}

impl Precondition {
    /// Reads the headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| headers.get(name).map(|v| v.to_str().unwrap_or("").trim());
        match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
            (None, None) => Self::Nothing,
            (None, Some("*")) => Self::Absent,
            (Some("*"), None) => Self::Present,
            (Some(tag), None) => tag
                .strip_prefix('"')
                .and_then(|tag| tag.strip_suffix('"'))
                .and_then(|tag| tag.parse().ok())
                .map_or(Self::Never, |revision| Self::Unchanged(Revision(revision))),
            _ => Self::Never,
        }
    }

    /// Refuses when what exists has another revision than the request is about.
    pub(crate) fn check(self, what: &str, current: Revision) -> Result<(), Problem> {
        match self {
            Self::Nothing | Self::Present => Ok(()),
            Self::Unchanged(revision) if revision == current => Ok(()),
            _ => Err(Problem::changed(what)),
        }
    }
}

/// The entity tag of a revision.
pub(crate) fn etag(revision: Revision) -> [(HeaderName, String); 1] {
    [(header::ETAG, format!("\"{}\"", revision.0))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn precondition(name: HeaderName, value: &'static str) -> Precondition {
        Precondition::of(&HeaderMap::from_iter([(name, value.parse().unwrap())]))
    }

    #[test]
    fn preconditions() {
        use header::{IF_MATCH, IF_NONE_MATCH};
        assert_eq!(Precondition::of(&HeaderMap::new()), Precondition::Nothing);
        assert_eq!(precondition(IF_NONE_MATCH, "*"), Precondition::Absent);
        assert_eq!(precondition(IF_MATCH, "*"), Precondition::Present);
        let seven = Precondition::Unchanged(Revision(7));
        assert_eq!(precondition(IF_MATCH, "\"7\""), seven);
        for never in ["7", "W/\"7\"", "\"x\"", "", "\"7\", \"8\""] {
            assert_eq!(
                precondition(IF_MATCH, never),
                Precondition::Never,
                "{never}"
            );
        }
        seven.check("it", Revision(7)).unwrap();
        for wrong in [seven, Precondition::Never, Precondition::Absent] {
            assert!(wrong.check("it", Revision(8)).is_err());
        }
    }
}
