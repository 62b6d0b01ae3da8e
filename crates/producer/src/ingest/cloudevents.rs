//! CloudEvents in HTTP's binary mode: the attributes are headers, the data is the body
//! (HTTP binding 1.0, section 3.1).

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderValue, header};
use ringback_core::cloudevent::CloudEvent;

use super::events::Refusal;

/// The headers that every CloudEvent has. One of them is enough to take a request for one: what is
/// missing is then named.
const REQUIRED: [&str; 4] = ["ce-specversion", "ce-id", "ce-source", "ce-type"];

/// Whether a request, whose content type is no format of CloudEvents, is one in binary mode.
pub(super) fn is_binary(headers: &HeaderMap) -> bool {
    REQUIRED.iter().any(|name| headers.contains_key(*name))
}

/// Reads the attributes; the body is the data. Other `ce-` headers mean nothing and are ignored.
pub(super) fn binary<'a>(
    headers: &'a HeaderMap,
    body: &'a [u8],
) -> Result<CloudEvent<'a>, Refusal> {
    let attribute = |name: &'static str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => decode(name, value).map(Some),
            (Some(_), Some(_)) => Err(illegal(format!(
                "header {name} is given more than once; an attribute has one value"
            ))),
        }
    };
    let content_type = headers.get(header::CONTENT_TYPE);
    Ok(CloudEvent {
        spec_version: attribute("ce-specversion")?,
        id: attribute("ce-id")?,
        source: attribute("ce-source")?,
        name: attribute("ce-type")?,
        time: attribute("ce-time")?,
        subject: attribute("ce-subject")?,
        content_type: content_type.and_then(|value| value.to_str().ok().map(Cow::Borrowed)),
        tenant: attribute("ce-tenant")?,
        traceparent: attribute("ce-traceparent")?,
        // Here `?backfill=true` says so, as for every form.
        backfill: false,
        data: Some(Cow::Borrowed(body)),
    })
}

fn illegal(reason: String) -> Refusal {
    Refusal {
        wait: None,
        code: "illegal_attribute",
        reason,
    }
}

/// The text of a header: double quotes are taken off, then one round of percent-decoding (HTTP
/// binding 3.1.3.2). A `%` that begins no escape stands for itself: not every SDK escapes it.
fn decode<'a>(name: &str, value: &'a HeaderValue) -> Result<Cow<'a, str>, Refusal> {
    let unquoted = unquote(value.as_bytes());
    let decoded = match unquoted.contains(&b'%') {
        true => Cow::Owned(percent_decode(&unquoted)),
        false => unquoted,
    };
    let not_utf8 = || {
        illegal(format!(
            "header {name} is not UTF-8 when it is percent-decoded"
        ))
    };
    match decoded {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes)
            .map(Cow::Borrowed)
            .map_err(|_| not_utf8()),
        Cow::Owned(bytes) => String::from_utf8(bytes)
            .map(Cow::Owned)
            .map_err(|_| not_utf8()),
    }
}

/// The content of a quoted string (RFC 9110, 5.6.4); anything else as it is.
fn unquote(bytes: &[u8]) -> Cow<'_, [u8]> {
    let inner = bytes
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    match inner {
        None => Cow::Borrowed(bytes),
        Some(inner) if !inner.contains(&b'\\') => Cow::Borrowed(inner),
        Some(inner) => {
            let mut out = Vec::with_capacity(inner.len());
            let mut bytes = inner.iter();
            while let Some(&byte) = bytes.next() {
                let escaped = (byte == b'\\').then(|| bytes.next()).flatten();
                out.push(escaped.copied().unwrap_or(byte));
            }
            Cow::Owned(out)
        }
    }
}

fn percent_decode(bytes: &[u8]) -> Vec<u8> {
    let hex = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escape = (byte == b'%')
            .then(|| Some(hex(after.first())? * 16 + hex(after.get(1))?))
            .flatten()
            .and_then(|byte| u8::try_from(byte).ok());
        match escape {
            Some(decoded) => {
                out.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            None => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: &[u8]) -> Result<String, Refusal> {
        let value = HeaderValue::from_bytes(value).unwrap();
        decode("ce-subject", &value).map(Cow::into_owned)
    }

    #[test]
    fn headers_are_unquoted_and_percent_decoded_once() {
        for (value, read) in [
            ("plain", "plain"),
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            ("%e2%82%ac", "€"),
            ("%2525", "%25"),
            ("100%", "100%"),
            ("50%zz%4", "50%zz%4"),
            ("\"two words\"", "two words"),
            (r#""a \"quote\" \\ %20""#, r#"a "quote" \  "#),
            ("\"", "\""),
            ("€", "€"),
        ] {
            assert_eq!(text(value.as_bytes()).unwrap(), read, "{value}");
        }
        assert_eq!(text(b"%ff").unwrap_err().code, "illegal_attribute");
        assert_eq!(text(b"\xe9").unwrap_err().code, "illegal_attribute");
    }

    proptest! {
        /// What an SDK writes as the binding says (3.1.3.2) is read as it was.
        #[test]
        fn encoded_text_reads_back(subject in "\\PC{0,40}") {
            let mut encoded = String::new();
            for byte in subject.bytes() {
                match byte {
                    b'"' | b'%' => encoded.push_str(&format!("%{byte:02X}")),
                    b'!'..=b'~' => encoded.push(char::from(byte)),
                    _ => encoded.push_str(&format!("%{byte:02X}")),
                }
            }
            prop_assert_eq!(text(encoded.as_bytes()).unwrap(), subject);
        }

        #[test]
        fn any_header_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _ = decode("ce-id", &value);
            }
        }
    }
}
