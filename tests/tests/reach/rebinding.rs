//! DNS rebinding, through the system's resolver: a name server of the test's own answers something else
//! each time. The test starts itself again, in namespaces in which nothing but it is reached.

use std::env;
use std::fs;
use std::net::IpAddr;
use std::process::Command;

use ringback_core::verdict::Outcome;
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_tests::rig::{Rig, short_schedule, topics};
use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;

use super::*;

/// What may be reached: it is opened. A documentation address is nobody's.
const OPEN: &str = "203.0.113.7";
/// Set where the namespaces are.
const INSIDE: &str = "RINGBACK_TEST_NAMESPACE";
const TEST: &str = "rebinding::a_refused_address_is_never_dialled_whatever_the_name_server_says";
/// So many attempts to a name that changes its mind.
const ATTEMPTS: usize = 20;

#[test]
fn a_refused_address_is_never_dialled_whatever_the_name_server_says() {
    if env::var_os(INSIDE).is_some() {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(4).enable_all().build().unwrap();
        return runtime.block_on(inside());
    }
    // As root without a namespace for users, where those are not permitted.
    let permitted = ["-rmn", "-mn"].into_iter().find(|how| {
        let tried = Command::new("unshare").args([how, "true"]).output();
        tried.is_ok_and(|output| output.status.success())
    });
    let Some(how) = permitted else {
        let why = "unshare -mn and -rmn are not permitted here: nothing is known about DNS rebinding \
                   through the system's resolver; allow user namespaces, or run as root with CAP_SYS_ADMIN";
        assert!(env::var_os("CI").is_none(), "{why}");
        eprintln!("NOT TESTED: {why}");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let resolv = "nameserver 127.0.0.1\noptions timeout:20 attempts:3\n";
    fs::write(dir.path().join("resolv.conf"), resolv).unwrap();
    fs::write(dir.path().join("nsswitch.conf"), "hosts: files dns\n").unwrap();
    let script = "set -e; dir=$1; shift
        for name in resolv.conf nsswitch.conf; do mount --bind \"$dir/$name\" \"/etc/$name\"; done
        exec python3 \"$@\"";
    let output = Command::new("unshare")
        .args([how, "sh", "-c", script, "sh"])
        .arg(dir.path())
        .args([
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reach/namespace.py"),
            OPEN,
        ])
        .arg(env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

/// What a name is answered, one set of addresses after the other, and from the beginning again.
struct Zone {
    name: &'static str,
    turns: &'static [&'static [&'static str]],
    asked: AtomicUsize,
}

fn zone(name: &'static str, turns: &'static [&'static [&'static str]]) -> Zone {
    Zone {
        name,
        turns,
        asked: AtomicUsize::new(0),
    }
}

impl Zone {
    /// The addresses of one family; each question about IPv4 is a turn.
    fn answer(&self, ipv4: bool) -> Vec<IpAddr> {
        let turn = match ipv4 {
            true => self.asked.fetch_add(1, Ordering::SeqCst),
            false => 0,
        };
        let addresses = self.turns[turn % self.turns.len()].iter();
        let addresses = addresses.map(|text| text.parse::<IpAddr>().unwrap());
        addresses
            .filter(|address| address.is_ipv4() == ipv4)
            .collect()
    }
}

/// Answers every question, to be kept for no time (RFC 1035 §4.1).
async fn name_server(zones: Arc<Vec<Zone>>) {
    let socket = UdpSocket::bind("127.0.0.1:53").await.unwrap();
    tokio::spawn(async move {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query).await {
            let _ = socket.send_to(&reply(&query[..length], &zones), from).await;
        }
    });
}

/// The reply to a query with one question.
fn reply(query: &[u8], zones: &[Zone]) -> Vec<u8> {
    let (mut name, mut at) = (String::new(), 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        name += str::from_utf8(&query[at + 1..end]).unwrap();
        name.push('.');
        at = end;
    }
    let question = &query[12..at + 5];
    let kind = query[at + 2];
    let zone = zones.iter().find(|zone| name == format!("{}.", zone.name));
    let addresses = match (zone, kind) {
        (Some(zone), 1) => zone.answer(true),
        (Some(zone), 28) => zone.answer(false),
        _ => Vec::new(),
    };
    // Of a name that is not there; recursion is available.
    let code = if zone.is_some() { 0x80 } else { 0x83 };
    let mut reply = [
        &query[..2],
        &[0x85, code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0],
    ]
    .concat();
    reply.extend_from_slice(question);
    for address in addresses {
        let octets = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        // The name of the question, kind, class, time to live, length.
        reply.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, octets.len() as u8]);
        reply.extend(octets);
    }
    reply
}

