//! What a webhook's URL may be, and what may be reached with it: the rules of `docs/addresses.md`, the
//! same for API, command line and dispatcher.
//!
//! A URL is untrusted text, and so is what its name resolves to. [`check_url`] knows the text alone;
//! [`Reach::check`] what the text tells of the address; [`Reach::check_addresses`] what was resolved.

use std::net::{IpAddr, SocketAddr};

use url::{Host, Url};

use crate::address::{AddressPolicy, Refused};
use crate::webhook::{InvalidWebhook, invalid};

/// Longest URL, as given and in its normal form.
pub const URL_BYTES_MAX: usize = 2048;
/// Longest name of a host, without the dot of the root (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 253;
/// Longest label of such a name (RFC 1035 §2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// Ports of services that a POST could be mistaken by: those that no browser connects to (WHATWG
/// Fetch, "port blocking"), then memcached and Redis, which read a request's lines as commands.
const PORTS_REFUSED: [u16; 84] = [
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102,
    103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465,
    512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993,
    995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6379, 6566, 6665, 6666, 6667,
    6668, 6669, 6679, 6697, 10080, 11211,
];

/// Why nothing is sent to a URL.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unreachable {
    /// It breaks the rules for its text.
    #[error(transparent)]
    Url(#[from] InvalidWebhook),
    /// It names an address that is not open.
    #[error("the URL cannot be used: {0}")]
    Address(Refused),
    /// Its name has no address that is open.
    #[error("the URL cannot be used: {name} resolves to {refused}")]
    Name {
        /// The name.
        name: String,
        /// The first of its addresses.
        refused: Refused,
    },
    /// Its port is that of another service.
    #[error(
        "the URL cannot be used: port {0} belongs to another service than HTTP; use another port, or let the operator open it with dispatcher.allow_ports"
    )]
    Port(u16),
}

/// What webhooks may reach: the operator's policy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reach {
    addresses: AddressPolicy,
    ports: Vec<u16>,
}

impl Reach {
    /// These addresses, and these ports besides the usual ones.
    pub fn new(addresses: AddressPolicy, ports: Vec<u16>) -> Self {
        Self { addresses, ports }
    }

    /// Checks a URL's text, and what can be known of its target without resolving a name. Returns its
    /// normal form.
    pub fn check(&self, text: &str) -> Result<Url, Unreachable> {
        let url = check_url(text)?;
        let port = url.port_or_known_default().unwrap_or_default();
        if PORTS_REFUSED.contains(&port) && !self.ports.contains(&port) {
            return Err(Unreachable::Port(port));
        }
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(name)) if is_localhost(name) => {
                // Known without asking (RFC 6761 §6.3): one of the two is enough.
                let addresses = LOCALHOST.map(|address| SocketAddr::new(address, 0));
                return self.check_addresses(name, addresses).map(|_| url);
            }
            Some(Host::Domain(_)) | None => return Ok(url),
        };
        self.addresses
            .check(literal)
            .map_err(Unreachable::Address)?;
        Ok(url)
    }

    /// Of the addresses that a name resolved to, those that may be dialled; if there are none, why.
    pub fn check_addresses(
        &self,
        name: &str,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>, Unreachable> {
        let mut open = Vec::new();
        let mut refused = None;
        for address in addresses {
            match self.addresses.check(address.ip()) {
                Ok(()) => open.push(address),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        match refused {
            Some(refused) if open.is_empty() => Err(Unreachable::Name {
                name: name.to_owned(),
                refused,
            }),
            _ => Ok(open),
        }
    }
}

const LOCALHOST: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
];

fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether two URLs lead to the same scheme, host and port: to the same receiver, for all one can know.
pub fn same_origin(a: &str, b: &str) -> bool {
    match (Url::parse(a), Url::parse(b)) {
        (Ok(a), Ok(b)) => a.origin() == b.origin(),
        _ => false,
    }
}

/// Checks the text of a webhook's URL and returns its normal form, which is what is kept and used.
/// Errors never repeat a password in it, nor its query.
pub fn check_url(text: &str) -> Result<Url, InvalidWebhook> {
    let wrong = |rule| invalid("url", &presentable(text), rule);
    if text.len() > URL_BYTES_MAX {
        return Err(wrong("at most 2,048 bytes"));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(wrong("no white space or control characters"));
    }
    // What others read as a slash, or as the end of a text.
    if text.contains('\\') || text.contains("%00") {
        return Err(wrong("no backslash and no %00"));
    }
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| wrong("use https://host/path"))?;
    if !["https", "http"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err(wrong("use https (or http)"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(wrong(
            "set user name and password as authentication, not in the URL",
        ));
    }
    if authority.contains('%') {
        return Err(wrong("no % in the host: no escapes and no zone"));
    }
    if text.contains('#') {
        return Err(wrong("no fragment (#…)"));
    }
    let url = Url::parse(text).map_err(|_| wrong("use https://host/path"))?;
    match url.host() {
        Some(Host::Domain(name)) if !is_name(name) => {
            return Err(wrong(
                "a host's name has labels of 1 to 63 letters, digits, '-' and '_', 253 in all, and no dot at its end",
            ));
        }
        Some(_) if authority.starts_with('/') || authority.is_empty() => {
            return Err(wrong("it needs a host"));
        }
        Some(_) => {}
        None => return Err(wrong("it needs a host")),
    }
    if url.port() == Some(0) {
        return Err(wrong("use a port from 1 to 65535"));
    }
    // Escapes and punycode take more room than what they stand for.
    if url.as_str().len() > URL_BYTES_MAX {
        return Err(wrong("at most 2,048 bytes with its escapes"));
    }
    Ok(url)
}

/// Letters are ASCII by now: other ones have become punycode.
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=LABEL_BYTES_MAX).contains(&bytes.len())
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
    };
    name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label)
}

/// A URL for an error's text: without its query, and not at all where it may hold a password.
fn presentable(text: &str) -> String {
    if text.contains('@') {
        return String::new();
    }
    let end = text.find(['?', '#']).unwrap_or(text.len());
    text[..end].chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests;
