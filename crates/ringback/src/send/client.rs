//! Posting batches: what is not acknowledged is sent again, and only that.

use std::time::{Duration, Instant};

use ringback_core::secret::Secret;
use serde::Deserialize;

use super::report::Report;
use super::source::Line;
use crate::failure::Failure;
use crate::http::Trust;

/// Waits before sending again, doubling; the ingest may ask for longer ones.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long one request may take, at most and, near the end of patience, at least.
const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(60);
const REQUEST_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Largest answer: verdicts on the largest batch fit several times.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

const PATH: &str = "/v1/events";

/// The ingest of a running Ringback.
pub(crate) struct Ingest {
    client: reqwest::Client,
    url: url::Url,
    token: Secret,
    give_up_after: Duration,
}

/// What became of a batch as a whole; of its lines, the report knows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Posted {
    /// Every line is accepted or refused.
    Judged,
    /// Some lines were not acknowledged until patience ended, for this reason.
    GivenUp(String),
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
    /// Nothing was acknowledged because the batch is too large.
    TooLarge(String),
    /// Nothing was acknowledged; another try may help.
    Again(String),
}

/// An answer, and how long the ingest asks to wait.
struct Response {
    answer: Answer,
    retry_after: Duration,
}

impl Response {
    fn again(reason: String) -> Self {
        Self {
            answer: Answer::Again(reason),
            retry_after: Duration::ZERO,
        }
    }
}

impl Ingest {
    pub(crate) fn new(
        base: &str,
        trust: &Trust,
        token: Secret,
        backfill: bool,
        give_up_after: Duration,
    ) -> Result<Self, Failure> {
        Ok(Self {
            client: trust.client()?,
            url: address(base, backfill)?,
            token,
            give_up_after,
        })
    }

    /// Sends lines until each is accepted, refused, or given up. A failure means that no request at
    /// all can succeed; its lines are counted as not acknowledged.
    pub(crate) async fn post(&self, lines: Vec<Line>, report: &Report) -> Result<Posted, Failure> {
        let until = Instant::now() + self.give_up_after;
        // More than one when the ingest takes less at a time than we send.
        let mut batches = vec![lines];
        let mut backoff = BACKOFF_MIN;
        while let Some(mut lines) = batches.pop() {
            let count = lines.len();
            let Response {
                answer,
                retry_after,
            } = match self.request(&lines, until).await {
                Ok(response) => response,
                Err(failure) => {
                    report.unsent(count + batches.iter().map(Vec::len).sum::<usize>());
                    return Err(failure);
                }
            };
            let reason = match answer {
                Answer::TooLarge(reason) => {
                    let second = lines.split_off(count / 2);
                    match second.as_slice() {
                        [only] if lines.is_empty() => report.refused(only, "too_large", &reason),
                        _ => batches.extend([second, lines]),
                    }
                    continue;
                }
                Answer::Again(reason) => reason,
                Answer::Verdicts(verdicts) => {
                    report.accepted(verdicts.accepted);
                    let reason;
                    (lines, reason) = unacknowledged(lines, verdicts, report);
                    if lines.is_empty() {
                        backoff = BACKOFF_MIN;
                        continue;
                    }
                    reason
                }
            };
            batches.push(lines);
            let wait = backoff.max(retry_after).min(BACKOFF_MAX);
            if Instant::now() + wait > until {
                for line in batches.iter().rev().flatten() {
                    report.unacknowledged(line, &reason);
                }
                return Ok(Posted::GivenUp(reason));
            }
            report.resent(batches.last().map_or(0, Vec::len));
            tokio::time::sleep(wait).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        Ok(Posted::Judged)
    }

    async fn request(&self, lines: &[Line], until: Instant) -> Result<Response, Failure> {
        let mut body = Vec::with_capacity(lines.iter().map(|line| line.text.len() + 1).sum());
        for line in lines {
            body.extend_from_slice(&line.text);
            body.push(b'\n');
        }
        let left = until.saturating_duration_since(Instant::now());
        let request = self
            .client
            .post(self.url.clone())
            .bearer_auth(self.token.expose())
            .header("content-type", "application/x-ndjson")
            .timeout(left.clamp(REQUEST_TIMEOUT_MIN, REQUEST_TIMEOUT_MAX))
            .body(body)
            .build();
        // Only the token and the address can be wrong, and they stay so.
        let request = request.map_err(|error| {
            let error = crate::http::describe(&error);
            Failure::usage(format!(
                "a request cannot be made, check the token: {error}"
            ))
        })?;
        let mut response = match self.client.execute(request).await {
            Ok(response) => response,
            Err(error) => {
                let said = crate::http::describe(&error);
                return match crate::http::distrust(&error) {
                    // Sending again makes no certificate trusted.
                    Some(why) => Err(self.failure(&format!("{why} ({said})"))),
                    None => Ok(Response::again(said)),
                };
            }
        };
        let mut text = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if text.len() + chunk.len() <= ANSWER_BYTES_MAX => {
                    text.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => return Err(self.failure("its answer has no end")),
                Ok(None) => break,
                Err(error) => return Ok(Response::again(crate::http::describe(&error))),
            }
        }
        let retry_after = response.headers().get("retry-after");
        let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = Duration::from_secs(seconds.unwrap_or(0));
        let status = response.status();
        let detail = || {
            serde_json::from_slice::<Problem>(&text)
                .map_or_else(|_| status.to_string(), |problem| problem.detail)
        };
        let answer = match (serde_json::from_slice(&text), status.as_u16()) {
            (Ok(verdicts), _) => Answer::Verdicts(self.checked(verdicts, lines.len())?),
            (_, 413) => Answer::TooLarge(detail()),
            (_, 408 | 429 | 500..) => Answer::Again(detail()),
            _ => return Err(self.failure(&format!("it answered {status}: {}", detail()))),
        };
        Ok(Response {
            answer,
            retry_after,
        })
    }

