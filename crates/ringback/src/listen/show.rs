//! Requests as text for people and for programs. Credentials are masked in both.

use std::fmt::Write as _;

use axum::http::{HeaderName, HeaderValue, header};
use serde_json::json;
use serde_json::value::RawValue;

use crate::listen::receiver::{ID_HEADER, Received, Request};

/// Lines of a body that are shown.
const BODY_LINES_MAX: usize = 40;
/// Characters of a line that are shown.
const LINE_CHARS_MAX: usize = 160;

/// Headers that say something about the connection, not about the delivery.
const DULL: [HeaderName; 6] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    header::USER_AGENT,
];

const SECRET: [HeaderName; 3] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
];

/// A few lines for a person.
pub(super) fn readable(request: &Request) -> String {
    let mut text = format!(
        "\n{}  {} {} -> {}{}",
        request.at,
        request.method,
        printable(&request.uri.to_string()),
        request.status,
        if request.duplicate {
            "  (seen before)"
        } else {
            ""
        },
    );
    for (name, value) in &request.headers {
        if !DULL.contains(name) {
            let _ = write!(text, "\n    {name}: {}", printable(&shown(name, value)));
        }
    }
    if let Some(said) = signature(request) {
        let _ = write!(text, "\n    signature: {said}");
    }
    for line in body_lines(&request.body) {
        let _ = write!(text, "\n    {line}");
    }
    text
}

/// One line of JSON.
pub(super) fn json(request: &Request) -> String {
    let headers: serde_json::Map<_, _> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), shown(name, value).into()))
        .collect();
    let id = request
        .headers
        .get(ID_HEADER)
        .and_then(|id| id.to_str().ok());
    let mut line = json!({
        "number": request.number,
        "time": request.at,
        "method": request.method.as_str(),
        "path": request.uri.to_string(),
        "status": request.status.as_u16(),
        "id": id,
        "duplicate": request.duplicate,
        "headers": headers,
    });
    if let Some(said) = signature(request) {
        line["signature"] = said.into();
    }
    line["body"] = match serde_json::from_slice(&request.body) {
        Ok(body) => body,
        Err(_) => String::from_utf8_lossy(&request.body).into(),
    };
    line.to_string()
}

/// `good`, or what is wrong with it; `None` when nobody asked.
fn signature(request: &Request) -> Option<String> {
    Some(match request.signature? {
        Ok(()) => "good".to_owned(),
        Err(refused) => format!("refused: {refused}"),
    })
}

/// What was received, for a person.
pub(super) fn summary(received: &Received) -> String {
    let Received {
        requests,
        acknowledged,
        distinct,
        delivered,
        repeated,
        duplicates,
    } = received;
    format!(
        "{requests} requests for {distinct} events ({repeated} repeated); {acknowledged} answered \
         200 for {delivered} events ({duplicates} duplicates)"
    )
}

/// What was received, as a line of JSON.
pub(super) fn summary_json(received: &Received) -> String {
    let Received {
        requests,
        acknowledged,
        distinct,
        delivered,
        repeated,
        duplicates,
    } = received;
    let summary = json!({
        "requests": requests, "acknowledged": acknowledged, "distinct": distinct,
        "delivered": delivered, "repeated": repeated, "duplicates": duplicates,
    });
    json!({ "summary": summary }).to_string()
}

fn shown(name: &HeaderName, value: &HeaderValue) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    if !SECRET.contains(name) {
        return text.into_owned();
    }
    // The scheme alone helps to find a wrong setting; a token without a scheme has no such part.
    match text.split_once(' ') {
        Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphabetic()) => {
            format!("{scheme} [hidden]")
        }
        _ => "[hidden]".to_owned(),
    }
}

/// The text without what a terminal would obey.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => printable.extend(c.escape_unicode()),
            false => printable.push(c),
        }
    }
    printable
}

