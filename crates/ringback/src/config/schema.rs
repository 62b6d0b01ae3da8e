//! The JSON Schema of `ringback.toml`: meanings, defaults and kinds of all keys, made of the types of the
//! configuration and their comments.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::config::Config;

/// The schema, draft 2020-12, in one piece.
pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let generator = settings.into_generator();
    let mut document = generator.into_root_schema_for::<Config>().to_value();
    tidy(&mut document);
    document["title"] = json!("ringback.toml");
    document["description"] = json!("The configuration of Ringback.");
    document
}

/// What a schema says about the key at a path.
pub(super) fn at<'d>(document: &'d Value, key: &str) -> Option<&'d Value> {
    let below = |at: &'d Value, part| at.get("properties")?.get(part);
    key.split('.').try_fold(document, below)
}

/// The paths of all that is not to be shown, `*` for any one name.
pub(super) fn secrets(document: &Value) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    find_secrets(document, &mut Vec::new(), &mut found);
    found
}

fn find_secrets(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    if schema["writeOnly"] == true {
        found.push(path.clone());
    }
    let properties = schema["properties"].as_object().into_iter().flatten();
    let others = schema.get("additionalProperties");
    let any = "*".to_owned();
    for (name, below) in properties.chain(others.map(|others| (&any, others))) {
        path.push(name.clone());
        find_secrets(below, path, found);
        path.pop();
    }
}

