//! The step `kube`: Ringback on a real Kubernetes, with a real Kafka beside it, while pods, releases and
//! Kafka come and go. The cluster is the one that `KUBECONFIG` names, or a kit's.

use std::path::Path;

use crate::deploy::kit;
use crate::step::{cargo, command, run};
use crate::{image, target};

/// It takes some minutes; what hangs is ended after these seconds.
const SECONDS_MAX: &str = "1200";

/// Runs the scenarios with this `ringback`. Says when there is no cluster; in CI it runs where the kit is.
pub(crate) fn test(ringback: &Path) -> Result<(), String> {
    let kit = kit();
    let own = std::env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty());
    if !own && kit.is_none() {
        println!("skipped: no cluster: set KUBECONFIG, IMAGE and KUBE_HOST (docs/kubernetes.md)");
        return Ok(());
    }
    let program = target().join("debug/kube");
    let tests = ["--locked", "--package", "ringback-tests", "--bin"];
    run(cargo(&["run"]).args(tests).args(["kafka", "--", "prepare"]))?;
    run(cargo(&["build"]).args(tests).arg("kube"))?;
    let mut timeout = command("timeout", &["--kill-after=60", SECONDS_MAX]);
    let Some(kit) = kit.filter(|_| !own) else {
        return run(timeout.arg(program));
    };
    let archive = image::build(ringback)?;
    timeout
        .arg(kit.join("kube-local"))
        .args(["run", "--crds", "--metrics", "--image"])
        .arg(archive)
        .arg("--logs")
        .arg(target().join("kube"))
        .arg("--")
        .arg(program)
        .env("IMAGE", image::NAME);
    run(&mut timeout)
}
