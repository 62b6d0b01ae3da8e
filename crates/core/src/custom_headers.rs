//! Headers that a webhook's requests carry besides our own: static text of the webhook's owner, and no
//! place for secrets, because everybody who may see the webhook sees them.

use std::collections::BTreeMap;

use crate::webhook::{InvalidWebhook, invalid};

/// Names, in small letters, and values.
pub type CustomHeaders = BTreeMap<String, String>;

/// Most headers that a webhook may have.
const HEADERS_MAX: usize = 32;
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Longest value, in bytes.
const VALUE_BYTES_MAX: usize = 1024;

/// Names that are not the owner's: they frame the message (RFC 9110 §6.4, §7.6.1), say who asks
/// whom, or are our own.
const DENIED: [&str; 21] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-real-ip",
];
/// The same for whole families.
const DENIED_PREFIXES: [&str; 4] = ["webhook-", "ce-", "proxy-", "x-forwarded-"];

/// Checks headers, and gives them with their names in small letters. Values do not appear in errors.
pub fn check_headers(headers: &CustomHeaders) -> Result<CustomHeaders, InvalidWebhook> {
    if headers.len() > HEADERS_MAX {
        return Err(invalid("headers", "", "at most 32 headers"));
    }
    let mut checked = CustomHeaders::new();
    for (name, value) in headers {
        let wrong = |rule| Err(invalid("header", name, rule));
        let lower = name.to_ascii_lowercase();
        if !is_token(&lower) {
            return wrong("a name has 1 to 64 letters, digits and !#$%&'*+-.^_`|~");
        }
        if lower == "authorization" {
            return wrong("set it as authentication: headers are no place for secrets");
        }
        if is_denied(&lower) {
            return wrong(
                "it belongs to the connection, or is Ringback's own; see docs/addresses.md",
            );
        }
        if !is_value(value) {
            return wrong(
                "a value has up to 1,024 visible ASCII characters, and spaces within only",
            );
        }
        if checked.insert(lower, value.clone()).is_some() {
            return wrong("it is there twice");
        }
    }
    Ok(checked)
}

/// Whether a name is not the owner's to set.
fn is_denied(name: &str) -> bool {
    DENIED.contains(&name)
        || DENIED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// RFC 9110 §5.6.2.
fn is_token(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// RFC 9110 §5.5, without what is obsolete.
fn is_value(value: &str) -> bool {
    value.len() <= VALUE_BYTES_MAX
        && value.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        && value.trim() == value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> CustomHeaders {
        CustomHeaders::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn headers_of_the_owner_are_kept() {
        for (name, value) in [
            ("X-Tenant", "acme"),
            ("accept", "application/json"),
            ("x", ""),
            ("x-y", "a b; c=\"d\""),
            ("certificate", "not ce-"),
        ] {
            let checked = check_headers(&one(name, value)).unwrap();
            assert_eq!(checked, one(&name.to_ascii_lowercase(), value));
            assert_eq!(check_headers(&checked).unwrap(), checked);
        }
    }

    #[test]
    fn limits_are_within_what_is_allowed() {
        let many: CustomHeaders = (0..HEADERS_MAX)
            .map(|n| (format!("x-{n}"), String::new()))
            .collect();
        assert_eq!(check_headers(&many).unwrap(), many);
        for (name, value) in [
            ("a".repeat(NAME_BYTES_MAX), "x".to_owned()),
            ("!#$%&'*+-.^_`|~".to_owned(), "x".to_owned()),
            ("x-a".to_owned(), "a".repeat(VALUE_BYTES_MAX)),
            ("x-a".to_owned(), "! ~".to_owned()),
        ] {
            let one = one(&name, &value);
            assert_eq!(check_headers(&one).unwrap(), one);
        }
        let error = check_headers(&one("Authorization", "x")).unwrap_err();
        assert!(error.to_string().contains("as authentication"), "{error}");
    }

    #[test]
    fn names_that_are_not_the_owners_are_refused() {
        for name in [
            "Host",
            "Content-Length",
            "Content-Type",
            "Content-Encoding",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "Proxy-Authorization",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Upgrade",
            "Expect",
            "Authorization",
            "Cookie",
            "User-Agent",
            "Webhook-Id",
            "webhook-signature",
            "CE-Id",
            "traceparent",
            "tracestate",
            "X-Forwarded-For",
            "X-Real-IP",
            "Forwarded",
            "Via",
            "",
            "a b",
            "a:b",
            "ä",
            "a\r\nb",
            ":path",
            "a\0",
        ] {
            check_headers(&one(name, "x")).unwrap_err();
        }
        check_headers(&one(&"a".repeat(65), "x")).unwrap_err();
        for value in [
            "a\r\nb: c",
            "a\nb",
            "a\0",
            "\u{7f}",
            "ä",
            " a",
            "a ",
            "a\tb",
        ] {
            let value = value.replace('a', "hunter2");
            let error = check_headers(&one("x-a", &value)).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error:?}");
        }
        check_headers(&one("x-a", &"a".repeat(1025))).unwrap_err();
        let twice: CustomHeaders = [("X-A", "1"), ("x-a", "2")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        check_headers(&twice).unwrap_err();
        let many = (0..33).map(|n| (format!("x-{n}"), String::new())).collect();
        check_headers(&many).unwrap_err();
    }
}
