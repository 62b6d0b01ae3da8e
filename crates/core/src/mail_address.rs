//! Addresses that mail about webhooks goes to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest address, in bytes (RFC 5321 §4.5.3.1.3, without the brackets).
const BYTES_MAX: usize = 254;
/// Longest part before the `@`.
const LOCAL_BYTES_MAX: usize = 64;

/// A mail address: `local@domain` in ASCII, without quoting, comments or literals. So nothing in it can
/// end a header or an SMTP command.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MailAddress(String);

/// A text is no mail address that we send to.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a mail address such as admin@example.com")]
pub struct InvalidMailAddress(pub String);

impl MailAddress {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self, InvalidMailAddress> {
        let wrong = || InvalidMailAddress(text.chars().take(BYTES_MAX).collect());
        let (local, domain) = text.split_once('@').ok_or_else(wrong)?;
        let right = text.len() <= BYTES_MAX
            && local.len() <= LOCAL_BYTES_MAX
            && local.split('.').all(is_atom)
            && domain.split('.').all(is_label);
        match right {
            true => Ok(Self(text.to_owned())),
            false => Err(wrong()),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands behind the `@`.
    pub fn domain(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, domain)| domain)
    }
}

/// `atext` of RFC 5322.
fn is_atom(part: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
    !part.is_empty() && part.bytes().all(letter)
}

fn is_label(part: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&part.len())
        && part.bytes().all(letter)
        && !part.starts_with('-')
        && !part.ends_with('-')
}

impl fmt::Display for MailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for MailAddress {
    type Error = InvalidMailAddress;

    fn try_from(text: String) -> Result<Self, InvalidMailAddress> {
        Self::parse(&text)
    }
}

impl From<MailAddress> for String {
    fn from(address: MailAddress) -> Self {
        address.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_taken() {
        for right in [
            "a@b",
            "first.last+tag@mail.example.com",
            "o'neil@xn--9ca.fr",
        ] {
            assert_eq!(MailAddress::parse(right).unwrap().as_str(), right);
        }
        let domain = MailAddress::parse("a@b.example").unwrap();
        assert_eq!(domain.domain(), "b.example");
        let local = "l".repeat(65);
        let long = format!("a@{}", vec!["d".repeat(60); 5].join("."));
        for wrong in [
            "",
            "a",
            "@b",
            "a@",
            "a@b@c",
            "a b@c",
            "a@b\r\nBcc: x@y",
            "a\n@b",
            "<a@b>",
            "\"a\"@b",
            "a..b@c",
            ".a@b",
            "a@b..c",
            "a@-b",
            "a@b-",
            "a@[127.0.0.1]",
            "ä@b",
            "a@ö.de",
            "a@b,c@d",
            "a@b c@d",
            &format!("{local}@b"),
            &long,
        ] {
            MailAddress::parse(wrong).unwrap_err();
        }
        let longest = format!("{}@b", &local[1..]);
        assert_eq!(MailAddress::parse(&longest).unwrap().to_string(), longest);
    }

    #[test]
    fn lengths_have_their_limits() {
        let label = |length: usize| format!("a@{}.b", "d".repeat(length));
        MailAddress::parse(&label(63)).unwrap();
        MailAddress::parse(&label(64)).unwrap_err();
        let whole = |last: usize| {
            let part = "d".repeat(63);
            format!("a@{part}.{part}.{part}.{}", "e".repeat(last))
        };
        assert_eq!(whole(60).len(), BYTES_MAX);
        MailAddress::parse(&whole(60)).unwrap();
        MailAddress::parse(&whole(61)).unwrap_err();
    }

    #[test]
    fn an_address_is_a_text_in_records() {
        let address = MailAddress::parse("a@b.example").unwrap();
        let json = serde_json::to_string(&address).unwrap();
        assert_eq!(json, "\"a@b.example\"");
        assert_eq!(serde_json::from_str::<MailAddress>(&json).unwrap(), address);
        serde_json::from_str::<MailAddress>("\"a@\"").unwrap_err();
    }
}
