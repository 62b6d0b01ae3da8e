//! The step `deploy`: the Helm chart, alert rules, dashboards and units, with the programs that judge
//! them. Helm is the machine's, a kit's for clusters in tests, or built by Go; Kafka comes from Maven, the
//! rest from PyPI and Debian's packages.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::step::{cargo, command, output, run};
use crate::{built, root, target};

/// Built when the machine has no Helm.
const HELM: &str = "helm.sh/helm/v3/cmd/helm@v3.19.0";
/// What a machine without Go is told.
const GO: &str = "install Go (Debian: apt-get install golang)";

/// Runs the tests of `tests/deploy` with this `ringback`. Says what is skipped outside of CI.
pub(crate) fn test(ringback: &Path, in_ci: bool) -> Result<(), String> {
    let ringback = built(ringback)?;
    let kit = kit();
    let helm = match helm(kit.as_deref()) {
        Ok(helm) => Some(helm),
        Err(error) if in_ci => return Err(error),
        Err(error) => {
            println!("skipped: the tests of the chart: {error}");
            None
        }
    };
    let compose = match compose() {
        Ok(compose) => Some(compose),
        Err(error) if in_ci => return Err(error),
        Err(error) => {
            println!("skipped: the tests of deploy/compose.yaml: {error}");
            None
        }
    };
    let mut tests = command(&python()?.to_string_lossy(), &["-m", "unittest"]);
    tests.args(["discover", "--start-directory", "tests/deploy"]);
    if helm.is_none() {
        tests.args(["--pattern", "test_[!c]*.py"]);
    }
    tests
        .env("PATH", path_with(&prometheus()?)?)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("RINGBACK", ringback);
    match kafka() {
        Ok(kafka) => _ = tests.env("KAFKA", kafka),
        Err(error) if in_ci => return Err(error),
        Err(error) => println!("skipped: the panels about Kafka: {error}"),
    }
    if let Some(helm) = helm {
        tests.env("HELM", helm);
    }
    if let Some(compose) = compose {
        tests.env("COMPOSE", compose);
    }
    let crds = kit.map(|kit| kit.join("crds")).filter(|crds| crds.exists());
    if let Some(crds) = crds {
        tests.env("CRDS", crds);
    }
    run(&mut tests)
}

/// A kit that brings Kubernetes for tests: named by `KUBE_LOCAL_KIT`, or beside the repository.
pub(crate) fn kit() -> Option<PathBuf> {
    let named = std::env::var_os("KUBE_LOCAL_KIT").map(PathBuf::from);
    let beside = || {
        let mut above = root().ancestors().skip(1);
        above.find_map(|dir| Some(dir.join("shared/kubernetes")).filter(|kit| is_kit(kit)))
    };
    named.filter(|kit| is_kit(kit)).or_else(beside)
}

fn is_kit(dir: &Path) -> bool {
    dir.join("kube-local").exists()
}

/// The path of Helm 3.
fn helm(kit: Option<&Path>) -> Result<PathBuf, String> {
    let in_path = PathBuf::from("helm");
    if works(&in_path) {
        return Ok(in_path);
    }
    // Its `env` prints what a shell takes, and unpacks.
    if let Some(kit) = kit {
        let program = kit.join("kube-local");
        let script = format!("eval \"$('{}' env)\" && command -v helm", program.display());
        let helm = output(&mut command("bash", &["-c", &script]))?;
        return Ok(PathBuf::from(helm.trim()));
    }
    let built = target().join("tools/bin/helm");
    if works(&built) {
        return Ok(built);
    }
    let mut go = command("go", &["install", HELM]);
    build(go.env("GOBIN", target().join("tools/bin")))
        .map_err(|error| format!("Helm 3 is missing: install it, or {GO}: {error}"))?;
    Ok(built)
}

/// The path of what reads compose files.
fn compose() -> Result<PathBuf, String> {
    let built = target().join("tools/bin/compose");
    let mut go = command("go", &["build", "-o", &built.to_string_lossy(), "."]);
    build(go.current_dir(root().join("tests/compose")))
        .map_err(|error| format!("it cannot be read without Go; {GO}: {error}"))?;
    Ok(built)
}

/// What cannot be built here (no Go, an old one, no registry) is not to be had.
fn build(go: &mut Command) -> Result<(), String> {
    run(go.env("CGO_ENABLED", "0"))
}

fn works(helm: &Path) -> bool {
    let version = output(&mut command(
        &helm.to_string_lossy(),
        &["version", "--template", "{{.Version}}"],
    ));
    version.is_ok_and(|version| version.starts_with("v3."))
}

/// A Python with what `tests/deploy/requirements.txt` names.
fn python() -> Result<PathBuf, String> {
    let dir = target().join("deploy");
    let doing = |error: std::io::Error| format!("preparing {}: {error}", dir.display());
    let pins = root().join("tests/deploy/requirements.txt");
    let wanted = fs::read(&pins).map_err(|error| format!("{}: {error}", pins.display()))?;
    let venv = dir.join("venv");
    let python = venv.join("bin/python");
    let complete = dir.join(".complete");
    if fs::read(&complete).is_ok_and(|installed| installed == wanted) && python.exists() {
        return Ok(python);
    }
    fs::create_dir_all(&dir).map_err(doing)?;
    run(command("python3", &["-m", "venv", "--clear"]).arg(&venv))?;
    let install =
        "-m pip install --quiet --no-deps --only-binary=:all: --disable-pip-version-check";
    let mut pip = command(&python.to_string_lossy(), &[]);
    pip.args(install.split(' ')).arg("--requirement").arg(&pins);
    run(&mut pip)?;
    fs::write(&complete, wanted).map_err(doing)?;
    Ok(python)
}

/// Where Prometheus and its tools are, unpacked if they are not on the machine.
fn prometheus() -> Result<PathBuf, String> {
    let args = ["run", "--quiet", "--locked", "--package", "ringback-tests"];
    let mut prepare = cargo(&args);
    let dir = output(
        prepare
            .args(["--bin", "prometheus"])
            .stderr(Stdio::inherit()),
    )?;
    Ok(PathBuf::from(dir.trim()))
}

/// The program that runs Kafka, which is fetched.
fn kafka() -> Result<PathBuf, String> {
    let tests = ["--locked", "--package", "ringback-tests", "--bin", "kafka"];
    run(cargo(&["run"]).args(tests).args(["--", "prepare"]))?;
    Ok(target().join("debug/kafka"))
}

/// This process's `PATH` behind another folder.
fn path_with(dir: &Path) -> Result<OsString, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(dir.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(all).map_err(|error| format!("PATH: {error}"))
}
