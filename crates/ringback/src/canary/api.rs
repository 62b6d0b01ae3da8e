//! The administration as the canary calls it.

use std::fmt;
use std::time::Duration;

use reqwest::{Method, StatusCode, header};
use ringback_core::secret::Secret;
use serde_json::Value;
use url::Url;

use crate::http;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer: a page of tokens has room many times.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A client of one administration.
pub(super) struct Api {
    pub(super) http: reqwest::Client,
    pub(super) base: Url,
    pub(super) token: Secret,
}

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There was no answer that can be understood.
    NoAnswer(String),
    /// The administration said no.
    Refused {
        status: StatusCode,
        code: String,
        detail: String,
    },
}

impl Trouble {
    /// Whether what was asked for is not there.
    pub(super) fn is(&self, code: &str) -> bool {
        matches!(self, Self::Refused { code: said, .. } if said == code)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(why) => f.write_str(why),
            Self::Refused {
                status,
                code,
                detail,
            } => {
                write!(f, "the administration answers {status}: {detail}")?;
                f.write_str(match code.as_str() {
                    "unauthorized" => "; check canary.token or canary.token_file",
                    "no_such_scope" => {
                        "; canary.token must be the operator's, or have the scope write"
                    }
                    "http_forbidden" => "; give canary.url an address with https",
                    "address_refused" | "port_refused" => {
                        "; open the address of canary.url by dispatcher.allow_networks or allow_ports, or make it public"
                    }
                    _ => "",
                })
            }
        }
    }
}

/// An answer with success.
pub(super) struct Answer {
    pub(super) body: Value,
    pub(super) etag: Option<String>,
}

impl Api {
    pub(super) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Answer, Trouble> {
        self.call(Method::GET, path, query, None, None).await
    }

    pub(super) async fn post(&self, path: &[&str], body: &Value) -> Result<Answer, Trouble> {
        self.call(Method::POST, path, &[], None, Some(body)).await
    }

    /// Changes what has this entity tag, or whatever is there.
    pub(super) async fn patch(
        &self,
        path: &[&str],
        etag: Option<&str>,
        body: &Value,
    ) -> Result<Answer, Trouble> {
        let etag = Some(etag.unwrap_or("*"));
        self.call(Method::PATCH, path, &[], etag, Some(body)).await
    }

    pub(super) async fn delete(&self, path: &[&str]) -> Result<Answer, Trouble> {
        self.call(Method::DELETE, path, &[], None, None).await
    }

    async fn call(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        etag: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, Trouble> {
        let url = http::api_url(&self.base, path, query);
        let mut request = self
            .http
            .request(method, url)
            .timeout(TIMEOUT)
            .bearer_auth(self.token.expose());
        if let Some(etag) = etag {
            request = request.header(header::IF_MATCH, etag);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| {
            let said = describe(&error);
            Trouble::NoAnswer(format!(
                "the administration at {} does not answer: {said}; check canary.admin_url",
                self.base
            ))
        })?;
        let status = response.status();
        let etag = response.headers().get(header::ETAG);
        let etag = etag.and_then(|etag| Some(etag.to_str().ok()?.to_owned()));
        let foreign = |why: &str| {
            Trouble::NoAnswer(format!(
                "what listens at {} is not the administration: {why}; check canary.admin_url",
                self.base
            ))
        };
        let text = read(response, ANSWER_BYTES_MAX).await;
        let text = text.map_err(|why| foreign(&why))?;
        let body: Value = serde_json::from_slice(&text)
            .map_err(|_| foreign(&format!("it answers {status}, not as JSON")))?;
        if status.is_success() {
            return Ok(Answer { body, etag });
        }
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        Err(Trouble::Refused {
            status,
            code: text("code"),
            detail: text("detail"),
        })
    }
}

/// A body up to this size.
pub(super) async fn read(mut response: reqwest::Response, most: usize) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if text.len() + chunk.len() <= most => text.extend_from_slice(&chunk),
            Ok(Some(_)) => return Err("its answer has no end".to_owned()),
            Ok(None) => return Ok(text),
            Err(error) => return Err(describe(&error)),
        }
    }
}

/// What went wrong on the way, and what to do about a certificate.
pub(super) fn describe(error: &reqwest::Error) -> String {
    let said = http::describe(error);
    match http::tls_error(error) {
        Some(_) => format!("{said} (canary.ca_file names the authorities that are trusted)"),
        None => said,
    }
}
