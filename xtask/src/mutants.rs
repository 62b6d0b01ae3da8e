//! Changes `core` in thousands of small ways and looks which of them no test notices (`cargo-mutants`).
//!
//! The long form tries all mutants, for hours; stopped, it goes on where it was. When none is missed
//! it records the commit in [`BASE`], and the step of `cargo xtask test` tries the mutants of what has
//! changed since. What is excused stands in `.cargo/mutants.toml`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::step::{command, run};
use crate::{root, target, tools};

/// Names the commit up to which the long form has last found no mutant missed.
const BASE: &str = ".cargo/mutants-base";
/// What is mutated.
const SOURCES: &str = "crates/core/src";
/// A step of some four minutes on two slow cores tries so many.
const SAMPLE: usize = 30;
/// Seconds after which the tests of a mutant have hung: then it is noticed.
const TESTS_SECONDS_MAX: &str = "120";
/// The table for people that these tests watch is excused, and they take longer than all others.
const NOT_RUN: &str = "health::evaluation";

/// `cargo xtask mutants [--fresh] [FILE]...`.
pub(crate) fn run_named(args: &[&str]) -> Result<(), String> {
    let (fresh, files) = match args {
        ["--fresh", files @ ..] => (true, files),
        files => (false, files),
    };
    if fresh {
        forget()?;
    }
    let mut options = Vec::new();
    for file in files {
        options.extend(["--file".to_owned(), (*file).to_owned()]);
    }
    let all = listed(&options)?;
    // Those that were noticed before are not tried again.
    options.push("--iterate".to_owned());
    let ended = try_mutants(&options)?;
    let counted = Counted::read(&all)?;
    counted.print();
    accepted(ended)?;
    let left = all.len() - counted.tried();
    match (files.is_empty(), left, changed()?) {
        (false, ..) => {
            println!("only these files were tried: nothing is recorded");
            Ok(())
        }
        (true, 0, false) => record(),
        (true, 0, true) => Err("the tree has changes: commit them and run again".to_owned()),
        (true, left, _) => Err(format!("{left} mutants were not tried: run again")),
    }
}

/// The step of `cargo xtask test`: the mutants of what changed since [`BASE`].
pub(crate) fn run_changed() -> Result<(), String> {
    let Some(base) = base()? else {
        println!("no commit to compare with: no mutants are tried");
        return Ok(());
    };
    let diff = git(&["diff", &base, "--", SOURCES])?;
    let file = home().join("changed.diff");
    write(&file, &diff)?;
    let in_diff = ["--in-diff".to_owned(), file.display().to_string()];
    let changed = match diff.is_empty() {
        true => 0,
        false => listed(&in_diff)?.len(),
    };
    println!("figure mutants.diff {changed} count");
    if changed == 0 {
        return Ok(());
    }
    // Every commit tries another sample.
    let shards = changed.div_ceil(SAMPLE);
    let head = git(&["rev-parse", "HEAD"])?;
    let shard = usize::from_str_radix(head.get(..6).unwrap_or("0"), 16).unwrap_or(0) % shards;
    let mut options = in_diff.to_vec();
    options.push(format!("--shard={shard}/{shards}"));
    options.push("--sharding=round-robin".to_owned());
    let tried = listed(&options)?.len();
    println!("figure mutants.diff_left_out {} count", changed - tried);
    if tried == 0 {
        return Ok(());
    }
    let ended = try_mutants(&options)?;
    accepted(ended)
}

/// The commit to compare with. A clone that does not go back so far has at most the one before.
fn base() -> Result<Option<String>, String> {
    let is_known = |commit: &str| {
        let commit = format!("{commit}^{{commit}}");
        git(&["rev-parse", "--verify", "--quiet", &commit]).is_ok()
    };
    let path = root().join(BASE);
    let recorded = fs::read_to_string(&path)
        .map_err(|error| format!("reading {}: {error}", path.display()))?;
    let mut lines = recorded.lines().map(str::trim);
    let recorded = lines
        .find(|line| !line.starts_with('#'))
        .unwrap_or_default();
    if is_known(recorded) {
        return Ok(Some(recorded.to_owned()));
    }
    println!("commit {recorded} of {BASE} is not in this clone: only the last commit is looked at");
    Ok(is_known("HEAD~1").then(|| "HEAD~1".to_owned()))
}

/// Tries mutants one after the other, in a copy of the tree that keeps what was built.
fn try_mutants(options: &[String]) -> Result<ExitStatus, String> {
    let mut mutants = mutants(options)?;
    mutants
        .args([
            "--in-place",
            "--baseline=skip",
            "--no-times",
            "--profile=mutants",
            // Or the library is built, too, which no test here uses.
            "--cargo-arg=--lib",
        ])
        .args(["--timeout", TESTS_SECONDS_MAX, "--build-timeout=600"])
        .args(["--", "--lib", "--", "--skip", NOT_RUN]);
    let ended = mutants
        .status()
        .map_err(|error| format!("running cargo-mutants: {error}"))?;
    let unviable = home().join("unviable.txt");
    let known = &lines(&unviable)? | &lines(&results("unviable"))?;
    write(&unviable, known.into_iter().collect::<Vec<_>>().join("\n"))?;
    Ok(ended)
}

