//! What is known of a webhook's receiver when it is configured: where its name leads, and whether its
//! certificate is good.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use reqwest::Method;
use ringback_admin::Config;
use ringback_core::lookup::Lookup;
use serde_json::{Value, json};

use crate::rig::{Answer, Rig};

const WEBHOOKS: &str = "/v1/tenants/acme/webhooks";

/// A resolver that knows a few names, and how often it was asked.
fn names() -> (Lookup, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let count = asked.clone();
    let lookup = Lookup::new(move |name| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            let addresses: &[&str] = match name.as_str() {
                "public.example.com" => &["93.184.216.34", "2606:2800:220:1::1"],
                "private.example.com" => &["10.0.0.5", "fd00::5"],
                "metadata.example.com" => &["::ffff:169.254.169.254"],
                "mixed.example.com" => &["10.0.0.5", "93.184.216.34"],
                "open.example.com" => &["127.0.0.1"],
                "empty.example.com" => &[],
                "hanging.example.com" => std::future::pending().await,
                _ => return Err(io::Error::other("no such name")),
            };
            let address = |text: &&str| SocketAddr::new(text.parse().unwrap(), 0);
            Ok(addresses.iter().map(address).collect())
        }
    });
    (lookup, asked)
}

/// A rig with that resolver, and a tenant `acme`.
async fn rig() -> (Rig, Arc<AtomicUsize>) {
    // Whatever the machine is busy with.
    waiting(Duration::from_secs(30)).await
}

/// The same; so long it waits for a name.
async fn waiting(lookup_within: Duration) -> (Rig, Arc<AtomicUsize>) {
    let (lookup, asked) = names();
    let rig = Rig::with(Config {
        lookup: Some(lookup),
        lookup_within,
        ..Config::default()
    })
    .await;
    let tenant = rig.post("/v1/tenants", json!({ "id": "acme" })).await;
    assert_eq!(tenant.status, 201);
    (rig, asked)
}

async fn add(rig: &Rig, name: &str, url: &str) -> Answer {
    let form = json!({ "name": name, "subscription": ["*"], "url": url });
    rig.post(WEBHOOKS, form).await
}

fn refused(answer: &Answer, says: &str) {
    answer.problem(400, "address_refused");
    assert_eq!(answer.body["field"], "url", "{}", answer.text);
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains(says), "{detail}");
}

