//! Signatures and the libraries that others wrote: what is sent verifies with the libraries of Standard
//! Webhooks for Python and JavaScript, and with another Ed25519; also while keys are rotated.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringback_core::log::{Log, Reader as _};
use ringback_core::secret::Secret;
use ringback_core::signature::Signer;
use ringback_log::local::{LocalLog, LocalOptions};
use ringback_tests::captured::Captured;
use ringback_tests::certificates::Authority;
use ringback_tests::receiver::{Answer, Request};
use ringback_tests::rig::{Rig, TestTenant, short_schedule, topics};
use ringback_tests::sdks;
use serde_json::{Value, json};

/// What a receiver knows, a request, and whether the one verifies the other.
struct Case {
    what: &'static str,
    secret: String,
    request: Value,
    good: bool,
}

impl Case {
    fn new(what: &'static str, secret: &str, request: &Request, good: bool) -> Self {
        let headers = request.headers.iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()));
        let headers: serde_json::Map<String, Value> = headers.collect();
        let body = str::from_utf8(&request.body).unwrap();
        Self {
            what,
            secret: secret.to_owned(),
            request: json!({ "headers": headers, "body": body }),
            good,
        }
    }

    /// The same with a change that must be noticed.
    fn changed(mut self, what: &'static str, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.request);
        (self.what, self.good) = (what, false);
        self
    }
}

/// Has a script verify the cases it can.
fn verify(dir: &Path, script: &str, cases: &[&Case]) {
    let file = dir.join(script).with_extension("json");
    let requests = cases.iter().map(|case| {
        let mut request = case.request.clone();
        request["secret"] = case.secret.clone().into();
        request
    });
    std::fs::write(&file, Value::from_iter(requests).to_string()).unwrap();
    let input = std::fs::File::open(&file).unwrap();
    let said = sdks::prepare().unwrap().run(script, &[], Some(input));
    let said = said.unwrap();
    assert_eq!(said.len(), cases.len());
    for (case, said) in cases.iter().zip(said) {
        let what = case.what;
        match case.good {
            true => assert_eq!(said, "good", "{script}: {what}"),
            false => assert!(said.starts_with("refused: "), "{script}: {what}: {said}"),
        }
    }
}

async fn rotate<L: Log>(rig: &Rig<L>, tenant: &TestTenant, form: Value) -> Vec<Value> {
    let path = format!("tenants/{}/webhooks/main/secret/rotate", tenant.id);
    let answer = rig.api("POST", &path, form).await;
    answer["signing"].as_array().unwrap().clone()
}

fn text(key: &Value) -> String {
    let text = key["secret"].as_str().or(key["public_key"].as_str());
    text.unwrap().to_owned()
}

/// The versions of a request's signatures.
fn versions(request: &Request) -> String {
    let signatures = request.header("webhook-signature").split(' ');
    let versions = signatures.map(|signature| signature.split(',').next().unwrap());
    versions.collect::<Vec<_>>().join(" ")
}

