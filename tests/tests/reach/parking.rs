//! What becomes of deliveries that may not be sent, in a whole pipeline.

use ringback_log::local::{LocalLog, LocalOptions};
use ringback_tests::rig::{Rig, short_schedule, topics};

use super::*;

/// Its network is closed after it was configured: deliveries are parked and say why; opened again, a
/// replay brings them.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_address_parks_until_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let schedule = short_schedule();
    let log = LocalLog::open(dir.path(), topics(&schedule), LocalOptions::default()).unwrap();
    let mut rig = Rig::start(log, schedule).await;
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["*"], "closed").await;
    let open = rig.config.allow_networks.replace(Vec::new());
    rig.dispatcher.take().unwrap().drain().await;
    rig.start_dispatcher();
    let id = rig.event(&tenant, "cdr.completed").await;
    let parked = rig.parked(&tenant, "main", 1).await;
    assert_eq!(parked[0]["reason"], "undeliverable", "{parked:?}");
    let detail = parked[0]["detail"].as_str().unwrap();
    assert_eq!(
        detail,
        "the URL cannot be used: 127.0.0.1, a loopback address; an operator can open it with dispatcher.allow_networks"
    );
    assert_eq!(rig.receiver.books(|books| books.count("closed", &id)), 0);

    rig.config.allow_networks = open;
    rig.dispatcher.take().unwrap().drain().await;
    rig.start_dispatcher();
    let path = format!("tenants/{}/webhooks/main/replay", tenant.id);
    let answer = rig.api("POST", &path, json!({ "all": true })).await;
    assert_eq!(answer["replay"]["sent"], 1, "{answer}");
    rig.receiver
        .wait("the replay", |books| books.is_delivered(&id))
        .await;
    rig.stop().await;
}
