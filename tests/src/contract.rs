//! The delivery contract as a table: one case per rule, the same code on every engine.

mod disablement;
mod lanes;

use std::pin::Pin;
use std::time::{Duration, Instant};

use ringback_core::log::Log;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::receiver::{Answer, Request};
use crate::rig::Rig;
use disablement::r14_disablement;
use lanes::{r12_own_schedule, r12_retry_after, r15_flood, r15_hanging, r15_rate_limit};

type Run<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// One row: the rule, what it says, and how it is shown.
pub struct Case<L: Log> {
    pub rule: &'static str,
    pub says: &'static str,
    pub run: for<'a> fn(&'a Rig<L>) -> Run<'a>,
}

macro_rules! cases {
    ($($rule:literal $says:literal => $run:ident,)+) => {
        vec![$(Case { rule: $rule, says: $says, run: |rig| Box::pin($run(rig)) }),+]
    };
}

/// The table, rules R1 to R15.
pub fn cases<L: Log>() -> Vec<Case<L>> {
    cases! {
        "R1" "nothing is sent before a webhook is configured" => r1_nothing_by_default,
        "R2" "the presets get their families and nothing else" => r2_presets,
        "R3" "Basic and Bearer authenticate; none sends no Authorization" => r3_authentication,
        "R3" "the switch halts the flow and keeps the configuration" => r3_switch,
        "R3" "what is replayed just before the switch is turned on again is sent" => r3_replay_and_resume,
        "R4" "custom webhooks are subscribed by pattern" => r4_patterns,
        "R5" "POST, one JSON object, UTF-8, application/json" => r5_request,
        "R6" "the id stays the same over retries and a replay; the time is the event's" => r6_identity,
        "R7" "data arrives byte for byte" => r7_data,
        "R8" "a slow delivery does not hold up the next" => r8_no_order,
        "R9" "only 200 acknowledges; redirects are not followed" => r9_only_200,
        "R10" "404 stops the retries at once" => r10_404,
        "R11" "every other status, refused, reset, timeout, DNS and TLS failures are retried" => r11_failures,
        "R12" "five retries, each no earlier than its wait, then never again" => r12_ladder,
        "R12" "a webhook's own schedule, drawn from the tiers" => r12_own_schedule,
        "R12" "Retry-After lengthens the wait" => r12_retry_after,
        "R13" "no attempt later than 24 h after the event" => r13_expiry,
        "R13" "a replay is a new run with a new ladder" => r13_replay,
        "R14" "what fails for long is disabled; enabled again, it begins anew" => r14_disablement,
        "R15" "a receiver that hangs holds up nobody else" => r15_hanging,
        "R15" "a flood to one webhook holds up nobody else" => r15_flood,
        "R15" "a rate limit is kept, and nothing is lost by it" => r15_rate_limit,
    }
}

/// Runs the whole table; every failure is reported with its rule. Cases do not share tenants, so they
/// run side by side.
pub async fn run_all<L: Log>(rig: &Rig<L>) {
    use std::panic::AssertUnwindSafe;

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    let runs = cases::<L>().into_iter().map(|case| async move {
        let began = Instant::now();
        let ended = AssertUnwindSafe((case.run)(rig)).catch_unwind().await;
        println!(
            "{:4} {:5.1} s  {}",
            case.rule,
            began.elapsed().as_secs_f64(),
            case.says
        );
        ended.err().map(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            format!(
                "{} ({}): {}",
                case.rule,
                case.says,
                text.unwrap_or_default()
            )
        })
    });
    let broken: Vec<_> = join_all(runs).await.into_iter().flatten().collect();
    assert!(broken.is_empty(), "broken rules:\n{}", broken.join("\n"));
}

