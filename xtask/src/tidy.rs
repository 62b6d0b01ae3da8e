//! Checks of the tree itself: rules that no compiler knows.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::root;

/// A file has one subject; a longer one has several.
const LINES_MAX: usize = 600;

/// Left-overs, in halves so that this file does not contain them.
const LEFT_OVERS: [&str; 3] = [
    concat!("todo", "!("),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
];

/// Registries are the machine's configuration, not the product's.
const REGISTRIES: [&str; 12] = [
    concat!("crates", ".io"),
    concat!("repo.maven", ".apache.org"),
    concat!("repo1.maven", ".org"),
    concat!("docker", ".io"),
    concat!("ghcr", ".io"),
    concat!("quay", ".io"),
    concat!("gcr", ".io"),
    concat!("pypi", ".org"),
    concat!("npmjs", ".org"),
    concat!("npmjs", ".com"),
    concat!("proxy.golang", ".org"),
    concat!("packages.confluent", ".io"),
];

/// Our notes beside the repository, which do not ship.
const NOTES: [&str; 2] = [concat!("..", "/shared"), concat!("work", "/shared")];

/// `cargo xtask tidy`.
pub(crate) fn run() -> Result<(), String> {
    let files = files()?;
    let mut problems = Vec::new();
    for path in &files {
        let whole = root().join(path);
        // Removed and not committed yet, or not text.
        let Ok(text) = fs::read_to_string(&whole) else {
            continue;
        };
        problems.extend(file_problems(path, &text));
        if path.ends_with(".md") {
            let exists = |link: &str| {
                whole
                    .parent()
                    .is_some_and(|dir| dir.join(link).try_exists().unwrap_or(false))
            };
            problems.extend(broken_links(path, &text, exists));
        }
        if path.ends_with("Cargo.toml") {
            let dir = path.trim_end_matches("Cargo.toml");
            let code = |file: &&String| file.ends_with(".rs") && file.starts_with(dir);
            let code = files
                .iter()
                .filter(code)
                .map(|file| fs::read_to_string(root().join(file)));
            let code: String = code.filter_map(Result::ok).collect();
            problems.extend(unused_dependencies(path, &text, &code));
        }
    }
    match problems.is_empty() {
        true => {
            println!("{} files are tidy", files.len());
            Ok(())
        }
        false => Err(problems.join("\n  ")),
    }
}

/// All files that are or would be tracked, relative to the root.
fn files() -> Result<BTreeSet<String>, String> {
    let list = [
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
    ];
    let output = Command::new("git").current_dir(root()).args(list).output();
    let output = output.map_err(|error| format!("listing files with git: {error}"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("listing files with git: {error}"));
    }
    let names = output
        .stdout
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    Ok(names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect())
}

/// What is wrong with a file by itself.
fn file_problems(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let rust = path.ends_with(".rs");
    let source = rust && path.starts_with("crates/") && path.contains("/src/");
    let lines = text.lines().count();
    if source && lines > LINES_MAX {
        problems.push(format!(
            "{path}: {lines} lines; divide it, {LINES_MAX} are the limit"
        ));
    }
    if source && !text.starts_with("//!") {
        problems.push(format!(
            "{path}:1: begin with a //! line that says what the file is about"
        ));
    }
    let product = !path.starts_with("tests/");
    for (index, line) in text.lines().enumerate() {
        let place = format!("{path}:{}", index + 1);
        let find = |words: &[&'static str]| words.iter().copied().find(|word| line.contains(word));
        if let Some(word) = find(&LEFT_OVERS).filter(|_| rust) {
            problems.push(format!("{place}: {word} is left over"));
        }
        if let Some(host) = find(&REGISTRIES).filter(|_| path != "Cargo.lock") {
            problems.push(format!("{place}: names the registry {host}"));
        }
        if let Some(notes) = find(&NOTES).filter(|_| product) {
            problems.push(format!("{place}: refers to {notes}, which does not ship"));
        }
    }
    problems
}

/// Links of a Markdown page to files that do not exist.
fn broken_links(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for rest in line.split("](").skip(1) {
            let link = rest.split([')', '#']).next().unwrap_or_default();
            let elsewhere = link.contains("://") || link.starts_with("mailto:");
            if !link.is_empty() && !elsewhere && !exists(link) {
                problems.push(format!("{path}:{}: there is no {link}", index + 1));
            }
        }
    }
    problems
}

/// Dependencies that a package names and its code does not.
fn unused_dependencies(path: &str, manifest: &str, code: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut in_dependencies = false;
    for (index, line) in manifest.lines().enumerate() {
        if let Some(section) = line.strip_prefix('[') {
            // The workspace's own table names versions for all.
            in_dependencies = section.starts_with("dependencies")
                || section.starts_with("dev-dependencies")
                || section.starts_with("build-dependencies");
            continue;
        }
        let end = line.find(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c));
        let name = &line[..end.unwrap_or(0)];
        if in_dependencies && !name.is_empty() && !uses(code, &name.replace('-', "_")) {
            problems.push(format!("{path}:{}: {name} is not used", index + 1));
        }
    }
    problems
}

/// Whether the code has this word.
fn uses(code: &str, word: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(letter) && !after.is_some_and(letter)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_finds_what_it_is_for() {
        let source = "crates/core/src/lib.rs";
        let problem = |path: &str, text: &str| file_problems(path, text).join("\n");
        assert_eq!(problem(source, "//! Fine.\n"), "");
        assert!(problem(source, "fn x() {}\n").contains(":1: begin with a //!"));
        assert!(problem(source, &format!("//!{}", "\n".repeat(601))).contains("601 lines"));
        for left in LEFT_OVERS {
            assert!(
                problem("tests/src/x.rs", &format!("a\n{left}")).contains(":2: "),
                "{left}"
            );
        }
        for host in REGISTRIES {
            assert!(
                problem("helm/values.yaml", &format!("x: {host}/y")).contains(host),
                "{host}"
            );
            assert_eq!(problem("Cargo.lock", host), "");
        }
        for notes in NOTES {
            assert!(
                problem("README.md", notes).contains("does not ship"),
                "{notes}"
            );
            assert_eq!(problem("tests/src/kits.md", notes), "");
        }
    }

    #[test]
    fn links_and_dependencies_are_looked_up() {
        let page = "[a](there.md#part) [b](gone.md)\n[c](https://x/y) [d](#here)";
        let found = broken_links("README.md", page, |link| link == "there.md");
        assert_eq!(found, ["README.md:1: there is no gone.md"]);

        let manifest =
            "[package]\nname = \"x\"\n[dependencies]\nserde-json.workspace = true\nserde = \"1\"\n";
        let found = unused_dependencies("Cargo.toml", manifest, "use serde_json::x;");
        assert_eq!(found, ["Cargo.toml:5: serde is not used"]);
    }
}
