//! Puts the layers together, key by key; says what is wrong with each key by itself.

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use serde::Deserialize as _;
use toml::{Table, Value};

use crate::config::keys::Place;
use crate::config::source::{Entry, Given, Origin};
use crate::config::{Config, schema};

/// What stands for a secret wherever configuration is shown.
pub(super) const HIDDEN: &str = "(hidden)";

/// Values that are never shown, nor repeated in a message; `*` is any one name.
static SECRET: LazyLock<Vec<Vec<String>>> = LazyLock::new(|| schema::secrets(&schema::document()));

fn is_secret(path: &[String]) -> bool {
    SECRET.iter().any(|secret| {
        let same = |(part, given): (&String, &String)| part == "*" || part == given;
        // Too deep a path holds one as well: it was meant for the secret, and misspelt.
        path.len() >= secret.len() && secret.iter().zip(path).all(same)
    })
}

/// The layers as one table.
#[derive(Default)]
pub(super) struct Merged {
    pub(super) table: Table,
    /// Where each key was given last, by its dotted name.
    pub(super) origins: BTreeMap<String, Origin>,
    pub(super) mistakes: Vec<String>,
}

impl Merged {
    /// Later entries win over earlier ones. Mistakes stay out of the table.
    pub(super) fn of(entries: Vec<Entry>, root: &Place) -> Self {
        let mut merged = Self::default();
        let known = root.keys();
        // A misspelt section is one mistake, however many keys it has.
        let mut reported = HashSet::new();
        for entry in entries {
            match path_of(&entry, root, &known) {
                Ok(path) => merged.put(path, entry),
                Err((wrong, problem)) => {
                    let file = match &entry.origin {
                        Origin::File { path, .. } => Some(path.clone()),
                        _ => None,
                    };
                    if file.is_none() || reported.insert((file, wrong.clone())) {
                        merged
                            .mistakes
                            .push(format!("{}: {wrong}: {problem}", entry.origin));
                    }
                }
            }
        }
        merged
    }

    fn put(&mut self, path: Vec<String>, entry: Entry) {
        let key = path.join(".");
        match checked(&path, entry.given) {
            Ok(Some(value)) => {
                insert(&mut self.table, &path, value);
                self.origins.insert(key, entry.origin);
            }
            Ok(None) => {}
            Err(problem) => self
                .mistakes
                .push(format!("{}: {key}: {problem}", entry.origin)),
        }
    }
}

/// The path of an entry as the types have it, or the part of it that is wrong and why.
fn path_of(entry: &Entry, root: &Place, known: &[String]) -> Result<Vec<String>, (String, String)> {
    let mut below = root;
    for (depth, part) in entry.path.iter().enumerate() {
        let so_far = entry.path[..=depth].join(".");
        match below {
            Place::Section(keys) => match keys.iter().find(|(key, _)| key == part) {
                Some((_, place)) => below = place,
                None => {
                    let problem = match nearest(&so_far, &entry.path.join("."), known) {
                        Some(near) => format!("there is no such key; did you mean {near}?"),
                        None => "there is no such key".to_owned(),
                    };
                    return Err((so_far, problem));
                }
            },
            // The user's own names may have dots, quoted or not.
            Place::Open => {
                let mut path = entry.path[..depth].to_vec();
                path.push(entry.path[depth..].join("."));
                return Ok(path);
            }
            Place::Value => {
                let value = entry.path[..depth].join(".");
                return Err((so_far, format!("{value} is a value, not a section")));
            }
        }
    }
    let is_table = matches!(&entry.given, Given::Value(Value::Table(_)));
    match below {
        Place::Section(keys) if !is_table => {
            let path = entry.path.join(".");
            let keys: Vec<_> = keys
                .iter()
                .map(|(key, _)| format!("{path}.{key}"))
                .collect();
            let problem = format!("is a section; its keys are {}", keys.join(", "));
            Err((path, problem))
        }
        _ => Ok(entry.path.clone()),
    }
}

