//! What of a call the administration does not show: members of data by name, headers, telephone numbers
//! but for their last digits, whole answers.
//!
//! Masking what is masked already changes nothing.

mod numbers;
#[cfg(test)]
mod tests;
mod text;

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::record::{Attempt, HeaderLines};

/// What stands in place of what is hidden.
pub const HIDDEN: &str = "(hidden)";
/// Most fields and most headers.
const RULES_MAX: usize = 64;
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// Most digits of a number that are shown: fewer than the shortest number has.
const DIGITS_MAX: u8 = 6;
/// Headers of requests whose digits are ours, so that no number is looked for in them.
const OURS: [&str; 5] = [
    "content-length",
    "traceparent",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// What is configured.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Members of JSON whose values are not shown, at any depth, in events' data and in what
    /// receivers answer: `"caller"`, or with the members around it `"caller/number"`. See [personal
    /// data](personal-data.md#what-is-not-shown).
    #[schemars(length(max = RULES_MAX))]
    pub fields: Vec<String>,
    /// Headers of requests and responses whose values are not shown.
    #[schemars(length(max = RULES_MAX))]
    pub headers: Vec<String>,
    /// Show no more than this many of the last digits of telephone numbers, at most 6; none: all.
    #[schemars(range(max = DIGITS_MAX))]
    pub numbers: Option<u8>,
    /// Do not show what receivers answer but for status and headers.
    pub responses: bool,
}

impl Rules {
    /// What cannot be used, as `key: problem`.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, names) in [("fields", &self.fields), ("headers", &self.headers)] {
            if names.len() > RULES_MAX {
                problems.push(format!("{key}: use at most {RULES_MAX}"));
            }
        }
        let wrong = self.fields.iter().find(|field| !is_field(field));
        if let Some(field) = wrong {
            problems.push(format!(
                "fields: {field:?} is not the name of a member such as \"caller\", or names with / \
                 between them such as \"caller/number\", of at most {NAME_BYTES_MAX} bytes"
            ));
        }
        let wrong = self.headers.iter().find(|header| !is_header(header));
        if let Some(header) = wrong {
            problems.push(format!(
                "headers: {header:?} is not the name of a header such as \"x-caller\", of at most \
                 {NAME_BYTES_MAX} bytes"
            ));
        }
        if self.numbers.is_some_and(|digits| digits > DIGITS_MAX) {
            problems.push(format!("numbers: show at most {DIGITS_MAX} digits"));
        }
        problems
    }
}

fn is_field(field: &str) -> bool {
    let is_name = |name: &str| !name.is_empty() && !name.chars().any(char::is_control);
    field.len() <= NAME_BYTES_MAX && field.split('/').all(is_name)
}

fn is_header(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_token)
}

/// The rules, ready to be applied.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Redaction {
    /// Names from the inner to the outer one.
    fields: Vec<Vec<String>>,
    headers: Vec<String>,
    numbers: Option<usize>,
    responses: bool,
}

impl Redaction {
    /// Of these rules, which have no [`Rules::problems`]; what they could not use would not be hidden.
    pub fn new(rules: &Rules) -> Self {
        let inner_first = |field: &String| field.rsplit('/').map(str::to_owned).collect();
        Self {
            fields: rules.fields.iter().map(inner_first).collect(),
            headers: rules.headers.clone(),
            numbers: rules.numbers.map(usize::from),
            responses: rules.responses,
        }
    }

    /// Whether there is nothing to hide.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A text as it is shown: JSON stays JSON, and is masked as well where it is cut off, or within
    /// another text.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.fields.is_empty() && self.numbers.is_none() {
            return Cow::Borrowed(text);
        }
        text::mask(self, text)
    }

    /// An attempt as it is shown.
    pub fn attempt(&self, attempt: &mut Attempt) {
        if self.is_empty() {
            return;
        }
        for text in [&mut attempt.error, &mut attempt.response] {
            self.replace(text);
        }
        if self.responses {
            self.hide(&mut attempt.response);
        }
        self.lines(attempt.request_headers.as_mut(), &OURS);
        self.lines(attempt.response_headers.as_mut(), &[]);
    }

    fn hide(&self, text: &mut Option<String>) {
        if let Some(text) = text.as_mut().filter(|text| !text.is_empty()) {
            HIDDEN.clone_into(text);
        }
    }

    fn replace(&self, text: &mut Option<String>) {
        if let Some(text) = text
            && let Cow::Owned(masked) = self.text(text)
        {
            *text = masked;
        }
    }

    fn lines(&self, lines: Option<&mut HeaderLines>, ours: &[&str]) {
        for (name, value) in lines.into_iter().flatten() {
            let is_ours = ours.iter().any(|ours| ours.eq_ignore_ascii_case(name));
            if self.hides_header(name) {
                HIDDEN.clone_into(value);
            } else if !is_ours && let Cow::Owned(masked) = self.text(value) {
                *value = masked;
            }
        }
    }

    /// Whether the values of headers with this name are hidden.
    pub fn hides_header(&self, name: &str) -> bool {
        let mut headers = self.headers.iter();
        headers.any(|header| header.eq_ignore_ascii_case(name))
    }

    /// Whether the value of a member with this name is hidden, which is in members with those names.
    fn hides_field(&self, name: &str, outer: &[String]) -> bool {
        self.fields.iter().any(|field| {
            let mut names = std::iter::once(name).chain(outer.iter().rev().map(String::as_str));
            let mut field = field.iter();
            field.all(|part| names.next().is_some_and(|n| n.eq_ignore_ascii_case(part)))
        })
    }
}
