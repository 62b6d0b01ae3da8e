//! Prometheus and Alertmanager with their tools, from Debian's packages unpacked below `target/`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// One of the programs, to be started. Debian's Alertmanager has the path of a file below `/usr/share`
/// compiled in, so one that is unpacked elsewhere gets a name space of its own, in which its files are there.
pub fn program(name: &str) -> Result<Command, String> {
    let program = prepare()?.join(name);
    let share = program.parent().map(|bin| bin.join("../share"));
    let share = share.and_then(|share| share.canonicalize().ok());
    let share = share.filter(|share| share != Path::new("/usr/share"));
    let Some(share) = share else {
        return Ok(debian::command(&program, None));
    };
    let script = "mount --bind \"$0\" /usr/share && exec \"$@\"";
    let mut command = debian::command(Path::new("unshare"), None);
    command
        .args(["--map-root-user", "--mount", "--", "sh", "-c", script])
        .args([&share, &program]);
    Ok(command)
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
