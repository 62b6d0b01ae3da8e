//! What is wrong is told where one looks: in the words with which the container ended, or did not start.

use serde_json::{Value, json};

use super::releases::{chart, values};
use super::{Cluster, until};

/// Releases of a dispatcher alone that cannot work, all at once; what each of its pods says.
pub fn wrong_installations_say_why(cluster: &Cluster, bootstrap: &str) {
    println!("--- refusals");
    let wrong: [(&str, Value, &[&str]); 3] = [
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
            "no-secret",
            json!({ "secrets": { "keys": { "existingSecret": "forgotten" } } }),
            &["secret \"forgotten\" not found"],
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

/// Puts values over others.
fn merge(into: &mut Value, over: &Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (name, value) in over {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, over) => *into = over.clone(),
    }
}
