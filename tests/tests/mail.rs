//! Mail about webhooks, handed to a mail server that others wrote: who gets what, once, whatever ends
//! or is away meanwhile.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringback_admin::mail::{Courier, MailConfig, MailTls, check};
use ringback_core::event::TenantId;
use ringback_core::health::State;
use ringback_core::log::{Append, Log};
use ringback_core::mail_address::MailAddress;
use ringback_core::notice::{About, Notice};
use ringback_core::record::HeaderBuf;
use ringback_core::time::Timestamp;
use ringback_core::topics::Role;
use ringback_core::webhook::Tenant;
use ringback_log::directory::LiveDirectory;
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_log::sim::{Sim, SimLog, SimOptions};
use ringback_telemetry::{Counter, Metrics};
use ringback_tests::append::append_one;
use ringback_tests::certificates::{Authority, write};
use ringback_tests::mail_server::{MailServer, OPEN, Protection, header};
use ringback_tests::ports;
use ringback_tests::rig::{Rig, short_schedule, topics};
use serde_json::{Value, json};
use uuid::Uuid;

fn mail_config(port: u16) -> MailConfig {
    MailConfig {
        server: format!("127.0.0.1:{port}"),
        tls: MailTls::None,
        from: "ringback@pbx.example".to_owned(),
        operators: vec!["ops@pbx.example".to_owned()],
        gather: Duration::from_millis(300),
        ..MailConfig::default()
    }
}

fn add_tenant<L: Log>(log: &L, id: &str, notify: &[&str]) {
    let tenant = Tenant {
        version: 1,
        id: TenantId::parse(id).unwrap(),
        title: "Ä\"<b>".to_owned(),
        notify: notify
            .iter()
            .map(|a| MailAddress::parse(a).unwrap())
            .collect(),
        created: Timestamp::EPOCH,
        unknown: serde_json::Map::new(),
    };
    let topic = log.topics().find(Role::Tenants).unwrap();
    let value = serde_json::to_vec(&tenant).unwrap();
    log.compare_and_set(topic, id, None, Some(&value)).unwrap();
}

fn announce<L: Log>(log: &L, tenant: &str, name: &str, state: State, reason: &str) {
    let notice = Notice {
        tenant: TenantId::parse(tenant).unwrap(),
        since: ringback_log::system_clock().now(),
        about: About {
            webhook: Uuid::now_v7(),
            name: Some(name.to_owned()),
            generation: 0,
            state,
            reason: reason.to_owned(),
        },
    };
    let event = notice.event().unwrap();
    let mut headers = HeaderBuf::default();
    headers.push_event(&event);
    append_one(
        log,
        Append {
            topic: log.topics().find(Role::SystemEvents).unwrap(),
            key: Some(tenant.as_bytes()),
            headers: &headers.headers(),
            value: Some(&event.data),
        },
    );
}

/// An administration, as far as it sends mail.
struct Office {
    _courier: Courier,
    metrics: Metrics,
}

impl Office {
    fn open<L: Log>(log: &L, mail: MailConfig) -> Self {
        let roles = [Role::Tenants, Role::Webhooks];
        let directory = Arc::new(LiveDirectory::start(log, &roles, || {}).unwrap());
        let config = ringback_admin::Config {
            mail,
            public_url: Some("https://ringback.pbx.example".to_owned()),
            ..Default::default()
        };
        let metrics = Metrics::new();
        let clock = ringback_log::system_clock();
        let courier = Courier::start(log, directory, &config, metrics.clone(), clock);
        Self {
            _courier: courier.unwrap().unwrap(),
            metrics,
        }
    }

    fn counted(&self, outcome: &str) -> u64 {
        self.metrics.count(Counter::Mail, &[outcome])
    }

