//! A webhook whose authentication was changed while its receiver was not, or not yet.

// Test code: a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::response::Response;
use parking_lot::Mutex;
use ringback_core::verdict::Outcome;
use ringback_core::webhook::{PreviousAuthentication, Webhook};
use ringback_tests::sender::Sender;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Starts a receiver that takes requests whose `Authorization` begins like this; returns its URL, and
/// what it was shown.
async fn receiver(takes: &'static str, status: u16) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let noted = seen.clone();
    let router = Router::new().fallback(async move |headers: HeaderMap| {
        let shown = headers.get("authorization");
        let shown = shown.map_or("", |value| value.to_str().unwrap()).to_owned();
        let answer = match shown.starts_with(takes) {
            true => Response::builder().status(status),
            false => Response::builder()
                .status(401)
                .header("www-authenticate", "Digest realm=\"r\", nonce=\"n\""),
        };
        noted.lock().push(shown);
        answer.body(String::new()).unwrap()
    });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, seen)
}

/// A webhook that was changed from one authentication to another.
fn changed(sender: &Sender, url: &str, before: Value, now: Value, until: Duration) -> Webhook {
    let webhook = sender.webhook(url, before);
    let previous = PreviousAuthentication {
        authentication: webhook.authentication.clone(),
        until: ringback_log::system_clock().now() + until,
    };
    Webhook {
        previous_authentication: Some(previous),
        ..sender.change(&webhook, now)
    }
}

const HOUR: Duration = Duration::from_secs(3600);

fn bearer(token: &str) -> Value {
    json!({ "method": "bearer", "token": token })
}

fn login(method: &str) -> Value {
    json!({ "method": method, "username": "pbx", "password": "correct-horse" })
}

/// Whichever side changes first, and from whatever to whatever: nothing is refused.
#[tokio::test]
async fn either_side_may_change_first() {
    let pairs = [
        (bearer("old"), "Bearer old", bearer("new"), "Bearer new"),
        (login("basic"), "Basic ", bearer("new"), "Bearer new"),
        (login("digest"), "Digest ", bearer("new"), "Bearer new"),
        (bearer("old"), "Bearer old", login("digest"), "Digest "),
    ];
    for (before, old, now, new) in pairs {
        let sender = Sender::new();
        let (url, seen) = receiver(old, 200).await;
        let webhook = changed(&sender, &url, before.clone(), now.clone(), HOUR);
        let sent = sender.send(&webhook).await;
        assert_eq!(sent.outcome, Outcome::Status(200), "{before} {now}");
        let note = sent.error.unwrap();
        assert!(note.contains("takes only the earlier"), "{note}");
        assert!(!note.contains("old") && !note.contains("horse"), "{note}");
        assert!(seen.lock().last().unwrap().starts_with(old));

        let (url, seen) = receiver(new, 200).await;
        let webhook = changed(&sender, &url, before, now, HOUR);
        let sent = sender.send(&webhook).await;
        assert_eq!((sent.outcome, sent.error), (Outcome::Status(200), None));
        let tried = seen.lock().iter().any(|shown| shown.starts_with(old));
        assert!(!tried, "{:?}", seen.lock());
    }
}

/// What is tried is what failed, if nothing is taken; and only while the grace lasts.
#[tokio::test]
async fn the_earlier_one_is_tried_only_for_a_401_and_in_its_time() {
    let sender = Sender::new();
    let (url, seen) = receiver("Bearer third", 200).await;
    let both = changed(&sender, &url, bearer("old"), bearer("new"), HOUR);
    let sent = sender.send(&both).await;
    assert_eq!(sent.outcome, Outcome::Status(401));
    assert!(sent.error.unwrap().contains("refused the credentials"));
    assert_eq!(*seen.lock(), ["Bearer new", "Bearer old"]);

    let (url, seen) = receiver("Bearer old", 200).await;
    let over = changed(&sender, &url, bearer("old"), bearer("new"), Duration::ZERO);
    assert_eq!(sender.send(&over).await.outcome, Outcome::Status(401));
    assert_eq!(*seen.lock(), ["Bearer new"]);

    // A receiver that knows us and fails is not asked twice, with whichever it knows us by.
    let (url, seen) = receiver("Bearer new", 500).await;
    let failing = changed(&sender, &url, bearer("old"), bearer("new"), HOUR);
    assert_eq!(sender.send(&failing).await.outcome, Outcome::Status(500));
    assert_eq!(*seen.lock(), ["Bearer new"]);
    let (url, seen) = receiver("Bearer old", 500).await;
    let failing = changed(&sender, &url, bearer("old"), bearer("new"), HOUR);
    assert_eq!(sender.send(&failing).await.outcome, Outcome::Status(500));
    assert_eq!(*seen.lock(), ["Bearer new", "Bearer old"]);
}
