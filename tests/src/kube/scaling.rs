//! More dispatchers, and fewer.

use std::collections::BTreeSet;

use serde_json::json;

use super::cluster::Pod;
use super::releases::{NAME, SECOND};
use super::{Load, Release, until};

impl Release<'_> {
    /// 2 → 5 → 2. By the chart's autoscaler where the cluster has metrics: its aim is moved instead of the
    /// load, and its patience on the way down is taken away. Elsewhere by hand.
    pub fn scaled(&self, load: &Load) {
        let metrics = ["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"];
        if self.cluster.try_kubectl(&metrics, None).is_err() {
            println!("(no metrics API: scaled by hand instead of by the HorizontalPodAutoscaler)");
            load.chapter("scaled_out", || self.scale(5));
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
        load.chapter("scaled_in", || {
            self.aim(10_000);
            self.settled("dispatcher", 2);
        });
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
