//! The pages of `docs/` as a book, by mdBook, and whether every link in it leads somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::step::{command, run};
use crate::{root, target, tools};

/// Pages that mdBook makes for itself.
const MDBOOKS_OWN: [&str; 2] = ["docs/404.html", "docs/toc.html"];

/// Builds the book into `target/book`, where the files of the repository that it leads to lie beside it.
pub(crate) fn build() -> Result<(), String> {
    let docs = root().join("docs");
    all_are_listed(&docs)?;
    let book = target().join("book");
    if book.exists() {
        fs::remove_dir_all(&book)
            .map_err(|error| format!("removing {}: {error}", book.display()))?;
    }
    let mdbook = tools::mdbook()?;
    let (docs, made) = (docs.to_string_lossy(), book.join("docs"));
    let args = ["build", &docs, "--dest-dir", &made.to_string_lossy()];
    run(&mut command(&mdbook.to_string_lossy(), &args))?;

    let mut pages = BTreeMap::new();
    for path in files(&made)? {
        if path
            .extension()
            .is_some_and(|extension| extension == "html")
        {
            let name = path.strip_prefix(&book).unwrap_or(&path).to_owned();
            if !MDBOOKS_OWN.iter().any(|own| name == Path::new(own)) {
                pages.insert(name, read(&path)?);
            }
        }
    }
    let mut problems = Vec::new();
    let mut links = 0;
    for (page, text) in &pages {
        for link in values(text, "href").into_iter().chain(values(text, "src")) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            links += 1;
            if let Err(problem) = follow(&book, &pages, page, link) {
                problems.push(format!("{}: {link}: {problem}", page.display()));
            }
        }
    }
    println!("figure book.pages {} count", pages.len());
    println!("figure book.links {links} count");
    match problems.is_empty() {
        true => Ok(()),
        false => Err(format!("broken links:\n  {}", problems.join("\n  "))),
    }
}

/// Every page is in the table of contents.
fn all_are_listed(docs: &Path) -> Result<(), String> {
    let summary = docs.join("SUMMARY.md");
    let text = read(&summary)?;
    let mut missing = Vec::new();
    for path in files(docs)? {
        let name = path.strip_prefix(docs).unwrap_or(&path).to_string_lossy();
        if name.ends_with(".md") && name != "SUMMARY.md" && !text.contains(&format!("]({name})")) {
            missing.push(name.into_owned());
        }
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{} lacks {}",
            summary.display(),
            missing.join(", ")
        )),
    }
}

/// Whether a link of a page leads somewhere. A file of the repository is put beside the book.
fn follow(
    book: &Path,
    pages: &BTreeMap<PathBuf, String>,
    page: &Path,
    link: &str,
) -> Result<(), String> {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let leads_to = match path {
        "" => page.to_owned(),
        path => joined(page.parent().unwrap_or(Path::new("")), path)
            .ok_or("it leads out of the repository")?,
    };
    if let Some(text) = pages.get(&leads_to) {
        let ids: BTreeSet<_> = values(text, "id").into_iter().collect();
        return match anchor.is_empty() || ids.contains(anchor) {
            true => Ok(()),
            false => Err("that page has no such section".to_owned()),
        };
    }
    let there = book.join(&leads_to);
    if there.exists() {
        return Ok(());
    }
    let ours = root().join(&leads_to);
    match leads_to.starts_with("docs") || !ours.exists() {
        true => Err("there is no such file".to_owned()),
        false => copy(&ours, &there),
    }
}

/// A relative path from a folder, without `..`.
fn joined(folder: &Path, path: &str) -> Option<PathBuf> {
    let mut whole = folder.to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => whole.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !whole.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(whole)
}

/// The values of an attribute in a page that a program wrote: always in double quotes.
fn values<'a>(text: &'a str, attribute: &str) -> Vec<&'a str> {
    let begins = format!(" {attribute}=\"");
    let after = text.split(&begins).skip(1);
    after.filter_map(|rest| rest.split('"').next()).collect()
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error| format!("copying {} to {}: {error}", from.display(), to.display());
    if from.is_dir() {
        fs::create_dir_all(to).map_err(failed)?;
        for entry in fs::read_dir(from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    fs::create_dir_all(to.parent().unwrap_or(to)).map_err(failed)?;
    fs::copy(from, to).map_err(failed)?;
    Ok(())
}

/// All files below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error| format!("listing {}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("reading {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_to_pages_and_sections() {
        let page = |text: &str| text.to_owned();
        let pages = BTreeMap::from([
            (PathBuf::from("docs/a.html"), page(r#"<h2 id="there">"#)),
            (
                PathBuf::from("docs/adr/b.html"),
                page(r#"<a href="../a.html#there">"#),
            ),
        ]);
        let follow = |link| {
            follow(
                Path::new("/nowhere"),
                &pages,
                Path::new("docs/adr/b.html"),
                link,
            )
        };
        for good in ["../a.html", "../a.html#there", "b.html"] {
            follow(good).unwrap();
        }
        for bad in [
            "../a.html#gone",
            "#gone",
            "a.html",
            "../../../x",
            "../../no-such-file",
            "/etc/passwd",
        ] {
            follow(bad).unwrap_err();
        }
        assert_eq!(
            values(&pages[Path::new("docs/adr/b.html")], "href"),
            ["../a.html#there"]
        );
    }
}