/// Takes out what only Rust knows of (`null`, since TOML has none; widths of numbers; how comments were
/// wrapped), and the defaults of sections and secrets.
fn tidy(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else {
        return;
    };
    unwrap_option(schema);
    unwrap_variants(schema);
    if let Some(Value::Array(kinds)) = schema.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            schema["type"] = kind.clone();
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if schema.get("type").is_some_and(|kind| kind != "string") {
        schema.remove("format");
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    let default = schema.get("default");
    let says_nothing = default.is_some_and(|default| default.is_null() || default.is_object());
    if says_nothing || schema.contains_key("writeOnly") {
        schema.remove("default");
    }
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    properties
        .into_iter()
        .flat_map(Map::values_mut)
        .for_each(tidy);
    for key in ["items", "additionalProperties"] {
        let Some(values) = schema.get_mut(key) else {
            continue;
        };
        tidy(values);
        // The key says what its values are; of their type only Rust's readers know.
        if let Some(values) = values.as_object_mut().filter(|it| it["type"] != "object") {
            values.remove("description");
        }
    }
}

/// `anyOf` this and `null`: this.
fn unwrap_option(schema: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = schema.remove("anyOf") else {
        return;
    };
    let is_null = |choice: &Value| choice["type"] == "null";
    let choices = choices.into_iter().filter(|choice| !is_null(choice));
    for (key, value) in choices
        .filter_map(|choice| choice.as_object().cloned())
        .flatten()
    {
        schema.entry(key).or_insert(value);
    }
}

/// `oneOf` constants, as types of named values are: an `enum`, which everybody reports better.
fn unwrap_variants(schema: &mut Map<String, Value>) {
    let Some(Value::Array(variants)) = schema.get("oneOf") else {
        return;
    };
    let values: Option<Vec<_>> = variants
        .iter()
        .map(|variant| variant.get("const").cloned())
        .collect();
    if let Some(values) = values {
        schema.remove("oneOf");
        schema.insert("type".to_owned(), json!("string"));
        schema.insert("enum".to_owned(), Value::Array(values));
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::Place;
    use super::super::tests::given;
    use super::*;

    /// Every key with what is said of it, and the names of all sections.
    fn walk<'s>(schema: &'s Value, above: &str, keys: &mut Vec<(String, &'s Value)>) {
        for (name, below) in schema["properties"].as_object().unwrap() {
            let name = format!("{above}{name}");
            match below.get("properties") {
                Some(_) => {
                    assert_eq!(below["additionalProperties"], false, "{name}");
                    walk(below, &format!("{name}."), keys);
                }
                None => keys.push((name, below)),
            }
        }
    }

    fn keys(document: &Value) -> Vec<(String, &Value)> {
        let mut keys = Vec::new();
        walk(document, "", &mut keys);
        keys
    }

    fn is_valid(document: &Value, toml: &str) -> bool {
        let table: toml::Table = toml.parse().unwrap();
        jsonschema::is_valid(document, &serde_json::to_value(table).unwrap())
    }

    #[test]
    fn it_has_the_keys_that_the_types_take() {
        let document = document();
        let mut taken = Place::of::<Config>().keys();
        taken.sort();
        let mut said: Vec<_> = keys(&document).into_iter().map(|(key, _)| key).collect();
        said.sort();
        assert_eq!(said, taken);
        jsonschema::draft202012::meta::validate(&document).unwrap();
    }

    /// What each key has by default is said, and allowed.
    #[test]
    fn defaults_are_the_programs_and_are_valid() {
        let document = document();
        let defaults = serde_json::to_value(Config::default()).unwrap();
        for (key, schema) in keys(&document) {
            let default = defaults.pointer(&format!("/{}", key.replace('.', "/")));
            let says_nothing = |default: &Value| {
                default.is_null() || default.as_object().is_some_and(Map::is_empty)
            };
            let default = default.filter(|default| !says_nothing(default));
            if schema["writeOnly"] == true {
                assert_eq!(default.unwrap_or(&json!("")), "", "{key}");
                continue;
            }
            assert_eq!(schema.get("default"), default, "{key}");
            if let Some(default) = default {
                assert!(jsonschema::is_valid(schema, default), "{key}: {default}");
            }
        }
    }

    #[test]
    fn secrets_are_marked_and_have_no_default() {
        let document = document();
        let secrets: Vec<_> = secrets(&document)
            .iter()
            .map(|path| path.join("."))
            .collect();
        assert_eq!(
            secrets,
            [
                "admin.operator_token",
                "admin.projection.url",
                "canary.token",
                "dispatcher.proxy_password",
                "log.kafka.properties.*",
                "log.kafka.sasl.password",
                "log.kafka.tls.key_password",
                "secrets.keys.*",
            ]
        );
        for secret in secrets {
            let key = secret.trim_end_matches(".*");
            assert!(
                at(&document, key).unwrap().get("default").is_none(),
                "{key}"
            );
        }
    }

    /// The first and the last number that the schema allows are allowed, those beyond are not.
    #[test]
    fn bounds_are_the_programs() {
        let document = document();
        let mut tried = 0;
        for (key, schema) in keys(&document) {
            // Depends on another key, too, whose default is larger.
            if schema["type"] != "integer" || key == "ingest.in_flight_bytes_max" {
                continue;
            }
            let is_wrong = |value: i64| {
                let flag = format!("{key}={value}");
                let about = format!("--set {key}: ");
                let mistakes = given("", &[], &[&flag]).all_mistakes();
                mistakes.iter().any(|mistake| mistake.starts_with(&about))
            };
            for (bound, step) in [("minimum", -1), ("maximum", 1)] {
                if let Some(bound) = schema[bound].as_i64() {
                    assert!(!is_wrong(bound), "{key} = {bound}");
                    assert!(is_wrong(bound + step), "{key} = {}", bound + step);
                    tried += 1;
                }
            }
        }
        assert!(tried > 20, "{tried}");
    }

    #[test]
    fn it_refuses_bad_values() {
        let document = document();
        let mut valid = Vec::new();
        for block in super::super::bad_values::Block::all() {
            let file = block.lines.join("\n");
            // Of keys that do not go together each is right by itself.
            if block.lines.len() == 1 && is_valid(&document, &file) {
                valid.push(file);
            }
        }
        valid.sort();
        let mut known = BEYOND_A_SCHEMA;
        known.sort_unstable();
        assert_eq!(valid, known);
    }

    /// Single bad values that it takes.
    const BEYOND_A_SCHEMA: [&str; 66] = [
        // How long.
        "topics.retention = '1h'",
        "topics.retention = '99999999999999999999d'",
        "schedule.tiers = ['0ms']",
        "schedule.tiers = ['8d']",
        "schedule.expires_after = '0ms'",
        "schedule.expires_after = '30d'",
        "ingest.body_timeout = '0ms'",
        "ingest.linger = '1d'",
        "ingest.append_timeout = '0s'",
        "admin.session.idle = '5s'",
        "admin.session.absolute = '5m'",
        "admin.mail.gather = '1ms'",
        "admin.projection.retention = '5m'",
        "admin.projection.slice = '90m'",
        "dispatcher.lane_wait = '2h'",
        "dispatcher.connect_timeout = '0ms'",
        "dispatcher.timeout = '0ms'",
        "dispatcher.timeout = '7d'",
        "dispatcher.commit_interval = '0ms'",
        "dispatcher.commit_interval = '11s'",
        "dispatcher.topic_check_interval = '999ms'",
        "dispatcher.topic_check_interval = '2d'",
        "dispatcher.linger = '1d'",
        "metrics.policy.window = '0s'",
        "metrics.policy.window = '6d'",
        "metrics.policy.silence = '0s'",
        "metrics.policy.silence = '2d'",
        "metrics.policy.slow_window = '31d'",
        "metrics.snapshot_interval = '0ms'",
        "canary.every = '2m'",
        // What needs another key.
        "log.kafka.tls.ca = '/x'",
        "log.kafka.sasl.mechanism = 'plain'",
        "log.kafka.sasl.username = 'u'",
        "log.kafka.sasl.password = 'hunter2'",
        "log.kafka.sasl.password_file = '/x'",
        "log.kafka.sasl.token_file = '/x'",
        "admin.tls.key_file = '/x'",
        "admin.tls.certificate_file = '/x'",
        "ingest.tls.key_file = '/x'",
        "ingest.tls.certificate_file = '/x'",
        "admin.mail.username = 'pbx'",
        "admin.mail.password_file = '/x'",
        "admin.projection.engine = 'postgres'",
        "dispatcher.proxy_password = 'hunter2'",
        "dispatcher.proxy_password_file = '/x'",
        "secrets.primary = 'k1'",
        // The form of texts that have a reader of their own.
        "log.kafka.bootstrap = 'kafka:99999'",
        "log.kafka.properties = { acks = '0' }",
        "log.kafka.properties = { 'no.such' = 'x' }",
        "ingest.raw = [{ source = 'a b', mapping = { type = 'cdr.completed', tenant = 'acme' } }]",
        "ingest.raw = [{ source = 'a', mapping = { tenant = 'acme' } }]",
        "admin.trusted_proxies = ['proxy']",
        "admin.redact.fields = ['caller', 'a//b']",
        "admin.redact.headers = ['x caller']",
        "admin.mail.from = 'Ringback <ringback@example.com>'",
        "admin.mail.operators = ['ops@example.com', 'ops']",
        "admin.projection.url = 'mysql://u:hunter2@h/d'",
        "admin.projection.url = 'postgresql://u:hunter2@/d'",
        "admin.projection.url = 'postgresql://u:hunter2@h/d?sslmode=require'",
        "admin.projection.url = 'postgresql://u:hunter2@h/d?application_name=x&sslrootcert=/x'",
        "admin.projection.url = 'postgresql://u:hunter2@h:hunter3/d'",
        "dispatcher.allow_networks = ['10.0.0.1/8']",
        "dispatcher.proxy = 'http://user:hunter2@proxy:3128'",
        "canary.ingest_url = 'http://me:hunter2@h'",
        "telemetry.log = 'inof'",
        "secrets.keys = { k1 = 'hunter2' }",
    ];
}
