//! `ringback config-reference`: every key of the configuration, its default and its meaning, as Markdown,
//! as JSON Schema, or as a file to begin with.

use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;

use crate::config::keys::Place;
use crate::config::{Config, schema};
use crate::failure::Failure;
use crate::out;

/// Longest line of a file's comments.
const WIDTH: usize = 100;

/// Options of `ringback config-reference`.
#[derive(Args)]
pub(crate) struct ReferenceArgs {
    /// As a JSON Schema of ringback.toml, for editors
    #[arg(long)]
    schema: bool,
    /// As a ringback.toml in which every key is commented out
    #[arg(long, conflicts_with = "schema")]
    toml: bool,
}

/// Prints the reference.
pub(crate) fn run(args: &ReferenceArgs) -> Result<(), Failure> {
    let text = match (args.schema, args.toml) {
        (true, _) => serde_json::to_string_pretty(&for_editors()).map_err(Failure::new)?,
        (_, true) => file(),
        _ => page(),
    };
    out!("{}", text.trim_end());
    Ok(())
}

/// A section of the file: `[log]` and everything below it.
pub(super) struct Section {
    /// `log`.
    pub(super) name: &'static str,
    meaning: String,
    keys: Vec<Key>,
}

struct Key {
    /// Its whole name: `log.engine`.
    name: String,
    /// As in TOML; `None`: there is none, or it would be a secret.
    default: Option<String>,
    /// Markdown, with links relative to `docs`.
    meaning: String,
    secret: bool,
}

/// Everything there is to say, in the order of the types.
pub(super) fn sections() -> Vec<Section> {
    let document = schema::document();
    // Of a table of secrets the key is one.
    let secrets: Vec<_> = schema::secrets(&document)
        .iter()
        .map(|path| path.join(".").trim_end_matches(".*").to_owned())
        .collect();
    let meaning = |key: &str| {
        let said = schema::at(&document, key).and_then(|schema| schema["description"].as_str());
        said.unwrap_or_default().to_owned()
    };
    let key = |name: String| {
        let at = schema::at(&document, &name);
        let default = at.and_then(|schema| toml::Value::try_from(schema.get("default")?).ok());
        Key {
            default: default.map(|default| default.to_string()),
            meaning: meaning(&name),
            secret: secrets.contains(&name),
            name,
        }
    };
    let Place::Section(places) = Place::of::<Config>() else {
        return Vec::new();
    };
    let section = |(name, place): (&'static str, Place)| Section {
        name,
        meaning: meaning(name),
        keys: place
            .keys()
            .into_iter()
            .map(|rest| key(format!("{name}.{rest}")))
            .collect(),
    };
    places.into_iter().map(section).collect()
}

/// All of it for people.
fn page() -> String {
    let sections = sections().into_iter().map(|section| {
        let (name, meaning) = (section.name, &section.meaning);
        format!("## {name}\n\n{meaning}\n\n{}\n", section.table())
    });
    sections.collect()
}

impl Section {
    /// As docs/configuration.md has it.
    pub(super) fn table(&self) -> String {
        let rows = self.keys.iter().map(|key| {
            let default = match &key.default {
                Some(default) => format!("`{default}`"),
                None => "none".to_owned(),
            };
            let secret = if key.secret { " *Secret.*" } else { "" };
            let meaning = key.meaning.replace('|', "\\|");
            format!("| `{}` | {default} | {meaning}{secret} |\n", key.name)
        });
        "| Key | Default | Meaning |\n|---|---|---|\n".to_owned() + &rows.collect::<String>()
    }
}

/// The schema with meanings as plain text: editors do not have our pages.
fn for_editors() -> Value {
    fn plain(value: &mut Value) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(text)) = members.get_mut("description") {
                    *text = without_links(text);
                }
                members.values_mut().for_each(plain);
            }
            Value::Array(items) => items.iter_mut().for_each(plain),
            _ => {}
        }
    }
    let mut document = schema::document();
    plain(&mut document);
    document
}