fn body_lines(body: &[u8]) -> Vec<String> {
    let text = match serde_json::from_slice::<&RawValue>(body) {
        Ok(json) => indented(json.get()),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let mut lines: Vec<_> = text.lines().take(BODY_LINES_MAX).map(short).collect();
    let more = text.lines().count().saturating_sub(BODY_LINES_MAX);
    if more > 0 {
        lines.push(format!("… {more} more lines, {} bytes in all", body.len()));
    }
    lines
}

fn short(line: &str) -> String {
    let mut short: String = line.chars().take(LINE_CHARS_MAX).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    printable(&short)
}

/// Valid JSON, indented. Members keep their order and numbers their digits, as they were received.
fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let (mut depth, mut quoted, mut escaped, mut opened) = (0_usize, false, false, false);
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth));
    };
    for c in json.chars() {
        if quoted {
            text.push(c);
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        if c.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(c, '}' | ']');
        if closes {
            depth = depth.saturating_sub(1);
        }
        // An empty object or list stays on its line.
        if opened != closes && (opened || closes) {
            line(&mut text, depth);
        }
        opened = matches!(c, '{' | '[');
        depth += usize::from(opened);
        quoted = c == '"';
        text.push(c);
        match c {
            ',' => line(&mut text, depth),
            ':' => text.push(' '),
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, Method, StatusCode};
    use ringback_core::time::Timestamp;

    use super::*;

    fn request(body: &'static [u8]) -> Request {
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", HeaderValue::from_static("e1"));
        headers.insert("authorization", HeaderValue::from_static("Bearer hunter2"));
        headers.insert("cookie", HeaderValue::from_static("hunter2"));
        headers.insert("host", HeaderValue::from_static("dull"));
        Request {
            number: 7,
            at: Timestamp::from_millis(1),
            method: Method::POST,
            uri: "/cdr?x=1".parse().unwrap(),
            headers,
            body: body.into(),
            status: StatusCode::OK,
            duplicate: true,
            signature: None,
        }
    }

    #[test]
    fn signatures_are_judged_when_somebody_asks() {
        use ringback_core::signature::Refused;
        let mut request = request(b"{}");
        assert!(!readable(&request).contains("signature"));
        assert!(!json(&request).contains("signature"));
        request.signature = Some(Ok(()));
        assert!(readable(&request).contains("\n    signature: good\n"));
        request.signature = Some(Err(Refused::Time));
        assert!(json(&request).contains("\"signature\":\"refused: "));
    }

    #[test]
    fn a_request_for_people() {
        let text = readable(&request(
            br#"{"b":1.50,"a":{"s":"x:{,\"]"},"e":[],"l":[1,2]}"#,
        ));
        let expected = r#"
1970-01-01T00:00:00.001Z  POST /cdr?x=1 -> 200 OK  (seen before)
    webhook-id: e1
    authorization: Bearer [hidden]
    cookie: [hidden]
    {
      "b": 1.50,
      "a": {
        "s": "x:{,\"]"
      },
      "e": [],
      "l": [
        1,
        2
      ]
    }"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn a_request_for_programs() {
        let line = json(&request(b"not json"));
        assert!(!line.contains("hunter2") && !line.contains('\n'), "{line}");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["body"], "not json");
        assert_eq!((&line["id"], &line["status"]), (&json!("e1"), &json!(200)));
        let line: serde_json::Value = serde_json::from_str(&json(&request(b"{\"a\":1}"))).unwrap();
        assert_eq!(line["body"]["a"], 1);
    }

    #[test]
    fn a_body_is_cut_and_cannot_command_the_terminal() {
        let lines = body_lines("x\n".repeat(100).as_bytes());
        assert_eq!(lines.len(), BODY_LINES_MAX + 1);
        assert!(
            lines[BODY_LINES_MAX].contains("60 more lines, 200 bytes"),
            "{lines:?}"
        );
        assert_eq!(body_lines(b"\x1b[2J"), ["\\u{1b}[2J"]);
        assert_eq!(body_lines("\"\u{9b}2J\"".as_bytes()), ["\"\\u{9b}2J\""]);
        assert!(body_lines("ä".repeat(500).as_bytes())[0].ends_with("ä…"));
    }
}
