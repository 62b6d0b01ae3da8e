//! Reads file, environment and flags into single keys, each with where it was given.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::config::ConfigArgs;

/// Read when no file is named.
const DEFAULT_FILE: &str = "ringback.toml";
const PREFIX: &str = "RINGBACK_";
/// Separates the parts of a key in a variable's name; every key has at least two.
const NESTS: &str = "__";

/// Where a key was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    File { path: PathBuf, line: usize },
    Variable(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "{name}"),
            // The value may be a secret.
            Self::Flag(key) => write!(f, "--set {key}"),
        }
    }
}

/// What was given for a key.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Given {
    /// A TOML value.
    Value(toml::Value),
    /// Text that may be meant as TOML or as it stands; the type of the key decides.
    Text(String),
}

/// A key and what was given for it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<String>,
    pub(super) given: Given,
    pub(super) origin: Origin,
}

/// Everything that was given, weakest first, and what could not be read.
#[derive(Default)]
pub(super) struct Layers {
    pub(super) entries: Vec<Entry>,
    pub(super) mistakes: Vec<String>,
}

impl Layers {
    /// Reads the file, these variables, and the flags; `known` are the dotted names of all keys.
    pub(super) fn read(
        args: &ConfigArgs,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        known: &[String],
    ) -> Self {
        let mut layers = Self::default();
        layers.read_file(args.config.as_deref());
        layers.read_environment(environment, known);
        layers.read_flags(&args.set);
        layers
    }

    fn read_file(&mut self, named: Option<&Path>) {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => self.read_toml(path, &text),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => self.mistakes.push(format!("{}: {error}", path.display())),
        }
    }

    /// Reads the text of a file.
    pub(super) fn read_toml(&mut self, path: &Path, text: &str) {
        let line = |offset: usize| {
            let before = text.get(..offset).unwrap_or(text);
            before.bytes().filter(|byte| *byte == b'\n').count() + 1
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let line = line(error.span().map_or(0, |span| span.start));
            // Without the excerpt that its Display adds: the line may hold a secret.
            self.mistakes
                .push(format!("{}:{line}: {}", path.display(), error.message()));
        }
        flatten(
            table.into_inner(),
            &mut Vec::new(),
            &mut |keys, offset, value| {
                let origin = Origin::File {
                    path: path.to_owned(),
                    line: line(offset),
                };
                match toml::Value::deserialize(ValueDeserializer::from(value)) {
                    Ok(value) => self.entries.push(Entry {
                        path: keys.to_vec(),
                        given: Given::Value(value),
                        origin,
                    }),
                    Err(error) => {
                        let key = keys.join(".");
                        self.mistakes
                            .push(format!("{origin}: {key}: {}", error.message()));
                    }
                }
            },
        );
    }

    fn read_environment(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        known: &[String],
    ) {
        let mut variables: Vec<_> = environment
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        variables.sort();
        for (name, value) in variables {
            if !name.contains(NESTS) {
                // Others belong to tools: RINGBACK_TOKEN, or what Kubernetes says about a service.
                if let Some(meant) = meant(&name, known) {
                    self.mistakes.push(format!(
                        "{name}: is not read; two underscores stand for a dot: {meant}"
                    ));
                }
                continue;
            }
            match value.into_string() {
                Ok(text) => self.entries.push(Entry {
                    path: path_of_variable(&name),
                    given: Given::Text(text),
                    origin: Origin::Variable(name),
                }),
                Err(_) => self
                    .mistakes
                    .push(format!("{name}: its value is not UTF-8")),
            }
        }
    }

    fn read_flags(&mut self, flags: &[String]) {
        for flag in flags {
            let parsed = flag.split_once('=').and_then(|(key, value)| {
                Some((
                    dotted_path(key.trim())?,
                    key.trim().to_owned(),
                    value.trim(),
                ))
            });
            match parsed {
                Some((path, key, value)) => self.entries.push(Entry {
                    path,
                    given: Given::Text(value.to_owned()),
                    origin: Origin::Flag(key),
                }),
                None => {
                    // What stands behind `=` may be a secret.
                    let key = flag.split('=').next().unwrap_or_default();
                    self.mistakes.push(format!(
                        "--set {key}: is not of the form section.key=value, such as log.engine=kafka"
                    ));
                }
            }
        }
    }
}

/// The path of a key in TOML's own dotted form: `log.kafka.properties."sasl.mechanism"`.
fn dotted_path(key: &str) -> Option<Vec<String>> {
    let mut table: toml::Table = format!("{key} = 0").parse().ok()?;
    let mut path = Vec::new();
    loop {
        if table.len() != 1 {
            return None;
        }
        let (name, below) = table.into_iter().next()?;
        path.push(name);
        match below {
            toml::Value::Table(deeper) => table = deeper,
            _ => return Some(path),
        }
    }
}

/// The variable that was meant by one that separates with a single underscore.
fn meant(name: &str, known: &[String]) -> Option<String> {
    let name = name.strip_prefix(PREFIX)?.to_lowercase();
    let key = known.iter().find(|key| key.replace('.', "_") == name)?;
    Some(format!(
        "{PREFIX}{}",
        key.replace('.', NESTS).to_uppercase()
    ))
}

fn path_of_variable(name: &str) -> Vec<String> {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    let mut path: Vec<_> = name.split(NESTS).map(str::to_lowercase).collect();
    // Names of Kafka properties have dots, names of variables cannot: here `_` stands for one.
    if let [log, kafka, properties, property] = path.as_mut_slice()
        && [log, kafka, properties] == ["log", "kafka", "properties"]
    {
        *property = property.replace('_', ".");
    }
    path
}

/// Calls `take` with path, place and content of everything that is not a table. A table without
/// keys is taken as it is, so that a misspelt section does not go unnoticed.
fn flatten<'i>(
    table: DeTable<'i>,
    path: &mut Vec<String>,
    take: &mut impl FnMut(&[String], usize, Spanned<DeValue<'i>>),
) {
    for (key, value) in table {
        let offset = key.span().start;
        path.push(key.into_inner().into_owned());
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(below) if !below.is_empty() => flatten(below, path, take),
            other => take(path, offset, Spanned::new(span, other)),
        }
        path.pop();
    }
}
