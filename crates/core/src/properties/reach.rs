//! Properties of URLs and addresses: no text gets past the policy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use url::{Host, Url};

use crate::address::{AddressPolicy, Kind, Network, Opening, Refused, kind_of};
use crate::target::{Reach, URL_BYTES_MAX, Unreachable, check_url};

/// The text of a URL.
pub fn url(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    a_url_is_safe_or_refused(&text);
    no_error_repeats_a_secret(&text);
}

/// 16 bytes of an address, then the text of an opening.
pub fn address(input: &[u8]) {
    let (bits, text) = input.split_at(input.len().min(16));
    let mut bytes = [0; 16];
    for (byte, given) in bytes.iter_mut().zip(bits) {
        *byte = *given;
    }
    let bits = u128::from_be_bytes(bytes);
    let (v4, v6) = (bits as u32, Ipv6Addr::from(bits));
    no_form_hides_an_address(v4.into());
    an_ipv6_address_is_read(v6);
    let [parts, b0, b1, b2, b3, ..] = bytes;
    an_address_is_read_in_every_spelling(v4, 1 + usize::from(parts) % 4, [b0, b1, b2, b3]);
    let text = String::from_utf8_lossy(text);
    an_opening_reads_back(&text, &[v6.into(), Ipv4Addr::from(v4).into()]);
}

/// What is accepted is what its normal form says, to whoever reads that; and names nothing that is closed.
pub(crate) fn a_url_is_safe_or_refused(text: &str) {
    let checked = check_url(text);
    let reached = Reach::default().check(text);
    let Ok(url) = checked else {
        assert!(matches!(reached, Err(Unreachable::Url(_))));
        return;
    };
    // The normal form is what is stored and checked again before each request.
    let normal = url.as_str();
    assert_eq!(check_url(normal).as_ref().map(Url::as_str), Ok(normal));
    assert!(normal.len() <= URL_BYTES_MAX && normal.bytes().all(|byte| byte.is_ascii_graphic()));
    // The host is the same by the simplest of readings.
    let (scheme, rest) = normal.split_once("://").unwrap_or_default();
    assert!(["http", "https"].contains(&scheme), "{normal}");
    assert!(!normal.contains(['\\', '#']), "{normal}");
    let (authority, _) = rest.split_once('/').unwrap_or_default();
    assert!(!authority.contains(['@', '%', '?']), "{normal}");
    let host = match url.port() {
        Some(port) => authority
            .strip_suffix(&format!(":{port}"))
            .unwrap_or_default(),
        None => authority,
    };
    assert_eq!(Some(host), url.host_str(), "{normal}");
    assert_ne!(url.port_or_known_default(), Some(0));
    let literal: Option<IpAddr> = match host.strip_prefix('[') {
        Some(host) => Some(host.trim_end_matches(']').parse().unwrap()),
        None => host.parse().ok(),
    };
    let open = match literal {
        Some(address) => kind_of(address).is_none(),
        None => {
            // What some resolver would take for a number.
            let last = host.rsplit('.').next().unwrap_or_default();
            let number = last.bytes().all(|byte| byte.is_ascii_digit())
                || last.starts_with("0x") && last[2..].bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(!number, "{normal}");
            last != "localhost"
        }
    };
    match reached {
        Ok(reached) => assert!(open && reached == url, "{normal}"),
        Err(Unreachable::Port(port)) => assert_eq!(Some(port), url.port_or_known_default()),
        Err(error) => assert!(!open, "{error}"),
    }
}

/// Whatever else is wrong with it.
pub(crate) fn no_error_repeats_a_secret(text: &str) {
    const SECRET: &str = "hunter2-secret";
    for text in [
        format!("https://user:{SECRET}@{text}"),
        format!("{text}:{SECRET}@a.example/"),
        format!("https://a.example/?{text}{SECRET}"),
        format!("{text}?{SECRET}"),
    ] {
        if let Err(error) = Reach::default().check(&text) {
            assert!(!error.to_string().contains(SECRET), "{error}");
        }
    }
}

