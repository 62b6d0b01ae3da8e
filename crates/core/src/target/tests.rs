//! The rules for URLs, a row for each, and that no spelling of an address gets past the policy.

use proptest::prelude::*;

use super::*;
use crate::address::{Kind, Opening};
use crate::properties::reach;

#[test]
fn an_origin_is_scheme_host_and_port() {
    let url = "https://crm.example.com/cdr?x=1";
    for (other, same) in [
        ("https://CRM.example.com:443/other", true),
        ("http://crm.example.com/cdr?x=1", false),
        ("https://crm.example.com:8443/cdr?x=1", false),
        ("https://crm.example.org/cdr?x=1", false),
        ("nonsense", false),
    ] {
        assert_eq!(same_origin(url, other), same, "{other}");
    }
    // Who knows where they lead.
    assert!(!same_origin("nonsense", "nonsense"));
}

/// What is accepted, and its normal form.
#[test]
fn urls_that_are_accepted() {
    for (text, normal) in [
        (
            "https://crm.example.com/hook?x=1",
            "https://crm.example.com/hook?x=1",
        ),
        ("HTTPS://CRM.Example.com", "https://crm.example.com/"),
        ("https://crm.example.com:443/", "https://crm.example.com/"),
        (
            "https://crm.example.com:8443/a/../b",
            "https://crm.example.com:8443/b",
        ),
        ("http://127.0.0.1:8090/", "http://127.0.0.1:8090/"),
        ("https://[::1]/", "https://[::1]/"),
        ("https://crm/", "https://crm/"),
        ("https://crm_1.intern/", "https://crm_1.intern/"),
        // IDN (UTS 46): its normal form is punycode, and punycode is accepted as such.
        (
            "https://bücher.example/ä",
            "https://xn--bcher-kva.example/%C3%A4",
        ),
        (
            "https://xn--bcher-kva.example/",
            "https://xn--bcher-kva.example/",
        ),
        ("https://例え.jp/", "https://xn--r8jz45g.jp/"),
        ("https://a.example/%20?q=%0A", "https://a.example/%20?q=%0A"),
        ("https://a.example/?mail=a@b", "https://a.example/?mail=a@b"),
        // What cannot be seen is mapped away or escaped: people are shown the normal form.
        (
            "https://a\u{ad}.example/\u{202e}",
            "https://a.example/%E2%80%AE",
        ),
        ("https://a.example:/", "https://a.example/"),
    ] {
        let url = check_url(text).unwrap();
        assert_eq!(url.as_str(), normal, "{text}");
    }
    let longest = format!("https://a.example/{}", "x".repeat(2048 - 18));
    check_url(&longest).unwrap();
}

/// What is refused, and a piece of the rule that says so.
#[test]
fn urls_that_are_refused() {
    let long = format!("https://a.example/{}", "x".repeat(2049 - 18));
    let long_escaped = format!("https://a.example/{}", "ä".repeat(900));
    let long_label = format!("https://{}.example/", "a".repeat(64));
    let long_name = format!("https://{}example/", "a.".repeat(130));
    for (text, rule) in [
        ("", "https://host"),
        ("x", "https://host"),
        ("crm.example.com/hook", "https://host"),
        ("//crm.example.com/", "https://host"),
        ("https:crm.example.com", "https://host"),
        ("https:/crm.example.com", "https://host"),
        ("ftp://x/", "use https"),
        ("file:///etc/passwd", "use https"),
        ("gopher://x/", "use https"),
        ("javascript://x/%0aalert(1)", "use https"),
        ("unix:///run/x.sock", "use https"),
        // No host, or an odd one.
        ("https://", "https://host"),
        ("https:///path", "needs a host"),
        ("https://?x", "host"),
        ("https://:443/", "https://host"),
        ("https://./", "host"),
        ("https://a..b/", "labels"),
        ("https://.a/", "labels"),
        ("https://crm.example.com./", "labels"),
        ("https://a!b/", "labels"),
        ("https://a,b/", "labels"),
        ("https://a*b/", "labels"),
        ("https://[::1/", "https://host"),
        ("https://[]/", "https://host"),
        ("https://[::1]x/", "https://host"),
        ("https://[v1.a]/", "https://host"),
        ("https://xn--a/", "https://host"),
        (&long_label, "labels|https://host"),
        (&long_name, "labels"),
        // Numbers that are no address.
        ("https://1.2.3.4.5/", "https://host"),
        ("https://256.1.1.1/", "https://host"),
        ("https://4294967296/", "https://host"),
        ("https://a.0x/", "https://host"),
        // Escapes and zones.
        ("https://%61.example/", "no %"),
        ("https://a%2eexample/", "no %"),
        ("https://[fe80::1%25eth0]/", "no %"),
        ("https://[fe80::1%eth0]/", "no %"),
        ("https://a.example/%00", "%00"),
        ("https://a.example/?q=%00", "%00"),
        // Characters that parsers differ on.
        ("https://a b/", "white space"),
        (" https://a.example/", "white space"),
        ("https://a.example/ ", "white space"),
        ("https:\n//x", "white space"),
        ("https://a.example/\r\nHost: b", "white space"),
        ("https://a.example/\0", "white space"),
        ("https://a.example/\u{85}", "white space"),
        ("https://a.example/\u{2003}", "white space"),
        ("https:\\\\a.example\\", "backslash"),
        ("https://a.example\\@b.example/", "backslash"),
        ("https://x/#f", "fragment"),
        ("https://x/#", "fragment"),
        ("https://x#@y/", "fragment"),
        // User information.
        ("https://user@x/", "authentication"),
        ("https://user:hunter2@x/", "authentication"),
        ("https://@x/", "authentication"),
        ("https://:@x/", "authentication"),
        ("https://a.example:80@x/", "authentication"),
        // Ports.
        ("https://a.example:0/", "port"),
        ("https://a.example:65536/", "https://host"),
        ("https://a.example:-1/", "https://host"),
        ("https://a.example:8o/", "https://host"),
        (&long, "2,048"),
        (&long_escaped, "2,048"),
    ] {
        match check_url(text) {
            Ok(url) => panic!("{text:?} is accepted as {url}"),
            Err(error) => {
                let about = rule.split('|').any(|rule| error.rule.contains(rule));
                assert!(about, "{text:?}: {error}");
            }
        }
    }
}

