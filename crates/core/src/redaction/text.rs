//! Masks a text that may be JSON, may be the beginning of some, or may have some in it.
//!
//! The text is gone through once, and what is not masked stays byte for byte as it is. Whether it is JSON
//! decides about nothing but quotes around masked numbers: what is cut off is masked like the whole.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::numbers::{self, DIGITS_MIN};
use super::{HIDDEN, Redaction};

/// How deep texts within texts are looked through; what is deeper and may have members is hidden.
const DEPTH_MAX: usize = 4;
/// Bytes at the end of a text that is cut off which may be the beginning of an escape.
const CUT_ESCAPE_MAX: usize = 11;

pub(super) fn mask<'a>(rules: &Redaction, text: &'a str) -> Cow<'a, str> {
    mask_within(rules, text, Vec::new(), 0)
}

/// Of a text that is the value of a member that is called so.
fn mask_within<'a>(
    rules: &Redaction,
    text: &'a str,
    names: Vec<String>,
    depth: usize,
) -> Cow<'a, str> {
    if !text.contains('"') && !text.starts_with(['{', '[']) {
        return match rules.numbers {
            Some(keep) => numbers::mask(text, keep),
            None => Cow::Borrowed(text),
        };
    }
    if depth > DEPTH_MAX {
        return Cow::Owned(HIDDEN.to_owned());
    }
    let is_json = text.trim_start().starts_with(['{', '['])
        && serde_json::from_str::<IgnoredAny>(text).is_ok();
    let mut masking = Masking {
        rules,
        text,
        depth,
        is_json,
        masked: String::new(),
        copied: 0,
        names,
        marks: Vec::new(),
        name: None,
    };
    masking.run();
    masking.end()
}

struct Masking<'r, 'a> {
    rules: &'r Redaction,
    text: &'a str,
    depth: usize,
    is_json: bool,
    masked: String,
    /// Everything before is in `masked`.
    copied: usize,
    /// What the objects and lists that are open are called, where they are members.
    names: Vec<String>,
    /// How many names there were before each of them.
    marks: Vec<usize>,
    /// The member whose value comes next.
    name: Option<String>,
}

impl<'a> Masking<'_, 'a> {
    fn run(&mut self) {
        let mut at = 0;
        while let Some(&byte) = self.text.as_bytes().get(at) {
            at = match byte {
                b'"' => self.string(at),
                b'{' | b'[' => {
                    self.marks.push(self.names.len());
                    self.names.extend(self.name.take());
                    at + 1
                }
                b'}' | b']' => {
                    if let Some(names) = self.marks.pop() {
                        self.names.truncate(names);
                    }
                    self.name = None;
                    at + 1
                }
                b',' => {
                    self.name = None;
                    at + 1
                }
                _ => self.bare(at),
            };
        }
    }

    fn end(mut self) -> Cow<'a, str> {
        if self.copied == 0 {
            return Cow::Borrowed(self.text);
        }
        self.masked.push_str(&self.text[self.copied..]);
        Cow::Owned(self.masked)
    }

    fn replace(&mut self, from: usize, to: usize, by: &str) {
        self.masked.push_str(&self.text[self.copied..from]);
        self.masked.push_str(by);
        self.copied = to;
    }

    /// A text in quotes, and the value behind it if it is a hidden member's name. Where it goes on.
    fn string(&mut self, at: usize) -> usize {
        let end = end_of_string(self.text, at);
        let token = &self.text[at..end];
        let decoded = decode(token);
        let names = match decoded.contains('"') {
            true => self.names.iter().chain(&self.name).cloned().collect(),
            false => Vec::new(),
        };
        if let Cow::Owned(masked) = mask_within(self.rules, &decoded, names, self.depth + 1) {
            let mut quoted = serde_json::to_string(&masked).unwrap_or_else(|_| "\"\"".to_owned());
            if !is_closed(token) {
                quoted.pop();
            }
            self.replace(at, end, &quoted);
        }
        let Some(value) = value_behind(self.text, end) else {
            return end;
        };
        if self.rules.hides_field(&decoded, &self.names) {
            let end = end_of_value(self.text, value);
            if end > value {
                self.replace(value, end, &format!("\"{HIDDEN}\""));
            }
            return end;
        }
        self.name = Some(decoded.into_owned());
        value
    }

    /// What is not in quotes, up to the next thing that is looked at.
    fn bare(&mut self, at: usize) -> usize {
        let rest = &self.text[at..];
        let length = rest.find(['"', '{', '}', '[', ']', ',']);
        let end = at + length.unwrap_or(rest.len());
        let Some(keep) = self.rules.numbers else {
            return end;
        };
        let bare = &self.text[at..end];
        if !self.is_json {
            if let Cow::Owned(masked) = numbers::mask(bare, keep) {
                self.replace(at, end, &masked);
            }
            return end;
        }
        // A number, a literal or white space.
        let number = bare.trim();
        let digits: String = number.chars().filter(char::is_ascii_digit).collect();
        if digits.len() >= DIGITS_MIN {
            let from = at + (bare.len() - bare.trim_start().len());
            let hidden = digits.len() - keep.min(digits.len());
            let masked = format!("\"{}{}\"", "*".repeat(hidden), &digits[hidden..]);
            self.replace(from, from + number.len(), &masked);
        }
        end
    }
}

