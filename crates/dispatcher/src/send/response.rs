//! What came back: a response, read as far as it is wanted, or how the request failed.

use std::error::Error as _;
use std::io;

use bytes::BytesMut;
use http::header::LOCATION;
use ringback_core::verdict::Outcome;

/// How much of a response is kept in the attempt record.
const RESPONSE_BYTES_KEPT: usize = 4096;
/// How much of a response is read so that its connection can be used again.
const RESPONSE_BYTES_READ: usize = 65_536;

/// Reads the body: enough of it to keep, and to the end where that is near, so that the connection
/// can be used again. A longer body costs its connection, nothing else.
pub(super) async fn read(
    mut response: reqwest::Response,
) -> Result<Option<String>, reqwest::Error> {
    let mut kept = BytesMut::new();
    let mut seen = 0;
    while let Some(chunk) = response.chunk().await? {
        let room = RESPONSE_BYTES_KEPT - kept.len();
        kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
        seen += chunk.len();
        if seen >= RESPONSE_BYTES_READ {
            break;
        }
    }
    Ok((!kept.is_empty()).then(|| String::from_utf8_lossy(&kept).into_owned()))
}

/// What is to be said of an answer besides its status: that a redirect is not followed (R9), and where
/// it pointed, without the query, which may carry a secret.
pub(super) fn explain(response: &reqwest::Response) -> Option<String> {
    if !response.status().is_redirection() {
        return None;
    }
    let target = response.headers().get(LOCATION)?;
    let target = String::from_utf8_lossy(target.as_bytes());
    let shown = match response.url().join(&target) {
        Ok(mut url) => {
            url.set_query(None);
            url.set_fragment(None);
            // They may hold a secret, too.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.to_string()
        }
        Err(_) => "what is no URL".to_owned(),
    };
    let shown: String = shown.chars().take(256).collect();
    Some(format!(
        "redirected to {shown}, which is not followed; if that is right, make it the webhook's URL"
    ))
}

pub(super) fn classify(error: &reqwest::Error) -> Outcome {
    if error.is_timeout() {
        return Outcome::Timeout;
    }
    let mut source = error.source();
    while let Some(inner) = source {
        if inner.is::<rustls::Error>() {
            return Outcome::Tls;
        }
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            if is_tls(io) {
                return Outcome::Tls;
            }
            match io.kind() {
                io::ErrorKind::ConnectionRefused => return Outcome::Refused,
                io::ErrorKind::TimedOut => return Outcome::Timeout,
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::NotConnected
                | io::ErrorKind::UnexpectedEof => return Outcome::Reset,
                _ => {}
            }
        }
        let text = inner.to_string();
        if text.contains("dns error") {
            return match inner.source().is_some_and(is_resolver_fault) {
                true => Outcome::Resolver,
                false => Outcome::Dns,
            };
        }
        // HTTP/2 passes on what TLS said as text alone.
        if text.contains("received fatal alert") {
            return Outcome::Tls;
        }
        if text.contains("connection closed") {
            return Outcome::Reset;
        }
        source = inner.source();
    }
    if error.is_connect() {
        Outcome::Refused
    } else {
        Outcome::Protocol
    }
}

/// Whether resolving failed for want of a resolver that answers. The standard library gives no code
/// of `getaddrinfo`, only its text, which for `EAI_AGAIN` is this in glibc and musl (they do not
/// translate without `setlocale`, which nobody calls).
fn is_resolver_fault(error: &(dyn std::error::Error + 'static)) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    text.contains("temporary failure in name resolution") || text.contains("try again")
}

/// Whether an I/O error carries one of TLS, however often it was wrapped.
fn is_tls(mut io: &io::Error) -> bool {
    while let Some(inner) = io.get_ref() {
        if inner.is::<rustls::Error>() {
            return true;
        }
        match inner.downcast_ref::<io::Error>() {
            Some(next) => io = next,
            None => return false,
        }
    }
    false
}

/// An error with its causes, without the URL: its query may carry a secret.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    causes.dedup();
    let text = match causes.is_empty() {
        true if error.is_timeout() => "the request took too long".to_owned(),
        true => "the request failed".to_owned(),
        false => causes.join(": "),
    };
    text.chars().take(512).collect()
}