/// Whatever else is wrong with it.
#[test]
fn no_error_repeats_a_password_or_a_query() {
    for text in [
        "https://user:hunter2@x/",
        "ftp://user:hunter2@x/",
        "https://user:hunter2@x/ y",
        "https:user:hunter2@x",
        "https://user:hunter2@x\\/",
        "user:hunter2@x",
        "https://a b/?token=hunter2",
        "https://x/?token=hunter2#f",
        "https://x/?token=hunter2%00",
    ] {
        let error = check_url(text).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

/// Every kind that is refused, in a URL.
#[test]
fn no_kind_of_address_is_reached_by_a_url() {
    let reach = Reach::default();
    for (host, kind) in [
        ("0.0.0.0", Kind::Unspecified),
        ("[::]", Kind::Unspecified),
        ("127.0.0.1", Kind::Loopback),
        ("[::1]", Kind::Loopback),
        ("localhost", Kind::Loopback),
        ("LOCALHOST", Kind::Loopback),
        ("a.localhost", Kind::Loopback),
        ("10.0.0.1", Kind::Private),
        ("172.16.0.1", Kind::Private),
        ("192.168.0.1", Kind::Private),
        ("[fd00::1]", Kind::Private),
        ("[fec0::1]", Kind::Private),
        ("169.254.1.1", Kind::LinkLocal),
        ("[fe80::1]", Kind::LinkLocal),
        ("100.64.0.1", Kind::CarrierNat),
        ("169.254.169.254", Kind::Metadata),
        ("[fd00:ec2::254]", Kind::Metadata),
        ("100.100.100.200", Kind::Metadata),
        ("168.63.129.16", Kind::Metadata),
        ("224.0.0.1", Kind::Multicast),
        ("[ff02::1]", Kind::Multicast),
        ("192.0.2.1", Kind::Documentation),
        ("198.51.100.1", Kind::Documentation),
        ("203.0.113.1", Kind::Documentation),
        ("[2001:db8::1]", Kind::Documentation),
        ("198.18.0.1", Kind::Benchmarking),
        ("[2001:2::1]", Kind::Benchmarking),
        ("192.0.0.1", Kind::Reserved),
        ("240.0.0.1", Kind::Reserved),
        ("255.255.255.255", Kind::Reserved),
        ("[100::1]", Kind::Reserved),
    ] {
        for scheme in ["http", "https"] {
            let refused = reach.check(&format!("{scheme}://{host}/")).unwrap_err();
            let found = match &refused {
                Unreachable::Address(refused) | Unreachable::Name { refused, .. } => refused.kind,
                other => panic!("{host}: {other}"),
            };
            assert_eq!(found, kind, "{host}");
            assert!(refused.to_string().contains("allow_networks"), "{refused}");
        }
    }
    reach.check("https://93.184.216.34/").unwrap();
    reach.check("https://[2606:4700::1111]/").unwrap();
    reach.check("https://crm.example.com/").unwrap();
    // Not what they look like.
    reach.check("https://localhost.example.com/").unwrap();
    reach.check("https://mylocalhost/").unwrap();
}

/// The same address as parsers of different age read it.
#[test]
fn no_spelling_hides_an_address() {
    let reach = Reach::default();
    for spelling in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0x7F000001",
        "017700000001",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f.0x0.0x0.0x1",
        "127.1",
        "127.0.1",
        "0x7f.1",
        "0177.1",
        "127.0x1",
        "127.0.0.01",
        "0127.0.0.1".trim_start_matches('0'),
        "127.0.0.1.",
        "00000177.0.0.1",
        "１２７.０.０.１",
        "127。0。0。1",
        "①②⑦.⓪.⓪.①",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
        "[2a00:1::5efe:7f00:1]",
        "[0::1]",
        "[0:0::1]",
    ] {
        match reach.check(&format!("http://{spelling}/")) {
            Err(Unreachable::Address(refused)) => {
                assert_eq!(refused.kind, Kind::Loopback, "{spelling}");
            }
            other => panic!("{spelling}: {other:?}"),
        }
    }
    // Cloud metadata, where the short forms are most wanted.
    for spelling in [
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
    ] {
        match reach.check(&format!("http://{spelling}/latest/meta-data/")) {
            Err(Unreachable::Address(refused)) => {
                assert_eq!(refused.kind, Kind::Metadata, "{spelling}");
            }
            other => panic!("{spelling}: {other:?}"),
        }
    }
}

#[test]
fn ports_of_other_services_are_refused_until_they_are_opened() {
    let reach = Reach::default();
    for port in [
        21, 22, 25, 53, 110, 143, 389, 465, 587, 993, 2049, 5060, 6000, 6379, 11211,
    ] {
        let error = reach
            .check(&format!("https://a.example:{port}/"))
            .unwrap_err();
        assert_eq!(error, Unreachable::Port(port));
    }
    for port in [80, 443, 3000, 5000, 8000, 8080, 8443, 8090, 32768, 65535] {
        reach.check(&format!("https://a.example:{port}/")).unwrap();
    }
    let opened = Reach::new(AddressPolicy::default(), vec![5060]);
    opened.check("https://a.example:5060/").unwrap();
    assert!(opened.check("https://a.example:5061/").is_err());
    assert!(PORTS_REFUSED.is_sorted());
}

/// Only what is open is handed over to be dialled.
#[test]
fn of_resolved_addresses_the_open_ones_are_left() {
    let at = |texts: &[&str]| -> Vec<SocketAddr> {
        let parse = |text: &&str| SocketAddr::new(text.parse().unwrap(), 0);
        texts.iter().map(parse).collect()
    };
    let reach = Reach::default();
    let both = at(&["10.0.0.1", "8.8.8.8", "::1", "2606:4700::1111"]);
    let open = reach.check_addresses("a.example", both).unwrap();
    assert_eq!(open, at(&["8.8.8.8", "2606:4700::1111"]));
    let error = reach
        .check_addresses("a.example", at(&["10.0.0.1", "127.0.0.1"]))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the URL cannot be used: a.example resolves to 10.0.0.1, a private address; an operator can open it with dispatcher.allow_networks"
    );
    assert_eq!(reach.check_addresses("a.example", []).unwrap(), []);
    let policy = AddressPolicy::opening(vec![Opening::LOOPBACK]);
    Reach::new(policy, vec![])
        .check("http://localhost:8090/")
        .unwrap();
}

