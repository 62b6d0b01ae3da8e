//! What the steps need on the machine: checked, installed where that needs no root, named otherwise.

use std::path::PathBuf;

use crate::step::{cargo, command, run};
use crate::target;

const CARGO_DENY: &str = "0.20.2";

/// A program, and the package that brings it on Debian and Ubuntu.
const NEEDED: [(&str, &str); 5] = [
    // librdkafka, OpenSSL and SQLite are built from source.
    ("cc", "gcc"),
    ("g++", "g++"),
    ("make", "make"),
    ("perl", "perl"),
    ("git", "git"),
];

/// Names every program that is missing and cannot be installed without root.
pub(crate) fn check() -> Result<(), String> {
    let missing = NEEDED.iter().filter(|(program, _)| !works(program));
    let packages: Vec<_> = missing.map(|(_, package)| *package).collect();
    match packages.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "programs are missing; as root: apt-get install -y {}",
            packages.join(" ")
        )),
    }
}

fn works(program: &str) -> bool {
    version(program).is_some()
}

fn version(program: &str) -> Option<String> {
    let output = command(program, &["--version"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then_some(text)
}

/// The path of cargo-deny, installed if it is not there in the right version.
pub(crate) fn cargo_deny() -> Result<PathBuf, String> {
    let tools = target().join("tools");
    let program = tools.join("bin/cargo-deny");
    let installed = version(&program.to_string_lossy());
    let right = format!("cargo-deny {CARGO_DENY}");
    if installed.is_none_or(|version| version.trim() != right) {
        // Unoptimised: it runs for seconds and would be optimised for minutes.
        let crate_version = format!("cargo-deny@{CARGO_DENY}");
        let tools = tools.to_string_lossy();
        let args = [
            "install",
            "--locked",
            "--debug",
            "--root",
            &tools,
            &crate_version,
        ];
        run(&mut cargo(&args))?;
    }
    Ok(program)
}
