//! The step `alerts`: a real Prometheus and a real Alertmanager see each alert fire on a fault, and
//! resolved once that is mended. Kafka is fetched, Prometheus and Alertmanager are Debian's.

use std::path::Path;

use crate::step::{cargo, command, run};
use crate::{built, target};

/// It takes some minutes; what hangs is ended after these seconds.
const SECONDS_MAX: &str = "1000";

/// Runs it with this `ringback`.
pub(crate) fn test(ringback: &Path) -> Result<(), String> {
    let ringback = built(ringback)?;
    let tests = ["--locked", "--package", "ringback-tests", "--bin"];
    run(cargo(&["run"]).args(tests).args(["kafka", "--", "prepare"]))?;
    run(cargo(&["run"]).args(tests).arg("prometheus"))?;
    run(cargo(&["build"]).args(tests).arg("alerts"))?;
    let mut timeout = command("timeout", &["--kill-after=60", SECONDS_MAX]);
    run(timeout
        .arg(target().join("debug/alerts"))
        .env("RINGBACK", ringback))
}