proptest! {
    #[test]
    fn any_text_is_safe_or_refused(text in ".{0,80}") {
        reach::a_url_is_safe_or_refused(&text);
        reach::no_error_repeats_a_secret(&text);
    }

    #[test]
    fn what_looks_like_a_url_is_safe_or_refused(text in "(?i:https?)://[a-zA-Z0-9ä_-]{1,9}(\\.[a-z0-9]{1,5}){0,3}(:[0-9]{1,5})?[/?]\\PC{0,40}") {
        reach::a_url_is_safe_or_refused(&text);
    }

    #[test]
    fn an_address_is_read_in_every_spelling(bits in any::<u32>(), parts in 1usize..=4, bases in any::<[u8; 4]>()) {
        reach::an_address_is_read_in_every_spelling(bits, parts, bases);
    }

    #[test]
    fn an_ipv6_address_is_read(bits in any::<u128>()) {
        reach::an_ipv6_address_is_read(bits.into());
    }
}

#[test]
fn an_error_repeats_what_may_be_shown() {
    for (text, shown) in [
        ("ftp://host/path?key=1", "ftp://host/path"),
        ("ftp://host/path#part", "ftp://host/path"),
        ("ftp://host/pa\u{7f}th", "ftp://host/path"),
        ("ftp://ann:hunter2@host/path", ""),
    ] {
        assert_eq!(presentable(text), shown, "{text}");
        let error = check_url(text).unwrap_err().to_string();
        assert!(error.contains(shown), "{error}");
        assert!(
            !error.contains("key=1") && !error.contains("hunter2"),
            "{error}"
        );
    }
}
