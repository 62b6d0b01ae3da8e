//! Dispatchers that end: deleted, killed, evicted; and Kafka that does.

use std::fs;
use std::process::Command;
use std::time::Instant;

use serde_json::json;

use super::cluster::Pod;
use super::{Load, Release, until};
use crate::kafka::KafkaServer;

impl Release<'_> {
    /// The pods of a component that are ready.
    pub fn ready(&self, component: &str) -> Vec<Pod> {
        let pods = self.cluster.pods(&self.selector(component));
        let ready = |pod: &Pod| pod.ready && !pod.ending;
        pods.into_iter().filter(ready).collect()
    }

    /// Waits until exactly so many pods of a component are there, all of them ready.
    pub fn settled(&self, component: &str, count: usize) {
        until(&format!("{count} × {component} ready"), || {
            let pods = self.cluster.pods(&self.selector(component));
            let settled = pods.len() == count && pods.iter().all(|pod| pod.ready && !pod.ending);
            settled.then_some(()).ok_or_else(|| format!("{pods:?}"))
        });
    }

    /// The two dispatchers, when they are ready.
    fn pair(&self) -> [Pod; 2] {
        let pair = || <[Pod; 2]>::try_from(self.ready("dispatcher"));
        until("two dispatchers are ready", || {
            pair().map_err(|pods| format!("{pods:?}"))
        })
    }

    /// Ends as with any drain of a node or rollout: told, and waited for.
    pub fn pod_deleted(&self, load: &Load) {
        load.chapter("deleted", || {
            let [first, _] = self.pair();
            self.cluster.kubectl(&["delete", "pod", &first.name]);
            self.settled("dispatcher", 2);
        });
    }

    /// Ends without a word: its process is killed where this machine can see it, otherwise the pod is
    /// deleted without grace.
    pub fn pod_killed(&self, load: &Load) {
        load.chapter("killed", || {
            let [pod, _] = self.pair();
            let Some(process) = process(&pod) else {
                println!("(the node is elsewhere: deleted without grace instead of killed)");
                let now = ["--grace-period=0", "--force"];
                self.cluster
                    .kubectl(&[&["delete", "pod", &pod.name], &now[..]].concat());
                return self.settled("dispatcher", 2);
            };
            let killed = Command::new("kill").args(["-KILL", &process]).status();
            assert!(killed.unwrap().success());
            until("its container runs again", || {
                let pods = self.ready("dispatcher");
                let again = pods
                    .iter()
                    .any(|p| p.name == pod.name && p.restarts > pod.restarts);
                again.then_some(()).ok_or_else(|| format!("{pods:?}"))
            });
            self.settled("dispatcher", 2);
        });
    }

    /// The budget allows one at a time.
    pub fn pods_evicted(&self, load: &Load) {
        load.chapter("evicted", || {
            let [first, second] = self.pair();
            // The budget may still count the disturbance before this one.
            until("the first may go", || self.evict(&first.name));
            let refused = self.evict(&second.name).unwrap_err();
            assert!(refused.contains("disruption budget"), "{refused}");
            self.settled("dispatcher", 2);
        });
    }

    fn evict(&self, pod: &str) -> Result<(), String> {
        let namespace = &self.cluster.namespace;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod, "namespace": namespace },
        });
        let args = ["create", "--raw", &path, "--filename", "-"];
        self.cluster
            .try_kubectl(&args, Some(&eviction.to_string()))
            .map(drop)
    }

    /// Killed, and started again when the pods have noticed.
    pub fn kafka_restarted(&self, load: &Load, kafka: &mut KafkaServer) {
        let before = self.restarts();
        load.chapter("kafka", || {
            let began = Instant::now();
            kafka.kill().unwrap();
            until("no ingest is ready without Kafka", || {
                let ready = self.ready("producer").len();
                (ready == 0)
                    .then_some(())
                    .ok_or_else(|| format!("{ready} are"))
            });
            // What takes nothing in from outside stays: making it anew would not bring Kafka back.
            assert_eq!(self.ready("dispatcher").len(), 2);
            kafka.restart().unwrap();
            println!(
                "figure kube.kafka.away_ms {} ms",
                began.elapsed().as_millis()
            );
            self.settled("dispatcher", 2);
            self.settled("producer", 2);
        });
        let after = self.restarts();
        assert_eq!(after, before, "pods were restarted because Kafka was away");
    }

    fn restarts(&self) -> u64 {
        let all = self.cluster.pods("app.kubernetes.io/part-of=ringback");
        all.iter().map(|pod| pod.restarts).sum()
    }
}

/// The process of a pod's container, if this machine is its node.
fn process(pod: &Pod) -> Option<String> {
    let (_, container) = pod.container.split_once("://")?;
    let entries = fs::read_dir("/proc").ok()?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut processes = numbers.filter(|name| name.parse::<u32>().is_ok());
    processes.find(|process| {
        let group = fs::read_to_string(format!("/proc/{process}/cgroup"));
        group.is_ok_and(|group| group.contains(container))
    })
}
