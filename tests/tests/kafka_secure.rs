//! Kafka as production secures it: TLS, SASL and ACLs, on one broker for all tests here.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringback_core::log::*;
use ringback_core::schedule::Schedule;
use ringback_core::secret::Secret;
use ringback_core::topics::{Partition, Role, Topics, TopicsConfig};
use ringback_log::kafka::acl::{Component, Grant, Operation, Resource, grants};
use ringback_log::kafka::{KafkaConfig, KafkaLog, Mechanism, Sasl, SecurityProtocol, Tls};
use ringback_tests::certificates::{Authority, write};
use ringback_tests::kafka::{KafkaOptions, KafkaServer, Secure};
use ringback_tests::process::{Process, api, post_batch};
use ringback_tests::receiver::{Answer, Receiver};
use serde_json::json;
use uuid::Uuid;

mod grant;

/// Longest a refused client may take to say so.
const SOON: Duration = Duration::from_secs(30);
/// `all` may do everything; the others have the names of components.
const USERS: [&str; 6] = ["all", "alone", "producer", "dispatcher", "metrics", "admin"];

fn password(user: &str) -> String {
    format!("hunter2-{user}")
}

/// One secured broker, and the files that clients need.
struct Cluster {
    server: KafkaServer,
    authority: Authority,
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let authority = Authority::new("authority of the tests");
        let (certificate, key) = authority.issue("broker");
        let secure = Secure {
            users: USERS.map(|user| (user.to_owned(), password(user))).into(),
            authority: authority.pem().to_owned(),
            identity: format!("{key}{certificate}"),
        };
        let options = KafkaOptions {
            secure: Some(secure),
            ..KafkaOptions::default()
        };
        let server = KafkaServer::start_with(&options).unwrap();
        write(server.dir(), "ca.pem", authority.pem());
        let everything = [
            (Resource::Topic, Operation::Read),
            (Resource::Topic, Operation::Write),
            (Resource::Topic, Operation::Create),
            (Resource::Topic, Operation::Describe),
            (Resource::Topic, Operation::DescribeConfigs),
            (Resource::Group, Operation::Read),
            (Resource::TransactionalId, Operation::Write),
            (Resource::TransactionalId, Operation::Describe),
        ];
        let everything = everything.map(|(resource, operation)| Grant {
            resource,
            name: "all.".to_owned(),
            prefixed: true,
            operation,
        });
        for user in ["all", "CN=all"] {
            grant::allow(server.bootstrap(), user, &everything);
        }
        Cluster { server, authority }
    })
}

fn topics(prefix: &str) -> std::sync::Arc<Topics> {
    let config = TopicsConfig {
        prefix: prefix.to_owned(),
        event_partitions: 1,
        work_partitions: 1,
        replication: 1,
        ..TopicsConfig::default()
    };
    Topics::new(&config, &Schedule::default().tiers()[..1])
}

fn config(user: &str, mechanism: Mechanism) -> KafkaConfig {
    let cluster = cluster();
    KafkaConfig {
        bootstrap: cluster.server.sasl_bootstrap(),
        group_prefix: "all.".to_owned(),
        security_protocol: SecurityProtocol::SaslSsl,
        tls: Tls {
            ca: Some(cluster.server.dir().join("ca.pem")),
            ..Tls::default()
        },
        sasl: Sasl {
            mechanism: Some(mechanism),
            username: Some(user.to_owned()),
            password: Some(Secret::new(password(user))),
            ..Sasl::default()
        },
        ..KafkaConfig::default()
    }
}

struct Ends(std::sync::mpsc::Sender<Result<Appended, AppendError>>);

impl Completion for Ends {
    type Token = ();

    fn done(&self, (): (), result: Result<Appended, AppendError>) {
        self.0.send(result).unwrap();
    }
}

/// Appends one record and waits for the report.
fn append(log: &KafkaLog, role: Role) -> Result<Appended, AppendError> {
    let (sender, reports) = std::sync::mpsc::channel();
    let options = AppenderOptions {
        timeout: Duration::from_secs(15),
        ..AppenderOptions::default()
    };
    let appender = log.appender(options, Ends(sender)).unwrap();
    let record = Append {
        topic: log.topics().find(role).unwrap(),
        key: None,
        headers: &[],
        value: Some(b"secured"),
    };
    appender.append(record, ()).map_err(|(_, error)| error)?;
    reports.recv_timeout(Duration::from_secs(60)).unwrap()
}