async fn r1_nothing_by_default<L: Log>(rig: &Rig<L>) {
    let (silent, loud) = (rig.tenant().await, rig.tenant().await);
    rig.webhook(&loud, "all", &["*"], "r1").await;
    let unheard = rig.event(&silent, "cdr.completed").await;
    let heard = rig.event(&loud, "cdr.completed").await;
    rig.receiver
        .wait("the other tenant's event", |books| {
            books.is_delivered(&heard)
        })
        .await;
    rig.receiver
        .books(|books| assert!(!books.is_delivered(&unheard)));
}

async fn r2_presets<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    for preset in ["cdr", "extension"] {
        let url = rig.receiver.url(&format!("r2-{preset}"));
        rig.webhook_with(&tenant, preset, json!({ "url": url }))
            .await;
    }
    rig.webhook(&tenant, "all", &["*"], "r2-all").await;
    let names = [
        "cdr.completed",
        "cdr.updated",
        "extension.call_state_changed",
        "extension.presence_changed",
        "extension.registration_changed",
        "queue.status_changed",
        "agent.status_changed",
        "call.started",
    ];
    for name in names {
        rig.event(&tenant, name).await;
    }
    let types = |path: &str| {
        let mut types: Vec<_> = rig
            .receiver
            .books(|books| books.at(path))
            .iter()
            .map(|request| request.json()["type"].as_str().unwrap().to_owned())
            .collect();
        types.sort();
        types
    };
    rig.receiver
        .wait("all of R2 arrived", |books| {
            [("r2-all", 8), ("r2-cdr", 2), ("r2-extension", 5)]
                .iter()
                .all(|(path, count)| books.at(path).len() >= *count)
        })
        .await;
    assert_eq!(types("r2-cdr"), ["cdr.completed", "cdr.updated"]);
    assert_eq!(types("r2-extension").len(), 5);
    assert!(
        types("r2-extension")
            .iter()
            .all(|name| !name.starts_with("c"))
    );
    assert_eq!(types("r2-all").len(), 8);
}

async fn r3_authentication<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    let methods = [
        ("r3-none", json!({ "method": "none" }), ""),
        (
            "r3-basic",
            json!({ "method": "basic", "username": "Aladdin", "password": "open sesame" }),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ),
        (
            "r3-bearer",
            json!({ "method": "bearer", "token": "s3cr3t" }),
            "Bearer s3cr3t",
        ),
    ];
    for (path, authentication, _) in &methods {
        let url = rig.receiver.url(path);
        let fields = json!({ "url": url, "subscription": ["*"], "authentication": authentication });
        let answer = rig.webhook_with(&tenant, path, fields).await;
        let text = answer.to_string();
        assert!(
            !text.contains("sesame") && !text.contains("s3cr3t"),
            "{text}"
        );
        assert!(
            text.contains("warning"),
            "plain HTTP is accepted with a warning: {text}"
        );
    }
    rig.event(&tenant, "cdr.completed").await;
    for (path, _, expected) in methods {
        rig.receiver
            .wait(path, |books| !books.at(path).is_empty())
            .await;
        let request = rig.receiver.books(|books| books.at(path).remove(0));
        assert_eq!(request.header("authorization"), expected, "{path}");
    }
}

async fn r3_switch<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["*"], "r3-switch").await;
    let path = format!("tenants/{}/webhooks/main", tenant.id);
    rig.api("POST", &format!("{path}/pause"), Value::Null).await;
    // DL6: within 2 s after the pause is written, nothing is sent.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let paused = rig.event(&tenant, "cdr.completed").await;
    let parked = rig.parked(&tenant, "main", 1).await;
    assert_eq!(parked[0]["reason"], "paused");
    assert_eq!(parked[0]["event"], json!(paused));
    rig.api("POST", &format!("{path}/resume"), Value::Null)
        .await;
    let resumed = wait_until_sent(rig, &tenant, "r3-switch").await;
    assert_ne!(resumed, paused);
    rig.receiver
        .books(|books| assert!(!books.is_delivered(&paused)));
}

