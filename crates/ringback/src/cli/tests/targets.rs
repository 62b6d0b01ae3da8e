//! What is said of a webhook's URL and its certificates when they are given.

use std::io;

use rcgen::{CertificateParams, KeyPair};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn names_are_refused_or_warned_of() {
    let rig = Rig::resolving(Some(Lookup::new(|name| async move {
        match name.as_str() {
            "private.example.com" => Ok(vec!["10.0.0.5:0".parse().unwrap()]),
            _ => Err(io::Error::other("no such name")),
        }
    })))
    .await;
    rig.ok("tenant add acme").await;
    let add = "webhook add acme a --subscribe * --url";
    let (_, said) = rig
        .fails(&format!("{add} https://private.example.com/"))
        .await;
    let expected = "private.example.com resolves to 10.0.0.5, a private address; an operator can open it with dispatcher.allow_networks";
    assert!(said.contains(expected), "{said}");
    let expected = "Warning: later.example.com does not resolve (no such name): deliveries fail until it does\n";
    let said = rig.ok(&format!("{add} https://later.example.com/")).await;
    assert!(said.contains(expected), "{said}");
    let said = rig
        .ok("webhook set acme a --url https://later.example.com/b")
        .await;
    assert!(said.contains(expected), "{said}");
    let (_, said) = rig
        .fails("webhook set acme a --url https://private.example.com/")
        .await;
    assert!(said.contains("10.0.0.5, a private address"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_the_certificates_is_refused() {
    let rig = Rig::new().await;
    rig.ok("tenant add acme").await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let certificate = CertificateParams::default()
        .self_signed(&key)
        .unwrap()
        .pem();
    let certificate = file("own.pem", &certificate);
    let other = other.serialize_pem();
    let add = format!(
        "webhook add acme a --subscribe * --url https://a.example.com/ --tls-certificate {certificate} --tls-key"
    );
    let (_, said) = rig
        .fails(&format!("{add} {}", file("other.key", &other)))
        .await;
    assert!(
        said.contains("tls.key is not the key of tls.certificate"),
        "{said}"
    );
    assert!(!said.contains(other.lines().nth(1).unwrap()), "{said}");
    rig.ok(&format!("{add} {}", file("own.key", &key.serialize_pem())))
        .await;
}
