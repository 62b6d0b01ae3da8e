//! How components end, as seen from outside.

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// All of it on the local log.
fn config(dir: &std::path::Path) -> Config {
    let mut config = Config::default();
    for listen in [
        &mut config.ingest.listen,
        &mut config.admin.listen,
        &mut config.telemetry.listen,
    ] {
        "127.0.0.1:0".clone_into(listen);
    }
    config.log.local.dir = dir.to_path_buf();
    config.topics.event_partitions = 1;
    config.topics.work_partitions = 1;
    crate::up::provide_secrets(&mut config, dir).unwrap();
    config
}

async fn post(client: &Client, url: &str, token: &str, body: &Value) -> Value {
    loop {
        let request = client.post(url).bearer_auth(token).json(body);
        let answer = request.send().await.unwrap();
        let status = answer.status();
        // The configuration is not there yet, or not known yet.
        if status != StatusCode::SERVICE_UNAVAILABLE && status != StatusCode::UNAUTHORIZED {
            assert!(status.is_success(), "{url}: {status}");
            return answer.json().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_drains_says_so_and_is_measured_to_its_end() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let operator = config.admin.operator_token.expose().to_owned();
    let running = Running::start(config, Components::ALL).await.unwrap();
    let url = |address: &Option<String>| address.clone().unwrap();
    let (admin, ingest) = (
        url(&running.addresses.admin),
        url(&running.addresses.ingest),
    );
    let telemetry = url(&running.addresses.telemetry);
    let client = Client::builder().no_proxy().build().unwrap();
    let get = async |path: &str| {
        let answer = client
            .get(format!("{telemetry}{path}"))
            .send()
            .await
            .unwrap();
        (answer.status(), answer.text().await.unwrap())
    };

    let receiver = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}/", receiver.local_addr().unwrap());
    let acme = json!({ "id": "acme", "title": "Acme" });
    post(&client, &format!("{admin}/v1/tenants"), &operator, &acme).await;
    let webhook = json!({ "name": "cdr", "url": target });
    let webhooks = format!("{admin}/v1/tenants/acme/webhooks");
    post(&client, &webhooks, &operator, &webhook).await;
    let token = json!({ "name": "t", "tenant": "acme" });
    let token = post(&client, &format!("{admin}/v1/tokens"), &operator, &token).await;
    let token = token["token"].as_str().unwrap().to_owned();
    // Again until one comes: a webhook is known everywhere only some time after it was made.
    let event = json!({ "type": "cdr.completed", "data": {} });
    let (mut held, _) = loop {
        post(&client, &format!("{ingest}/v1/events"), &token, &event).await;
        let comes = tokio::time::timeout(Duration::from_millis(200), receiver.accept());
        if let Ok(accepted) = comes.await {
            break accepted.unwrap();
        }
    };
    // All its parts were in order once.
    while get("/readyz").await.0 != StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // It waits for the answer to what is in flight.
    let draining = tokio::spawn(running.drain());
    let said = loop {
        let (status, said) = get("/readyz").await;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            break said;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(said.contains(r#""process":"draining""#), "{said}");
    // Its other servers are closed before that one.
    while client.get(&ingest).send().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The gauge is written in intervals: it comes to say what is in flight, while it drains.
    let in_flight = |line: &&str| line.starts_with("ringback_requests_in_flight ");
    loop {
        let (status, metrics) = get("/metrics").await;
        assert_eq!(status, StatusCode::OK);
        if metrics.lines().find(in_flight).unwrap() != "ringback_requests_in_flight 0" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(get("/healthz").await.0, StatusCode::OK);
    assert!(!draining.is_finished());
    // Others may have come meanwhile: all of them are answered.
    let answering = tokio::spawn(async move {
        loop {
            let mut request = [0; 4096];
            assert!(held.read(&mut request).await.unwrap() > 0);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            held.write_all(answer).await.unwrap();
            held = receiver.accept().await.unwrap().0;
        }
    });
    draining.await.unwrap();
    answering.abort();
    assert!(
        client
            .get(format!("{telemetry}/readyz"))
            .send()
            .await
            .is_err()
    );
}
