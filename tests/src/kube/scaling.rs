//! More dispatchers, and fewer; dispatchers that keep their place.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::cluster::Pod;
use super::refusals::merge;
use super::releases::{NAME, SECOND, chart, values};
use super::{Cluster, Load, Release, until};

impl Release<'_> {
    /// 2 → 5 → 2. By the chart's autoscaler where the cluster has metrics: its aim is moved instead of the
    /// load, and its patience on the way down is taken away. Elsewhere by hand.
    pub async fn scaled(&self, load: &Load) {
        if !has_metrics(self.cluster) {
            println!("(no metrics API: scaled by hand instead of by the HorizontalPodAutoscaler)");
            load.chapter("scaled_out", || self.scale(5));
            self.shared_evenly(5).await;
            load.chapter("scaled_in", || self.scale(2));
            return;
        }
        load.chapter("autoscaling_on", || {
            let names = |pods: Vec<Pod>| {
                pods.into_iter()
                    .map(|pod| pod.name)
                    .collect::<BTreeSet<_>>()
            };
            let before = names(self.ready("dispatcher"));
            let on = [
                "dispatcher.autoscaling.enabled=true",
                "dispatcher.autoscaling.maxReplicas=5",
            ];
            self.upgrade(&[&SECOND[..], &on].concat()).unwrap();
            let after = names(self.ready("dispatcher"));
            assert!(
                before.is_subset(&after),
                "switching it on ended some of {before:?}: {after:?}"
            );
            aim(self.cluster, NAME, 10_000);
            self.settled("dispatcher", 2);
        });
        load.chapter("scaled_out", || {
            aim(self.cluster, NAME, 1);
            self.settled("dispatcher", 5);
        });
        self.shared_evenly(5).await;
        load.chapter("scaled_in", || {
            aim(self.cluster, NAME, 10_000);
            self.settled("dispatcher", 2);
        });
    }

    /// With static membership a pod that comes back soon keeps its partitions, and nobody else's move.
    pub fn static_members(&self, load: &Load) {
        let settings = [&SECOND[..], &["dispatcher.membership=static"]].concat();
        load.chapter("static_on", || {
            self.upgrade(&settings).unwrap();
            self.settled("dispatcher", 2);
        });
        let [gone, stays] = [0, 1].map(|index| format!("{NAME}-dispatcher-{index}"));
        load.chapter("static_deleted", || {
            let before = self.moved(&stays);
            self.cluster.kubectl(&["delete", "pod", &gone]);
            self.settled("dispatcher", 2);
            assert_eq!(self.moved(&stays), before, "partitions moved");
        });
    }

    /// Partitions that a dispatcher was given, and that were taken from it, as it counts them.
    fn moved(&self, pod: &str) -> Vec<String> {
        let namespace = &self.cluster.namespace;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:9464/proxy/metrics");
        let metrics = self.cluster.kubectl(&["get", "--raw", &path]);
        let counts = metrics
            .lines()
            .filter(|line| line.starts_with("ringback_rebalances_total"));
        let counts: Vec<_> = counts.map(str::to_owned).collect();
        assert!(!counts.is_empty(), "{metrics}");
        counts
    }

    fn scale(&self, count: usize) {
        let deployment = format!("deployment/{NAME}-dispatcher");
        self.cluster
            .kubectl(&["scale", &deployment, &format!("--replicas={count}")]);
        self.settled("dispatcher", count);
    }
}

/// Has a release's autoscaler aim at this use of the CPU, in percent of what is requested.
fn aim(cluster: &Cluster, release: &str, percent: u32) {
    let aimed = json!({ "spec": {
        "metrics": [{ "type": "Resource", "resource": {
            "name": "cpu", "target": { "type": "Utilization", "averageUtilization": percent },
        } }],
        "behavior": { "scaleDown": {
            "stabilizationWindowSeconds": 0,
            "policies": [{ "type": "Percent", "value": 100, "periodSeconds": 15 }],
        } },
    } });
    let autoscaler = format!("hpa/{release}-dispatcher");
    let patch = ["--type=merge", "--patch", &aimed.to_string()];
    cluster.kubectl(&[&["patch", &autoscaler], &patch[..]].concat());
    until("the autoscaler has metrics", || {
        let found = cluster.json(&["get", &autoscaler]);
        let now = &found["status"]["currentMetrics"];
        now.is_array()
            .then_some(())
            .ok_or_else(|| found["status"].to_string())
    });
}

fn has_metrics(cluster: &Cluster) -> bool {
    let metrics = ["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"];
    cluster.try_kubectl(&metrics, None).is_ok()
}

/// A release of dispatchers alone whose autoscaler is on from the first: what that has chosen stays while the
/// next release comes, and while it is taken back.
pub fn rollback_leaves_the_autoscaler_alone(cluster: &Cluster, bootstrap: &str) {
    const SCALED: &str = "ringback-scaled";
    println!("--- rollback");
    if !has_metrics(cluster) {
        return println!("(no metrics API: nothing scales)");
    }
    let mut values = values(cluster, bootstrap);
    let over = json!({
        "producer": { "enabled": false }, "metrics": { "enabled": false }, "admin": { "enabled": false },
        "kafka": { "groupPrefix": "scaled." }, "config": { "topics": { "prefix": "scaled." } },
        "dispatcher": { "autoscaling": { "enabled": true, "minReplicas": 1, "maxReplicas": 3 } },
    });
    merge(&mut values, &over);
    let chart = chart();
    cluster
        .helm(&["install", SCALED, &chart, "--wait"], &values)
        .unwrap();
    aim(cluster, SCALED, 1);
    let wanted = || {
        let deployment = format!("deployment/{SCALED}-dispatcher");
        cluster.json(&["get", &deployment])["spec"]["replicas"].as_u64()
    };
    until("three dispatchers", || match wanted() {
        Some(3) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let second = ["--set", SECOND[1], "--wait"];
    let upgrade = [&["upgrade", SCALED, &chart], &second[..]].concat();
    let rollback = ["rollback", SCALED, "1", "--wait"];
    for (args, values) in [(&upgrade[..], &values), (&rollback[..], &Value::Null)] {
        let seen = std::thread::scope(|scope| {
            let helm = scope.spawn(|| cluster.helm(args, values));
            let mut seen = BTreeSet::new();
            while !helm.is_finished() {
                seen.insert(wanted());
            }
            helm.join().unwrap().unwrap();
            seen.insert(wanted());
            seen
        });
        println!("{}: {seen:?} dispatchers", args[0]);
        assert_eq!(
            seen,
            BTreeSet::from([Some(3)]),
            "{} changed the number",
            args[0]
        );
    }
    let args = ["uninstall", SCALED, "--wait"];
    cluster.helm(&args, &Value::Null).unwrap();
}