fn warning(answer: &Answer) -> &str {
    assert!(answer.status.is_success(), "{}", answer.text);
    let warnings = answer.body["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    warnings[0].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_resolved_when_it_is_configured() {
    let (rig, _) = rig().await;
    for (name, url) in [
        ("a", "https://public.example.com/"),
        ("b", "https://open.example.com/"),
    ] {
        let added = add(&rig, name, url).await;
        assert_eq!(
            (added.status.as_u16(), &added.body["warnings"]),
            (201, &json!([]))
        );
    }
    let private = "private.example.com resolves to 10.0.0.5, a private address";
    let metadata =
        "metadata.example.com resolves to ::ffff:169.254.169.254, a cloud metadata address";
    refused(
        &add(&rig, "c", "https://private.example.com/").await,
        private,
    );
    refused(
        &add(&rig, "c", "https://metadata.example.com/").await,
        metadata,
    );
    for (name, url, says) in [
        (
            "d",
            "https://mixed.example.com/",
            "mixed.example.com also resolves to 10.0.0.5, a private address",
        ),
        (
            "e",
            "https://empty.example.com/",
            "empty.example.com does not resolve (it has no address)",
        ),
        (
            "f",
            "https://nowhere.example.com/",
            "nowhere.example.com does not resolve (no such name)",
        ),
    ] {
        let added = add(&rig, name, url).await;
        let said = warning(&added);
        assert!(said.starts_with(says), "{said}");
        // It is about this change; nobody asks again to show the webhook.
        let shown = rig.get(&format!("{WEBHOOKS}/{name}")).await;
        assert_eq!(shown.body["warnings"], json!([]));
    }
}

/// A change of the URL is resolved, and no other: what is there already is for the dispatchers.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_resolved_when_the_url_changes() {
    let (rig, asked) = rig().await;
    add(&rig, "a", "https://public.example.com/").await;
    let path = format!("{WEBHOOKS}/a");
    let change = async |method: Method, body: Value| {
        let before = asked.load(Ordering::SeqCst);
        let answer = rig.change(method, &path, ("if-match", "*"), body).await;
        (answer, asked.load(Ordering::SeqCst) - before)
    };
    let private = json!({ "url": "https://private.example.com/" });
    let (answer, lookups) = change(Method::PATCH, private.clone()).await;
    refused(&answer, "10.0.0.5");
    assert_eq!(lookups, 1);
    let form = json!({ "subscription": ["*"], "url": private["url"] });
    let (answer, lookups) = change(Method::PUT, form).await;
    refused(&answer, "10.0.0.5");
    assert_eq!(lookups, 1);
    let (answer, _) = change(
        Method::PATCH,
        json!({ "url": "https://mixed.example.com/" }),
    )
    .await;
    assert!(warning(&answer).contains("10.0.0.5"));
    let same = json!({ "url": "HTTPS://MIXED.example.com:443", "format": "raw" });
    for (method, body) in [
        (Method::PATCH, json!({ "rate_limit": 5 })),
        (Method::PATCH, same),
        (
            Method::PUT,
            json!({ "subscription": ["*"], "url": "https://mixed.example.com/" }),
        ),
    ] {
        let (answer, lookups) = change(method, body).await;
        assert_eq!(
            (answer.status.as_u16(), lookups),
            (200, 0),
            "{}",
            answer.text
        );
        assert_eq!(answer.body["warnings"], json!([]));
    }
    // Nothing is resolved for what does not exist, or stands in no name.
    for (path, url) in [
        (
            "/v1/tenants/nobody/webhooks",
            "https://private.example.com/",
        ),
        (WEBHOOKS, "https://93.184.216.34/"),
        (WEBHOOKS, "ftp://private.example.com/"),
    ] {
        let before = asked.load(Ordering::SeqCst);
        rig.post(
            path,
            json!({ "name": "z", "subscription": ["*"], "url": url }),
        )
        .await;
        assert_eq!(asked.load(Ordering::SeqCst), before, "{path} {url}");
    }
}

/// An import brings what was configured elsewhere, thousands at a time, perhaps before the names are
/// there: the dispatchers look at them.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_resolves_no_names() {
    let (rig, asked) = rig().await;
    add(&rig, "a", "https://public.example.com/").await;
    let passphrase = json!({ "passphrase": "correct horse battery" });
    let mut document = rig.post("/v1/export", passphrase).await.body;
    document["passphrase"] = "correct horse battery".into();
    document["replace"] = true.into();
    document["webhooks"][0]["url"] = "https://private.example.com/".into();
    let before = asked.load(Ordering::SeqCst);
    let answer = rig.post("/v1/import", document).await;
    assert_eq!(answer.body["replaced"], 1, "{}", answer.text);
    assert_eq!(asked.load(Ordering::SeqCst), before);
}

/// Lookups that hang are as many as there may be; whoever comes then is not kept waiting.
#[tokio::test(flavor = "multi_thread")]
async fn lookups_that_hang_are_limited() {
    let (rig, asked) = waiting(Duration::from_millis(300)).await;
    let before = asked.load(Ordering::SeqCst);
    let hanging = (0..20).map(|number| {
        let rig = &rig;
        async move { add(rig, &format!("w{number}"), "https://hanging.example.com/").await }
    });
    for answer in futures_util::future::join_all(hanging).await {
        assert!(warning(&answer).contains("hanging.example.com was not resolved within 300ms"));
    }
    assert_eq!(asked.load(Ordering::SeqCst) - before, 16);
    let late = add(&rig, "late", "https://private.example.com/").await;
    assert!(warning(&late).contains("private.example.com was not resolved within 300ms"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_client_certificate_is_accepted_with_a_warning() {
    let (rig, _) = rig().await;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    let certificate = params.self_signed(&key).unwrap().pem();
    let form = json!({
        "name": "a", "subscription": ["*"], "url": "https://public.example.com/",
        "tls": { "certificate": certificate, "key": key.serialize_pem() },
    });
    let added = rig.post(WEBHOOKS, form).await;
    assert!(warning(&added).contains("expired on 2021-01-01"));
    let shown = rig.get(&format!("{WEBHOOKS}/a")).await;
    assert!(warning(&shown).contains("expired on 2021-01-01"));
}