/// A dispatcher may read the replay before it reads that the webhook is on again.
async fn r3_replay_and_resume<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["*"], "r3-replay").await;
    let path = format!("tenants/{}/webhooks/main", tenant.id);
    rig.api("POST", &format!("{path}/pause"), Value::Null).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let id = rig.event(&tenant, "cdr.completed").await;
    rig.parked(&tenant, "main", 1).await;
    // At once: who waits for the end of the replay may be later than just before.
    let (replay, resume) = (format!("{path}/replay"), format!("{path}/resume"));
    let replay = rig.api("POST", &replay, json!({ "all": true }));
    tokio::join!(replay, rig.api("POST", &resume, Value::Null));
    rig.receiver
        .wait("the replay", |books| books.is_delivered(&id))
        .await;
}

/// Sends events until one arrives: a change of configuration takes up to 2 s.
async fn wait_until_sent<L: Log>(
    rig: &Rig<L>,
    tenant: &crate::rig::TestTenant,
    path: &str,
) -> String {
    for _ in 0..100 {
        let id = rig.event(tenant, "cdr.completed").await;
        for _ in 0..10 {
            if rig.receiver.books(|books| books.count(path, &id) > 0) {
                return id;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    panic!("nothing arrived at {path} any more");
}

async fn r4_patterns<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "exact", &["call.leg.ringing"], "r4-exact")
        .await;
    rig.webhook(
        &tenant,
        "below",
        &["call.*", "message.received"],
        "r4-below",
    )
    .await;
    for name in [
        "call.leg.ringing",
        "call.started",
        "message.received",
        "message.failed",
        "fax.sent",
    ] {
        rig.event(&tenant, name).await;
    }
    rig.receiver
        .wait("r4-below", |books| books.at("r4-below").len() >= 3)
        .await;
    rig.receiver
        .wait("r4-exact", |books| !books.at("r4-exact").is_empty())
        .await;
    let names = |path: &str| -> Vec<String> {
        let mut names: Vec<_> = rig
            .receiver
            .books(|books| books.at(path))
            .iter()
            .map(|r| r.json()["type"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("r4-exact"), ["call.leg.ringing"]);
    assert_eq!(
        names("r4-below"),
        ["call.leg.ringing", "call.started", "message.received"]
    );
}

async fn one_request<L: Log>(rig: &Rig<L>, path: &'static str, event: Value) -> Request {
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["*"], path).await;
    rig.send(&tenant, event).await;
    rig.receiver
        .wait(path, |books| !books.at(path).is_empty())
        .await;
    rig.receiver.books(|books| books.at(path).remove(0))
}

async fn r5_request<L: Log>(rig: &Rig<L>) {
    let event = json!({
        "type": "message.received", "subject": "message/1", "source": "pbx-7",
        "data": { "text": "Grüße 📞 \u{7}" },
    });
    let request = one_request(rig, "r5", event).await;
    assert_eq!(request.method, "POST");
    assert_eq!(request.header("content-type"), "application/json");
    assert!(request.header("user-agent").starts_with("Ringback/"));
    assert_eq!(request.header("webhook-id"), request.id());
    assert_eq!(request.header("webhook-attempt"), "0");
    request.header("webhook-timestamp").parse::<u64>().unwrap();
    let body = request.json();
    assert_eq!(body["type"], "message.received");
    assert_eq!(body["subject"], "message/1");
    assert_eq!(body["source"], "pbx-7");
    assert_eq!(body["data"]["text"], "Grüße 📞 \u{7}");
    std::str::from_utf8(&request.body).unwrap();
}

async fn r6_identity<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["*"], "r6").await;
    let answers = vec![
        Answer::Status(500),
        Answer::Status(503),
        Answer::Status(404),
    ];
    rig.receiver.first("r6", answers);
    let now = ringback_log::system_clock().now();
    let time = (now - Duration::from_secs(60)).to_string();
    let id = "01936b2e-8c5a-7000-9a1f-3a5f1c2b4d6e";
    let event = json!({ "id": id, "type": "cdr.completed", "time": time, "data": {} });
    assert_eq!(rig.send(&tenant, event).await, id);
    let parked = rig.parked(&tenant, "main", 1).await;
    assert_eq!(parked[0]["reason"], "rejected");
    let path = format!("tenants/{}/webhooks/main/replay", tenant.id);
    rig.api("POST", &path, json!({ "event": id })).await;
    rig.receiver
        .wait("the replay of R6", |books| books.count("r6", id) >= 4)
        .await;
    let requests = rig.receiver.books(|books| books.at("r6"));
    for request in &requests {
        assert_eq!(request.id(), id);
        assert_eq!(request.header("webhook-id"), id);
        assert_eq!(request.json()["timestamp"], json!(time));
    }
    let attempts: Vec<_> = requests
        .iter()
        .map(|r| r.header("webhook-attempt"))
        .collect();
    assert_eq!(attempts, ["0", "1", "2", "0"]);
}

