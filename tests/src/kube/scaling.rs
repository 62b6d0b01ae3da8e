//! More dispatchers, and fewer; dispatchers that keep their place.

use std::collections::BTreeSet;

use serde_json::json;

use super::cluster::Pod;
use super::releases::{NAME, SECOND};
use super::{Load, Release, until};

impl Release<'_> {
    /// 2 → 5 → 2. By the chart's autoscaler where the cluster has metrics: its aim is moved instead of the
    /// load, and its patience on the way down is taken away. Elsewhere by hand.
    pub async fn scaled(&self, load: &Load) {
        let metrics = ["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"];
        if self.cluster.try_kubectl(&metrics, None).is_err() {
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
            self.aim(10_000);
            self.settled("dispatcher", 2);
        });
        load.chapter("scaled_out", || {
            self.aim(1);
            self.settled("dispatcher", 5);
        });
        self.shared_evenly(5).await;
        load.chapter("scaled_in", || {
            self.aim(10_000);
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

    /// Has the autoscaler aim at this use of the CPU, in percent of what is requested.
    fn aim(&self, percent: u32) {
        let aimed = json!({ "spec": {
            "metrics": [{ "type": "Resource", "resource": {
                "name": "cpu", "target": { "type": "Utilization", "averageUtilization": percent },
            } }],
            "behavior": { "scaleDown": {
                "stabilizationWindowSeconds": 0,
                "policies": [{ "type": "Percent", "value": 100, "periodSeconds": 15 }],
            } },
        } });
        let autoscaler = format!("hpa/{NAME}-dispatcher");
        let patch = ["--type=merge", "--patch", &aimed.to_string()];
        self.cluster
            .kubectl(&[&["patch", &autoscaler], &patch[..]].concat());
        until("the autoscaler has metrics", || {
            let found = self.cluster.json(&["get", &autoscaler]);
            let now = &found["status"]["currentMetrics"];
            now.is_array()
                .then_some(())
                .ok_or_else(|| found["status"].to_string())
        });
    }
}
