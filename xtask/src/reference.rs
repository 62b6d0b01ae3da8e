//! Writes down what the program says of its configuration: the tables of `docs/configuration.md` and the
//! chart's schema of `config`.

use std::fs;

use crate::step::{cargo, command, output, run};
use crate::{root, target};

const PAGE: &str = "docs/configuration.md";
/// Around each table of the page.
const BEGIN: &str = "<!-- config-reference: ";
const END: &str = "<!-- end -->";

/// `cargo xtask reference`.
pub(crate) fn write() -> Result<(), String> {
    let program = [
        "run",
        "--quiet",
        "--locked",
        "--package",
        "ringback",
        "--",
        "config-reference",
    ];
    let reference = output(&mut cargo(&program))?;
    let path = root().join(PAGE);
    let doing = |error| format!("{PAGE}: {error}");
    let page = fs::read_to_string(&path).map_err(doing)?;
    fs::write(&path, with_tables(&page, &reference)?).map_err(doing)?;
    let write = ["tests/deploy/schema.py", "--write"];
    run(command("python3", &write).env("RINGBACK", target().join("debug/ringback")))
}

/// The page with the tables of the reference between its marks.
fn with_tables(page: &str, reference: &str) -> Result<String, String> {
    let mut parts = page.split(BEGIN);
    let mut written = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let name = part.lines().next().unwrap_or_default();
        let section = name.strip_suffix(" -->").unwrap_or_default();
        let Some((_, after)) = part.split_once(END) else {
            return Err(format!("{PAGE}: {BEGIN}{name} has no {END}"));
        };
        let table = table(reference, section)
            .ok_or_else(|| format!("{PAGE}: {BEGIN}{name}: the program has no such section"))?;
        written += &format!("{BEGIN}{name}\n\n{table}\n{END}{after}");
    }
    Ok(written)
}

/// The table below `## section`.
fn table(reference: &str, section: &str) -> Option<String> {
    let mut lines = reference.lines();
    lines.find(|line| *line == format!("## {section}"))?;
    let below = lines.take_while(|line| !line.starts_with("## "));
    let rows = below.filter(|line| line.starts_with('|'));
    Some(rows.map(|row| format!("{row}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stand_between_their_marks() {
        let reference =
            "## a\n\nAbout a.\n\n| Key |\n|---|\n| a.x |\n\n## b\n\nAbout b.\n\n| b.x |\n";
        let page = "# Page\n<!-- config-reference: b -->\nold\n<!-- end -->\nmore\n<!-- config-reference: a -->\n<!-- end -->\n";
        let written = with_tables(page, reference).unwrap();
        let expected = "# Page\n<!-- config-reference: b -->\n\n| b.x |\n\n<!-- end -->\nmore\n<!-- config-reference: a -->\n\n| Key |\n|---|\n| a.x |\n\n<!-- end -->\n";
        assert_eq!(written, expected);
        assert_eq!(with_tables(&written, reference).unwrap(), written);
        assert!(with_tables("<!-- config-reference: c -->\n<!-- end -->", reference).is_err());
        assert!(with_tables("<!-- config-reference: a -->\n", reference).is_err());
    }
}