/// A file that changes nothing, so that a default of a later version is not overridden by today's.
pub(super) fn file() -> String {
    let mut file = String::from(
        "# The configuration of Ringback (ringback config-reference --toml). What is commented out has the\n\
         # default that stands there.\n",
    );
    for section in sections() {
        let _ = write!(file, "\n{}[{}]\n", comment(&section.meaning), section.name);
        for key in section.keys {
            let secret = if key.secret { " Secret." } else { "" };
            let meaning = comment(&(without_links(&key.meaning) + secret));
            let name = key.name.split_once('.').map_or("", |(_, rest)| rest);
            let default = key.default.unwrap_or_default();
            let line = format!("#{name} = {default}");
            let _ = write!(file, "\n{meaning}{}\n", line.trim_end());
        }
    }
    file
}

/// Lines of a comment.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines += &line;
            lines.push('\n');
            "#".clone_into(&mut line);
        }
        line.push(' ');
        line += word;
    }
    lines + &line + "\n"
}

/// `[the book](page.md#part)` as it is read outside of `docs`: `the book (docs/page.md#part)`.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, name, target, after)) = first_link(rest) {
        let names_the_page = target.starts_with(name);
        plain += &match names_the_page {
            true => format!("{before}docs/{target}"),
            false => format!("{before}{name} (docs/{target})"),
        };
        rest = after;
    }
    plain + rest
}

/// What is before a link, its text, where it leads, and what is behind it.
fn first_link(text: &str) -> Option<(&str, &str, &str, &str)> {
    let (head, tail) = text.split_once("](")?;
    let (before, name) = head.rsplit_once('[')?;
    let (target, after) = tail.split_once(')')?;
    Some((before, name, target, after))
}

#[cfg(test)]
mod tests {
    use super::super::tests::given;
    use super::*;

    #[test]
    fn the_page_has_the_tables() {
        let page = include_str!("../../../../docs/configuration.md");
        let mark = |name: &str| format!("<!-- config-reference: {name} -->\n");
        for section in sections() {
            let block = format!("{}\n{}\n<!-- end -->", mark(section.name), section.table());
            assert!(
                page.contains(&block),
                "docs/configuration.md says something else of {}; run: cargo xtask reference",
                section.name
            );
        }
    }

    #[test]
    fn every_key_has_a_meaning() {
        for section in sections() {
            assert!(section.meaning.ends_with('.'), "{}", section.name);
            for key in section.keys {
                let meaning = &key.meaning;
                assert!(meaning.ends_with(['.', ')']), "{}: {meaning}", key.name);
                // rustdoc's own links lead nowhere elsewhere.
                assert!(!meaning.contains("`]"), "{}: {meaning}", key.name);
            }
        }
    }

    /// As it is, and with every default in force: both are the defaults.
    #[test]
    fn the_file_changes_nothing() {
        let file = file();
        let uncommented = file.lines().map(|line| {
            let setting = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
            let setting = setting.filter(|setting| !setting.ends_with('='));
            format!("{}\n", setting.unwrap_or(line))
        });
        let uncommented: String = uncommented.collect();
        assert!(
            uncommented.contains("\nkafka.bootstrap = \"127"),
            "{uncommented}"
        );
        for file in [&file, &uncommented] {
            let config = given(file, &[], &[]).config();
            assert_eq!(config.to_string(), Config::default().to_string());
        }
        assert!(file.lines().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn links_become_places() {
        for (text, plain) in [
            ("See [a.md](a.md).", "See docs/a.md."),
            (
                "x [[y]] [the b](b.md#c) and [d](d.md)",
                "x [[y]] the b (docs/b.md#c) and docs/d.md",
            ),
            ("`[]` (none)", "`[]` (none)"),
        ] {
            assert_eq!(without_links(text), plain);
        }
    }
}