/// Counts the records of a one-partition topic.
fn read(log: &KafkaLog, role: Role) -> Result<usize, LogError> {
    let partition = Partition {
        topic: log.topics().find(role).unwrap(),
        index: 0,
    };
    let mut reader = log.reader()?;
    let bounds = reader.bounds(partition)?;
    let mut count = 0;
    reader.read(partition, bounds, &mut |_| count += 1)?;
    Ok(count)
}

/// Consumes one record as a member of a group.
fn consume(log: &KafkaLog, group: &str, role: Role) {
    struct Count(usize);
    impl Handler for Count {
        fn assigned(&mut self, _: Assignment) {}
        fn room(&mut self, _: Partition) -> usize {
            1
        }
        fn record(&mut self, _: Record<'_>) {
            self.0 += 1;
        }
        fn revoking(&mut self, _: Partition) -> bool {
            true
        }
        fn revoked(&mut self, _: Partition) -> Option<Committed> {
            None
        }
        fn lost(&mut self, _: Partition) {}
    }
    let topic = log.topics().find(role).unwrap();
    let mut consumer = log.consumer(group, &[topic]).unwrap();
    let mut count = Count(0);
    let deadline = Instant::now() + Duration::from_secs(60);
    while count.0 == 0 {
        assert!(Instant::now() < deadline, "nothing is consumed");
        consumer
            .poll(Duration::from_millis(200), &mut count)
            .unwrap();
    }
    consumer.close(SOON, &mut count).unwrap();
}

/// Everything the engine does with the brokers, once.
fn all_of_it(config: KafkaConfig, prefix: &str) {
    let log = KafkaLog::open(config, topics(prefix)).unwrap();
    assert_eq!(log.create_topics().unwrap(), []);
    append(&log, Role::Replay).unwrap();
    assert_eq!(read(&log, Role::Replay).unwrap(), 1);
    consume(&log, "group", Role::Replay);
    let tenants = log.topics().find(Role::Tenants).unwrap();
    let revision = log
        .compare_and_set(tenants, "acme", None, Some(b"{}"))
        .unwrap();
    log.compare_and_set(tenants, "acme", Some(revision), Some(b"{}"))
        .unwrap();
    assert!(read(&log, Role::Tenants).unwrap() >= 2);
}

#[test]
fn scram_over_tls() {
    all_of_it(config("all", Mechanism::ScramSha512), "all.scram512.");
    let mut config = config("all", Mechanism::ScramSha256);
    config.sasl.password = None;
    let dir = cluster().server.dir();
    config.sasl.password_file = Some(write(dir, "password", &format!("{}\n", password("all"))));
    // The brokers' own protocol of groups, over the same connection.
    let protocol = ("group.protocol".to_owned(), "consumer".to_owned());
    config.properties.extend([protocol]);
    all_of_it(config, "all.scram256.");
}

#[test]
fn plain_over_tls() {
    all_of_it(config("all", Mechanism::Plain), "all.plain.");
}

/// A token nobody signed, as Kafka takes in its default setting, which is for tests.
fn token(subject: &str, lives: Duration) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let claims = json!({
        "sub": subject, "iat": now.as_secs(), "exp": (now + lives).as_secs(),
    });
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = encode(r#"{"alg":"none"}"#);
    format!("{header}.{}.", encode(&claims.to_string()))
}

#[test]
fn tokens_from_a_file() {
    let mut config = config("all", Mechanism::Oauthbearer);
    let file = write(
        cluster().server.dir(),
        "token",
        &token("all", Duration::from_secs(3600)),
    );
    config.sasl = Sasl {
        mechanism: Some(Mechanism::Oauthbearer),
        token_file: Some(file.clone()),
        ..Sasl::default()
    };
    all_of_it(config.clone(), "all.token.");
    std::fs::write(&file, token("alone", Duration::from_secs(3600))).unwrap();
    let log = KafkaLog::open(config, topics("all.token.")).unwrap();
    assert!(
        log.check_topics().unwrap().len() > 5,
        "another sees nothing"
    );
}

