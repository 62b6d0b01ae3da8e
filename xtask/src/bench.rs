//! Runs the benches, which print lines `figure NAME VALUE UNIT`.

use std::fs;

use crate::root;
use crate::step::{cargo, run};

/// `cargo xtask bench`: all of them, or one with its own arguments.
pub(crate) fn run_named(args: &[&str]) -> Result<(), String> {
    let benches = benches()?;
    let Some((name, rest)) = args.split_first() else {
        return benches.iter().try_for_each(|bench| run_one(bench, &[]));
    };
    match benches.iter().any(|bench| bench == name) {
        true => run_one(name, rest),
        false => Err(format!(
            "there is no bench {name}; there are {}",
            benches.join(", ")
        )),
    }
}

fn run_one(bench: &str, args: &[&str]) -> Result<(), String> {
    let package = [
        "run",
        "--locked",
        "--release",
        "--package",
        "ringback-bench",
        "--bin",
    ];
    run(cargo(&package).arg(bench).arg("--").args(args))
}

/// The names of all benches: the programs of the package.
fn benches() -> Result<Vec<String>, String> {
    let dir = root().join("crates/bench/src/bin");
    let failed = |error| format!("listing the benches in {}: {error}", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        names.extend(
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}
