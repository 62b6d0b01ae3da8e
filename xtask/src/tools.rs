//! What the steps need on the machine: checked, installed where that needs no root, named otherwise.

use std::path::PathBuf;

use crate::step::{cargo, command, run};
use crate::target;

const CARGO_DENY: &str = "0.20.2";
const CARGO_FUZZ: &str = "0.13.2";
const CARGO_MUTANTS: &str = "27.1.0";
const MDBOOK: &str = "0.5.4";

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
    version(program, &["--version"]).is_some()
}

fn version(program: &str, asked: &[&str]) -> Option<String> {
    let output = command(program, asked).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then_some(text)
}

/// The path of cargo-deny, installed if it is not there in the right version.
pub(crate) fn cargo_deny() -> Result<PathBuf, String> {
    installed("cargo-deny", CARGO_DENY, &["--version"], &[])
}

/// The path of cargo-fuzz, installed if it is not there in the right version.
pub(crate) fn cargo_fuzz() -> Result<PathBuf, String> {
    installed("cargo-fuzz", CARGO_FUZZ, &["--version"], &[])
}

/// The path of cargo-mutants, installed if it is not there in the right version.
pub(crate) fn cargo_mutants() -> Result<PathBuf, String> {
    installed(
        "cargo-mutants",
        CARGO_MUTANTS,
        &["mutants", "--version"],
        &[],
    )
}

/// The path of mdBook, installed if it is not there in the right version, without its server.
pub(crate) fn mdbook() -> Result<PathBuf, String> {
    installed("mdbook", MDBOOK, &["--version"], &["--no-default-features"])
}

fn installed(
    name: &str,
    wanted: &str,
    asked: &[&str],
    options: &[&str],
) -> Result<PathBuf, String> {
    let tools = target().join("tools");
    let program = tools.join("bin").join(name);
    let found = version(&program.to_string_lossy(), asked);
    let right = [format!("{name} {wanted}"), format!("{name} v{wanted}")];
    if found.is_none_or(|found| !right.iter().any(|right| right == found.trim())) {
        // Unoptimised: it runs for seconds and would be optimised for minutes.
        let package = format!("{name}@{wanted}");
        let tools = tools.to_string_lossy();
        let args = ["install", "--locked", "--debug", "--root", &tools, &package];
        run(cargo(&args).args(options))?;
    }
    Ok(program)
}

/// The path of a program that something needs. It is installed if it is missing and we may.
pub(crate) fn provide(program: &str, packages: &[&str], for_what: &str) -> Result<PathBuf, String> {
    if let Some(found) = find(program) {
        return Ok(found);
    }
    let mut install = vec!["install", "-y", "-q", "--no-install-recommends"];
    install.extend(packages);
    // The machine may have no lists of packages, or old ones.
    let installed = run(&mut command("apt-get", &install)).or_else(|_| {
        run(&mut command("apt-get", &["update", "-q"]))?;
        run(&mut command("apt-get", &install))
    });
    let advice = || {
        let packages = packages.join(" ");
        format!(
            "{for_what} needs {program}; as root: apt-get install -y --no-install-recommends {packages}"
        )
    };
    installed.map_err(|error| format!("{error}\n{}", advice()))?;
    find(program).ok_or_else(advice)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|program| program.is_file())
}
