//! The bill of materials of the program, as CycloneDX: what is compiled into it, which cargo knows
//! exactly. The usual tools add a minute of building to CI, and lose the version of the bundled OpenSSL.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::root;
use crate::step::{cargo, output};

/// `cargo xtask sbom`: prints it.
pub(crate) fn print() -> Result<(), String> {
    println!("{}", made()?);
    Ok(())
}

/// It as JSON. The same sources give the same text.
pub(crate) fn made() -> Result<String, String> {
    let lock = root().join("Cargo.lock");
    let lock = fs::read_to_string(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
    let linked = tree("normal")?;
    // C code comes in packages that only build (openssl-src).
    let sources = tree("normal,build")?;
    let sources = sources.lines().filter(|line| {
        let name = line.split(' ').next();
        name.is_some_and(|name| name.ends_with("-src"))
    });
    let lines: BTreeSet<&str> = linked.lines().chain(sources).collect();
    Ok(bill(&lines, &checksums(&lock)))
}

/// What the program depends on by these edges: a package a line.
fn tree(edges: &str) -> Result<String, String> {
    let args = ["tree", "--quiet", "--locked", "--package", "ringback"];
    let format = ["--prefix", "none", "--no-dedupe", "--format", "{p}|{l}|{r}"];
    output(cargo(&args).args(["--edges", edges]).args(format))
}

/// SHA-256 by name and version, of `Cargo.lock`.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    let mut found = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let mut pairs = package.lines().filter_map(|line| line.split_once(" = "));
            Some(pairs.find(|(name, _)| *name == key)?.1.trim_matches('"'))
        };
        if let (Some(name), Some(version), Some(sum)) =
            (value("name"), value("version"), value("checksum"))
        {
            found.insert((name, version), sum);
        }
    }
    found
}

fn bill(lines: &BTreeSet<&str>, checksums: &BTreeMap<(&str, &str), &str>) -> String {
    let parts: Vec<String> = lines
        .iter()
        .filter_map(|line| part(line, checksums))
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    format!(
        r#"{{
"bomFormat": "CycloneDX",
"specVersion": "1.5",
"version": 1,
"metadata": {{"component": {{"type": "application", "name": "ringback", "version": "{version}", "purl": "pkg:cargo/ringback@{version}"}}}},
"components": [
{}
]
}}"#,
        parts.join(",\n")
    )
}

/// A component, of `name v1.2.3 (path)|licence|repository`; not the program itself.
fn part(line: &str, checksums: &BTreeMap<(&str, &str), &str>) -> Option<String> {
    let mut fields = line.split('|');
    let mut package = fields.next()?.split(' ');
    let (name, version) = (package.next()?, package.next()?.strip_prefix('v')?);
    if name == "ringback" {
        return None;
    }
    let purl = format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"));
    let mut text = format!(
        r#"{{"type": "library", "name": {}, "version": {}, "purl": {}, "bom-ref": {}"#,
        json(name),
        json(version),
        json(&purl),
        json(&purl),
    );
    if let Some(licence) = fields.next().filter(|licence| !licence.is_empty()) {
        // Before SPDX, a slash meant that one may choose.
        let licence = licence.replace('/', " OR ");
        text += &format!(r#", "licenses": [{{"expression": {}}}]"#, json(&licence));
    }
    if let Some(sum) = checksums.get(&(name, version)) {
        text += &format!(
            r#", "hashes": [{{"alg": "SHA-256", "content": {}}}]"#,
            json(sum)
        );
    }
    if let Some(url) = fields.next().filter(|url| !url.is_empty()) {
        let url = json(url);
        text += &format!(r#", "externalReferences": [{{"type": "vcs", "url": {url}}}]"#);
    }
    Some(text + "}")
}

/// Text in quotation marks.
fn json(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => quoted += &format!("\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_a_component_with_its_checksum() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0+x\"\nsource = \"registry+s\"\nchecksum = \"cafe\"\ndependencies = [\n \"b\",\n]\n\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\n";
        let sums = checksums(lock);
        assert_eq!(sums.len(), 1);
        let found = part("a v1.0.0+x|MIT/Apache-2.0|https://x/\"y\"", &sums).unwrap();
        assert_eq!(
            found,
            r#"{"type": "library", "name": "a", "version": "1.0.0+x", "purl": "pkg:cargo/a@1.0.0%2Bx", "bom-ref": "pkg:cargo/a@1.0.0%2Bx", "licenses": [{"expression": "MIT OR Apache-2.0"}], "hashes": [{"alg": "SHA-256", "content": "cafe"}], "externalReferences": [{"type": "vcs", "url": "https://x/\"y\""}]}"#.replace("/\"y\"", "/\\\"y\\\"")
        );
        let own = part("b v2.0.0 (/here/b)||", &sums).unwrap();
        assert!(own.ends_with(r#""bom-ref": "pkg:cargo/b@2.0.0"}"#), "{own}");
        assert_eq!(part("ringback v0.1.0 (/here)|Apache-2.0|", &sums), None);
    }
}
