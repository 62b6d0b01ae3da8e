//! Prometheus and Alertmanager with their tools, from Debian's packages unpacked below `target/`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::debian;

const PACKAGES: [&str; 2] = ["prometheus", "prometheus-alertmanager"];
const PROGRAMS: [&str; 4] = [
    "prometheus",
    "promtool",
    "prometheus-alertmanager",
    "amtool",
];

/// Finds the programs, unpacking them below `target/` when they are not there: the folder they are in.
pub fn prepare() -> Result<PathBuf, String> {
    debian::prepare("prometheus", &PACKAGES, below)
}

/// The folder of the programs below a root, if all of them are there and start.
fn below(root: &Path) -> Option<PathBuf> {
    let dir = root.join("usr/bin");
    let starts = |name: &str| {
        let mut command = debian::command(&dir.join(name), None);
        let status = command.arg("--version").stderr(Stdio::null()).output();
        status.is_ok_and(|output| output.status.success())
    };
    PROGRAMS.iter().all(|name| starts(name)).then_some(dir)
}