async fn inside() {
    let zones = Arc::new(vec![
        zone("first-open.example", &[&[OPEN], &["127.0.0.1"]]),
        zone("first-closed.example", &[&["127.0.0.1"], &[OPEN]]),
        zone(
            "both.example",
            &[&[OPEN, "127.0.0.1"], &["127.0.0.1", OPEN]],
        ),
        zone("mixed.example", &[&[OPEN, "::1", "::ffff:127.0.0.1"]]),
        zone("closed.example", &[&["127.0.0.1"], &["127.0.0.1", "::1"]]),
        zone("closed-six.example", &[&["::1"]]),
        zone("mapped.example", &[&["::ffff:127.0.0.1"]]),
        // Asked once when it is configured, then by the dispatcher.
        zone("later-closed.example", &[&[OPEN], &["127.0.0.1"]]),
    ]);
    name_server(zones.clone()).await;
    let open = listen(OPEN, 0).await;
    let port = open.local_addr().unwrap().port();
    let reached = count(open);
    // On the same port of everything that is refused.
    let trapped = [
        count(listen("127.0.0.1", port).await),
        count(listen("::1", port).await),
    ];
    let config = Config {
        allow_networks: Some(vec![OPEN.parse().unwrap()]),
        ..config()
    };

    names_that_change(&config, &zones, port).await;
    names_that_are_refused(&config, port).await;
    let before = reached.load(Ordering::SeqCst);
    assert!(before > ATTEMPTS, "{before}");
    in_the_pipeline(&config, port).await;
    assert!(reached.load(Ordering::SeqCst) > before);

    // The traps count, and nobody was in them before.
    for (address, trapped) in ["127.0.0.1", "::1"].into_iter().zip(trapped) {
        let address: IpAddr = address.parse().unwrap();
        let mut stream = TcpStream::connect((address, port)).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 16]).await.unwrap() > 0);
        assert_eq!(trapped.load(Ordering::SeqCst), 1, "{address} was dialled");
    }
}

async fn listen(address: &str, port: u16) -> TcpListener {
    let address: IpAddr = address.parse().unwrap();
    TcpListener::bind((address, port)).await.unwrap()
}

/// Answers and closes, so that the next attempt asks for the name again; counts connections.
fn count(listener: TcpListener) -> Arc<AtomicUsize> {
    let count = Arc::<AtomicUsize>::default();
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                if read_request(&mut stream).await.is_some() {
                    let answer =
                        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    let _ = stream.write_all(answer).await;
                }
            });
        }
    });
    count
}

/// Each attempt reaches what is open, or is refused with the reason.
async fn names_that_change(config: &Config, zones: &[Zone], port: u16) {
    let http = http(config);
    for (zone, always) in zones.iter().zip([false, false, true, true]) {
        let url = format!("http://{}:{port}/", zone.name);
        let (mut good, mut refused) = (0, 0);
        for _ in 0..ATTEMPTS {
            match post(&http, &webhook(&url, json!({})), Bytes::from_static(b"{}")).await {
                Ok(sent) => {
                    assert_eq!(sent.outcome, Outcome::Status(200), "{url}: {sent:?}");
                    good += 1;
                }
                Err(error) => {
                    check_reason(&error.to_string(), zone.name, "127.0.0.1");
                    refused += 1;
                }
            }
        }
        assert!(
            good > 0 && always == (refused == 0),
            "{url}: {good} and {refused}"
        );
        // Every attempt had an answer of its own.
        assert!(zone.asked.load(Ordering::SeqCst) >= good + refused, "{url}");
    }
}

async fn names_that_are_refused(config: &Config, port: u16) {
    let http = http(config);
    for (name, address) in [
        ("closed.example", "127.0.0.1"),
        ("closed-six.example", "::1"),
        ("mapped.example", "127.0.0.1"),
    ] {
        let webhook = webhook(&format!("http://{name}:{port}/"), json!({}));
        for _ in 0..3 {
            let result = post(&http, &webhook, Bytes::from_static(b"{}")).await;
            check_reason(&result.unwrap_err().to_string(), name, address);
        }
    }
}

fn check_reason(reason: &str, name: &str, address: &str) {
    let expected = format!("the URL cannot be used: {name} resolves to ");
    assert!(reason.starts_with(&expected), "{reason}");
    assert!(reason.contains(address), "{reason}");
    let expected = "a loopback address; an operator can open it with dispatcher.allow_networks";
    assert!(reason.ends_with(expected), "{reason}");
}

/// A name that is closed when it is configured is refused then; one that is closed later parks its
/// deliveries.
async fn in_the_pipeline(config: &Config, port: u16) {
    let dir = tempfile::tempdir().unwrap();
    let schedule = short_schedule();
    let log = LocalLog::open(dir.path(), topics(&schedule), LocalOptions::default()).unwrap();
    let rig = Rig::start_resolving(log, schedule, config.clone(), config.lookup()).await;
    let tenant = rig.tenant().await;
    let fields = |name: &str| {
        let url = format!("http://{name}.example:{port}/");
        json!({ "name": name, "subscription": ["*"], "url": url })
    };
    let webhooks = format!("tenants/{}/webhooks", tenant.id);
    let (status, answer) = rig.try_api("POST", &webhooks, fields("closed")).await;
    assert_eq!(
        (status, &answer["code"]),
        (400, &json!("address_refused")),
        "{answer}"
    );
    check_reason(
        answer["detail"].as_str().unwrap(),
        "closed.example",
        "127.0.0.1",
    );
    let later = rig
        .webhook_with(&tenant, "later-closed", fields("later-closed"))
        .await;
    assert_eq!(later["warnings"].as_array().unwrap().len(), 1, "{later}");
    let both = rig.webhook_with(&tenant, "both", fields("both")).await;
    let warned = both["warnings"].to_string();
    assert!(
        warned.contains("both.example also resolves to 127.0.0.1"),
        "{warned}"
    );
    let id = rig.event(&tenant, "cdr.completed").await;
    let attempts = rig.attempts(&tenant, "both", &id, 1).await;
    assert_eq!(attempts[0]["status"], 200, "{attempts:?}");
    let parked = rig.parked(&tenant, "later-closed", 1).await;
    assert_eq!(parked[0]["reason"], "undeliverable", "{parked:?}");
    let detail = parked[0]["detail"].as_str().unwrap();
    check_reason(detail, "later-closed.example", "127.0.0.1");
    rig.stop().await;
}
