//! That `docs/addresses.md` lists every range, and each is what it says.

use super::*;

/// The rows of its table: a kind, and its networks.
fn rows() -> Vec<(&'static str, Vec<Network>)> {
    let page = include_str!("../../../../docs/addresses.md");
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let (kind, addresses) = (cells.next()?, cells.next()?);
        let addresses = addresses.split(" outside ").next()?;
        // Code between backquotes; names (localhost) are no networks.
        let quoted = addresses.split('`').skip(1).step_by(2);
        let networks: Vec<_> = quoted.filter_map(|text| text.parse().ok()).collect();
        (!networks.is_empty()).then_some((kind, networks))
    });
    rows.collect()
}

/// Its first and its last address.
fn ends(network: &Network) -> [IpAddr; 2] {
    let last = match network.address {
        IpAddr::V4(first) => {
            let further = u32::MAX.checked_shr(network.prefix.into()).unwrap_or(0);
            IpAddr::V4((u32::from(first) | further).into())
        }
        IpAddr::V6(first) => {
            let further = u128::MAX.checked_shr(network.prefix.into()).unwrap_or(0);
            IpAddr::V6((u128::from(first) | further).into())
        }
    };
    [network.address, last]
}

#[test]
fn the_page_lists_every_range() {
    let rows = rows();
    let mut listed = Vec::new();
    for (kind, networks) in &rows {
        for network in networks {
            listed.push(network.to_string());
            for address in ends(network) {
                // A smaller network within it may be of another kind.
                let within = |other: &&Network| other.contains(address);
                let smallest = rows.iter().flat_map(|(kind, networks)| {
                    let networks = networks.iter().filter(within);
                    networks.map(move |network| (network.prefix, *kind))
                });
                let (_, expected) = smallest.max_by_key(|(prefix, _)| *prefix).unwrap();
                let found = kind_of(address).map(|kind| kind.to_string());
                assert_eq!(
                    found.as_deref(),
                    Some(expected),
                    "{address} of {network}, {kind}"
                );
            }
        }
    }
    let v4 = V4.map(|(address, prefix, _)| format!("{}/{prefix}", Ipv4Addr::from(address)));
    let v6 = V6.map(|([a, b, c, d], prefix, _)| {
        format!("{}/{prefix}", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
    });
    let single_v4 = METADATA_V4.map(|address| format!("{address}/32"));
    let single_v6 = METADATA_V6.map(|address| format!("{address}/128"));
    for network in v4.iter().chain(&v6).chain(&single_v4).chain(&single_v6) {
        assert!(
            listed.contains(network),
            "docs/addresses.md lacks {network}"
        );
    }
    // Besides them `::` and `::1`, which are told apart by name.
    assert_eq!(
        listed.len(),
        v4.len() + v6.len() + single_v4.len() + single_v6.len() + 2
    );
}
