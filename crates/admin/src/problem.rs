//! Errors of the API: RFC 9457 problem details, with a stable `code` for programs.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ringback_core::event::InvalidEvent;
use ringback_core::log::LogError;
use ringback_core::secret::SecretError;
use ringback_core::target::Unreachable;
use ringback_core::webhook::InvalidWebhook;
use serde_json::{Map, Value, json};

/// Most characters of a name that does not exist that are repeated.
const NAME_CHARS_MAX: usize = 64;

/// Why a request is not answered with success.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    /// One sentence: what is wrong, and what to do.
    detail: String,
    /// Further members of the answer.
    more: Map<String, Value>,
    /// After how many seconds another try may help.
    retry_after: Option<u64>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            more: Map::new(),
            retry_after: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(2),
        }
    }

    /// The request is wrong.
    pub(crate) fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// A field of the body is wrong.
    pub(crate) fn field(field: &str, detail: impl Into<String>) -> Self {
        Self::invalid("invalid_field", detail).with("field", field)
    }

    /// What it is about does not exist.
    pub(crate) fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// The same, with what it was called by whoever asks, as far as that is worth repeating: between
    /// `before` and `after`.
    pub(crate) fn none_called(code: &'static str, before: &str, name: &str, after: &str) -> Self {
        let name: String = name.chars().take(NAME_CHARS_MAX).collect();
        Self::not_found(code, format!("{before} {name:?}{after}"))
    }

    /// It exists already, or is busy.
    pub(crate) fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// Somebody else changed it in the meantime.
    pub(crate) fn changed(what: &str) -> Self {
        let detail = format!(
            "{what} was changed by somebody else in the meantime; read it again, then repeat"
        );
        Self::new(StatusCode::PRECONDITION_FAILED, "revision_changed", detail)
    }

    /// The same, with what it is now.
    pub(crate) fn with_current(self, current: Value) -> Self {
        match self.status {
            StatusCode::PRECONDITION_FAILED => self.with("current", current),
            _ => self,
        }
    }

    /// The log is away or busy; another try may help.
    pub(crate) fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
    }

    /// It is too much; try again after `wait`.
    pub(crate) fn too_many(code: &'static str, detail: impl Into<String>, wait: Duration) -> Self {
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail);
        problem.retry_after = Some(
            wait.as_millis()
                .div_ceil(1000)
                .try_into()
                .unwrap_or(u64::MAX),
        );
        problem
    }

    /// Adds a member to the answer.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    #[cfg(test)]
    pub(crate) fn member(&self, name: &str) -> Value {
        self.more.get(name).cloned().unwrap_or_default()
    }

    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        if error.retriable {
            return Self::unavailable("log_unavailable", format!("{error}; try again in a moment"));
        }
        tracing::error!(%error, "the log fails a request");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "log_failed",
            error.to_string(),
        )
    }
}

impl From<InvalidEvent> for Problem {
    fn from(error: InvalidEvent) -> Self {
        Self::invalid("invalid_field", error.to_string())
    }
}

impl From<InvalidWebhook> for Problem {
    fn from(error: InvalidWebhook) -> Self {
        // What `core` calls it, in the words of the form.
        let field = match error.what {
            "webhook name" | "name" => "name",
            "pattern" => "subscription",
            what if what.contains("header") => "headers",
            what => what,
        };
        Self::field(field, error.to_string())
    }
}

/// What API, command line and dispatcher say of a URL alike.
impl From<Unreachable> for Problem {
    fn from(error: Unreachable) -> Self {
        let code = match &error {
            Unreachable::Url(_) => "invalid_field",
            Unreachable::Address(_) | Unreachable::Name { .. } => "address_refused",
            Unreachable::Port(_) => "port_refused",
        };
        Self::invalid(code, error.to_string()).with("field", "url")
    }
}

impl From<SecretError> for Problem {
    fn from(error: SecretError) -> Self {
        tracing::error!(%error, "a secret cannot be sealed or opened");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "secret_unusable",
            error.to_string(),
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
        });
        if let Value::Object(members) = &mut body {
            members.extend(self.more);
        }
        let content_type = HeaderValue::from_static("application/problem+json");
        let headers = [(header::CONTENT_TYPE, content_type)];
        let mut response = (self.status, headers, body.to_string()).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"ringback\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
