//! Secrets go in and never come out.

use std::io::Write;
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, KeyPair};
use reqwest::{Method, StatusCode};
use ringback_admin::Config;
use ringback_core::topics::Role;
use ringback_core::webhook::{Authentication, Webhook};
use serde_json::json;

use crate::rig::{Rig, TOKEN, keys};

const CDR: &str = "/v1/tenants/acme/webhooks/cdr";
const PASSWORD: &str = "correct-horse-battery";
const SIGNING: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BEARER: &str = "bearer-staple-9000";

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The webhook as it stands in the log: its record as text, and read.
pub(crate) fn stored(rig: &Rig) -> (String, Webhook) {
    let records = rig.records(Role::Webhooks, |record| record.value.map(<[u8]>::to_vec));
    let value = records.into_iter().flatten().next_back().unwrap();
    let webhook = serde_json::from_slice(&value).unwrap();
    (String::from_utf8(value).unwrap(), webhook)
}

fn password_of(webhook: &Webhook) -> String {
    let Authentication::Basic { password, .. } = &webhook.authentication else {
        panic!("{webhook:?}");
    };
    keys("first")
        .open(password, webhook.id, "password")
        .unwrap()
        .expose()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_sealed_and_never_shown() {
    let captured = Captured::default();
    let writer = captured.clone();
    // Global, because requests are worked on in other threads. Other tests only add to it.
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let rig = Rig::new().await;
    rig.acme().await;
    let mut shown = String::new();
    let basic =
        json!({"authentication": {"method": "basic", "username": "pbx", "password": PASSWORD}});
    let answer = rig
        .change(Method::PATCH, CDR, ("if-match", "*"), basic)
        .await;
    let expected = json!({"method": "basic", "username": "pbx", "password": {"set": true}});
    assert_eq!(
        answer.expect(StatusCode::OK).body["authentication"],
        expected
    );
    shown += &answer.text;
    let (record, webhook) = stored(&rig);
    assert!(record.contains("\"sealed\""), "{record}");
    assert_eq!(password_of(&webhook), PASSWORD);
    shown += &format!("{record} {webhook:?}");

    // Kept when a change does not mention it, even to another host.
    for change in [
        json!({"url": "https://other.example.com/"}),
        json!({"authentication": {"username": "pbx-2"}}),
        json!({"authentication": {"method": "basic", "username": "pbx-3", "password": {"set": true}}}),
    ] {
        shown += &rig
            .change(Method::PATCH, CDR, ("if-match", "*"), change)
            .await
            .text;
    }
    let put = json!({"url": "https://third.example.com/"});
    shown += &rig
        .change(Method::PUT, CDR, ("if-match", "*"), put)
        .await
        .text;
    assert_eq!(password_of(&stored(&rig).1), PASSWORD);

    // Wrong forms do not repeat what was sent.
    for wrong in [
        json!({"method": "bearer", "token": BEARER, "password": PASSWORD}),
        json!({"method": "basic", "username": "pbx:", "password": PASSWORD}),
        json!({"method": PASSWORD}),
        json!(PASSWORD),
    ] {
        let answer = rig
            .change(
                Method::PATCH,
                CDR,
                ("if-match", "*"),
                json!({"authentication": wrong}),
            )
            .await;
        answer.problem(400, "invalid_authentication");
        shown += &answer.text;
    }

    // Signing secrets are shown where they are asked for, and nowhere else.
    let mut signing = vec![SIGNING.to_owned()];
    let rotate = format!("{CDR}/secret/rotate");
    for form in [
        json!({}),
        json!({"secret": SIGNING}),
        json!({"kind": "ed25519"}),
    ] {
        let asked = rig.post(&rotate, form).await;
        for key in asked.expect(StatusCode::OK).body["signing"]
            .as_array()
            .unwrap()
        {
            signing.extend(key["secret"].as_str().map(str::to_owned));
        }
    }
    for wrong in [
        json!({"secret": SIGNING}),
        json!({"kind": SIGNING}),
        json!(SIGNING),
    ] {
        shown += &rig.post(&rotate, wrong).await.text;
    }
    shown += &stored(&rig).0;

    let bearer = json!({"authentication": {"method": "bearer", "token": BEARER}});
    shown += &rig
        .change(Method::PATCH, CDR, ("if-match", "*"), bearer)
        .await
        .text;
    shown += &stored(&rig).0;
    for path in [
        CDR,
        "/v1/tenants/acme/webhooks",
        "/v1/tenants",
        "/v1/tokens",
    ] {
        shown += &rig.get(path).await.text;
    }
    shown += &rig.post("/v1/secrets/reseal", json!({})).await.text;
    let token = rig.post("/v1/tokens", json!({"all_tenants": true})).await;
    let token = token.body["token"].as_str().unwrap().to_owned();
    shown += &rig.delete(CDR).await.text;
    shown += &format!("{:?}", rig.directory.read());

    let logged = String::from_utf8_lossy(&captured.0.lock().unwrap()).into_owned();
    assert!(logged.contains("webhook changed"), "nothing was captured");
    let signing = signing.iter().map(String::as_str);
    for secret in [PASSWORD, BEARER, &token, TOKEN].into_iter().chain(signing) {
        let secret = secret.trim_start_matches("whsec_");
        assert!(
            !shown.contains(secret),
            "an answer or a record shows {secret}"
        );
        assert!(!logged.contains(secret), "the log shows {secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_secrets_are_sealed_differently() {
    let rig = Rig::new().await;
    rig.acme().await;
    let mut records = Vec::new();
    for _ in 0..2 {
        let basic =
            json!({"authentication": {"method": "basic", "username": "pbx", "password": PASSWORD}});
        rig.change(Method::PATCH, CDR, ("if-match", "*"), basic)
            .await
            .expect(StatusCode::OK);
        records.push(stored(&rig).1.authentication);
    }
    assert_ne!(records[0], records[1]);
}

/// The key of a client certificate is a secret like any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificates_key_is_sealed_kept_and_sealed_again() {
    let rig = Rig::new().await;
    rig.acme().await;
    let pair = KeyPair::generate().unwrap();
    let issue = || {
        CertificateParams::default()
            .self_signed(&pair)
            .unwrap()
            .pem()
    };
    let (certificate, renewed, key) = (issue(), issue(), pair.serialize_pem());
    let foreign = KeyPair::generate().unwrap().serialize_pem();
    let inside = key.lines().nth(1).unwrap();
    let patch = async |tls: serde_json::Value| {
        let body = json!({ "tls": tls });
        rig.change(Method::PATCH, CDR, ("if-match", "*"), body)
            .await
    };
    for wrong in [
        json!({ "certificate": certificate }),
        json!({ "key": key }),
        json!({ "ca": "hello" }),
        json!({ "certificate": key, "key": key }),
        json!({ "certificate": certificate, "key": certificate }),
        json!({ "certificate": certificate, "key": key, "insecure": true }),
        json!({ "certificate": certificate, "key": foreign }),
        json!({ "certificate": certificate, "key": key.replace("-----END", "----END") }),
        json!({ "ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" }),
    ] {
        let answer = patch(wrong).await;
        let said = answer.body.to_string();
        assert!(!said.contains(inside), "{said}");
        assert_eq!(answer.status, 400, "{said}");
    }
    let answer = patch(json!({ "certificate": certificate, "key": key })).await;
    assert_eq!(answer.body["tls"]["key"], json!({ "set": true }));
    // Left out it stays, and a certificate can be renewed with it.
    let answer = patch(json!({ "ca": certificate, "certificate": renewed })).await;
    assert_eq!(answer.body["tls"]["key"], json!({ "set": true }));
    // One that it does not belong to is refused; so is a key for the one that is there.
    let other = KeyPair::generate().unwrap();
    let other = CertificateParams::default().self_signed(&other).unwrap();
    let answer = patch(json!({ "certificate": other.pem() })).await;
    answer.problem(400, "invalid_field");
    assert!(
        answer.text.contains("tls.key is not the key of"),
        "{}",
        answer.text
    );
    let rotated = rig.beside(Config::default(), keys("second")).await;
    let answer = rotated.post("/v1/secrets/reseal", json!({})).await;
    assert_eq!(answer.body["resealed"], 1, "{}", answer.body);
    let (record, webhook) = stored(&rig);
    assert!(!record.contains(inside), "{record}");
    let tls = webhook.tls.unwrap();
    let sealed = tls.key.unwrap();
    assert_eq!(sealed.key_id(), "second");
    let opened = keys("first").open(&sealed, webhook.id, "tls_key").unwrap();
    assert_eq!(opened.expose(), key);
    // Without its certificate it is of no use, and goes.
    let answer = patch(json!({ "ca": certificate })).await;
    assert_eq!(answer.body["tls"]["key"], json!(null));
    let answer = patch(json!(null)).await;
    assert_eq!(answer.body["tls"], json!(null));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_checked_and_shown() {
    let rig = Rig::new().await;
    rig.acme().await;
    let patch = async |headers: serde_json::Value| {
        let body = json!({ "headers": headers });
        rig.change(Method::PATCH, CDR, ("if-match", "*"), body)
            .await
    };
    for (name, value) in [("Host", "a"), ("authorization", "a"), ("x-a", "a\r\nb: c")] {
        patch(json!({ name: value }))
            .await
            .problem(400, "invalid_field");
    }
    let answer = patch(json!({ "X-Tenant": "acme" })).await;
    assert_eq!(answer.body["headers"], json!({ "x-tenant": "acme" }));
    let body = json!({ "format": "raw" });
    let answer = rig
        .change(Method::PATCH, CDR, ("if-match", "*"), body)
        .await;
    assert_eq!(answer.body["headers"], json!({ "x-tenant": "acme" }));
    assert_eq!(answer.body["format"], "raw");
    assert_eq!(patch(json!({})).await.body["headers"], json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_seals_everything_again() {
    let rig = Rig::new().await;
    rig.acme().await;
    let basic =
        json!({"authentication": {"method": "basic", "username": "pbx", "password": PASSWORD}});
    rig.change(Method::PATCH, CDR, ("if-match", "*"), basic)
        .await
        .expect(StatusCode::OK);
    let rotated = rig.beside(Config::default(), keys("second")).await;
    for (resealed, round) in [(1, "first"), (0, "second")] {
        let answer = rotated.post("/v1/secrets/reseal", json!({})).await;
        assert_eq!(
            answer.expect(StatusCode::OK).body["resealed"],
            resealed,
            "{round} round"
        );
        assert_eq!(
            (&answer.body["remaining"], &answer.body["failures"]),
            (&json!(false), &json!(0))
        );
    }
    let (record, webhook) = stored(&rig);
    assert!(record.contains("\"key\":\"second\""), "{record}");
    assert_eq!(password_of(&webhook), PASSWORD);
}
