//! Errors as RFC 9457 problem documents.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::publisher::RETRY_AFTER;

/// Why a request as a whole is not served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// A stable word for programs.
    pub(super) code: &'static str,
    /// For people: what went wrong and what to do.
    pub(super) detail: String,
    /// After how many seconds it may be sent again.
    pub(super) retry_after: Option<u64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let unavailable = status == StatusCode::SERVICE_UNAVAILABLE;
        Self {
            status,
            code,
            detail: detail.into(),
            retry_after: unavailable.then(|| RETRY_AFTER.as_secs()),
        }
    }

    /// The log or our knowledge of the configuration is away: nothing was accepted.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("error");
        let body = json!({
            "type": "about:blank", "title": title, "status": self.status.as_u16(),
            "detail": self.detail, "code": self.code,
        });
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// When a sender should try again, in whole seconds.
pub(super) fn retry_after() -> HeaderValue {
    HeaderValue::from(RETRY_AFTER.as_secs())
}

pub(super) async fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is only POST /v1/events here",
    )
}

/// Another method than POST.
pub(super) async fn not_allowed() -> Response {
    let detail = "events are sent with POST";
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail);
    ([(header::ALLOW, "POST")], problem).into_response()
}
