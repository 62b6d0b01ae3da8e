//! Ringback on a real Kubernetes, with a real Kafka beside it: `cargo xtask kube` runs this.
//!
//! In the environment: `KUBECONFIG`, `IMAGE` (which the cluster must have), `KUBE_HOST`, the address of this
//! machine as pods reach it; kubectl and helm in `PATH`.

// A tool of the tests: it prints, and a broken expectation should panic.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic)]

use std::time::Instant;

use ringback_tests::kafka::{KafkaOptions, KafkaServer};
use ringback_tests::kube::{Cluster, Release, refusals, releases, scaling};

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
    refusals::forgotten_secret_is_said_by_the_hook(&cluster, kafka.bootstrap());
    scaling::rollback_leaves_the_autoscaler_alone(&cluster, kafka.bootstrap());

    println!("--- install");
    let release = Release::install(&cluster, kafka.bootstrap());
    let load = release.load().await;
    release.shared_evenly(2).await;
    release.pod_deleted(&load);
    release.shared_evenly(2).await;
    release.pods_evicted(&load);
    release.shared_evenly(2).await;
    release.pod_killed(&load);
    release.shared_evenly(2).await;
    release.rolled_under_load(&load);
    release.shared_evenly(2).await;
    release.bad_image_is_rolled_back(&load);
    release.kafka_restarted(&load, &mut kafka);
    release.shared_evenly(2).await;
    release.scaled(&load).await;
    release.shared_evenly(2).await;
    release.static_members(&load);
    release.shared_evenly(2).await;
    let parked = release.parked().await;
    println!("figure kube.parked {parked} deliveries");
    assert_eq!(parked, 0, "deliveries were parked");
    drop(load);
    release.uninstalled();
    cluster.kubectl(&["delete", "namespace", &namespace]);
    println!("figure kube.seconds {:.0} s", began.elapsed().as_secs_f64());
}
