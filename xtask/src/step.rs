//! Runs commands as named, timed steps, and stops at the first that fails.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::root;

/// The result lines of `cargo test` begin like this.
const TEST_RESULT: &str = "test result: ";

/// The steps that ran.
pub(crate) struct Steps {
    skipped: Vec<String>,
    done: Vec<(&'static str, Option<Duration>)>,
    results: Vec<String>,
}

impl Steps {
    /// None yet; those named are going to be skipped.
    pub(crate) fn new(skipped: Vec<String>) -> Self {
        Self {
            skipped,
            done: Vec::new(),
            results: Vec::new(),
        }
    }

    /// Runs a step.
    pub(crate) fn run(
        &mut self,
        name: &'static str,
        step: impl FnOnce(&mut Vec<String>) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.skipped.iter().any(|skipped| skipped == name) {
            self.done.push((name, None));
            return Ok(());
        }
        println!("\n=== {name}");
        let began = Instant::now();
        let ended = step(&mut self.results);
        self.done.push((name, Some(began.elapsed())));
        ended.map_err(|error| {
            self.summarise(Some(name));
            format!("step {name} failed: {error}")
        })
    }

    /// Prints what ran, how long it took, and the tests' own results.
    pub(crate) fn summarise(&self, failed: Option<&str>) {
        println!("\n=== summary");
        for (name, took) in &self.done {
            match took {
                None => println!("{name:<10}       -  skipped"),
                Some(took) => {
                    let verdict = if failed == Some(name) { "FAILED" } else { "ok" };
                    println!("{name:<10} {:>6.1}s  {verdict}", took.as_secs_f64());
                }
            }
        }
        for line in &self.results {
            println!("{line}");
        }
        // What follows on standard error follows.
        let _ = std::io::stdout().flush();
    }
}

/// A command in the root of the repository.
pub(crate) fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).args(args);
    // `cargo run` describes xtask to us in these. Some build scripts (ring's) look at them, and
    // would be run again each time that cargo is called now from here, now by hand.
    for (name, _) in std::env::vars_os() {
        let of_xtask = ["CARGO_MANIFEST_", "CARGO_PKG_"];
        if of_xtask
            .iter()
            .any(|prefix| name.to_string_lossy().starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    command
}

/// `cargo`, the one that runs us.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    command(&cargo, args)
}

/// Runs a command; the error says how to run it again.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    println!("$ {}", text(command));
    let status = command
        .status()
        .map_err(|error| not_started(command, &error))?;
    match status.success() {
        true => Ok(()),
        false => Err(failed(command, &status)),
    }
}

/// Runs `cargo test` and keeps its result lines.
pub(crate) fn run_tests(command: &mut Command, results: &mut Vec<String>) -> Result<(), String> {
    println!("$ {}", text(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| not_started(command, &error))?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.map_err(|error| format!("reading from {}: {error}", text(command)))?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            if line.starts_with(TEST_RESULT) {
                results.push(line.into_owned());
            }
        }
    }
    let status = child.wait().map_err(|error| not_started(command, &error))?;
    match status.success() {
        true if results.is_empty() => Err("no test ran".to_owned()),
        true => Ok(()),
        false => Err(failed(command, &status)),
    }
}

/// What a command prints.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("running {name}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "{name}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

fn not_started(command: &Command, error: &std::io::Error) -> String {
    format!("running {}: {error}", text(command))
}

fn failed(command: &Command, status: &std::process::ExitStatus) -> String {
    format!("{status}; to run it again:\n  {}", text(command))
}

/// The command as one would type it.
fn text(command: &Command) -> String {
    let mut words = Vec::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            let value = value.to_string_lossy();
            words.push(format!("{}={}", name.to_string_lossy(), quoted(&value)));
        }
    }
    let program = command.get_program().to_string_lossy();
    // The path of the toolchain's cargo says nothing.
    let name = program.rsplit('/').next().filter(|name| *name == "cargo");
    words.push(name.unwrap_or(&program).to_owned());
    words.extend(command.get_args().map(|arg| quoted(&arg.to_string_lossy())));
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_types_it() {
        let mut command = command("/somewhere/cargo", &["doc", "--x=y z"]);
        command.env("FLAGS", "-D it's");
        assert_eq!(text(&command), r"FLAGS='-D it'\''s' cargo doc '--x=y z'");
    }

    #[test]
    fn results_of_tests_are_kept_and_a_failure_is_one() {
        let mut results = Vec::new();
        let script = "echo running; echo 'test result: ok. 1 passed'";
        run_tests(&mut command("sh", &["-c", script]), &mut results).unwrap();
        assert_eq!(results, ["test result: ok. 1 passed"]);
        let error = run_tests(&mut command("sh", &["-c", "exit 3"]), &mut results).unwrap_err();
        assert!(error.contains("sh -c 'exit 3'"), "{error}");
        run_tests(&mut command("sh", &["-c", "echo nothing"]), &mut Vec::new()).unwrap_err();
    }

    #[test]
    fn the_first_failure_ends_and_what_is_skipped_does_not_run() {
        let mut steps = Steps::new(vec!["b".to_owned()]);
        steps.run("a", |_| Ok(())).unwrap();
        steps.run("b", |_| Err("ran".to_owned())).unwrap();
        let error = steps.run("c", |_| Err("broken".to_owned())).unwrap_err();
        assert_eq!(error, "step c failed: broken");
    }
}
