//! The API's document: every answer of these tests is held against it, and it against docs/admin.md.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use ringback_admin::{Needs, openapi, routes};
use ringback_log::local::LocalLog;
use serde_json::{Value, json};

use crate::rig::Rig;

/// The document, stricter than it is: what it does not name must not be there.
fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let mut document = openapi::<LocalLog>();
        let schemas = document["components"]["schemas"].as_object_mut().unwrap();
        for (name, schema) in schemas {
            if name != "Problem" {
                close(schema);
            }
        }
        document
    })
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.contains_key("properties") && !members.contains_key("additionalProperties") {
                members.insert("additionalProperties".to_owned(), false.into());
            }
            members.values_mut().for_each(close);
        }
        Value::Array(all) => all.iter_mut().for_each(close),
        _ => {}
    }
}

/// What the document says about a path.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let parts: Vec<_> = path.split('/').collect();
    let is_it = |template: &str| {
        let template: Vec<_> = template.split('/').collect();
        let mut pairs = template.iter().zip(&parts);
        template.len() == parts.len()
            && pairs.all(|(wanted, part)| wanted.starts_with('{') || wanted == part)
    };
    let paths = document()["paths"].as_object().unwrap();
    // What is named wins over what is in braces.
    let mut found: Vec<_> = paths
        .iter()
        .filter(|(template, _)| is_it(template))
        .collect();
    found.sort_by_key(|(template, _)| template.matches('{').count());
    found.first()?.1.get(method.to_lowercase())
}

/// Holds an answer against the document.
#[track_caller]
pub(crate) fn check(method: &str, path: &str, status: u16, body: &Value) {
    let Some(operation) = operation(method, path) else {
        assert!(
            status >= 400,
            "{method} {path} is not in the document: {status}"
        );
        return;
    };
    let responses = &operation["responses"];
    let schema = match responses.get(status.to_string()) {
        Some(response) => response["content"]["application/json"]["schema"].clone(),
        None => {
            assert!(
                status >= 400,
                "{method} {path}: {status} is not in the document"
            );
            json!({ "$ref": "#/components/schemas/Problem" })
        }
    };
    let root = json!({ "allOf": [schema], "components": document()["components"] });
    let validator = jsonschema::draft202012::new(&root).unwrap();
    let wrong: Vec<_> = validator
        .iter_errors(body)
        .map(|error| format!("{}: {error}", error.instance_path))
        .collect();
    assert!(
        wrong.is_empty(),
        "{method} {path} {status}: {wrong:#?}\n{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_served_to_everybody_and_describes_every_route() {
    let rig = Rig::new().await;
    let response = rig
        .client
        .get(format!("{}/v1/openapi.json", rig.url))
        .send()
        .await
        .unwrap();
    let served: Value = response.json().await.unwrap();
    assert_eq!(served, openapi::<LocalLog>());
    assert_eq!(served["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    let mut lacking = Vec::new();
    for route in routes::<LocalLog>() {
        let operation = &served["paths"][route.path][route.method.to_lowercase()];
        let what = format!("{} {}", route.method, route.path);
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "{what}: {id} is there twice");
        let schemes = operation["security"].as_array().unwrap();
        let schemes = schemes
            .iter()
            .flat_map(|one| one.as_object().unwrap().keys());
        let schemes: Vec<_> = schemes.map(String::as_str).collect();
        let expected: &[_] = match route.needs {
            Needs::Public => &[],
            Needs::Session => &["session"],
            Needs::Operator | Needs::Tenant(_) => &["bearer", "session"],
        };
        assert_eq!(schemes, expected, "{what}");
        let answers = operation["responses"].as_object().unwrap().len();
        if operation["summary"] == "" || answers < 2 {
            lacking.push(what);
        }
    }
    assert!(
        lacking.is_empty(),
        "say in openapi/described.rs what these do: {lacking:#?}"
    );
    // Whatever is referred to is there.
    let text = served.to_string();
    for reference in text.split("\"$ref\":\"").skip(1) {
        let reference = reference.split('"').next().unwrap();
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(served.pointer(pointer).is_some(), "{reference}");
    }
}

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// The rows of the table under a heading: what is in backticks in the first cell, and the other cells.
fn rows(heading: &str) -> Vec<(Vec<String>, Vec<String>)> {
    let page = read("docs/admin.md");
    let (_, section) = page.split_once(&format!("\n{heading}\n")).unwrap();
    let section = section.split("\n#").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let names = cells[0].split('`').skip(1).step_by(2).map(str::to_owned);
        (
            names.collect(),
            cells[1..].iter().map(|cell| (*cell).to_owned()).collect(),
        )
    })
    .collect()
}

#[test]
fn the_page_lists_every_route() {
    let of_webhook = "/tenants/{tenant}/webhooks/{webhook}";
    let mut listed = BTreeSet::new();
    for (paths, cells) in rows("## Routes") {
        for path in paths {
            let path = match path.strip_prefix('…') {
                None => path,
                Some(rest) => {
                    let rest = rest.strip_prefix("/{webhook}").unwrap_or(rest);
                    format!("{of_webhook}{rest}")
                }
            };
            for method in cells[0].split(", ") {
                listed.insert(format!("{method} /v1{path}"));
            }
        }
    }
    let there: BTreeSet<_> = routes::<LocalLog>()
        .iter()
        .map(|route| format!("{} {}", route.method, route.path))
        .chain(["GET /v1/openapi.json".to_owned()])
        .collect();
    let missing: Vec<_> = there.difference(&listed).collect();
    assert!(missing.is_empty(), "docs/admin.md lacks {missing:#?}");
    let gone: Vec<_> = listed.difference(&there).collect();
    assert!(
        gone.is_empty(),
        "docs/admin.md has routes that are not there: {gone:#?}"
    );
}

/// Codes are given where problems are made; the page says what each means.
#[test]
fn the_page_lists_every_code() {
    let mut given = BTreeSet::new();
    let mut text = String::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(path) = open.pop() {
        match path.is_dir() {
            true => open.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path())),
            false => text.push_str(&std::fs::read_to_string(path).unwrap()),
        }
    }
    for maker in [
        "new",
        "invalid",
        "not_found",
        "none_called",
        "conflict",
        "unavailable",
    ] {
        for kind in ["Problem", "Self"] {
            for call in text.split(&format!("{kind}::{maker}(")).skip(1) {
                // Of other types' `new` the first text is no code.
                let call = call.split(';').next().unwrap();
                let code = call.split('"').nth(1).unwrap_or_default();
                let is_code =
                    code.contains('_') && code.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                if is_code {
                    given.insert(code.to_owned());
                }
            }
        }
    }
    // These are chosen before.
    given.extend(
        [
            "invalid_field",
            "address_refused",
            "port_refused",
            "timeout",
            "csrf",
            "unauthorized",
            "internal",
        ]
        .map(str::to_owned),
    );
    let listed: BTreeSet<_> = rows("### Codes")
        .into_iter()
        .flat_map(|(codes, _)| codes)
        .collect();
    let missing: Vec<_> = given.difference(&listed).collect();
    assert!(
        missing.is_empty(),
        "docs/admin.md, Codes, lacks {missing:#?}"
    );
    let gone: Vec<_> = listed.difference(&given).collect();
    assert!(
        gone.is_empty(),
        "docs/admin.md has codes that nobody gives: {gone:#?}"
    );
}
