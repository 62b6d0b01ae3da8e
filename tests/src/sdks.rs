//! The SDKs of CloudEvents and Standard Webhooks that others wrote, in Python and JavaScript, as
//! producers and receivers.
//!
//! [`prepare`] installs them below `target/`, in the versions that `tests/sdks/` pins.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

type Result<T> = std::result::Result<T, String>;

const ADVICE: &str = "install Python 3.10 or later with venv, and Node.js 20 or later with npm \
                      (Debian: apt-get install python3-venv nodejs npm)";

/// The files that say what is installed.
const PINS: [&str; 3] = ["requirements.txt", "package.json", "package-lock.json"];

/// The installed SDKs.
pub struct Sdks {
    dir: PathBuf,
}

/// Installs the SDKs unless they are there in the right versions. Two processes may do so at the
/// same time.
pub fn prepare() -> Result<Sdks> {
    let dir = target_dir().join("sdks");
    let doing = |error: std::io::Error| format!("preparing {}: {error}", dir.display());
    fs::create_dir_all(&dir).map_err(doing)?;
    let lock = File::create(dir.join("lock")).map_err(doing)?;
    lock.lock().map_err(doing)?;
    let pins = PINS.map(|name| fs::read(sources().join(name)).map(|pins| (name, pins)));
    let pins = pins.into_iter().collect::<std::io::Result<Vec<_>>>();
    let pins = pins.map_err(doing)?;
    let wanted: Vec<u8> = pins.iter().flat_map(|(_, pins)| pins.clone()).collect();
    let complete = dir.join(".complete");
    if fs::read(&complete).is_ok_and(|installed| installed == wanted) {
        return Ok(Sdks { dir });
    }
    let venv = dir.join("venv");
    let mut python = Command::new("python3");
    python.args(["-m", "venv", "--clear"]).arg(&venv);
    run(&mut python, "making a virtual environment of Python")?;
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ])
    .args(["--disable-pip-version-check", "--requirement"])
    .arg(sources().join("requirements.txt"));
    run(&mut pip, "installing the SDK for Python")?;
    for (name, pins) in &pins[1..] {
        fs::write(dir.join(name), pins).map_err(doing)?;
    }
    let mut npm = Command::new("npm");
    npm.current_dir(&dir)
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    run(&mut npm, "installing the SDK for JavaScript")?;
    fs::write(&complete, wanted).map_err(doing)?;
    Ok(Sdks { dir })
}

impl Sdks {
    /// Runs a script of `tests/sdks/`, in Python or JavaScript, with this file as standard input; the
    /// lines it printed.
    pub fn run(&self, script: &str, args: &[&str], input: Option<File>) -> Result<Vec<String>> {
        let mut command = match script.ends_with(".py") {
            true => Command::new(self.dir.join("venv/bin/python")),
            false => Command::new("node"),
        };
        command
            .env("NODE_PATH", self.dir.join("node_modules"))
            .arg(sources().join(script))
            .args(args)
            .stdin(input.map_or_else(Stdio::null, Stdio::from));
        lines(&mut command, script)
    }
}

impl Sdks {
    /// A script of `tests/sdks/` in Python, to be started and talked to. It ends when its standard input
    /// does.
    pub fn python(&self, script: &str) -> Command {
        let mut command = Command::new(self.dir.join("venv/bin/python"));
        command
            .arg(sources().join(script))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }
}

fn run(command: &mut Command, doing: &str) -> Result<()> {
    lines(command.stdin(Stdio::null()), doing).map(drop)
}

/// Runs a command to its end; the lines it printed. They end by themselves: every wait in them, and in
/// the package managers, has a limit.
fn lines(command: &mut Command, doing: &str) -> Result<Vec<String>> {
    let output = command
        .output()
        .map_err(|error| format!("{doing}: {error}; {ADVICE}"))?;
    let out = String::from_utf8_lossy(&output.stdout);
    match output.status.success() {
        true => Ok(out.lines().map(str::to_owned).collect()),
        false => {
            let err = String::from_utf8_lossy(&output.stderr);
            let status = output.status;
            Err(format!("{doing} failed ({status}); {ADVICE}:\n{out}{err}"))
        }
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sdks")
}

fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    }
}
