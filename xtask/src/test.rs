//! Everything that must hold, cheapest first.

use crate::step::{self, Steps, cargo, command, run_tests};
use crate::{USAGE, alerts, book, deploy, image, kube, mutants, portal, sim, target, tidy, tools};

const STEPS: [&str; 23] = [
    "tools",
    "fmt",
    "tidy",
    "deny",
    "book",
    "kafka",
    "sdks",
    "schemathesis",
    "sip",
    "servers",
    "postgres",
    "clippy",
    "doc",
    "test",
    "portal",
    "mutants",
    "release",
    "image",
    "deploy",
    "sim",
    "demo",
    "alerts",
    "kube",
];

/// A demo takes about a minute; one that hangs is ended after these seconds.
const DEMO_SECONDS_MAX: &str = "300";

/// `cargo xtask test`.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    if args == ["--list"] {
        println!("{}", STEPS.join("\n"));
        return Ok(());
    }
    let in_ci = in_ci();
    run_all(skipped(args, in_ci)?, in_ci)
}

/// Whether this is CI, where nothing is skipped.
pub(crate) fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1")
}

/// The steps to skip. In CI none is.
fn skipped(args: &[&str], in_ci: bool) -> Result<Vec<String>, String> {
    let mut skipped = Vec::new();
    let mut args = args;
    loop {
        args = match args {
            [] => break,
            ["--skip", step, rest @ ..] if STEPS.contains(step) => {
                skipped.push((*step).to_owned());
                rest
            }
            ["--skip", step, ..] => {
                return Err(format!(
                    "there is no step {step}; the steps are {}",
                    STEPS.join(", ")
                ));
            }
            [other, ..] => return Err(format!("unknown argument {other}\n{USAGE}")),
        };
    }
    match in_ci && !skipped.is_empty() {
        true => Err("in CI (CI=true) no step is skipped".to_owned()),
        false => Ok(skipped),
    }
}

fn run_all(skipped: Vec<String>, in_ci: bool) -> Result<(), String> {
    let mut steps = Steps::new(skipped);
    steps.run("tools", |_| tools::check())?;
    steps.run("fmt", |_| {
        step::run(&mut cargo(&["fmt", "--all", "--check"]))
    })?;
    steps.run("tidy", |_| tidy::run())?;
    steps.run("deny", |_| {
        let deny = tools::cargo_deny()?;
        let args = [
            "check",
            "--hide-inclusion-graph",
            "bans",
            "licenses",
            "sources",
        ];
        step::run(&mut command(&deny.to_string_lossy(), &args))
    })?;
    steps.run("book", |_| book::build())?;
    steps.run("kafka", |_| prepare("kafka", &["--", "prepare"]))?;
    for parts in ["sdks", "schemathesis", "sip", "servers", "postgres"] {
        steps.run(parts, |_| prepare(parts, &[]))?;
    }
    steps.run("clippy", |_| {
        let args = ["clippy", "--locked", "--workspace", "--all-targets"];
        step::run(cargo(&args).args(["--", "-D", "warnings"]))
    })?;
    steps.run("doc", |_| {
        let flags = "-D rustdoc::broken_intra_doc_links";
        let args = ["doc", "--locked", "--workspace", "--no-deps"];
        step::run(cargo(&args).env("RUSTDOCFLAGS", flags))
    })?;
    steps.run("test", |results| {
        let args = ["test", "--locked", "--workspace", "--no-fail-fast"];
        run_tests(&mut cargo(&args), results)
    })?;
    steps.run("portal", |_| portal::run_stories(&[]))?;
    steps.run("mutants", |_| mutants::run_changed())?;
    let ringback = target().join("release/ringback");
    steps.run("release", |_| {
        step::run(&mut cargo(&[
            "build",
            "--locked",
            "--release",
            "--package",
            "ringback",
        ]))
    })?;
    steps.run("image", |_| image::test(&ringback, in_ci))?;
    steps.run("deploy", |_| deploy::test(&ringback, in_ci))?;
    steps.run("sim", |_| sim::test())?;
    steps.run("demo", |_| {
        let args = [DEMO_SECONDS_MAX, &ringback.to_string_lossy(), "demo"];
        step::run(&mut command("timeout", &args))
    })?;
    steps.run("alerts", |_| alerts::test(&ringback))?;
    steps.run("kube", |_| kube::test(&ringback))?;
    steps.summarise(None);
    Ok(())
}

/// Runs the program of the tests that prepares what they need: fetches, installs, unpacks.
fn prepare(program: &str, args: &[&str]) -> Result<(), String> {
    let package = [
        "run",
        "--locked",
        "--package",
        "ringback-tests",
        "--bin",
        program,
    ];
    step::run(cargo(&package).args(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_skipped_in_ci() {
        let args = ["--skip", "demo", "--skip", "kafka"];
        assert_eq!(skipped(&args, false).unwrap(), ["demo", "kafka"]);
        skipped(&args, true).unwrap_err();
        assert!(skipped(&[], true).unwrap().is_empty());
        skipped(&["--skip", "tests"], false).unwrap_err();
        skipped(&["--skip"], false).unwrap_err();
    }
}
