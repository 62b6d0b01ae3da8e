//! Which addresses a webhook may be reached at: a tenant types the URL, and must not reach what only
//! this machine or this network can reach (SSRF).
//!
//! Refused is whatever IANA's registries of special-purpose addresses (RFC 6890) do not call globally
//! reachable, and the IPv6 forms that carry such an IPv4 address. An operator opens networks on
//! purpose: a PBX's CRM is often next to it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why an address is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// No address at all: `0.0.0.0/8`, `::`.
    Unspecified,
    /// This machine.
    Loopback,
    /// A private network (RFC 1918, RFC 4193).
    Private,
    /// This link (RFC 3927, RFC 4291).
    LinkLocal,
    /// A provider's own network (RFC 6598).
    CarrierNat,
    /// Where a cloud tells a machine its secrets.
    Metadata,
    /// Many machines at a time.
    Multicast,
    /// Examples in documents (RFC 5737, RFC 3849, RFC 9637).
    Documentation,
    /// Measurements (RFC 2544, RFC 5180).
    Benchmarking,
    /// Anything else that is not for the internet.
    Reserved,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::CarrierNat => "carrier-grade NAT",
            Self::Metadata => "cloud metadata",
            Self::Multicast => "multicast",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::Reserved => "reserved",
        })
    }
}

/// An address that a webhook may not be reached at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{address}, a {kind} address; an operator can open it with dispatcher.allow_networks")]
pub struct Refused {
    /// Which.
    pub address: IpAddr,
    /// Why.
    pub kind: Kind,
}

/// Single addresses, before the networks they are in. The last two are public addresses to everybody
/// else.
const METADATA_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Longer prefixes first where they overlap.
const V4: [([u8; 4], u8, Kind); 17] = [
    ([0, 0, 0, 0], 8, Kind::Unspecified),
    ([10, 0, 0, 0], 8, Kind::Private),
    ([100, 64, 0, 0], 10, Kind::CarrierNat),
    ([127, 0, 0, 0], 8, Kind::Loopback),
    ([169, 254, 0, 0], 16, Kind::LinkLocal),
    ([172, 16, 0, 0], 12, Kind::Private),
    ([192, 0, 0, 0], 24, Kind::Reserved),
    ([192, 0, 2, 0], 24, Kind::Documentation),
    ([192, 31, 196, 0], 24, Kind::Reserved),
    ([192, 52, 193, 0], 24, Kind::Reserved),
    ([192, 88, 99, 0], 24, Kind::Reserved),
    ([192, 168, 0, 0], 16, Kind::Private),
    ([198, 18, 0, 0], 15, Kind::Benchmarking),
    ([198, 51, 100, 0], 24, Kind::Documentation),
    ([203, 0, 113, 0], 24, Kind::Documentation),
    ([224, 0, 0, 0], 4, Kind::Multicast),
    ([240, 0, 0, 0], 4, Kind::Reserved),
];
const V6: [([u16; 4], u8, Kind); 9] = [
    ([0x2001, 2, 0, 0], 48, Kind::Benchmarking),
    ([0x2001, 0, 0, 0], 23, Kind::Reserved),
    ([0x2001, 0xdb8, 0, 0], 32, Kind::Documentation),
    ([0x3fff, 0, 0, 0], 20, Kind::Documentation),
    ([0x5f00, 0, 0, 0], 16, Kind::Reserved),
    ([0xfc00, 0, 0, 0], 7, Kind::Private),
    ([0xfe80, 0, 0, 0], 10, Kind::LinkLocal),
    ([0xfec0, 0, 0, 0], 10, Kind::Private),
    ([0xff00, 0, 0, 0], 8, Kind::Multicast),
];
/// Where the internet's IPv6 addresses are (RFC 4291 §2.4).
const GLOBAL_V6: u128 = 0x2 << 124;
const GLOBAL_V6_PREFIX: u8 = 3;

/// What kind of special address this is; `None`: one of the internet.
pub fn kind_of(address: IpAddr) -> Option<Kind> {
    match address {
        IpAddr::V4(address) => kind_of_v4(address),
        IpAddr::V6(address) => kind_of_v6(address),
    }
}

