//! Ringback on a real Kubernetes, with a real Kafka beside it: `cargo xtask kube` runs this.
//!
//! In the environment: `KUBECONFIG`, `IMAGE` (which the cluster must have), `KUBE_HOST`, the address of this
//! machine as pods reach it; kubectl and helm in `PATH`.

// A tool of the tests: it prints, and a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic)]

use std::time::Instant;

use ringback_tests::kafka::{KafkaOptions, KafkaServer};
use ringback_tests::kube::{Cluster, Release, refusals, releases};

#[tokio::main]
async fn main() {
    let began = Instant::now();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let namespace = format!("ringback-{}", std::process::id());
    let cluster = Cluster::prepare(&namespace);
    let options = KafkaOptions {
        host: cluster.host,
        ..KafkaOptions::default()
    };
    let mut kafka = KafkaServer::start_with(&options).unwrap();
    releases::secrets(&cluster);
    refusals::every_object_is_taken(&cluster);
    refusals::wrong_installations_say_why(&cluster, kafka.bootstrap()).await;
    refusals::failed_hook_says_why(&cluster);

    println!("--- install");
    let release = Release::install(&cluster, kafka.bootstrap());
    let load = release.load().await;
    let shares = async || println!("partitions of CDR events: {:?}", release.shares().await);
    shares().await;
    release.pod_deleted(&load);
    shares().await;
    release.pods_evicted(&load);
    shares().await;
    release.pod_killed(&load);
    shares().await;
    release.rolled_under_load(&load);
    shares().await;
    release.bad_image_is_rolled_back(&load);
    release.kafka_restarted(&load, &mut kafka);
    shares().await;
    release.scaled(&load);
    shares().await;
    release.static_members(&load);
    shares().await;
    let parked = release.parked().await;
    println!("figure kube.parked {parked} deliveries");
    assert_eq!(parked, 0, "deliveries were parked");
    drop(load);
    release.uninstalled();
    cluster.kubectl(&["delete", "namespace", &namespace]);
    println!("figure kube.seconds {:.0} s", began.elapsed().as_secs_f64());
}
