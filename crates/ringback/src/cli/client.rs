//! Requests to the administration, and what its problems mean for people.

use std::time::Duration;

use reqwest::{Method, StatusCode, header};
use ringback_core::secret::Secret;
use serde_json::Value;
use url::Url;

use super::connection::Connection;
use crate::failure::{FAILED, FORBIDDEN, Failure, TRY_LATER, UNAVAILABLE};
use crate::http;

/// Longer than the API's own limit, so that its answer about that arrives.
const TIMEOUT: Duration = Duration::from_secs(90);
/// Largest answer: the longest list of parked deliveries fits in many times.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A client of one administration.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Secret,
}

/// An answer with success.
pub(crate) struct Reply {
    pub(crate) body: Value,
    pub(crate) etag: Option<String>,
}

impl Client {
    pub(crate) fn new(connection: &Connection) -> Result<Self, Failure> {
        let wrong = |reason: &str| {
            Failure::usage(format!(
                "the address {:?} of the administration {reason}; use --admin http://HOST:PORT",
                connection.admin
            ))
        };
        let base = Url::parse(&connection.admin).map_err(|_| wrong("cannot be read"))?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(wrong("is neither http nor https"));
        }
        Ok(Self {
            http: connection.trust.client()?,
            base,
            token: connection.token()?,
        })
    }

    pub(crate) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Reply, Failure> {
        self.send(Method::GET, path, query, None, None).await
    }

    pub(crate) async fn post(&self, path: &[&str], body: &Value) -> Result<Reply, Failure> {
        self.send(Method::POST, path, &[], None, Some(body)).await
    }

    /// Replaces what is there, whatever it is.
    pub(crate) async fn put(&self, path: &[&str], body: &Value) -> Result<Reply, Failure> {
        self.send(Method::PUT, path, &[], None, Some(body)).await
    }

    /// Changes what has this entity tag.
    pub(crate) async fn patch(
        &self,
        path: &[&str],
        etag: &str,
        body: &Value,
    ) -> Result<Reply, Failure> {
        self.send(Method::PATCH, path, &[], Some(etag), Some(body))
            .await
    }

    pub(crate) async fn delete(&self, path: &[&str]) -> Result<Reply, Failure> {
        self.send(Method::DELETE, path, &[], None, None).await
    }

    /// Every page of a list that ends with `next`, as one answer.
    pub(crate) async fn all(
        &self,
        path: &[&str],
        list: &str,
        query: &[(&str, String)],
    ) -> Result<Value, Failure> {
        let mut all = Vec::new();
        let mut query = query.to_vec();
        loop {
            let mut body = self.get(path, &query).await?.body;
            if let Value::Array(page) = body[list].take() {
                all.extend(page);
            }
            let Some(next) = body["next"].as_str() else {
                return Ok(serde_json::json!({ list: all }));
            };
            query.retain(|(name, _)| *name != "after");
            query.push(("after", next.to_owned()));
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        etag: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Reply, Failure> {
        let mut request = self
            .http
            .request(method, http::api_url(&self.base, path, query))
            .timeout(TIMEOUT)
            .bearer_auth(self.token.expose());
        if let Some(etag) = etag {
            request = request.header(header::IF_MATCH, etag);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let etag = response
            .headers()
            .get(header::ETAG)
            .and_then(|etag| etag.to_str().ok());
        let etag = etag.map(str::to_owned);
        let mut bytes = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.unreachable(&error))?
        {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.foreign("the answer is larger than 64 MiB"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let body: Value = serde_json::from_slice(&bytes)
            .map_err(|_| self.foreign(&format!("it answers {status}, not as JSON")))?;
        if status.is_success() {
            return Ok(Reply { body, etag });
        }
        Err(failure_of(status, &body))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let said = http::describe(error);
        if let Some(why) = http::distrust(error) {
            let message = format!(
                "the administration at {} is not trusted: {why} ({said})",
                self.base
            );
            return Failure::new(message).with_code(UNAVAILABLE);
        }
        Failure::new(format!(
            "the administration at {} does not answer: {said}; is `ringback up` running? --admin names another address",
            self.base
        ))
        .with_code(UNAVAILABLE)
    }

    fn foreign(&self, reason: &str) -> Failure {
        let base = &self.base;
        Failure::new(format!(
            "what listens at {base} is not the administration: {reason}; use --admin"
        ))
    }
}

/// A problem of the API in one sentence, and what to do about it here.
fn failure_of(status: StatusCode, problem: &Value) -> Failure {
    let detail = match problem["detail"].as_str() {
        Some(detail) => super::table::clean(detail),
        None => format!("the administration answers {status}"),
    };
    let replayed = problem["replayed"].as_u64();
    let hint = match problem["code"].as_str() {
        Some("unauthorized") => "check --operator-token, RINGBACK_OPERATOR_TOKEN or --data",
        Some("no_such_tenant") => {
            "`ringback tenant list` shows them, `ringback tenant add` adds one"
        }
        Some("no_such_webhook") => "`ringback webhook list TENANT` shows what there is",
        Some("no_such_token") => "`ringback token list` shows their ids",
        Some("tenant_exists") => "`ringback tenant show` shows it",
        Some("webhook_exists") => "`ringback webhook set` changes it",
        Some("invalid_authentication") => {
            "set it with --username and --password-file, or --token-file"
        }
        Some("wrong_passphrase") => "check --passphrase-file or RINGBACK_PASSPHRASE",
        Some("revision_changed") => "repeat the command",
        _ => "",
    };
    let mut message = detail;
    if !hint.is_empty() {
        message = format!("{message}; {hint}");
    }
    if let Some(replayed) = replayed {
        message = format!("{message} ({replayed} were replayed before that)");
    }
    let code = match status.as_u16() {
        401 | 403 => FORBIDDEN,
        412 | 429 | 503 => TRY_LATER,
        _ => FAILED,
    };
    Failure::new(message).with_code(code)
}