/// Behind the quote that ends the text which begins here, or the end.
fn end_of_string(text: &str, at: usize) -> usize {
    let mut escaped = false;
    let inner = text.as_bytes().get(at + 1..).unwrap_or_default();
    for (index, byte) in inner.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1 + index + 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether it ends with a quote of its own, which is no escaped one.
fn is_closed(token: &str) -> bool {
    let inner = token.strip_prefix('"').unwrap_or_default();
    inner.strip_suffix('"').is_some_and(|inner| {
        let backslashes = inner.bytes().rev().take_while(|byte| *byte == b'\\');
        backslashes.count() % 2 == 0
    })
}

/// What stands in quotes. What cannot be read stays as it is; the quotes go in any case.
fn decode(token: &str) -> Cow<'_, str> {
    let closed = is_closed(token);
    let inner = token.strip_prefix('"').unwrap_or(token);
    let inner = match closed {
        true => inner.strip_suffix('"').unwrap_or(inner),
        false => inner,
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    // Cut off within an escape, its beginning goes.
    let most = if closed { 0 } else { CUT_ESCAPE_MAX };
    let beginnings = (0..=most).filter_map(|less| inner.get(..inner.len().checked_sub(less)?));
    for beginning in beginnings {
        if let Ok(decoded) = serde_json::from_str(&format!("\"{beginning}\"")) {
            return Cow::Owned(decoded);
        }
    }
    Cow::Borrowed(inner)
}

/// Where the value of a member begins whose name ends here; `None`: it was no name.
fn value_behind(text: &str, at: usize) -> Option<usize> {
    let behind = text[at..].trim_start().strip_prefix(':')?;
    Some(text.len() - behind.trim_start().len())
}

/// Where the value ends that begins here.
fn end_of_value(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    match bytes.get(at) {
        Some(b'"') => return end_of_string(text, at),
        Some(b'{' | b'[') => {}
        _ => {
            let rest = &text[at..];
            let end = rest.find([',', '}', ']', '\n']).unwrap_or(rest.len());
            return at + rest[..end].trim_end().len();
        }
    }
    let (mut open, mut here) = (0_usize, at);
    while let Some(byte) = bytes.get(here) {
        match byte {
            b'"' => {
                here = end_of_string(text, here);
                continue;
            }
            b'{' | b'[' => open += 1,
            b'}' | b']' => open -= 1,
            _ => {}
        }
        here += 1;
        if open == 0 {
            return here;
        }
    }
    text.len()
}
