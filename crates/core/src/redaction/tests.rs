//! What is hidden is in nothing that is shown, and JSON stays JSON.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn redaction(fields: &[&str], numbers: Option<u8>) -> Redaction {
    let rules = Rules {
        fields: fields.iter().map(|&field| field.to_owned()).collect(),
        numbers,
        ..Rules::default()
    };
    assert_eq!(rules.problems(), Vec::<String>::new());
    Redaction::new(&rules)
}

#[test]
fn fields_are_hidden_wherever_they_are() {
    let rules = redaction(&["caller", "callee/number"], None);
    for (text, shown) in [
        (
            r#"{"caller":"49170","b":1}"#,
            r#"{"caller":"(hidden)","b":1}"#,
        ),
        (
            r#"{ "Caller" : 49170 , "b":1}"#,
            r#"{ "Caller" : "(hidden)" , "b":1}"#,
        ),
        (
            r#"{"a":[{"caller":{"x":["}"]}}]}"#,
            r#"{"a":[{"caller":"(hidden)"}]}"#,
        ),
        (
            r#"{"callee":{"number":1,"name":2},"number":3}"#,
            r#"{"callee":{"number":"(hidden)","name":2},"number":3}"#,
        ),
        (
            r#"{"callee":[{"number":null}]}"#,
            r#"{"callee":[{"number":"(hidden)"}]}"#,
        ),
        (
            r#"{"call\u0065r":"49170"}"#,
            r#"{"call\u0065r":"(hidden)"}"#,
        ),
        (
            r#"{"body":"{\"caller\":\"49170\"}"}"#,
            r#"{"body":"{\"caller\":\"(hidden)\"}"}"#,
        ),
        (
            r#"{"callee":"{\"number\":1}"}"#,
            r#"{"callee":"{\"number\":\"(hidden)\"}"}"#,
        ),
        (
            r#"not taken: {"caller": +49 170, "b": 1}"#,
            r#"not taken: {"caller": "(hidden)", "b": 1}"#,
        ),
        (r#"{"caller":"4917"#, r#"{"caller":"(hidden)""#),
        (r#"{"caller":{"number":["49"#, r#"{"caller":"(hidden)""#),
        (
            r#"{"body":"{\"caller\":\"491\"#,
            r#"{"body":"{\"caller\":\"(hidden)\""#,
        ),
        (r#"{"caller":"#, r#"{"caller":"#),
        (r#"{"other":"caller"}"#, r#"{"other":"caller"}"#),
        ("caller", "caller"),
    ] {
        assert_eq!(rules.text(text), shown, "{text}");
        assert_eq!(rules.text(shown), shown, "{text}");
    }
}

#[test]
fn numbers_are_masked_in_texts_of_every_kind() {
    let rules = redaction(&[], Some(2));
    for (text, shown) in [
        ("491701234567", "**********67"),
        (
            r#"{"a":491701234567,"b":[ -1234567 ]}"#,
            r#"{"a":"**********67","b":[ "*****67" ]}"#,
        ),
        (r#"{"a":"\u0034917012345"}"#, r#"{"a":"********45"}"#),
        (r#"{"+4917012345":1}"#, r#"{"+********45":1}"#),
        (r#"{"a":200,"b":"1001"}"#, r#"{"a":200,"b":"1001"}"#),
        (r#"{"a":491701234567,"#, r#"{"a":**********67,"#),
        (r#"{"a":"\u00349170123\u003"#, r#"{"a":"******23"#),
        (r#"he said "1234567" twice"#, r#"he said "*****67" twice"#),
    ] {
        assert_eq!(rules.text(text), shown, "{text}");
        assert_eq!(rules.text(shown), shown, "{text}");
    }
}

#[test]
fn what_is_too_deep_to_be_looked_at_is_hidden() {
    let rules = redaction(&["caller"], None);
    let mut text = json!({ "caller": "49170" }).to_string();
    for _ in 0..6 {
        text = json!({ "body": text }).to_string();
    }
    let shown = rules.text(&text);
    assert!(!shown.contains("49170"), "{shown}");
    serde_json::from_str::<Value>(&shown).unwrap();
}

fn attempt() -> Attempt {
    let lines = json!([
        ["X-Caller", "49170"],
        ["x-number", "1234567"],
        ["x-other", "b"],
        ["Webhook-Timestamp", "1764000000"]
    ]);
    serde_json::from_value(json!({
        "version": 1, "event": uuid::Uuid::nil(), "type": "call.ended", "tenant": "acme",
        "webhook": uuid::Uuid::nil(), "generation": 1, "run": 0, "attempt": 0,
        "started": "2026-11-22T01:25:00Z", "duration_ms": 12_345_678, "outcome": "status",
        "status": 500, "error": "about 1234567", "response": "{\"caller\":\"49170\"}",
        "next": "retry.32s", "dispatcher": "d1", "subject": "number/1234567",
        "request_headers": lines, "response_headers": lines,
    }))
    .unwrap()
}

#[test]
fn of_an_attempt_is_masked_what_others_have_written() {
    let mut rules = Rules {
        fields: vec!["caller".to_owned()],
        headers: vec!["x-caller".to_owned()],
        numbers: Some(1),
        responses: false,
    };
    let mut masked = attempt();
    Redaction::new(&rules).attempt(&mut masked);
    assert_eq!(masked.error.as_deref(), Some("about ******7"));
    assert_eq!(masked.response.as_deref(), Some(r#"{"caller":"(hidden)"}"#));
    let line = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut lines = [
        line("X-Caller", HIDDEN),
        line("x-number", "******7"),
        line("x-other", "b"),
        line("Webhook-Timestamp", "1764000000"),
    ];
    assert_eq!(masked.request_headers.as_deref(), Some(&lines[..]));
    // It is ours in requests only.
    lines[3] = line("Webhook-Timestamp", "*********0");
    assert_eq!(masked.response_headers.as_deref(), Some(&lines[..]));
    // Erasures find it by that.
    assert_eq!(masked.subject, attempt().subject);
    rules.responses = true;
    Redaction::new(&rules).attempt(&mut masked);
    assert_eq!(masked.response.as_deref(), Some(HIDDEN));

    let mut same = attempt();
    Redaction::default().attempt(&mut same);
    assert_eq!(same, attempt());
}

#[test]
fn bad_rules_are_named() {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    for fields in [&[""][..], &["a/"], &["/a"], &["a\nb"], &["a", "b//c"]] {
        let rules = Rules {
            fields: names(fields),
            ..Rules::default()
        };
        assert!(rules.problems()[0].starts_with("fields: "), "{fields:?}");
    }
    for headers in [&[""][..], &["x caller"], &["x:"], &["ä"]] {
        let rules = Rules {
            headers: names(headers),
            ..Rules::default()
        };
        assert!(rules.problems()[0].starts_with("headers: "), "{headers:?}");
    }
    let rules = Rules {
        fields: vec!["x".repeat(NAME_BYTES_MAX + 1)],
        headers: vec!["x".to_owned(); RULES_MAX + 1],
        numbers: Some(DIGITS_MAX + 1),
        responses: true,
    };
    assert_eq!(rules.problems().len(), 3);
}

/// What is looked for in what is shown: no part of it stands anywhere else.
const SECRET: &str = "QZXQZXQZXQZX";
const PART: &str = "QZX";

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("caller".to_owned()),
        Just("CALLER".to_owned()),
        Just("callee".to_owned()),
        Just("number".to_owned()),
        "[a-z\"\\\\:{}\u{e4} ]{0,4}",
    ]
}

/// JSON in which the values of members that are to be hidden, and no others, say the secret.
fn value(hidden: bool) -> BoxedStrategy<Value> {
    let leaf = match hidden {
        true => Just(json!(format!("{SECRET}\n\"{SECRET}"))).boxed(),
        false => prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..999_999_u32).prop_map(Value::from),
            "[a-z0-9\"\\\\:{}\\[\\], \u{e4}\n]{0,6}".prop_map(Value::from),
        ]
        .boxed(),
    };
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..4)
                .prop_map(|members| Value::from(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
    .boxed()
}

/// The same as the rules say, of JSON that was read.
fn reference(value: Value, fields: &[Vec<&str>], outer: &[String]) -> Value {
    let is_hidden = |names: &[String]| {
        fields.iter().any(|field| {
            names.len() >= field.len()
                && names[names.len() - field.len()..]
                    .iter()
                    .zip(field)
                    .all(|(name, part)| name.eq_ignore_ascii_case(part))
        })
    };
    match value {
        Value::Array(items) => items
            .into_iter()
            .map(|item| reference(item, fields, outer))
            .collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| {
                let names = [outer, std::slice::from_ref(&name)].concat();
                match is_hidden(&names) {
                    true => (name, HIDDEN.into()),
                    false => (name, reference(value, fields, &names)),
                }
            })
            .collect(),
        other => other,
    }
}

/// A member with the secret in the middle of something, in one of the forms that JSON may have.
fn with_secret() -> impl Strategy<Value = String> {
    (value(false), value(true), any::<[bool; 4]>()).prop_map(|(other, secret, form)| {
        let [deep, pretty, escaped, within] = form;
        let member = match deep {
            true => json!({ "callee": [{ "number": secret }] }),
            false => json!({ "caller": secret }),
        };
        let whole = json!({ "a": other, "b": [member], "c": other });
        let mut text = match pretty {
            true => serde_json::to_string_pretty(&whole).unwrap(),
            false => whole.to_string(),
        };
        if escaped {
            text = text
                .replace("caller", r"\u0063aller")
                .replace("number", r"numb\u0065r");
        }
        if within {
            text = json!({ "body": text }).to_string();
        }
        text
    })
}

/// Whether there may be an address or a date in it, which are shown.
fn has_something_else(number: &str) -> bool {
    let found = |of: char, count: usize, is: &dyn Fn(&[&str]) -> bool| {
        let others = |char: char| !char.is_ascii_digit() && char != of;
        number.split(others).any(|part| {
            let groups: Vec<_> = part.split(of).collect();
            groups.windows(count).any(is)
        })
    };
    found('.', 4, &|groups| {
        groups.join(".").parse::<std::net::Ipv4Addr>().is_ok()
    }) || found('-', 3, &|groups| {
        groups.iter().map(|group| group.len()).eq([4, 2, 2])
    })
}

#[test]
fn what_is_no_number_is_known() {
    for (text, is) in [
        ("00 0.0.0.10", true),
        ("1 2026-11-22", true),
        ("49.170.1234.567", false),
        ("030-901820-17", false),
    ] {
        assert_eq!(has_something_else(text), is, "{text}");
    }
}

proptest! {
    #[test]
    fn json_is_masked_as_its_members_say(value in value(false)) {
        let rules = redaction(&["caller", "callee/number"], None);
        let fields = [vec!["caller"], vec!["callee", "number"]];
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let shown: Value = serde_json::from_str(&rules.text(&text)).unwrap();
            // Texts in it are looked through as well; of these nothing is said here.
            let has_texts = text.contains("\\\"");
            prop_assert!(has_texts || shown == reference(value.clone(), &fields, &[]), "{text} {shown}");
        }
    }

    #[test]
    fn no_part_of_a_hidden_value_is_shown(text in with_secret(), cut in 0.0..1.0_f64, digits in 0..=6_u8) {
        for rules in [
            redaction(&["caller", "callee/number"], None),
            redaction(&["caller", "callee/number"], Some(digits)),
        ] {
            let shown = rules.text(&text);
            prop_assert!(!shown.contains(PART), "{text} {shown}");
            serde_json::from_str::<Value>(&shown).unwrap();
            let again = rules.text(&shown);
            prop_assert_eq!(&again, &shown);
            // Its beginning, as it is recorded of a long response.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
                reason = "somewhere in it")]
            let mut at = (text.len() as f64 * cut) as usize;
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let beginning = &text[..at];
            let shown = rules.text(beginning);
            prop_assert!(!shown.contains(PART), "{beginning} {shown}");
        }
    }

    #[test]
    fn of_a_number_no_more_digits_are_shown_than_allowed(
        digits in prop::collection::vec(0..10_u32, 7..16),
        between in prop::collection::vec("[ ./()-]?", 16),
        around in ("[a-z:@ {\"]{0,3}", "[a-z:@; }\"]{0,3}"),
        keep in 0..=6_u8,
    ) {
        let mut number = String::new();
        for (digit, between) in digits.iter().zip(&between) {
            if !number.is_empty() {
                number.push_str(between);
            }
            number.push_str(&digit.to_string());
        }
        prop_assume!(!has_something_else(&number));
        let rules = redaction(&[], Some(keep));
        let plain = format!("{}{number}{}", around.0, around.1);
        for text in [plain, json!({ "a": [number] }).to_string(), json!({ number: 1 }).to_string()] {
            let shown = rules.text(&text);
            let count = |text: &str| text.chars().filter(char::is_ascii_digit).count();
            let others = count(&text) - digits.len();
            prop_assert_eq!(count(&shown), usize::from(keep) + others, "{} {}", text, shown);
        }
    }

    #[test]
    fn any_text_can_be_masked(text in ".{0,64}", json in "[\\[\\]{}\",:\\\\u0-9a-c ]{0,64}") {
        for rules in [redaction(&["a", "b/c"], Some(0)), redaction(&[], Some(3)), redaction(&["a"], None)] {
            for text in [&text, &json] {
                let shown = rules.text(text);
                if serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object() || value.is_array()) {
                    prop_assert!(serde_json::from_str::<Value>(&shown).is_ok(), "{text} {shown}");
                }
            }
        }
    }
}