#[test]
fn client_certificates() {
    let cluster = cluster();
    let dir = cluster.server.dir();
    let (certificate, key) = cluster.authority.issue("all");
    let mut config = KafkaConfig {
        bootstrap: cluster.server.tls_bootstrap(),
        group_prefix: "all.".to_owned(),
        security_protocol: SecurityProtocol::Ssl,
        tls: Tls {
            ca: Some(dir.join("ca.pem")),
            certificate: Some(write(dir, "client.pem", &certificate)),
            key: Some(write(dir, "client.key", &key)),
            ..Tls::default()
        },
        ..KafkaConfig::default()
    };
    all_of_it(config.clone(), "all.mutual.");
    config.tls.certificate = None;
    config.tls.key = None;
    refused(config, &["SSL", "[log.kafka.tls]"]);
}

/// It does not get in, says why soon, and shows no secret.
fn refused(config: KafkaConfig, says: &[&str]) {
    let started = Instant::now();
    let log = KafkaLog::open(config, topics("all.refused.")).unwrap();
    let error = log.check_topics().unwrap_err().to_string();
    assert!(started.elapsed() < SOON, "{:?}: {error}", started.elapsed());
    for text in says {
        assert!(error.contains(text), "{text:?} is not in: {error}");
    }
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn who_is_not_let_in_learns_why() {
    let good = config("all", Mechanism::ScramSha512);
    let mut wrong = good.clone();
    wrong.sasl.password = Some(Secret::new("hunter2-wrong"));
    for mechanism in [Mechanism::Plain, Mechanism::ScramSha512] {
        wrong.sasl.mechanism = Some(mechanism);
        refused(wrong.clone(), &["uthentication failed", "[log.kafka.sasl]"]);
    }
    let mut unknown = good.clone();
    let other = Authority::new("somebody else");
    unknown.tls.ca = Some(write(cluster().server.dir(), "other.pem", other.pem()));
    refused(unknown, &["certificate verify failed", "[log.kafka.tls]"]);
    let mut plain = good.clone();
    plain.security_protocol = SecurityProtocol::SaslPlaintext;
    plain.tls = Tls::default();
    refused(plain, &["security_protocol"]);
    let mut tls_on_plain = good;
    tls_on_plain.bootstrap = cluster().server.bootstrap().to_owned();
    refused(tls_on_plain, &["security_protocol"]);
}

/// Each component with its own user, and exactly its own grants: events go in and arrive, retries
/// and parked deliveries are written and read, and nothing else is allowed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_component_needs_no_more_than_its_grants() {
    let cluster = tokio::task::spawn_blocking(cluster).await.unwrap();
    let (schedule, prefix) = (Schedule::default(), "least.");
    let table = {
        let config = TopicsConfig {
            prefix: prefix.to_owned(),
            ..TopicsConfig::default()
        };
        Topics::new(&config, schedule.tiers())
    };
    let granting = tokio::task::spawn_blocking(move || {
        for component in Component::ALL {
            let grants = grants(component, &table, prefix);
            grant::allow(cluster.server.bootstrap(), component.as_str(), &grants);
        }
    });
    granting.await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let settings = |user: &str| {
        let ca = cluster.server.dir().join("ca.pem");
        [
            "secrets.keys.test=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".to_owned(),
            "secrets.primary=test".to_owned(),
            "topics.event_partitions=1".to_owned(),
            "topics.work_partitions=1".to_owned(),
            "topics.replication=1".to_owned(),
            format!("topics.prefix={prefix}"),
            "schedule.tiers=['300ms']".to_owned(),
            "log.engine=kafka".to_owned(),
            format!("log.kafka.bootstrap={}", cluster.server.sasl_bootstrap()),
            format!("log.kafka.group_prefix={prefix}"),
            "log.kafka.security_protocol=sasl_ssl".to_owned(),
            format!("log.kafka.tls.ca={}", ca.display()),
            "log.kafka.sasl.mechanism=scram-sha-512".to_owned(),
            format!("log.kafka.sasl.username={user}"),
            format!("log.kafka.sasl.password={}", password(user)),
        ]
    };
    let receiver = Receiver::start().await;
    receiver.behave("fails", |_, _, _| Answer::Status(500));
    let mut admin = Process::start("admin", dir.path(), &settings("admin")).await;
    let mut producer = Process::start("producer", dir.path(), &settings("producer")).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = |method: &'static str, path: &str, body| {
        let url = format!("{}/v1/{path}", admin.url("admin"));
        let client = client.clone();
        async move { api(&client, &url, method, body).await }
    };
    call("POST", "tenants", json!({ "id": "acme", "title": "Acme" })).await;
    for name in ["works", "fails"] {
        let webhook = json!({ "name": name, "subscription": ["*"], "url": receiver.url(name) });
        call("POST", "tenants/acme/webhooks", webhook).await;
    }
    // It reads all webhooks before it takes in any event.
    let mut dispatcher = Process::start("dispatcher", dir.path(), &settings("dispatcher")).await;
    let issued = call("POST", "tokens", json!({ "name": "t", "tenant": "acme" })).await;
    let token = issued["token"].as_str().unwrap().to_owned();
    let id = Uuid::now_v7().to_string();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let kept = post_batch(
            &client,
            &producer.url("ingest"),
            &token,
            std::slice::from_ref(&id),
        )
        .await;
        if !kept.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "no event is taken in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    receiver
        .wait("it arrived, and failed twice elsewhere", |books| {
            books.is_delivered(&id) && books.count("fails", &id) == 2
        })
        .await;
    // The administration reads what was parked, and has it sent again.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let parked = call("GET", "tenants/acme/webhooks/fails/parked", json!(null)).await;
        if parked["parked"]
            .as_array()
            .is_some_and(|rows| !rows.is_empty())
        {
            break;
        }
        assert!(Instant::now() < deadline, "nothing is parked: {parked}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    call(
        "POST",
        "tenants/acme/webhooks/fails/replay",
        json!({ "all": true }),
    )
    .await;
    receiver
        .wait("the replay came", |books| books.count("fails", &id) > 2)
        .await;
    // The verdict: attempts read, windows and health written.
    let mut judging = settings("metrics").to_vec();
    judging.extend(["attempts=2", "silence=100ms"].map(|set| format!("metrics.policy.{set}")));
    let mut metrics = Process::start("metrics", dir.path(), &judging).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let webhook = call("GET", "tenants/acme/webhooks/fails", json!(null)).await;
        if webhook["health"]["state"] == "disabled" {
            break;
        }
        assert!(Instant::now() < deadline, "no verdict: {webhook}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for process in [&mut metrics, &mut dispatcher, &mut producer, &mut admin] {
        assert_eq!(process.terminate().await, Some(0));
    }
    tokio::task::spawn_blocking(nothing_else_is_allowed)
        .await
        .unwrap();
}

/// What the components' users are refused.
fn nothing_else_is_allowed() {
    let open = |component: Component| {
        let mut config = config(component.as_str(), Mechanism::ScramSha512);
        config.group_prefix = "least.".to_owned();
        KafkaLog::open(config, topics("least.")).unwrap()
    };
    let table = topics("least.");
    for component in Component::ALL {
        let log = open(component);
        let allowed = grants(component, &table, "least.");
        let may = |operation, name: &str| {
            allowed.iter().any(|grant| {
                grant.resource == Resource::Topic
                    && grant.operation == operation
                    && (grant.name == name || grant.prefixed && name.starts_with(&grant.name))
            })
        };
        for role in [Role::Accounts, Role::Parked, Role::Windows] {
            let name = &table.spec(table.find(role).unwrap()).full_name;
            if !may(Operation::Write, name) {
                let refused = matches!(append(&log, role), Err(AppendError::Refused { .. }));
                assert!(refused, "{component:?} writes {name}");
            }
            if !may(Operation::Read, name) {
                // An empty topic reads as nothing even without a grant.
                let read = read(&log, role);
                assert!(matches!(read, Ok(0) | Err(_)), "{component:?} reads {name}");
            }
        }
    }
}