/// The names of the mutants that are meant.
fn listed(options: &[String]) -> Result<BTreeSet<String>, String> {
    let output = mutants(options)?
        .arg("--list")
        .output()
        .map_err(|error| format!("running cargo-mutants --list: {error}"))?;
    match output.status.success() {
        true => Ok(split(&String::from_utf8_lossy(&output.stdout))),
        false => Err(format!(
            "cargo-mutants --list: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn mutants(options: &[String]) -> Result<Command, String> {
    let program = tools::cargo_mutants()?;
    let tree = copy()?;
    let mut command = command(&program.to_string_lossy(), &["mutants"]);
    command
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", home().join("build"))
        .env("CARGO_INCREMENTAL", "1")
        .args(["--package", "ringback-core", "--colors=never", "--output"])
        .arg(home())
        .args(options);
    Ok(command)
}

/// Brings the copy of the tree up to date. What did not change is not written, hence not built.
fn copy() -> Result<PathBuf, String> {
    let tree = home().join("tree");
    let wanted = split(&git(&[
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ])?);
    let list = home().join("files.txt");
    for gone in lines(&list)?.difference(&wanted) {
        // One that is not there is gone.
        let _ = fs::remove_file(tree.join(gone));
    }
    for name in &wanted {
        let (from, to) = (root().join(name), tree.join(name));
        let Ok(content) = fs::read(&from) else {
            continue; // Removed, and not yet committed.
        };
        if fs::read(&to).is_ok_and(|copied| copied == content) {
            continue;
        }
        write(&to, content)?;
    }
    write(&list, wanted.into_iter().collect::<Vec<_>>().join("\n"))?;
    Ok(tree)
}

/// What became of mutants, over all runs since the last fresh one.
struct Counted {
    total: usize,
    caught: usize,
    missed: usize,
    unviable: usize,
    timeout: usize,
}

impl Counted {
    fn read(all: &BTreeSet<String>) -> Result<Self, String> {
        let of = |names: BTreeSet<String>| all.intersection(&names).count();
        let unviable = lines(&home().join("unviable.txt"))?;
        let caught = &lines(&results("caught"))? | &lines(&results("previously_caught"))?;
        Ok(Self {
            total: all.len(),
            caught: of(&caught - &unviable),
            missed: of(lines(&results("missed"))?),
            unviable: of(unviable),
            timeout: of(lines(&results("timeout"))?),
        })
    }

    fn tried(&self) -> usize {
        self.caught + self.missed + self.unviable + self.timeout
    }

    fn print(&self) {
        for (name, count) in [
            ("total", self.total),
            ("caught", self.caught),
            ("missed", self.missed),
            ("unviable", self.unviable),
            ("timeout", self.timeout),
        ] {
            println!("figure mutants.{name} {count} count");
        }
    }
}

/// Missed mutants are a failure; those whose tests hang are noticed.
fn accepted(ended: ExitStatus) -> Result<(), String> {
    match ended.code() {
        Some(0 | 3) => Ok(()),
        Some(2) => Err(format!(
            "no test notices these mutants; write one, make the code simpler, or excuse them in \
             .cargo/mutants.toml with the reason:\n{}",
            lines(&results("missed"))?
                .into_iter()
                .collect::<Vec<_>>()
                .join("\n")
        )),
        _ => Err(format!(
            "cargo-mutants ended with {ended}; see {}",
            home().display()
        )),
    }
}

fn record() -> Result<(), String> {
    let head = git(&["rev-parse", "HEAD"])?;
    let text = format!("# All mutants of core were tried here, and none was missed.\n{head}");
    write(&root().join(BASE), &text)?;
    println!("recorded in {BASE}: commit it");
    Ok(())
}

fn changed() -> Result<bool, String> {
    Ok(!git(&["status", "--porcelain", "--", "crates/core"])?.is_empty())
}

/// Forgets what earlier runs have tried; what was built stays.
fn forget() -> Result<(), String> {
    for name in ["mutants.out", "mutants.out.old"] {
        let dir = home().join(name);
        if dir.exists() {
            fs::remove_dir_all(&dir)
                .map_err(|error| format!("removing {}: {error}", dir.display()))?;
        }
    }
    Ok(())
}

fn home() -> PathBuf {
    target().join("mutants")
}

fn results(name: &str) -> PathBuf {
    home().join("mutants.out").join(format!("{name}.txt"))
}

/// The lines of a file; one that is not there has none.
fn lines(path: &Path) -> Result<BTreeSet<String>, String> {
    match path.exists() {
        false => Ok(BTreeSet::new()),
        true => fs::read_to_string(path)
            .map(|text| split(&text))
            .map_err(|error| format!("reading {}: {error}", path.display())),
    }
}

fn split(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), String> {
    let failed = |error| format!("writing {}: {error}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::write(path, content).map_err(failed)
}

fn git(args: &[&str]) -> Result<String, String> {
    let output = command("git", args)
        .output()
        .map_err(|error| format!("running git: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "git {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// `cargo xtask models`: the models of protocols in larger bounds.
pub(crate) fn run_models() -> Result<(), String> {
    let args = [
        "test",
        "--locked",
        "--package",
        "ringback-tests",
        "--test",
        "models",
    ];
    let mut models = crate::step::cargo(&args);
    models
        .args(["--", "--nocapture"])
        .env("RINGBACK_MODELS", "long");
    run(&mut models)
}
