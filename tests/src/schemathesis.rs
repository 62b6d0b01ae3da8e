//! Schemathesis, which makes requests of an OpenAPI document and holds the answers against it.
//!
//! [`prepare`] installs it below `target/`, in the versions that `tests/schemathesis/` pins.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

type Result<T> = std::result::Result<T, String>;

const ADVICE: &str =
    "install Python 3.10 or later with venv (Debian: apt-get install python3-venv)";

/// What must hold of every answer, whatever is asked.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance";

/// The installed program.
pub struct Schemathesis {
    dir: PathBuf,
}

/// Installs it unless it is there in the right version. Two processes may do so at the same time.
pub fn prepare() -> Result<Schemathesis> {
    let dir = target_dir().join("schemathesis");
    let doing = |error: std::io::Error| format!("preparing {}: {error}", dir.display());
    fs::create_dir_all(&dir).map_err(doing)?;
    let lock = File::create(dir.join("lock")).map_err(doing)?;
    lock.lock().map_err(doing)?;
    let pins = sources().join("requirements.txt");
    let wanted = fs::read(&pins).map_err(doing)?;
    let complete = dir.join(".complete");
    if fs::read(&complete).is_ok_and(|installed| installed == wanted) {
        return Ok(Schemathesis { dir });
    }
    let venv = dir.join("venv");
    let mut python = Command::new("python3");
    python.args(["-m", "venv", "--clear"]).arg(&venv);
    succeed(&mut python, "making a virtual environment of Python")?;
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps"])
        .args(["--only-binary=:all:", "--disable-pip-version-check"])
        .arg("--requirement")
        .arg(&pins);
    succeed(&mut pip, "installing schemathesis")?;
    fs::write(&complete, wanted).map_err(doing)?;
    Ok(Schemathesis { dir })
}

impl Schemathesis {
    /// Blocking: fuzzes the API at `url` with this token, for about so long. What it found, if it did.
    pub fn fuzz(&self, url: &str, token: &str, seconds: Duration) -> Result<()> {
        let seconds = seconds.as_secs().to_string();
        let mut run = Command::new(self.dir.join("venv/bin/schemathesis"));
        run.current_dir(&self.dir)
            .env("NO_PROXY", "127.0.0.1")
            .arg("--config-file")
            .arg(sources().join("schemathesis.toml"))
            .args(["run", &format!("{url}/v1/openapi.json"), "--no-color"])
            .args(["-H", &format!("Authorization: Bearer {token}")])
            .args(["--checks", CHECKS, "--max-time", &seconds])
            .args(["--phases", "examples,coverage,fuzzing"])
            // It has no end, so that there is nothing to hold against the document.
            .args(["--exclude-path-regex", "stream$"])
            .args(["--suppress-health-check", "all", "--warnings", "off"])
            .args(["--request-timeout", "60", "--generation-deterministic"])
            .args(["--max-failures", "20"]);
        succeed(&mut run, "fuzzing the API").map(drop)
    }
}

fn succeed(command: &mut Command, doing: &str) -> Result<Output> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{doing}: {error}; {ADVICE}"))?;
    match output.status.success() {
        true => Ok(output),
        false => {
            let said = [&output.stdout[..], &output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            Err(format!(
                "{doing} failed ({}); {ADVICE}:\n{said}",
                output.status
            ))
        }
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemathesis")
}

fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    }
}