    /// Every line has one verdict: a line without one would be lost silently.
    fn checked(&self, verdicts: Verdicts, lines: usize) -> Result<Verdicts, Failure> {
        let Verdicts { accepted, refused } = &verdicts;
        let mut indices: Vec<_> = refused.iter().map(|refused| refused.index).collect();
        indices.sort_unstable();
        indices.dedup();
        let distinct = indices.len() == refused.len() && indices.iter().all(|i| *i < lines);
        if !distinct || *accepted != (lines - indices.len()) as u64 {
            let (refused, text) = (refused.len(), "its verdicts do not add up");
            return Err(self.failure(&format!(
                "{text}: {accepted} accepted, {refused} refused, of {lines}"
            )));
        }
        Ok(verdicts)
    }

    fn failure(&self, what: &str) -> Failure {
        Failure::new(format!("sending to the ingest at {}: {what}", self.url))
    }
}

/// The address of the ingest's events, under whatever path a proxy gives it.
fn address(base: &str, backfill: bool) -> Result<url::Url, Failure> {
    // The address itself is not shown: it might hold a password.
    let wrong = |what: &str| Failure::usage(format!("--to: {what}; use http://host:port"));
    let mut url = url::Url::parse(base).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("the address is neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "the address holds a password, which the ingest does not know",
        ));
    }
    let path = url.path().trim_end_matches('/');
    let prefix = path.strip_suffix(PATH).unwrap_or(path);
    let path = format!("{prefix}{PATH}");
    url.set_path(&path);
    url.set_fragment(None);
    url.set_query(backfill.then_some("backfill=true"));
    Ok(url)
}

/// The lines that may be sent again, and why they were not acknowledged. The refused ones are told.
fn unacknowledged(lines: Vec<Line>, verdicts: Verdicts, report: &Report) -> (Vec<Line>, String) {
    let mut why = String::new();
    let mut again = vec![false; lines.len()];
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
        if matches!(&*code, "unavailable" | "over_quota") {
            again[index] = true;
            why = reason;
        } else {
            report.refused(line, &code, &reason);
        }
    }
    let mut again = again.into_iter();
    let lines = lines.into_iter().filter(|_| again.next() == Some(true));
    (lines.collect(), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let path = |base| address(base, false).unwrap().to_string();
        for base in [
            "http://h:1",
            "http://h:1/",
            "http://h:1/v1/events",
            "http://h:1/v1/events/?x=1#y",
        ] {
            assert_eq!(path(base), "http://h:1/v1/events", "{base}");
        }
        assert_eq!(path("https://h/pbx/"), "https://h/pbx/v1/events");
        let backfill = address("http://h", true).unwrap();
        assert_eq!(backfill.as_str(), "http://h/v1/events?backfill=true");
        for wrong in ["", "h:80", "ftp://h", "http://me:swordfish@h"] {
            let failure = address(wrong, false).unwrap_err();
            assert_eq!(failure.code, 64, "{wrong}");
            assert!(!failure.message.contains("swordfish"), "{failure}");
        }
    }
}