fn kind_of_v4(address: Ipv4Addr) -> Option<Kind> {
    if METADATA_V4.contains(&address) {
        return Some(Kind::Metadata);
    }
    let bits = u32::from(address);
    V4.iter()
        .find(|(network, prefix, _)| (bits ^ u32::from_be_bytes(*network)) >> (32 - prefix) == 0)
        .map(|(.., kind)| *kind)
}

fn kind_of_v6(address: Ipv6Addr) -> Option<Kind> {
    match address {
        Ipv6Addr::LOCALHOST => return Some(Kind::Loopback),
        _ if METADATA_V6.contains(&address) => return Some(Kind::Metadata),
        _ => {}
    }
    if let Some((inner, alone)) = embedded(address) {
        let kind = kind_of_v4(inner);
        if kind.is_some() || alone {
            return kind;
        }
    }
    let bits = u128::from(address);
    let within = |network: u128, prefix: u8| (bits ^ network) >> (128 - prefix) == 0;
    let listed = V6.iter().find(|([a, b, c, d], prefix, _)| {
        let network = Ipv6Addr::new(*a, *b, *c, *d, 0, 0, 0, 0);
        within(u128::from(network), *prefix)
    });
    match listed {
        Some((.., kind)) => Some(*kind),
        None if within(GLOBAL_V6, GLOBAL_V6_PREFIX) => None,
        None => Some(Kind::Reserved),
    }
}

/// The IPv4 address that packets to this IPv6 address end up at, or are said to; and whether that is
/// all there is to it.
fn embedded(address: Ipv6Addr) -> Option<(Ipv4Addr, bool)> {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        // Compatible (RFC 4291 §2.5.5.1), mapped (§2.5.5.2), translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some((v4(high, low), true)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => Some((v4(high, low), false)),
        // Teredo (RFC 4380): the client's address, every bit turned over.
        [0x2001, 0, .., high, low] => Some((v4(!high, !low), false)),
        // ISATAP (RFC 5214) within any network.
        [.., 0 | 0x200, 0x5efe, high, low] => Some((v4(high, low), false)),
        _ => None,
    }
}

/// A network, `10.0.0.0/8` or `fd00::/8`; a single address is one, too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no network.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is no network: use an address and a prefix without further bits, like 10.0.0.0/8 or fd00::/8, or loopback, private, link-local, carrier-nat"
)]
pub struct InvalidNetwork(String);

impl Network {
    /// Whether an address is in it. An IPv6 form of an IPv4 address is in that address's networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differs = u64::from(u32::from(network) ^ u32::from(address));
                differs >> (32 - self.prefix) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differs = u128::from(network) ^ u128::from(address);
                differs
                    .checked_shr(128 - u32::from(self.prefix))
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V4(_), IpAddr::V6(address)) => {
                embedded(address).is_some_and(|(inner, _)| self.contains(IpAddr::V4(inner)))
            }
            (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let invalid = || InvalidNetwork(text.chars().take(64).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let bits = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let plain = |prefix: &str| prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = match prefix {
            None => bits,
            Some(prefix) if plain(prefix) => prefix.parse().map_err(|_| invalid())?,
            Some(_) => return Err(invalid()),
        };
        let further = match address {
            _ if prefix > bits => return Err(invalid()),
            IpAddr::V4(v4) => {
                let bits = u64::from(u32::from(v4));
                bits.checked_shl(32 + u32::from(prefix)).unwrap_or(0) != 0
            }
            IpAddr::V6(v6) => u128::from(v6).checked_shl(prefix.into()).unwrap_or(0) != 0,
        };
        match further {
            true => Err(invalid()),
            false => Ok(Self { address, prefix }),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = InvalidNetwork;

    fn try_from(text: String) -> Result<Self, InvalidNetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// What an operator opens: a network, or all addresses of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub enum Opening {
    /// These addresses, of whatever kind.
    Network(Network),
    /// All addresses of this kind. Cloud metadata within a private network stays closed.
    Kind(Kind),
}

impl Opening {
    /// This machine.
    pub const LOOPBACK: Self = Self::Kind(Kind::Loopback);

    /// Kinds that are opened by name. What else there is, nobody needs whole.
    const NAMED: [(&str, Kind); 4] = [
        ("loopback", Kind::Loopback),
        ("private", Kind::Private),
        ("link-local", Kind::LinkLocal),
        ("carrier-nat", Kind::CarrierNat),
    ];

    /// Whether an address is among these.
    pub fn contains(self, address: IpAddr) -> bool {
        match self {
            Self::Network(network) => network.contains(address),
            Self::Kind(kind) => kind_of(address) == Some(kind),
        }
    }

    fn opens(self, address: IpAddr, kind: Kind) -> bool {
        match self {
            Self::Network(network) => network.contains(address),
            Self::Kind(opened) => opened == kind,
        }
    }
}

impl FromStr for Opening {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let named = Self::NAMED.iter().find(|(name, _)| *name == text);
        match named {
            Some((_, kind)) => Ok(Self::Kind(*kind)),
            None => text.parse().map(Self::Network),
        }
    }
}

impl TryFrom<String> for Opening {
    type Error = InvalidNetwork;

    fn try_from(text: String) -> Result<Self, InvalidNetwork> {
        text.parse()
    }
}

impl From<Opening> for String {
    fn from(opening: Opening) -> Self {
        opening.to_string()
    }
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Kind(kind) => {
                let named = Self::NAMED.iter().find(|(_, named)| named == kind);
                f.write_str(named.map_or("", |(name, _)| name))
            }
        }
    }
}

