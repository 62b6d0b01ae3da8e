//! Runs the benches, which print lines `figure NAME VALUE UNIT`.

use crate::names_in;
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
    names_in("crates/bench/src/bin")
}