async fn r7_data<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["*"], "r7").await;
    let data = "{ \"b\" : 1.50,\"a\":\"\\u00e9\", \"big\":123456789012345678901234567890 ,\"b\":2}";
    let event = format!("{{\"type\":\"cdr.completed\",\"data\":{data}}}");
    let url = format!("{}/v1/events", rig.ingest);
    let request = rig.client.post(url).bearer_auth(&tenant.token);
    let request = request
        .header("content-type", "application/json")
        .body(event);
    assert_eq!(request.send().await.unwrap().status().as_u16(), 202);
    rig.receiver
        .wait("r7", |books| !books.at("r7").is_empty())
        .await;
    let request = rig.receiver.books(|books| books.at("r7").remove(0));
    let body = std::str::from_utf8(&request.body).unwrap();
    assert!(body.ends_with(&format!("\"data\":{data}}}")), "{body}");
}

async fn r8_no_order<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["*"], "r8").await;
    rig.receiver
        .behave("r8", |books, path, _| match books.at(path).len() {
            0 => Answer::After(Duration::from_millis(1500)),
            _ => Answer::Status(200),
        });
    let slow = rig.event(&tenant, "call.started").await;
    rig.receiver
        .wait("the slow one", |books| books.count("r8", &slow) > 0)
        .await;
    let quick = rig.event(&tenant, "call.updated").await;
    rig.receiver
        .wait("the quick one", |books| books.count("r8", &quick) > 0)
        .await;
    let quick = rig.attempts(&tenant, "main", &quick, 1).await.remove(0);
    let slow = rig.attempts(&tenant, "main", &slow, 1).await.remove(0);
    let ended = |attempt: &Value| {
        let started = attempt["started"].as_str().unwrap();
        let started = ringback_core::time::Timestamp::parse(started).unwrap();
        started + Duration::from_millis(attempt["duration_ms"].as_u64().unwrap())
    };
    assert!(ended(&quick) < ended(&slow), "{quick} {slow}");
}

async fn r9_only_200<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["*"], "r9").await;
    rig.receiver
        .behave("r9-elsewhere", |_, _, _| Answer::Status(200));
    let elsewhere = rig.receiver.url("r9-elsewhere");
    let mut ids = Vec::new();
    let answers: Vec<_> = [201u16, 202, 204, 206, 226, 301, 302, 303, 307, 308]
        .into_iter()
        .map(|status| match status {
            300.. => Answer::With(status, vec![("location", elsewhere.clone())]),
            _ => Answer::Status(status),
        })
        .collect();
    // Each event meets another answer first, by the order of arrival.
    rig.receiver.behave("r9", {
        let answers = answers.clone();
        move |books, path, id| {
            let seen = books.at(path);
            if seen.iter().any(|request| request.id() == id) {
                return Answer::Status(200);
            }
            let distinct: std::collections::HashSet<_> = seen.iter().map(Request::id).collect();
            answers[distinct.len() % answers.len()].clone()
        }
    });
    for _ in &answers {
        ids.push(rig.event(&tenant, "cdr.completed").await);
    }
    rig.receiver
        .wait("the retries of R9", |books| {
            ids.iter().all(|id| books.count("r9", id) >= 2)
        })
        .await;
    for id in &ids {
        let attempts = rig.attempts(&tenant, "main", id, 2).await;
        assert_eq!(attempts[0]["next"], "retry.300ms", "{attempts:?}");
        assert_eq!(attempts[1]["next"], "delivered");
    }
    rig.receiver
        .books(|books| assert!(books.at("r9-elsewhere").is_empty()));
}