/// Where webhooks may be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AddressPolicy {
    /// What is open although it is not of the internet.
    opened: Vec<Opening>,
}

impl AddressPolicy {
    /// The internet, and what is opened besides.
    pub fn opening(opened: Vec<Opening>) -> Self {
        Self { opened }
    }

    /// Whether a webhook may be reached at an address. Asked about the address that is then dialled,
    /// after resolution: a name may resolve to another one the next time.
    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        match kind_of(address) {
            Some(kind) if !self.opened.iter().any(|open| open.opens(address, kind)) => {
                Err(Refused { address, kind })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod page;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::properties::reach;

    fn kind(text: &str) -> Option<Kind> {
        kind_of(text.parse().unwrap())
    }

    #[test]
    fn configuration_is_written_as_it_is_read() {
        let network: Network = "10.1.0.0/16".parse().unwrap();
        assert_eq!(String::from(network), "10.1.0.0/16");
        for text in ["10.1.0.0/16", "private"] {
            let opening: Opening = text.parse().unwrap();
            assert_eq!(String::from(opening), text);
        }
    }

    /// First and last address of every refused range, and their neighbours outside.
    #[test]
    fn ranges_end_where_they_end() {
        use Kind::*;
        for (inside, expected) in [
            ("0.0.0.0 0.255.255.255 ::", Unspecified),
            ("127.0.0.1 127.255.255.255 ::1", Loopback),
            (
                "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255",
                Private,
            ),
            ("fc00:: fdff:ffff::1 fec0::1", Private),
            (
                "169.254.0.1 169.254.255.255 fe80::1 febf:ffff::1",
                LinkLocal,
            ),
            ("100.64.0.0 100.127.255.255", CarrierNat),
            (
                "169.254.169.254 169.254.170.2 100.100.100.200 168.63.129.16 192.0.0.192 fd00:ec2::254 fd20:ce::254",
                Metadata,
            ),
            ("224.0.0.1 239.255.255.255 ff02::1", Multicast),
            (
                "192.0.2.1 198.51.100.255 203.0.113.0 2001:db8::1 3fff::1 3fff:fff::1",
                Documentation,
            ),
            ("198.18.0.0 198.19.255.255 2001:2::1", Benchmarking),
            (
                "192.0.0.1 192.31.196.1 192.52.193.1 192.88.99.1 240.0.0.1 255.255.255.255",
                Reserved,
            ),
            (
                "2001:1::1 2001:1ff::1 100::1 5f00::1 4000::1 64:ff9b:1::1 200::1",
                Reserved,
            ),
        ] {
            for address in inside.split(' ') {
                assert_eq!(kind(address), Some(expected), "{address}");
            }
        }
        for outside in "1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 \
            128.0.0.0 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 \
            192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 8.8.8.8 \
            2001:200:: 2001:db7::1 2001:db9::1 3ffe::1 3fff:1000::1 2606:4700::1111 2a00::1"
            .split_whitespace()
        {
            assert_eq!(kind(outside), None, "{outside}");
        }
    }

    #[test]
    fn a_compatible_address_is_its_ipv4_address() {
        assert_eq!(kind("::127.0.0.1"), Some(Kind::Loopback));
        assert_eq!(kind("::8.8.8.8"), None);
        // Only at the end of a network of the internet.
        assert_eq!(kind("0:1:2:3:0:5efe:808:808"), Some(Kind::Reserved));
    }

    proptest! {
        #[test]
        fn no_form_hides_an_address(bits in prop_oneof![
            any::<u32>(),
            (0usize..V4.len(), any::<u32>()).prop_map(|(row, low)| {
                let (network, prefix, _) = V4[row];
                u32::from_be_bytes(network) | (low >> prefix)
            }),
        ]) {
            reach::no_form_hides_an_address(bits.into());
        }

        #[test]
        fn networks_read_back(bits in any::<u128>(), prefix in 0u8..=128, v4 in any::<bool>()) {
            let network = match v4 {
                true => {
                    let prefix = prefix % 33;
                    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                    Network { address: Ipv4Addr::from(bits as u32 & mask).into(), prefix }
                }
                false => {
                    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                    Network { address: Ipv6Addr::from(bits & mask).into(), prefix }
                }
            };
            let text = network.to_string();
            prop_assert_eq!(text.parse(), Ok(network));
            reach::an_opening_reads_back(&text, &[network.address, Ipv6Addr::from(bits).into()]);
        }
    }

    #[test]
    fn operators_open_networks() {
        let policy = AddressPolicy::opening(vec![
            "10.1.0.0/16".parse().unwrap(),
            "fd00:1::/32".parse().unwrap(),
            "127.0.0.1".parse().unwrap(),
        ]);
        let check = |text: &str| policy.check(text.parse().unwrap());
        for open in [
            "10.1.2.3",
            "::ffff:10.1.2.3",
            "fd00:1::5",
            "127.0.0.1",
            "8.8.8.8",
        ] {
            assert_eq!(check(open), Ok(()), "{open}");
        }
        for closed in ["10.2.0.1", "fd00:2::5", "127.0.0.2", "::1"] {
            assert!(check(closed).is_err(), "{closed}");
        }
        let everything =
            AddressPolicy::opening(vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
        for open in ["169.254.169.254", "::1", "224.0.0.1"] {
            assert_eq!(everything.check(open.parse().unwrap()), Ok(()));
        }
        let text = check("10.2.0.1").unwrap_err().to_string();
        assert_eq!(
            text,
            "10.2.0.1, a private address; an operator can open it with dispatcher.allow_networks"
        );
    }

    /// A kind is opened in every form of its addresses, and nothing with it that only lies within.
    #[test]
    fn an_opening_has_the_addresses_of_its_network_or_kind() {
        let private: IpAddr = "10.1.2.3".parse().unwrap();
        for (opening, expected) in [
            ("private", true),
            ("10.0.0.0/8", true),
            ("loopback", false),
            ("10.2.0.0/16", false),
        ] {
            let opening: Opening = opening.parse().unwrap();
            assert_eq!(opening.contains(private), expected, "{opening}");
        }
    }

    #[test]
    fn operators_open_kinds() {
        for (name, opened, closed) in [
            (
                "loopback",
                "127.0.0.1 127.9.9.9 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1",
                "0.0.0.0 10.0.0.1 ::",
            ),
            (
                "private",
                "10.0.0.1 172.16.0.1 192.168.1.1 fd00:1::1",
                "127.0.0.1 fd00:ec2::254 100.64.0.1",
            ),
            ("link-local", "169.254.1.1 fe80::1", "169.254.169.254"),
            ("carrier-nat", "100.64.0.1", "100.100.100.200"),
        ] {
            let opening: Opening = name.parse().unwrap();
            assert_eq!(opening.to_string(), name);
            let policy = AddressPolicy::opening(vec![opening]);
            for address in opened.split(' ') {
                assert_eq!(policy.check(address.parse().unwrap()), Ok(()), "{address}");
            }
            for address in closed.split(' ') {
                assert!(policy.check(address.parse().unwrap()).is_err(), "{address}");
            }
        }
        for wrong in ["Loopback", "metadata", "multicast", "localhost", ""] {
            assert!(wrong.parse::<Opening>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "fd00::1/8",
            "10.0.0.0/+8",
            "10/8",
            "::/129",
            "a/8",
            "10.0.0.0/",
        ] {
            let error = text.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains("10.0.0.0/8"), "{error}");
        }
    }
}