    fn wait(&self, outcome: &str, count: u64) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.counted(outcome) < count {
            assert!(Instant::now() < until, "not {count} {outcome}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn local(dir: &Path) -> LocalLog {
    let log = LocalLog::open(dir, topics(&short_schedule()), LocalOptions::default()).unwrap();
    assert_eq!(log.create_topics().unwrap(), []);
    log
}

fn to<'a>(mails: &'a [Value], address: &str) -> Vec<&'a Value> {
    let is_to = |mail: &&Value| mail["to"] == json!([address]);
    mails.iter().filter(is_to).collect()
}

#[test]
fn each_address_gets_one_mail_about_all_that_concerns_it() {
    let (dir, port) = (tempfile::tempdir().unwrap(), ports::free().unwrap());
    let log = local(dir.path());
    let server = MailServer::start(port, OPEN);
    let recipients = [
        "admin@acme.example",
        "refused@acme.example",
        "later@acme.example",
    ];
    add_tenant(&log, "acme", &recipients);
    add_tenant(&log, "globex", &["it@globex.example", "ops@pbx.example"]);
    add_tenant(&log, "quiet", &["it@quiet.example"]);
    // One dead host, and a name and a reason that would like to be headers.
    for n in 0..150 {
        announce(&log, "acme", &format!("w{n}"), State::Disabled, "no answer");
    }
    announce(
        &log,
        "globex",
        "a\r\nBcc: evil@x",
        State::Failing,
        "x\r\n.\r\nSubject: evil",
    );
    let office = Office::open(&log, mail_config(port));
    office.wait("refused", 1);
    let mails = server.wait(4);
    assert_eq!(office.counted("sent"), 4);
    drop(office);

    let [acme] = to(&mails, "admin@acme.example")[..] else {
        panic!("{mails:?}");
    };
    assert_eq!(
        header(acme, "subject"),
        "[Ringback] 150 webhooks: 150 disabled"
    );
    assert_eq!(header(acme, "auto-submitted"), "auto-generated");
    assert_eq!(acme["from"], "ringback@pbx.example");
    let text = acme["text"].as_str().unwrap();
    for part in [
        "acme/w0: disabled",
        "and 50 more",
        "enable TENANT",
        "https://ringback.pbx.example/",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("globex"), "{text}");
    assert_eq!(to(&mails, "later@acme.example").len(), 1, "put off twice");
    let [globex] = to(&mails, "it@globex.example")[..] else {
        panic!("{mails:?}");
    };
    // What is no name is not shown; the reason is one line.
    assert!(
        header(globex, "subject").starts_with("[Ringback] globex/0"),
        "{globex}"
    );
    let names: Vec<_> = globex["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| &h[0])
        .collect();
    assert!(!names.contains(&&json!("bcc")), "{globex}");
    assert!(
        globex["text"]
            .as_str()
            .unwrap()
            .contains("x  .  Subject: evil"),
        "{globex}"
    );
    let [ops] = to(&mails, "ops@pbx.example")[..] else {
        panic!("{mails:?}");
    };
    assert_eq!(
        header(ops, "subject"),
        "[Ringback] 151 webhooks: 150 disabled, 1 failing"
    );
    assert_eq!(server.stop().len(), 4);
}

#[test]
fn a_password_goes_through_tls_only_and_to_the_right_server() {
    let (dir, port) = (tempfile::tempdir().unwrap(), ports::free().unwrap());
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let (certificate, key) = ours.issue("mail");
    let file = |name: &str, text: &str| write(dir.path(), name, text);
    let (certificate, key) = (file("cert", &certificate), file("key", &key));
    let right = MailConfig {
        username: Some("ringback".to_owned()),
        password_file: Some(file("password", "open sesame\n")),
        ca_file: Some(file("ca", ours.pem())),
        ..mail_config(port)
    };
    let log = local(&dir.path().join("log"));
    add_tenant(&log, "acme", &[]);
    for (mode, tls) in [("starttls", MailTls::Starttls), ("tls", MailTls::Tls)] {
        let server = MailServer::start(
            port,
            Protection {
                mode,
                files: Some((&certificate, &key)),
                login: Some(("ringback", "open sesame")),
            },
        );
        let right = MailConfig {
            tls,
            ..right.clone()
        };
        check(&right).unwrap();
        let wrong_password = MailConfig {
            password_file: Some(file("wrong", "open barley")),
            ..right.clone()
        };
        let error = check(&wrong_password).unwrap_err();
        assert!(
            error.contains("535") && !error.contains("barley"),
            "{error}"
        );
        let untrusted = MailConfig {
            ca_file: Some(file("other", other.pem())),
            ..right.clone()
        };
        let error = check(&untrusted).unwrap_err();
        assert!(error.contains("certificate"), "{error}");
        let office = Office::open(&log, right);
        announce(&log, "acme", "cdr", State::Failing, "slow");
        let mails = server.wait(1);
        assert_eq!(mails[0]["tls"], true);
        assert_eq!(mails[0]["user"], "ringback");
        office.wait("sent", 1);
        drop(office);
    }
    // A server that does not offer TLS is not told the password.
    let _server = MailServer::start(port, OPEN);
    let error = check(&MailConfig {
        tls: MailTls::Starttls,
        ..right
    })
    .unwrap_err();
    assert!(error.contains("STARTTLS"), "{error}");
}

#[test]
fn a_server_that_was_away_gets_everything_once() {
    let (dir, port) = (tempfile::tempdir().unwrap(), ports::free().unwrap());
    let log = local(dir.path());
    add_tenant(&log, "acme", &["admin@acme.example"]);
    announce(&log, "acme", "cdr", State::Failing, "slow");
    let office = Office::open(&log, mail_config(port));
    office.wait("put_off", 1);
    announce(&log, "acme", "crm", State::Disabled, "gone");
    // It is not there for another administration either, and notices stay in the log.
    drop(office);
    let server = MailServer::start(port, OPEN);
    let office = Office::open(&log, mail_config(port));
    let mails = server.wait(2);
    for mail in &mails {
        assert_eq!(
            header(mail, "subject"),
            "[Ringback] 2 webhooks: 1 disabled, 1 failing"
        );
    }
    office.wait("sent", 2);
    drop(office);
    let office = Office::open(&log, mail_config(port));
    announce(&log, "acme", "cdr", State::Healthy, "it works again");
    office.wait("sent", 2);
    drop(office);
    let mails = server.stop();
    assert_eq!(mails.len(), 4, "nothing twice: {mails:?}");
    assert_eq!(
        header(&mails[3], "subject"),
        "[Ringback] acme/cdr: recovered"
    );
}

/// Waits until the group has no more to do, by a notice of the other's that is mailed last.
#[test]
fn of_two_administrations_one_sends_and_the_other_goes_on_when_it_is_gone() {
    let port = ports::free().unwrap();
    let sim = Sim::new(SimOptions {
        session: Duration::from_secs(1),
        ..SimOptions::default()
    });
    let (sim, table) = (sim.unwrap(), topics(&short_schedule()));
    let logs: [SimLog; 3] = [(); 3].map(|()| sim.open(table.clone()));
    let [first, second, outside] = &logs;
    assert_eq!(outside.create_topics().unwrap(), []);
    add_tenant(outside, "acme", &["admin@acme.example"]);
    let server = MailServer::start(port, OPEN);
    let offices = [first, second].map(|log| Office::open(log, mail_config(port)));
    announce(outside, "acme", "cdr", State::Failing, "slow");
    server.wait(2);
    let sender = usize::from(offices[0].counted("sent") == 0);
    offices[sender].wait("sent", 2);
    assert_eq!(offices[1 - sender].counted("sent"), 0);

    announce(outside, "acme", "crm", State::Failing, "slow");
    offices[sender].wait("sent", 4);
    // Committed when the sender has taken its next turn: only then it may go without a trace.
    announce(outside, "acme", "erp", State::Failing, "slow");
    offices[sender].wait("sent", 6);
    logs[sender].kill();
    announce(outside, "acme", "ivr", State::Disabled, "gone");
    let last = |mails: &[Value]| {
        let subjects = mails.iter().map(|mail| header(mail, "subject"));
        subjects.filter(|s| s.ends_with("ivr: disabled")).count()
    };
    let until = Instant::now() + Duration::from_secs(60);
    while last(&server.mails()) < 2 {
        assert!(Instant::now() < until, "{:?}", server.mails());
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(offices);
    let mails = server.stop();
    let mut subjects: Vec<_> = mails.iter().map(|mail| header(mail, "subject")).collect();
    subjects.sort_unstable();
    subjects.dedup_by_key(|subject| subject.rsplit('/').next());
    assert_eq!(subjects.len(), 4, "{subjects:?}");
    // At most the mail that was not committed when it was killed is there twice, as the same one.
    let mut ids: Vec<_> = mails
        .iter()
        .map(|mail| header(mail, "message-id"))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 8, "{ids:?}");
}

/// The whole way, from answers of a receiver to notices of its tenant, to webhooks and by mail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_notices_go_to_that_tenant_only_and_never_to_the_webhook_they_are_about() {
    let (dir, port) = (tempfile::tempdir().unwrap(), ports::free().unwrap());
    let log = local(dir.path());
    let rig = Rig::start(log.clone(), short_schedule()).await;
    let server = MailServer::start(port, OPEN);
    let (tenant, other) = (rig.tenant().await, rig.tenant().await);
    let notify = json!({ "notify": ["admin@acme.example"] });
    let path = format!("tenants/{}", tenant.id);
    let shown = rig
        .api("PUT", &format!("{path}/notify"), notify.clone())
        .await;
    assert_eq!(shown["notify"], notify["notify"]);
    let bad = json!({ "notify": ["a@b\r\nBcc: x@y"] });
    let (status, problem) = rig.try_api("PUT", &format!("{path}/notify"), bad).await;
    assert_eq!(
        (status, &problem["code"]),
        (400, &json!("invalid_field")),
        "{problem}"
    );
    // It wants notices, and fails: those about itself must not come to it.
    rig.webhook(&tenant, "dead", &["cdr.*", "webhook.*"], "dead")
        .await;
    rig.webhook(&tenant, "ops", &["webhook.*"], "ops").await;
    rig.webhook(&other, "ops", &["webhook.*"], "other").await;
    rig.receiver.behave("dead", |_, _, _| {
        ringback_tests::receiver::Answer::Status(500)
    });
    let office = Office::open(&log, mail_config(port));
    let deadline = Instant::now() + Duration::from_secs(120);
    while !rig.receiver.books(|books| {
        let notices = books.at("ops");
        notices
            .iter()
            .any(|notice| notice.json()["type"] == "webhook.disabled")
    }) {
        assert!(Instant::now() < deadline, "not disabled");
        rig.event(&tenant, "cdr.completed").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let about = format!("{}/dead", tenant.id);
    while !server.mails().iter().any(|mail| {
        mail["to"] == json!(["admin@acme.example"])
            && header(mail, "subject").contains(": disabled")
    }) {
        assert!(Instant::now() < deadline, "no mail: {:?}", server.mails());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for mail in server.mails() {
        assert!(header(&mail, "subject").contains(&about), "{mail}");
    }
    rig.receiver.books(|books| {
        for at in ["dead", "other"] {
            let seen = books.at(at);
            let notices = seen.iter().filter(|event| {
                event.json()["type"]
                    .as_str()
                    .unwrap()
                    .starts_with("webhook.")
            });
            assert_eq!(notices.count(), 0, "{at}");
        }
        assert!(!books.at("dead").is_empty());
    });
    tokio::task::spawn_blocking(|| drop(office)).await.unwrap();
    rig.stop().await;
}
