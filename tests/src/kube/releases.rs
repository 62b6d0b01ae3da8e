//! The release: installed, upgraded under load, rolled back, uninstalled.

use std::time::{Duration, Instant};

use ringback_core::topics::group;
use serde_json::{Value, json};

use super::cluster::PATIENCE;
use super::{Cluster, Load, until};
use crate::process::api;
use crate::receiver::Receiver;
use crate::rig::OPERATOR;

/// The release's name, and with it the chart's objects'.
pub const NAME: &str = "ringback";
/// One for each of five dispatchers, and some that must be shared.
pub const PARTITIONS: usize = 8;
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const TIMEOUT: &str = "--timeout=300s";

/// What the second release changes: every pod.
pub(super) const SECOND: [&str; 4] = [
    "producer.podAnnotations.release=second",
    "dispatcher.podAnnotations.release=second",
    "metrics.podAnnotations.release=second",
    "admin.podAnnotations.release=second",
];

/// An installation by the chart.
pub struct Release<'a> {
    pub cluster: &'a Cluster,
    values: Value,
}

/// The chart beside these tests.
pub(super) fn chart() -> String {
    format!("{}/../helm/ringback", env!("CARGO_MANIFEST_DIR"))
}

/// Values for a small node, and brokers without copies.
pub(super) fn values(cluster: &Cluster, bootstrap: &str) -> Value {
    // Eleven pods at most, and two cores. What is requested is also the pods' share of a busy machine.
    let small = json!({ "requests": { "cpu": "100m", "memory": "48Mi" } });
    let (repository, tag) = &cluster.image;
    json!({
        "image": { "repository": repository, "tag": tag },
        "kafka": { "bootstrap": bootstrap },
        "secrets": {
            "keys": { "existingSecret": "ringback-keys" },
            "operatorToken": { "existingSecret": "ringback-operator" },
        },
        "config": {
            "topics": { "event_partitions": PARTITIONS, "work_partitions": 2, "replication": 1 },
            // What a busy machine makes fail arrives within this test.
            "schedule": { "tiers": ["2s", "4s", "8s", "30s", "2m"] },
            "dispatcher": { "allow_networks": [cluster.host] },
        },
        "topics": { "resources": small },
        "producer": { "resources": small, "service": { "type": "NodePort" } },
        "dispatcher": { "resources": small },
        "metrics": { "resources": small },
        "admin": { "resources": small, "service": { "type": "NodePort" } },
    })
}

/// The Secrets that the chart is told of.
pub fn secrets(cluster: &Cluster) {
    cluster.secret("ringback-keys", &json!({ "k1": KEY }));
    cluster.secret("ringback-operator", &json!({ "operator-token": OPERATOR }));
}

impl<'a> Release<'a> {
    /// Installs on these brokers and waits until everything is ready.
    pub fn install(cluster: &'a Cluster, bootstrap: &str) -> Self {
        let values = values(cluster, bootstrap);
        let release = Self { cluster, values };
        release.upgrade(&[]).unwrap();
        release
    }

    /// `helm upgrade --install --atomic`, with further settings (`a.b=c`).
    pub fn upgrade(&self, settings: &[&str]) -> Result<String, String> {
        let chart = chart();
        let mut args = vec!["upgrade", "--install", "--atomic", TIMEOUT, NAME, &chart];
        settings
            .iter()
            .for_each(|setting| args.extend(["--set", setting]));
        self.cluster.helm(&args, &self.values)
    }

    /// The labels of a component's pods.
    pub fn selector(&self, component: &str) -> String {
        format!("app.kubernetes.io/instance={NAME},app.kubernetes.io/component={component}")
    }

    /// `http://…` of a component, from outside of the cluster.
    pub fn url(&self, component: &str) -> String {
        let port = self.cluster.node_port(&format!("{NAME}-{component}"));
        format!("http://{}:{port}", self.cluster.node)
    }

