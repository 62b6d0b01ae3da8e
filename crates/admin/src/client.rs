//! Where a request came from.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap};
use ringback_core::address::Opening;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of who asks. What a proxy says of it is believed of the configured ones alone: of the
/// addresses in `X-Forwarded-For`, each added behind the others, it is the last that is no such proxy.
pub(crate) fn address(
    extensions: &Extensions,
    headers: &HeaderMap,
    proxies: &[Opening],
) -> Option<IpAddr> {
    let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
    let is_proxy = |address: IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
    let mut client = peer.ip().to_canonical();
    let told: Vec<_> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .collect();
    for told in told.into_iter().rev() {
        if !is_proxy(client) {
            break;
        }
        // What cannot be read was not written by a proxy of ours.
        let Ok(address) = told.trim().parse::<IpAddr>() else {
            break;
        };
        client = address.to_canonical();
    }
    Some(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, told: &[&str]) -> String {
        let mut extensions = Extensions::new();
        let peer: SocketAddr = peer.parse().unwrap();
        extensions.insert(ConnectInfo(peer));
        let headers = told
            .iter()
            .map(|told| (FORWARDED_FOR.parse().unwrap(), told.parse().unwrap()));
        let proxies = ["10.0.0.0/8".parse().unwrap(), "loopback".parse().unwrap()];
        let found = address(&extensions, &headers.collect(), &proxies);
        found.unwrap().to_string()
    }

    #[test]
    fn proxies_are_believed_and_nobody_else() {
        assert_eq!(client("192.0.2.1:1", &[]), "192.0.2.1");
        assert_eq!(client("192.0.2.1:1", &["203.0.113.9"]), "192.0.2.1");
        assert_eq!(client("10.1.1.1:1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(
            client("[::ffff:10.1.1.1]:1", &["203.0.113.9"]),
            "203.0.113.9"
        );
        // What the client itself wrote in front counts for nothing.
        let forged = ["192.0.2.66, 203.0.113.9", "10.2.2.2"];
        assert_eq!(client("[::1]:1", &forged), "203.0.113.9");
        assert_eq!(client("10.1.1.1:1", &["203.0.113.9, unknown"]), "10.1.1.1");
        assert_eq!(client("10.1.1.1:1", &["10.3.3.3"]), "10.3.3.3");
        assert!(address(&Extensions::new(), &HeaderMap::new(), &[]).is_none());
    }
}