/// Every IPv6 form of an IPv4 address.
fn forms(v4: Ipv4Addr) -> [Ipv6Addr; 7] {
    let [high, low] = [u32::from(v4) >> 16, u32::from(v4)].map(|half| half as u16);
    [
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
        Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0x2a00, 1, 2, 3, 0, 0x5efe, high, low),
        Ipv6Addr::new(0x2001, 0, 0x4136, 0xe378, 0x8000, 0x63bf, !high, !low),
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0x200, 0x5efe, high, low),
    ]
}

/// What is refused as IPv4 is refused in every disguise, and what is open is open in each.
pub(crate) fn no_form_hides_an_address(v4: Ipv4Addr) {
    let open: Network = format!("{v4}/32").parse().unwrap();
    let policy = AddressPolicy::opening(vec![Opening::Network(open)]);
    // Teredo is over (RFC 6890), and a link stays a link.
    let otherwise = [
        None,
        None,
        None,
        None,
        None,
        Some(Kind::Reserved),
        Some(Kind::LinkLocal),
    ];
    for (form, otherwise) in forms(v4).into_iter().zip(otherwise) {
        let expected = kind_of(v4.into()).or(otherwise);
        assert_eq!(kind_of(form.into()), expected, "{v4} {form}");
        assert_eq!(policy.check(form.into()), Ok(()), "{v4} {form}");
    }
}

/// Every number that may stand for an IPv4 address, in any base and with any number of parts.
pub(crate) fn an_address_is_read_in_every_spelling(bits: u32, parts: usize, bases: [u8; 4]) {
    let v4 = Ipv4Addr::from(bits);
    let before = v4.octets().into_iter().take(parts - 1).map(u32::from);
    let left = 8 * (5 - parts) as u32;
    let last = bits & u32::MAX.checked_shr(32 - left).unwrap_or(u32::MAX);
    let fields = before.chain([last]).zip(bases);
    let spelled: Vec<_> = fields
        .map(|(field, base)| match base % 3 {
            0 => field.to_string(),
            1 => format!("{field:#x}"),
            _ => format!("0{field:o}"),
        })
        .collect();
    let checked = Reach::default().check(&format!("http://{}/", spelled.join(".")));
    match kind_of(v4.into()) {
        None => assert_eq!(checked.unwrap().host(), Some(Host::Ipv4(v4))),
        Some(kind) => {
            let refused = Refused {
                address: v4.into(),
                kind,
            };
            assert_eq!(checked, Err(Unreachable::Address(refused)));
        }
    }
}

/// In a URL it is what it is.
pub(crate) fn an_ipv6_address_is_read(v6: Ipv6Addr) {
    let checked = Reach::default().check(&format!("http://[{v6}]/"));
    assert_eq!(checked.is_ok(), kind_of(v6.into()).is_none(), "{v6}");
}

/// What an operator opens is written as it is read, opens what it contains, and nothing else.
pub(crate) fn an_opening_reads_back(text: &str, addresses: &[IpAddr]) {
    let Ok(opening) = Opening::from_str(text) else {
        return;
    };
    assert_eq!(opening.to_string().parse(), Ok(opening), "{text}");
    let policy = AddressPolicy::opening(vec![opening]);
    for address in addresses {
        let expected = match (kind_of(*address), opening) {
            (None, _) => true,
            (Some(kind), Opening::Kind(opened)) => kind == opened,
            (Some(_), Opening::Network(network)) => network.contains(*address),
        };
        assert_eq!(policy.check(*address).is_ok(), expected, "{text} {address}");
        let contained = match opening {
            Opening::Kind(_) => expected && kind_of(*address).is_some(),
            Opening::Network(network) => network.contains(*address),
        };
        assert_eq!(opening.contains(*address), contained, "{text} {address}");
    }
    if let Opening::Network(network) = opening {
        let base = opening.to_string();
        let (base, _) = base.split_once('/').unwrap_or_default();
        assert!(network.contains(base.parse().unwrap()), "{text}");
    }
}