async fn r10_404<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["*"], "r10").await;
    rig.receiver.behave("r10", |_, _, _| Answer::Status(404));
    let id = rig.event(&tenant, "cdr.completed").await;
    let parked = rig.parked(&tenant, "main", 1).await;
    assert_eq!(parked[0]["reason"], "rejected");
    let attempts = rig.attempts(&tenant, "main", &id, 1).await;
    assert_eq!(
        (attempts.len(), &attempts[0]["next"]),
        (1, &json!("rejected"))
    );
    never_again(rig, "r10", &id, 1).await;
}

/// Longer than the whole shortened ladder, nothing more may come.
async fn never_again<L: Log>(rig: &Rig<L>, path: &str, id: &str, count: usize) {
    tokio::time::sleep(Duration::from_secs(3)).await;
    rig.receiver
        .books(|books| assert_eq!(books.count(path, id), count));
}

async fn r11_failures<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    // Statuses: each failure is followed by a success.
    rig.webhook(&tenant, "statuses", &["cdr.*"], "r11").await;
    let statuses = [500, 503, 429, 410, 401];
    rig.receiver
        .first("r11", statuses.map(Answer::Status).into());
    let id = rig.event(&tenant, "cdr.completed").await;
    rig.receiver
        .wait("R11's success", |books| books.count("r11", &id) >= 6)
        .await;
    let seen = rig.attempts(&tenant, "statuses", &id, 6).await;
    let seen: Vec<_> = seen
        .iter()
        .map(|attempt| attempt["status"].as_u64().unwrap())
        .collect();
    assert_eq!(seen, [500, 503, 429, 410, 401, 200]);

    // What is no answer: each kind on a webhook of its own.
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let reset = misbehave(|stream| async move {
        stream.set_zero_linger().unwrap();
        drop(stream);
    })
    .await;
    let hang = misbehave(|mut stream| async move {
        let mut sink = [0; 1024];
        while stream.read(&mut sink).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    let garbage = misbehave(|mut stream| async move {
        use tokio::io::AsyncWriteExt;
        let mut sink = [0; 4096];
        let _ = stream.read(&mut sink).await;
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
        let _ = stream.read(&mut sink).await;
    })
    .await;
    let kinds = [
        ("refused", format!("http://{closed}/")),
        ("reset", format!("http://{reset}/")),
        ("timeout", format!("http://{hang}/")),
        ("protocol", format!("http://{garbage}/")),
        ("dns", "http://no-such-host.invalid/".to_owned()),
        ("tls", format!("https://{garbage}/")),
    ];
    for (kind, url) in &kinds {
        let fields = json!({ "url": url, "subscription": ["call.*"] });
        rig.webhook_with(&tenant, kind, fields).await;
    }
    let id = rig.event(&tenant, "call.started").await;
    for (kind, _) in &kinds {
        let attempts = rig.attempts(&tenant, kind, &id, 2).await;
        match (*kind, &attempts[0]["outcome"]) {
            // A machine without a name server cannot know that a name does not exist.
            ("dns", outcome) if outcome == "resolver" => {}
            (kind, outcome) => assert_eq!(outcome, kind, "{attempts:?}"),
        }
        assert_eq!(attempts[0]["next"], "retry.300ms", "{attempts:?}");
        assert!(attempts[0]["status"].is_null());
        assert!(!attempts[0]["error"].as_str().unwrap_or_default().is_empty());
    }
}

/// A server that does this to every connection.
async fn misbehave<F: Future<Output = ()> + Send + 'static>(
    with: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(with(stream));
        }
    });
    address
}