/// The value for a key, if its type takes it. `None`: an empty section says nothing.
fn checked(path: &[String], given: Given) -> Result<Option<Value>, String> {
    let mut candidates = Vec::new();
    match given {
        Given::Value(Value::Table(table)) if table.is_empty() => return Ok(None),
        Given::Value(value) => candidates.push(value),
        Given::Text(text) => {
            let value = text.parse::<Value>().ok();
            candidates.extend(value.filter(|value| !value.is_table()));
            candidates.push(Value::String(text));
        }
    }
    let mut problem = String::new();
    for value in candidates {
        match alone(path, &value) {
            Ok(()) => return Ok(Some(value)),
            Err(_) if is_secret(path) => {
                problem = format!("use text in quotes; this is of type {}", value.type_str());
            }
            // As text it is of the wrong type, or it says best what is wrong.
            Err(wrong) if problem.is_empty() || problem.starts_with(WRONG_TYPE) => problem = wrong,
            Err(_) => {}
        }
        // Of a number where a duration or a name should be, the text says better what is allowed.
        if !is_secret(path)
            && problem.starts_with(WRONG_TYPE)
            && let Value::Integer(_) | Value::Float(_) | Value::Boolean(_) = value
            && let Err(as_text) = alone(path, &Value::String(value.to_string()))
            && !as_text.starts_with(WRONG_TYPE)
        {
            problem = as_text;
        }
    }
    Err(in_words(&problem))
}

/// How serde's messages about types begin.
const WRONG_TYPE: &str = "invalid type";

/// Whether the type of a key takes this value, or what it says is wrong.
fn alone(path: &[String], value: &Value) -> Result<(), String> {
    let mut alone = Table::new();
    insert(&mut alone, path, value.clone());
    match Config::deserialize(Value::Table(alone)) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.message().to_owned()),
    }
}

/// A message about types with the names that people know instead of Rust's.
fn in_words(problem: &str) -> String {
    let names = [
        ("usize", "a whole number, not negative"),
        ("u64", "a whole number, not negative"),
        ("u32", "a whole number of 0 to 4294967295"),
        ("u16", "a whole number of 0 to 65535"),
        ("u8", "a whole number of 0 to 255"),
        ("a boolean", "true or false"),
        ("a string", "text in quotes"),
        ("path string", "text in quotes"),
        ("a sequence", "a list"),
        ("a map", "a table"),
    ];
    let problem = problem.replace("invalid type: sequence,", "invalid type: list,");
    let problem = problem.replace("invalid type: map,", "invalid type: table,");
    for (theirs, ours) in names {
        if let Some(before) = problem.strip_suffix(&format!("expected {theirs}")) {
            return format!("{before}expected {ours}");
        }
    }
    problem
}

/// Puts a value at a path, making the tables above it.
fn insert(table: &mut Table, path: &[String], value: Value) {
    let Some((last, above)) = path.split_last() else {
        return;
    };
    let mut table = table;
    for part in above {
        let below = table
            .entry(part.clone())
            .or_insert_with(|| Value::Table(Table::new()));
        // Paths follow the types, in which a value is never a section.
        let Value::Table(next) = below else { return };
        table = next;
    }
    table.insert(last.clone(), value);
}

/// The known key that a wrong one comes nearest to: by spelling, or by its last part where it was
/// put into the wrong section.
fn nearest<'a>(wrong: &str, whole: &str, known: &'a [String]) -> Option<&'a str> {
    let last = |key: &str| key.rsplit('.').next().map(str::to_owned);
    let by_spelling = known
        .iter()
        .map(|key| {
            // A misspelt section is compared with sections.
            let parts = wrong.split('.').count();
            let end = key.match_indices('.').nth(parts - 1);
            let key = &key[..end.map_or(key.len(), |(at, _)| at)];
            (strsim::damerau_levenshtein(wrong, key), key)
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 2.max(wrong.len() / 6))
        .map(|(_, key)| key);
    let mut elsewhere = known.iter().filter(|key| last(key) == last(whole));
    by_spelling.or_else(|| match (elsewhere.next(), elsewhere.next()) {
        (Some(key), None) => Some(key),
        _ => None,
    })
}

/// Replaces the values of secrets that are set.
pub(super) fn hide_secrets(table: &mut Table) {
    for secret in SECRET.iter() {
        hide(table, secret);
    }
}

fn hide(table: &mut Table, path: &[String]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    for (name, value) in table.iter_mut() {
        if first != "*" && first != name {
            continue;
        }
        match value {
            Value::Table(below) if !rest.is_empty() => hide(below, rest),
            Value::String(text) if text.is_empty() => {}
            value => *value = Value::String(HIDDEN.to_owned()),
        }
    }
}