/// Sends events until one comes with signatures of these versions: the dispatcher learns of a rotation
/// a moment after the administration has answered.
async fn signed<L: Log>(rig: &Rig<L>, tenant: &TestTenant, wanted: &str) -> Request {
    for _ in 0..200 {
        let event = rig.event(tenant, "call.started").await;
        let came = |request: &Request| request.id() == event;
        rig.receiver
            .wait("the event came", |books| books.requests.iter().any(came))
            .await;
        let request = rig
            .receiver
            .books(|books| books.requests.iter().find(|r| came(r)).cloned());
        let request = request.unwrap();
        if versions(&request) == wanted {
            return request;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no request came with signatures {wanted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_libraries_verify_what_is_sent_also_while_keys_are_rotated() {
    let schedule = short_schedule();
    let dir = tempfile::tempdir().unwrap();
    let log = LocalLog::open(dir.path(), topics(&schedule), LocalOptions::default()).unwrap();
    let rig = Rig::start(log, schedule).await;
    let tenant = rig.tenant().await;
    let fields = json!({ "subscription": ["*"], "url": rig.receiver.url("signed") });
    let added = rig.webhook_with(&tenant, "main", fields).await;
    let first = text(&added["signing"][0]);
    let mut cases = Vec::new();

    // An attempt that fails and its retry are signed each for its own time.
    rig.receiver.first("signed", vec![Answer::Status(503)]);
    let data = json!({ "text": "héllo € \u{1f4de}", "cost": 1.50, "n": 1e3 });
    let event = rig
        .send(&tenant, json!({ "type": "cdr.completed", "data": data }))
        .await;
    rig.receiver
        .wait("the event was delivered", |books| {
            books.is_delivered(&event)
        })
        .await;
    for request in rig.receiver.books(|books| books.at("signed")) {
        assert_eq!(versions(&request), "v1");
        assert_eq!(request.header("webhook-id"), event);
        cases.push(Case::new("the first key", &first, &request, true));
    }
    assert_eq!(cases.len(), 2);

    // With Ed25519 beside it, and two secrets while the receiver changes over.
    let public = text(&rotate(&rig, &tenant, json!({ "kind": "ed25519" })).await[1]);
    let request = signed(&rig, &tenant, "v1 v1a").await;
    cases.push(Case::new("Ed25519", &public, &request, true));
    cases.push(Case::new("HMAC beside Ed25519", &first, &request, true));
    let second = text(&rotate(&rig, &tenant, json!({ "grace": "1h" })).await[0]);
    let request = signed(&rig, &tenant, "v1 v1 v1a").await;
    for (what, secret) in [("old", &first), ("new", &second), ("public", &public)] {
        cases.push(Case::new(what, secret, &request, true));
    }

    // What was changed on the way, or comes late, is refused.
    let case = || Case::new("", &second, &request, true);
    cases.push(case().changed("another body", |request| {
        request["body"] = request["body"].as_str().unwrap().replace("1", "2").into();
    }));
    cases.push(case().changed("another id", |request| {
        request["headers"]["webhook-id"] = event.clone().into();
    }));
    let late = Duration::from_secs(600);
    let late = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - late;
    let (id, late) = (request.header("webhook-id").to_owned(), late.as_secs());
    let signer = Signer::read(&Secret::new(second.clone())).unwrap();
    let signature = signer.sign(&id, late as i64, &request.body);
    cases.push(case().changed("an old request, signed", |request| {
        request["headers"]["webhook-timestamp"] = late.to_string().into();
        request["headers"]["webhook-signature"] = signature.into();
    }));
    let ed25519 = Case::new("", &public, &request, true);
    cases.push(ed25519.changed("another body, Ed25519", |request| {
        request["body"] = "{}".into();
    }));

    // A secret that became known ends at once.
    let own = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    rotate(&rig, &tenant, json!({ "grace": "0", "secret": own })).await;
    let request = signed(&rig, &tenant, "v1 v1a").await;
    cases.push(Case::new("a secret of one's own", own, &request, true));
    cases.push(Case::new(
        "a secret that was ended",
        &second,
        &request,
        false,
    ));

    // CloudEvents in binary mode: the data alone is the body, and is what is signed.
    let fields = json!({
        "subscription": ["queue.*"], "url": rig.receiver.url("cloud"), "format": "cloudevents",
        "signing_secret": own,
    });
    rig.webhook_with(&tenant, "cloud", fields).await;
    let cloud = |books: &ringback_tests::receiver::Books| books.at("cloud").first().cloned();
    for _ in 0..200 {
        // It is known to the dispatcher a moment later.
        rig.event(&tenant, "queue.updated").await;
        if rig.receiver.books(cloud).is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let request = rig.receiver.books(cloud).unwrap();
    assert_eq!(request.body, r#"{"n":1}"#);
    cases.push(Case::new("CloudEvents", own, &request, true));

    rig.stop().await;
    let verified = tokio::task::spawn_blocking(move || {
        let all: Vec<_> = cases.iter().collect();
        verify(dir.path(), "verifier.cjs", &all);
        // The library for Python knows no Ed25519.
        let hmac = all.iter().copied();
        let hmac: Vec<_> = hmac
            .filter(|case| case.secret.starts_with("whsec_"))
            .collect();
        verify(dir.path(), "verifier.py", &hmac);
        (all.len(), hmac.len())
    });
    assert_eq!(verified.await.unwrap(), (14, 11));
}

/// Every record of every topic, as text.
fn records<L: Log>(log: &L) -> String {
    let mut text = Vec::new();
    let mut reader = log.reader().unwrap();
    for (topic, _) in log.topics().iter() {
        for partition in log.topics().partitions(topic) {
            let bounds = reader.bounds(partition).unwrap();
            reader
                .read(partition, bounds, &mut |record| {
                    text.extend_from_slice(record.key.unwrap_or_default());
                    for header in record.headers.iter() {
                        text.extend_from_slice(header.value);
                    }
                    text.extend_from_slice(record.value.unwrap_or_default());
                })
                .unwrap();
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// In the URL of each.
const QUERY: &str = "q-hunter2-in-the-url";

/// Webhooks with every other kind of secret, each of which fails and then succeeds, but for the one
/// with a TLS key. Tells what must not show, and what the administration said meanwhile.
async fn other_secrets<L: Log>(rig: &Rig<L>, tenant: &TestTenant) -> (Vec<String>, String) {
    let (certificate, key) = Authority::new("any").issue("ringback");
    let login = |method: &str, password: &str| json!({ "method": method, "username": "pbx", "password": password });
    let bearer = json!({ "method": "bearer", "token": "t-hunter2-token" });
    let tls = json!({ "certificate": certificate, "key": key });
    let mut shown = String::new();
    for (name, field, value) in [
        ("basic", "authentication", login("basic", "b-hunter2-basic")),
        (
            "digest",
            "authentication",
            login("digest", "d-hunter2-digest"),
        ),
        ("bearer", "authentication", bearer),
        ("tls", "tls", tls),
    ] {
        let mut url = format!("{}?key={QUERY}", rig.receiver.url(name));
        if field == "tls" {
            url = url.replace("http://", "https://");
        }
        rig.receiver.first(name, vec![Answer::Status(503)]);
        let mut fields = json!({ "subscription": ["queue.*"], "url": url });
        fields[field] = value;
        shown += &rig.webhook_with(tenant, name, fields).await.to_string();
    }
    let event = rig.event(tenant, "queue.updated").await;
    for name in ["basic", "digest", "bearer", "tls"] {
        let attempts = rig.attempts(tenant, name, &event, 2).await;
        let good = attempts.iter().any(|attempt| attempt["status"] == 200);
        assert_eq!(good, name != "tls", "{attempts:?}");
        let attempts = json!(attempts).to_string();
        assert!(!attempts.contains(QUERY), "{attempts}");
        shown += &attempts;
        let view = format!("tenants/{}/webhooks/{name}", tenant.id);
        shown += &rig.api("GET", &view, Value::Null).await.to_string();
    }
    let basic = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, "pbx:b-hunter2-basic");
    let line = key.lines().nth(1).unwrap().to_owned();
    let planted = [
        "b-hunter2-basic",
        "d-hunter2-digest",
        "t-hunter2-token",
        QUERY,
    ];
    let planted = planted.map(str::to_owned).into_iter();
    (planted.chain([basic, line]).collect(), shown)
}

/// From the making of a key to a parked delivery: no log, record or listing shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn secrets_do_not_show_on_the_way() {
    let captured = Captured::start();
    let schedule = short_schedule();
    let dir = tempfile::tempdir().unwrap();
    let log = LocalLog::open(dir.path(), topics(&schedule), LocalOptions::default()).unwrap();
    let rig = Rig::start(log.clone(), schedule).await;
    let tenant = rig.tenant().await;
    let fields = json!({ "subscription": ["*"], "url": rig.receiver.url("hidden") });
    let added = rig.webhook_with(&tenant, "main", fields).await;
    let whsk = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    rotate(&rig, &tenant, json!({ "secret": whsk })).await;
    let rotated = rotate(&rig, &tenant, json!({ "grace": "1h" })).await;
    let secrets = [text(&added["signing"][0]), text(&rotated[0]), whsk.into()];

    rig.receiver.first("hidden", vec![Answer::Status(503)]);
    let event = rig.event(&tenant, "cdr.completed").await;
    rig.attempts(&tenant, "main", &event, 2).await;
    rig.receiver.first("hidden", vec![Answer::Status(404)]);
    let refused = rig.event(&tenant, "cdr.completed").await;
    rig.parked(&tenant, "main", 1).await;
    let (others, mut shown) = other_secrets(&rig, &tenant).await;
    let webhooks = format!("tenants/{}/webhooks", tenant.id);
    for path in [
        "tenants".to_owned(),
        webhooks.clone(),
        format!("{webhooks}/main"),
        format!("{webhooks}/main/attempts"),
        format!("{webhooks}/main/parked"),
        format!("{webhooks}/main/parked?event={refused}"),
    ] {
        shown += &rig.api("GET", &path, Value::Null).await.to_string();
    }
    let reading = log.clone();
    shown += &tokio::task::spawn_blocking(move || records(&reading))
        .await
        .unwrap();
    let form = json!({ "passphrase": "of sufficient length" });
    shown += &rig.api("POST", "export", form).await.to_string();
    let metrics = rig.metrics.expose();
    assert!(metrics.contains("attempts"), "{metrics}");
    let removed = format!("{webhooks}/main");
    shown += &rig.api("DELETE", &removed, Value::Null).await.to_string();
    rig.stop().await;
    let logged = captured.text();
    assert!(
        logged.contains("signing key rotated"),
        "nothing was captured"
    );
    assert!(shown.contains(&event) && shown.contains("sealed"));
    assert!(shown.contains("ringback-export") && shown.contains("digest"));
    for secret in secrets {
        let (_, key) = secret.split_once('_').unwrap();
        assert!(!shown.contains(key), "an answer or a record shows {secret}");
        assert!(!logged.contains(key), "the log shows {secret}");
        assert!(!metrics.contains(key), "a metric shows {secret}");
    }
    for secret in others {
        // Whoever may see a webhook sees its URL.
        let url = secret == QUERY;
        assert!(
            url || !shown.contains(&secret),
            "an answer or a record shows {secret}"
        );
        assert!(!logged.contains(&secret), "the log shows {secret}");
        assert!(!metrics.contains(&secret), "a metric shows {secret}");
    }
}