async fn r12_ladder<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["*"], "r12").await;
    rig.receiver.behave("r12", |_, _, _| Answer::Status(500));
    let id = rig.event(&tenant, "cdr.completed").await;
    rig.receiver
        .wait("six attempts", |books| books.count("r12", &id) >= 6)
        .await;
    let parked = rig.parked(&tenant, "main", 1).await;
    assert_eq!(parked[0]["reason"], "exhausted");
    let times: Vec<_> = rig
        .receiver
        .books(|books| books.at("r12").iter().map(|request| request.at).collect());
    let numbers = rig.receiver.books(|books| {
        let requests = books.at("r12");
        let number = |request: &Request| request.header("webhook-attempt").to_owned();
        requests.iter().map(number).collect::<Vec<_>>()
    });
    assert_eq!(numbers, ["0", "1", "2", "3", "4", "5"], "{times:?}");
    for (pair, tier) in times.windows(2).zip(rig.schedule.tiers()) {
        let waited: Duration = pair[1] - pair[0];
        // A millisecond for the granularity of record times.
        assert!(
            waited + Duration::from_millis(1) >= *tier,
            "{waited:?} is less than {tier:?}"
        );
    }
    let attempts = rig.attempts(&tenant, "main", &id, 6).await;
    let next: Vec<_> = attempts
        .iter()
        .map(|attempt| attempt["next"].as_str().unwrap())
        .collect();
    let tiers = [
        "retry.300ms",
        "retry.400ms",
        "retry.500ms",
        "retry.600ms",
        "retry.700ms",
    ];
    assert_eq!(next[..5], tiers);
    assert_eq!(next[5], "exhausted");
    never_again(rig, "r12", &id, 6).await;
}

async fn r13_expiry<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["*"], "r13").await;
    rig.receiver.behave("r13", |_, _, _| Answer::Status(500));
    // Its 24 hours are over in a second and a half: some attempts, then parked although tiers are
    // left.
    let now = ringback_log::system_clock().now();
    let limit = rig.schedule.expires_after() - Duration::from_millis(1500);
    let event = json!({ "type": "cdr.completed", "time": (now - limit).to_string(), "data": {} });
    let id = rig.send(&tenant, event).await;
    let parked = rig.parked(&tenant, "main", 1).await;
    assert_eq!(parked[0]["reason"], "expired", "{parked:?}");
    let made = rig.receiver.books(|books| books.count("r13", &id));
    assert!(made < 6, "{made} attempts");
    never_again(rig, "r13", &id, made).await;
}

async fn r13_replay<L: Log>(rig: &Rig<L>) {
    let tenant = rig.tenant().await;
    rig.webhook(&tenant, "main", &["*"], "r13-replay").await;
    // Six failures exhaust the first run; the second run fails once and then arrives.
    rig.receiver
        .first("r13-replay", vec![Answer::Status(500); 7]);
    let id = rig.event(&tenant, "cdr.completed").await;
    let parked = rig.parked(&tenant, "main", 1).await;
    assert_eq!(parked[0]["reason"], "exhausted");
    let path = format!("tenants/{}/webhooks/main/replay", tenant.id);
    let answer = rig.api("POST", &path, json!({ "all": true })).await;
    assert_eq!(answer["replay"]["sent"], 1, "{answer}");
    rig.receiver
        .wait("the replay", |books| books.is_delivered(&id))
        .await;
    let attempts = rig.attempts(&tenant, "main", &id, 8).await;
    let runs: Vec<_> = attempts
        .iter()
        .map(|a| (a["run"].clone(), a["attempt"].clone()))
        .collect();
    assert_eq!(runs[6..], [(json!(1), json!(0)), (json!(1), json!(1))]);
    // Asked for again, nothing is left to replay.
    let answer = rig.api("POST", &path, json!({ "all": true })).await;
    assert_eq!(answer["replay"]["sent"], 0, "{answer}");
}