    /// A tenant with a webhook at a receiver on this machine, and a load for them.
    pub async fn load(&self) -> Load {
        let receiver = Receiver::start_at(self.cluster.host).await;
        let (client, url) = (reqwest::Client::new(), format!("{}/v1", self.url("admin")));
        let call = async |path: &str, body: Value| {
            api(&client, &format!("{url}/{path}"), "POST", body).await
        };
        call("tenants", json!({ "id": "acme", "title": "Acme" })).await;
        let webhook = json!({ "name": "cdr", "url": receiver.url("cdr") });
        call("tenants/acme/webhooks", webhook).await;
        let issued = call("tokens", json!({ "name": "t", "tenant": "acme" })).await;
        let token = issued["token"].as_str().unwrap();
        Load::start(&self.url("producer"), token, receiver)
    }

    /// How many deliveries are parked.
    pub async fn parked(&self) -> usize {
        let url = format!("{}/v1/tenants/acme/webhooks/cdr/parked", self.url("admin"));
        // 503 while the projection is behind the log.
        let found = api(&reqwest::Client::new(), &url, "GET", Value::Null).await;
        found["parked"].as_array().unwrap().len()
    }

    /// Waits until so many dispatchers share the partitions of CDR events evenly: none has two more than
    /// another.
    pub async fn shared_evenly(&self, dispatchers: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shares = self.shares().await;
            let all: usize = shares.iter().sum();
            let apart = shares.iter().max().zip(shares.iter().min());
            let even = apart.is_some_and(|(most, least)| most - least <= 1);
            if shares.len() == dispatchers && all == PARTITIONS && even {
                println!("partitions of CDR events: {shares:?}");
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{dispatchers} dispatchers have {shares:?} of the partitions of CDR events"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// How many of the partitions of CDR events each dispatcher has.
    async fn shares(&self) -> Vec<usize> {
        let url = format!("{}/v1/operations/dispatchers", self.url("admin"));
        let found = api(&reqwest::Client::new(), &url, "GET", Value::Null).await;
        let mut groups = found["groups"].as_array().unwrap().iter();
        let of_cdr = groups.find(|group| group["group"] == group::CDR_EVENTS);
        let members = of_cdr.unwrap_or_else(|| panic!("{found}"))["members"]
            .as_array()
            .unwrap();
        let partitions = |member: &Value| {
            let topics = member["partitions"].as_array().unwrap().iter();
            topics
                .map(|topic| topic["partitions"].as_array().unwrap().len())
                .sum()
        };
        members.iter().map(partitions).collect()
    }

    /// New pods of everything, while events come in.
    pub fn rolled_under_load(&self, load: &Load) {
        load.chapter("upgrade", || {
            self.upgrade(&SECOND).unwrap();
        });
    }

    /// An image that is not there: helm waits in vain, and goes back.
    pub fn bad_image_is_rolled_back(&self, load: &Load) {
        load.chapter("bad_image", || {
            let bad = [
                "image.tag=not-there",
                // It would stop the upgrade before any pod is replaced.
                "topics.enabled=false",
            ];
            let chart = chart();
            let mut args = vec!["upgrade", "--atomic", "--timeout=15s", NAME, &chart];
            bad.iter()
                .for_each(|setting| args.extend(["--set", setting]));
            let why = self.cluster.helm(&args, &self.values).unwrap_err();
            assert!(why.contains("rolled back due to atomic being set"), "{why}");
            let found = self.cluster.json(&["get", "deployments"]);
            for one in found["items"].as_array().unwrap() {
                let image = &one["spec"]["template"]["spec"]["containers"][0]["image"];
                assert!(!image.to_string().contains("not-there"), "{image}");
            }
        });
    }

    /// Nothing of it stays but what the chart did not make.
    pub fn uninstalled(&self) {
        println!("--- uninstall");
        let began = Instant::now();
        let args = ["uninstall", NAME, "--wait", TIMEOUT];
        self.cluster.helm(&args, &Value::Null).unwrap();
        let kinds = "all,secrets,configmaps,serviceaccounts,pdb,hpa,networkpolicies,ingresses,pvc,roles,rolebindings";
        let left = until("the last pod ends", || {
            let selector = format!("app.kubernetes.io/instance={NAME}");
            let args = ["get", kinds, "--selector", &selector, "--output", "name"];
            let left = self.cluster.kubectl(&args);
            match left.contains("pod/") {
                true => Err(left),
                false => Ok(left),
            }
        });
        assert_eq!(left, "", "left behind");
        println!(
            "figure kube.uninstall.seconds {:.1} s",
            began.elapsed().as_secs_f64()
        );
    }
}
