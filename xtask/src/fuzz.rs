//! Runs the targets of `tests/fuzz`: libFuzzer looks for inputs that break what the property tests
//! assert. On the pinned stable toolchain, hence without a sanitizer: the code has no `unsafe`.

use std::fs;

use crate::step::{command, run};
use crate::{USAGE, names_in, root, target, tools};

/// Seconds for each target.
const SECONDS: &str = "60";
/// Longest input, in bytes: more than the longest header that is read.
const INPUT_BYTES_MAX: &str = "-max_len=10000";
/// One input that takes longer, in seconds, is a finding.
const INPUT_SECONDS_MAX: &str = "-timeout=10";

/// `cargo xtask fuzz`.
pub(crate) fn run_named(args: &[&str]) -> Result<(), String> {
    let targets = targets()?;
    let (mut named, mut seconds, mut args) = (Vec::new(), SECONDS, args);
    loop {
        args = match args {
            [] => break,
            ["--seconds", number, rest @ ..] if number.parse().is_ok_and(|n: u32| n > 0) => {
                seconds = number;
                rest
            }
            [name, rest @ ..] if targets.iter().any(|target| target == name) => {
                named.push((*name).to_owned());
                rest
            }
            [other, ..] => {
                return Err(format!(
                    "there is no target {other}; there are {}\n{USAGE}",
                    targets.join(", ")
                ));
            }
        };
    }
    if named.is_empty() {
        named = targets;
    }
    tools::check()?;
    let program = tools::cargo_fuzz()?;
    let program = program.to_string_lossy();
    take_versions()?;
    named
        .iter()
        .try_for_each(|name| run_one(&program, name, seconds))
}

/// Lets the targets' own workspace build what the product does: its lock file is not kept, but made of
/// the product's, to which cargo adds libFuzzer.
fn take_versions() -> Result<(), String> {
    let (ours, theirs) = (
        root().join("Cargo.lock"),
        root().join("tests/fuzz/Cargo.lock"),
    );
    let changed = |path| fs::metadata(path).and_then(|file| file.modified());
    match (changed(&ours), changed(&theirs)) {
        (Ok(ours), Ok(theirs)) if ours <= theirs => return Ok(()),
        _ => {}
    }
    // Written, not copied, so that it is of now.
    fs::read(&ours)
        .and_then(|lock| fs::write(&theirs, lock))
        .map_err(|error| {
            format!(
                "copying {} to {}: {error}",
                ours.display(),
                theirs.display()
            )
        })
}

fn run_one(program: &str, name: &str, seconds: &str) -> Result<(), String> {
    // What libFuzzer keeps goes to the first directory; the second is ours and only read.
    let found = target().join("fuzz-corpus").join(name);
    fs::create_dir_all(&found)
        .map_err(|error| format!("making the directory {}: {error}", found.display()))?;
    let mut fuzz = command(program, &["run", "--fuzz-dir", "tests/fuzz"]);
    fuzz.args(["--sanitizer", "none", "--target-dir"])
        .arg(target().join("fuzz"))
        .arg(name)
        .arg(found)
        .arg(format!("tests/fuzz/seeds/{name}"))
        .args(["--", INPUT_BYTES_MAX, INPUT_SECONDS_MAX])
        .arg("-print_final_stats=1")
        .arg(format!("-max_total_time={seconds}"));
    run(&mut fuzz).map_err(|error| {
        format!("{error}\nA finding becomes a file of tests/fuzz/seeds/{name} with its fix.")
    })
}

/// The names of all targets.
fn targets() -> Result<Vec<String>, String> {
    names_in("tests/fuzz/fuzz_targets")
}

/// `cargo xtask fuzz-api`: the test `fuzzed_api`, for longer.
pub(crate) fn run_api(seconds: &str) -> Result<(), String> {
    if seconds.parse::<u32>().is_err() {
        return Err(format!("{seconds} is no number of seconds"));
    }
    let args = [
        "test",
        "--locked",
        "--package",
        "ringback-tests",
        "--test",
        "fuzzed_api",
    ];
    crate::step::run(crate::step::cargo(&args).env("RINGBACK_FUZZ_API_SECONDS", seconds))
}
