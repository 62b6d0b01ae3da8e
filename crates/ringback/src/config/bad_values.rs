//! A bad value of every key, and all that is said of it: where it stands, which key, what is wrong and
//! what is allowed.
//!
//! `bad_values.txt` has a block for each: lines of a file, then, behind `>`, the mistakes that are
//! reported. A key that no block is about fails the test, as a message that changes does.

use super::Config;
use super::keys::Place;
use super::tests::given;

const TABLE: &str = include_str!("bad_values.txt");

/// Lines of a file, the last of which is bad, and what is said of it.
pub(super) struct Block {
    pub(super) lines: Vec<&'static str>,
    said: Vec<&'static str>,
}

impl Block {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        TABLE.trim_end().split("\n\n").map(|block| {
            let (said, lines) = block.lines().partition(|line| line.starts_with("> "));
            let said = Vec::into_iter(said).map(|line: &str| &line[2..]).collect();
            Self { lines, said }
        })
    }

    /// The key that it is about, and its value.
    fn bad(&self) -> (&'static str, &'static str) {
        self.lines.last().unwrap().split_once(" = ").unwrap()
    }
}

#[test]
fn of_every_bad_value_is_said_what_is_wrong_with_it() {
    let mut differ = Vec::new();
    for block in Block::all() {
        let mistakes = given(&block.lines.join("\n"), &[], &[]).mistakes();
        if mistakes != block.said {
            let said = mistakes.iter().map(|mistake| format!("\n> {mistake}"));
            differ.push(block.lines.join("\n") + &said.collect::<String>());
        }
    }
    assert!(
        differ.is_empty(),
        "the program says:\n{}",
        differ.join("\n\n")
    );
}

#[test]
fn every_key_has_a_bad_value() {
    let tried: Vec<_> = Block::all().map(|block| block.bad().0).collect();
    let keys = Place::of::<Config>().keys().into_iter();
    let untried: Vec<_> = keys.filter(|key| !tried.contains(&key.as_str())).collect();
    assert!(untried.is_empty(), "bad_values.txt has no {untried:?}");
}

/// Variables and flags are named as the place as well, for every key.
#[test]
fn bad_values_are_named_wherever_they_are_given() {
    for block in Block::all() {
        let ((key, value), besides) = (block.bad(), &block.lines[..block.lines.len() - 1]);
        let said = |text: &&str| {
            text.starts_with(&format!("DIR/ringback.toml:{}: {key}", besides.len() + 1))
        };
        // A table cannot stand in a variable, and what is of the wrong type in a file may be right
        // where everything is text.
        let about_it = block.said.iter().any(said);
        let is_text = value.starts_with('\'') && !value.contains('{');
        if !about_it || !is_text {
            continue;
        }
        let (file, text) = (besides.join("\n"), value.trim_matches('\''));
        let variable = format!("RINGBACK_{}", key.replace('.', "__").to_uppercase());
        for (variables, flags, place) in [
            (vec![(&*variable, text)], vec![], variable.clone()),
            (
                vec![],
                vec![format!("{key}={text}")],
                format!("--set {key}"),
            ),
        ] {
            let flags: Vec<_> = flags.iter().map(String::as_str).collect();
            let mistakes = given(&file, &variables, &flags).mistakes();
            let start = format!("{place}: {key}: ");
            assert!(
                mistakes.iter().any(|said| said.starts_with(&start)),
                "{start}{mistakes:?}"
            );
        }
    }
}
