//! The project's own commands: `cargo xtask test` is everything that must hold, `cargo xtask bench`
//! prints the figures, `cargo xtask fuzz` looks for what breaks. They do their own set-up.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]

mod alerts;
mod bench;
mod book;
mod deploy;
mod fuzz;
mod image;
mod kube;
mod mutants;
mod portal;
mod reference;
mod sbom;
mod sim;
mod step;
mod test;
mod tidy;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage:
  cargo xtask test [--skip STEP]...    everything that must hold; --list shows the steps
  cargo xtask tidy                     only the checks of the tree itself
  cargo xtask book                     the pages of docs as a book in target/book, its links followed
  cargo xtask bench [NAME [ARGS]...]   prints figures: all benches, or one
  cargo xtask fuzz [TARGET]... [--seconds N]
                                       looks for inputs that break a property, N (60) seconds a target
  cargo xtask fuzz-api [SECONDS]       asks the API whatever its document allows, twice for SECONDS (300)
  cargo xtask sim [--seeds N] [--first S] [--shard I/N]
                                       simulates the whole pipeline for N (20000) seeds; goes on where
                                       it was interrupted
  cargo xtask sim --trace SEED | --planted | --day
                                       one seed, told; are planted bugs found; a day of retries
  cargo xtask portal [ARGS]...         the portal's stories in a real browser, or those that ARGS choose
  cargo xtask deploy [RINGBACK]        checks chart, rules, dashboards and units with this program
                                       (target/debug/ringback)
  cargo xtask alerts [RINGBACK]        each alert on a real fault, seen by Prometheus and Alertmanager
                                       (target/debug/ringback)
  cargo xtask image [RINGBACK]         the image of this program (target/release/ringback), tested
  cargo xtask kube [RINGBACK]          the chart and the image on a real Kubernetes, with a real Kafka
  cargo xtask reference                writes the tables of docs/configuration.md and the chart's schema
                                       of config, as the program has them
  cargo xtask sbom                     prints what the program is made of, as CycloneDX
  cargo xtask models                   visits every state of the protocols' models, in larger bounds
  cargo xtask mutants [--fresh] [FILE]...
                                       looks for changes of core that no test notices; goes on where
                                       it was stopped";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ended = match args.as_slice() {
        ["test", rest @ ..] => test::run(rest),
        ["tidy"] => tidy::run(),
        ["book"] => book::build(),
        ["bench", rest @ ..] => bench::run_named(rest),
        ["fuzz", rest @ ..] => fuzz::run_named(rest),
        ["fuzz-api"] => fuzz::run_api("300"),
        ["fuzz-api", seconds] => fuzz::run_api(seconds),
        ["sim", rest @ ..] => sim::run_named(rest),
        ["portal", rest @ ..] => portal::run_stories(rest),
        ["deploy"] => deploy::test(&target().join("debug/ringback"), test::in_ci()),
        ["deploy", ringback] => deploy::test(Path::new(ringback), test::in_ci()),
        ["alerts"] => alerts::test(&target().join("debug/ringback")),
        ["alerts", ringback] => alerts::test(Path::new(ringback)),
        ["image"] => image::test(&target().join("release/ringback"), test::in_ci()),
        ["image", ringback] => image::test(Path::new(ringback), test::in_ci()),
        ["kube"] => kube::test(&target().join("release/ringback")),
        ["kube", ringback] => kube::test(Path::new(ringback)),
        ["reference"] => reference::write(),
        ["sbom"] => sbom::print(),
        ["models"] => mutants::run_models(),
        ["mutants", rest @ ..] => mutants::run_named(rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Where cargo builds.
fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The program that is tested, for whoever runs in another folder.
fn built(ringback: &Path) -> Result<PathBuf, String> {
    ringback.canonicalize().map_err(|error| {
        let path = ringback.display();
        format!("{path}: {error}; build it: cargo build --package ringback [--release]")
    })
}

/// The names of the programs in a folder of the repository, sorted.
fn names_in(folder: &str) -> Result<Vec<String>, String> {
    let dir = root().join(folder);
    let failed = |error| format!("listing the programs in {}: {error}", dir.display());
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
