//! Posting batches: what is not acknowledged is sent again, and only that.

use std::time::{Duration, Instant};

use ringback_core::secret::Secret;
use serde::Deserialize;

use super::report::Report;
use super::source::Line;
use crate::failure::Failure;

/// Waits before sending again, doubling.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The ingest of a running Ringback.
pub(crate) struct Ingest {
    client: reqwest::Client,
    url: url::Url,
    token: Secret,
    give_up_after: Duration,
}

/// The verdicts of a batch.
#[derive(Deserialize)]
struct Verdicts {
    accepted: u64,
    refused: Vec<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    index: usize,
    code: String,
    reason: String,
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
}

/// What a request came to.
enum Answer {
    Verdicts(Verdicts),
    /// Nothing was acknowledged; another try may help.
    Again(String),
}

impl Ingest {
    pub(crate) fn new(
        base: &str,
        token: Secret,
        backfill: bool,
        give_up_after: Duration,
    ) -> Result<Self, Failure> {
        let wrong = |error| Failure::usage(format!("--to {base:?}: {error}"));
        let mut url = url::Url::parse(base).map_err(|error| wrong(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("use http://host:port".to_owned()));
        }
        url.set_path("/v1/events");
        url.set_query(backfill.then_some("backfill=true"));
        let client = crate::http::client()?;
        Ok(Self {
            client,
            url,
            token,
            give_up_after,
        })
    }

    /// Sends lines until each is accepted, refused, or given up.
    pub(crate) async fn post(&self, mut lines: Vec<Line>, report: &Report) -> Result<(), Failure> {
        let began = Instant::now();
        let mut backoff = BACKOFF_MIN;
        loop {
            let reason = match self.request(&lines).await? {
                Answer::Verdicts(verdicts) => {
                    report.accepted(verdicts.accepted);
                    let reason = take(&mut lines, verdicts, report);
                    if lines.is_empty() {
                        return Ok(());
                    }
                    reason
                }
                Answer::Again(reason) => reason,
            };
            if began.elapsed() + backoff > self.give_up_after {
                for line in &lines {
                    report.unacknowledged(line, &reason);
                }
                return Ok(());
            }
            report.resent(lines.len());
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn request(&self, lines: &[Line]) -> Result<Answer, Failure> {
        let mut body = Vec::with_capacity(lines.iter().map(|line| line.text.len() + 1).sum());
        for line in lines {
            body.extend_from_slice(&line.text);
            body.push(b'\n');
        }
        let sent = self
            .client
            .post(self.url.clone())
            .bearer_auth(self.token.expose())
            .header("content-type", "application/x-ndjson")
            .timeout(REQUEST_TIMEOUT)
            .body(body)
            .send();
        let response = match sent.await {
            Ok(response) => response,
            Err(error) => return Ok(Answer::Again(crate::http::describe(&error))),
        };
        let status = response.status();
        let text = match response.bytes().await {
            Ok(text) => text,
            Err(error) => return Ok(Answer::Again(crate::http::describe(&error))),
        };
        if let Ok(verdicts) = serde_json::from_slice(&text) {
            return Ok(Answer::Verdicts(verdicts));
        }
        let detail = serde_json::from_slice::<Problem>(&text)
            .map_or_else(|_| status.to_string(), |problem| problem.detail);
        match status.as_u16() {
            408 | 429 | 500.. => Ok(Answer::Again(detail)),
            _ => Err(Failure::new(format!(
                "the ingest at {} answered {status}: {detail}",
                self.url
            ))),
        }
    }
}

/// Leaves only the lines that may be sent again; says why.
fn take(lines: &mut Vec<Line>, verdicts: Verdicts, report: &Report) -> String {
    let mut again = Vec::new();
    let mut why = String::new();
    for Refused {
        index,
        code,
        reason,
    } in verdicts.refused
    {
        // Lines were joined without blank ones, so numbers in the batch are indices.
        let Some(line) = lines.get(index) else {
            continue;
        };
        if code == "unavailable" {
            again.push(line.clone());
            why = reason;
        } else {
            report.refused(line, &code, &reason);
        }
    }
    *lines = again;
    why
}
