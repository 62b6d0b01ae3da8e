//! What is wrong is told where one looks: in the words with which the container ended, or did not start.

use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::{Value, json};

use super::releases::{chart, values};
use super::{Cluster, until};

/// Releases of a dispatcher alone that cannot work, all at once; what each of its pods says.
pub async fn wrong_installations_say_why(cluster: &Cluster, bootstrap: &str) {
    println!("--- refusals");
    wrong_topic(bootstrap, "altered.events.cdr").await;
    let wrong: [(&str, Value, &[&str]); 4] = [
        (
            "no-broker",
            json!({ "kafka": { "bootstrap": format!("{}:1", cluster.host) } }),
            &["check that the brokers run, that log.kafka.bootstrap names them"],
        ),
        (
            "no-topics",
            json!({ "config": { "topics": { "prefix": "elsewhere." } } }),
            &[
                "topic elsewhere.events.cdr: it is missing",
                "admin component creates",
            ],
        ),
        (
            "wrong-topic",
            json!({ "config": { "topics": { "prefix": "altered." } } }),
            &[
                "topic altered.events.cdr: partitions is 1, expected 8",
                "topic altered.events.cdr: cleanup.policy is compact, expected delete",
            ],
        ),
        (
            "no-secret",
            json!({ "secrets": { "keys": { "existingSecret": "forgotten" } } }),
            &["RINGBACK_SECRETS__PRIMARY: secrets.primary: there is no secrets.keys.k1"],
        ),
    ];
    for (name, over, _) in &wrong {
        let mut values = values(cluster, bootstrap);
        merge(&mut values, over);
        merge(
            &mut values,
            &json!({
                "topics": { "enabled": false }, "producer": { "enabled": false },
                "metrics": { "enabled": false }, "admin": { "enabled": false },
                "dispatcher": { "replicas": 1 },
            }),
        );
        cluster.helm(&["install", name, &chart()], &values).unwrap();
    }
    for (name, _, words) in &wrong {
        let selector = format!("app.kubernetes.io/instance={name}");
        let said = until(&format!("{name} says why"), || {
            let pods = cluster.pods(&selector);
            let said: String = pods
                .iter()
                .map(|pod| format!("{}{}", pod.last_words, pod.waiting))
                .collect();
            let all = words.iter().all(|word| said.contains(word));
            all.then(|| said.clone()).ok_or(said)
        });
        println!("{name}: {}", said.trim());
        assert!(
            !said.contains("\"level\""),
            "the log instead of words: {said}"
        );
        cluster.helm(&["uninstall", name], &Value::Null).unwrap();
    }
}

/// A topic as somebody else might have made it: for too few dispatchers, and losing events.
async fn wrong_topic(bootstrap: &str, name: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    let made = admin.create_topics([&topic], &AdminOptions::new()).await;
    assert!(made.unwrap().iter().all(Result::is_ok));
}

/// The hook before an installation fails: nothing is made, and its Job says why.
pub fn failed_hook_says_why(cluster: &Cluster) {
    let nowhere = format!("{}:1", cluster.host);
    hook_fails(
        cluster,
        "hook",
        &nowhere,
        &json!({ "topics": { "backoffLimit": 0 } }),
        "check that the brokers run",
    );
}

/// A Secret that nobody made, in an installation as it comes: the hook does not wait for it, and says so at
/// its first attempt.
pub fn forgotten_secret_is_said_by_the_hook(cluster: &Cluster, bootstrap: &str) {
    hook_fails(
        cluster,
        "forgotten",
        bootstrap,
        &json!({ "secrets": { "keys": { "existingSecret": "forgotten" } } }),
        "there is no secrets.keys.k1",
    );
}

/// Installs with these values; the hook's only pod must end with these words.
fn hook_fails(cluster: &Cluster, name: &str, bootstrap: &str, over: &Value, words: &str) {
    println!("--- {name}");
    let mut values = values(cluster, bootstrap);
    merge(&mut values, over);
    let (chart, began) = (chart(), Instant::now());
    let args = ["install", name, &chart, "--atomic", "--timeout=300s"];
    let why = cluster.helm(&args, &values).unwrap_err();
    assert!(why.contains("pre-install"), "{why}");
    println!(
        "figure kube.hook.{name}_ms {} ms",
        began.elapsed().as_millis()
    );
    let selector = format!("app.kubernetes.io/instance={name}");
    let made = [
        "get",
        "deployments,services",
        "--selector",
        &selector,
        "--output",
        "name",
    ];
    assert_eq!(cluster.kubectl(&made), "");
    let pods = cluster.pods(&selector);
    let said: Vec<_> = pods.iter().map(|pod| pod.last_words.trim()).collect();
    println!("{name}: {said:?}");
    assert!(said.len() == 1 && said[0].contains(words), "{pods:?}");
    // It is kept for a day; the words are read.
    let jobs = ["delete", "jobs,serviceaccounts", "--selector", &selector];
    cluster.kubectl(&jobs);
}

/// Whatever sets of values the chart is tried with: the API server takes every object, and nothing is made.
/// Kinds that the cluster does not have (operators' definitions) are named.
pub fn every_object_is_taken(cluster: &Cluster) {
    println!("--- objects");
    let monitoring = ["get", "crd", "podmonitors.monitoring.coreos.com"];
    let monitored = cluster.try_kubectl(&monitoring, None).is_ok();
    let chart = chart();
    let mut taken = 0;
    for file in std::fs::read_dir(format!("{chart}/ci")).unwrap() {
        let file = file.unwrap().path();
        let values = file.to_string_lossy();
        let mut args = vec!["template", "rb", &chart, "--values", &values];
        if monitored {
            args.extend(["--api-versions", "monitoring.coreos.com/v1"]);
        }
        let objects = cluster.helm(&args, &Value::Null).unwrap();
        let ask = [
            "apply",
            "--dry-run=server",
            "--validate=strict",
            "--filename",
            "-",
        ];
        let said = cluster.try_kubectl(&ask, Some(&objects));
        match said {
            Ok(said) => taken += said.matches("(server dry run)").count(),
            Err(why) => {
                let unknown = |line: &&str| line.contains("no matches for kind");
                let lines = || {
                    why.lines()
                        .filter(|line| !line.contains("ensure CRDs are installed"))
                };
                assert!(lines().all(|line| unknown(&line)), "{values}: {why}");
                println!("{values}: not known here: {why}");
            }
        }
    }
    println!("figure kube.objects {taken} count");
    assert!(taken > 0);
}

/// Puts values over others.
pub(super) fn merge(into: &mut Value, over: &Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (name, value) in over {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, over) => *into = over.clone(),
    }
}
