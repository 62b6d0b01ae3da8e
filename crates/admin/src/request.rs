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
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let wrong = |path: &str, error: &serde_json::Error| {
        let text = error.to_string();
        let problem = Problem::invalid("invalid_body", format!("the body cannot be used: {text}"));
        match field_at(path, &text) {
            Some(field) => problem.with("field", field),
            None => problem,
        }
    };
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| wrong(&error.path().to_string(), error.inner()))?;
    reader.end().map_err(|error| wrong(".", &error))?;
    Ok(Body(value))
}

/// The field at fault: where it is, and which one there is too much or missing.
fn field_at(path: &str, text: &str) -> Option<String> {
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .into_iter()
        .find_map(|said| text.split_once(said)?.1.split_once('`'))
        .map(|(name, _)| name);
    // The path ends in a field that is not known where it is that, and there is no such field.
    let within = path
        .trim_matches('.')
        .trim_end_matches('?')
        .trim_end_matches('.');
    match (within, named) {
        ("", None) => None,
        ("", Some(named)) => Some(named.to_owned()),
        (within, Some(named)) if within != named && !within.ends_with(&format!(".{named}")) => {
            Some(format!("{within}.{named}"))
        }
        (within, _) => Some(within.to_owned()),
    }
}

/// Parameters after `?`.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let wrong = |rejection: QueryRejection| {
            let text = rejection.body_text();
            let said = text
                .split_once("query string: ")
                .map_or("", |(_, said)| said);
            let path = said.split_once(": ").map_or("", |(path, _)| path);
            let is_name = !path.is_empty() && path.chars().all(|c| c.is_alphanumeric() || c == '_');
            let problem = Problem::invalid("invalid_parameter", &*text);
            match field_at(if is_name { path } else { "" }, said) {
                Some(field) => problem.with("field", field),
                None => problem,
            }
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
    use serde_json::json;

    use super::*;

    fn precondition(name: HeaderName, value: &'static str) -> Precondition {
        Precondition::of(&HeaderMap::from_iter([(name, value.parse().unwrap())]))
    }

    #[test]
    fn the_field_at_fault_is_named() {
        #[derive(serde::Deserialize, Debug)]
        #[serde(deny_unknown_fields)]
        struct Inner {
            #[serde(rename = "size")]
            _size: u8,
        }
        #[derive(serde::Deserialize, Debug)]
        #[serde(deny_unknown_fields)]
        struct Outer {
            #[serde(rename = "inner")]
            _inner: Inner,
            #[serde(rename = "list", default)]
            _list: Vec<u8>,
        }
        for (body, field) in [
            ("{}", json!("inner")),
            (r#"{"inner":{}}"#, json!("inner.size")),
            (r#"{"inner":{"size":1000}}"#, json!("inner.size")),
            (r#"{"inner":{"size":1,"extra":2}}"#, json!("inner.extra")),
            (r#"{"inner":{"size":1},"more":2}"#, json!("more")),
            (r#"{"inner":{"size":1},"list":[1,"x"]}"#, json!("list[1]")),
            ("[", serde_json::Value::Null),
            (r#"{"inner":{"size":1}} x"#, serde_json::Value::Null),
        ] {
            let Err(problem) = parse::<Outer>(body.as_bytes()) else {
                panic!("{body} is read")
            };
            assert_eq!(problem.member("field"), field, "{body}");
        }
        assert!(parse::<Outer>(br#"{"inner":{"size":1}}"#).is_ok());
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
