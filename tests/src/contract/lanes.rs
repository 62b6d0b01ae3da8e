//! A webhook's own pace, and what one receiver's trouble is to the others (R12, R15).

use super::*;

pub(super) async fn r12_own_schedule<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    let url = rig.receiver.url("r12-own");
    let fields = json!({ "url": url, "subscription": ["*"], "schedule": ["500ms", "300ms"] });
    let webhook = rig.webhook_with(&tenant, "main", fields).await;
    assert_eq!(webhook["schedule"], json!(["500ms", "300ms"]));
    rig.receiver
        .behave("r12-own", |_, _, _| Answer::Status(500));
    let id = rig.event(&tenant, "cdr.completed").await;
    let parked = rig.parked(&tenant, "main", 1).await;
    assert_eq!(parked[0]["reason"], "exhausted");
    let attempts = rig.attempts(&tenant, "main", &id, 3).await;
    let next: Vec<_> = attempts.iter().map(|attempt| &attempt["next"]).collect();
    assert_eq!(next, ["retry.500ms", "retry.300ms", "exhausted"]);
    // What has no topic is refused, with what there is.
    let path = format!("tenants/{}/webhooks", tenant.id);
    let wrong = json!({ "name": "other", "url": url, "subscription": ["*"], "schedule": ["1m"] });
    let (status, answer) = rig.try_api("POST", &path, wrong).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer.to_string().contains("300ms, 400ms"), "{answer}");
}

pub(super) async fn r12_retry_after<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["*"], "r12-after").await;
    let busy = |status| Answer::With(status, vec![("retry-after", "1".to_owned())]);
    rig.receiver
        .first("r12-after", vec![busy(429), busy(503), busy(500)]);
    let id = rig.event(&tenant, "cdr.completed").await;
    rig.receiver
        .wait("it arrived after all", |books| books.is_delivered(&id))
        .await;
    let attempts = rig.attempts(&tenant, "main", &id, 4).await;
    let next: Vec<_> = attempts.iter().map(|attempt| &attempt["next"]).collect();
    // The longest tier here is shorter than a second; the lane is held back for the rest. With a 500
    // the header means nothing.
    let longest = "retry.700ms";
    assert_eq!(next, [longest, longest, "retry.500ms", "delivered"]);
    let times: Vec<_> = rig
        .receiver
        .books(|books| books.at("r12-after").iter().map(|r| r.at).collect());
    for pair in times[..3].windows(2) {
        let waited: Duration = pair[1] - pair[0];
        assert!(waited >= Duration::from_millis(999), "{waited:?}");
    }
}

/// So many events of one type, in one batch.
async fn batch<L: Log>(rig: &Rig<L>, tenant: &crate::rig::TestTenant, name: &str, count: usize) {
    let line = json!({ "type": name, "data": {} }).to_string();
    let url = format!("{}/v1/events", rig.ingest);
    let request = rig.client.post(url).bearer_auth(&tenant.token);
    let request = request
        .header("content-type", "application/x-ndjson")
        .body(vec![line; count].join("\n"));
    assert_eq!(request.send().await.unwrap().status().as_u16(), 202);
}

/// How many requests came to `path` before this event arrived anywhere.
fn came_before(books: &crate::receiver::Books, path: &str, id: &str) -> usize {
    let other = |request: &&Request| request.path == path || request.id() != id;
    let before = books.requests.iter().take_while(other);
    before.filter(|request| request.path == path).count()
}

pub(super) async fn r15_hanging<L: Log>(rig: &Rig<L>) {
    const BACKLOG: usize = 100;
    let (stuck, well) = (rig.tenant().await, rig.tenant().await);
    rig.webhook(&stuck, "main", &["*"], "r15-hang").await;
    rig.webhook(&well, "main", &["*"], "r15-well").await;
    // Longer than any request may take.
    rig.receiver
        .behave("r15-hang", |_, _, _| Answer::After(Duration::from_secs(30)));
    batch(rig, &stuck, "call.updated", BACKLOG).await;
    rig.receiver
        .wait("the first hang", |books| {
            books.requests.iter().any(|r| r.path == "r15-hang")
        })
        .await;
    // Behind them in the log, and yet before them.
    for _ in 0..10 {
        let id = rig.event(&well, "call.updated").await;
        rig.receiver
            .wait("an event of R15", |books| books.is_delivered(&id))
            .await;
        let before = rig
            .receiver
            .books(|books| came_before(books, "r15-hang", &id));
        assert!(before < BACKLOG, "{before} were sent before it");
    }
    // What hangs is not asked for all of it at a time either.
    let path = format!("tenants/{}/webhooks/main/pause", stuck.id);
    rig.api("POST", &path, Value::Null).await;
}

pub(super) async fn r15_flood<L: Log>(rig: &Rig<L>) {
    const FLOOD: usize = 6000;
    let (loud, quiet) = (rig.tenant().await, rig.tenant().await);
    rig.webhook(&loud, "main", &["*"], "r15-flood").await;
    rig.webhook(&quiet, "main", &["*"], "r15-quiet").await;
    rig.receiver.behave("r15-flood", |_, _, _| {
        Answer::After(Duration::from_millis(100))
    });
    // More than a process takes in at a time.
    batch(rig, &loud, "call.updated", FLOOD).await;
    rig.receiver
        .wait("the flood", |books| {
            books.requests.iter().any(|r| r.path == "r15-flood")
        })
        .await;
    let id = rig.event(&quiet, "call.updated").await;
    rig.receiver
        .wait("the quiet one", |books| books.is_delivered(&id))
        .await;
    let before = rig
        .receiver
        .books(|books| came_before(books, "r15-flood", &id));
    assert!(before < FLOOD / 4, "{before} were sent before it");
    // The rest need not be sent for this test.
    let path = format!("tenants/{}/webhooks/main/pause", loud.id);
    rig.api("POST", &path, Value::Null).await;
}

pub(super) async fn r15_rate_limit<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    let url = rig.receiver.url("r15-rate");
    let fields = json!({ "url": url, "subscription": ["*"], "rate_limit": 5 });
    rig.webhook_with(&tenant, "main", fields).await;
    batch(rig, &tenant, "call.updated", 20).await;
    rig.receiver
        .wait("all of them", |books| books.at("r15-rate").len() >= 20)
        .await;
    let times: Vec<_> = rig
        .receiver
        .books(|books| books.at("r15-rate").iter().map(|r| r.at).collect());
    // Nineteen waits of 200 ms; a request may be on its way a little longer than the next.
    let took: Duration = times[19] - times[0];
    assert!(took >= Duration::from_millis(3500), "{took:?}");
}
