//! Text for people: aligned columns, lists of fields, and nothing that a terminal would obey.

use std::fmt::Write as _;

use serde_json::Value;

/// Longest cell, in characters.
const CELL_MAX: usize = 120;

/// Columns as wide as they need to be; the last one is not padded.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows
        .iter()
        .map(|row| row.each_ref().map(|cell| shortened(cell)))
        .collect();
    let mut widths = head.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: [&str; N]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(head);
    for row in &rows {
        line(row.each_ref().map(String::as_str));
    }
    text
}

/// A field per line. Fields without a value are left out.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{name:width$}  {}", clean(value));
    }
    text
}

/// A value of the API as text; nothing for null.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => clean(text),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// A point in time, to the second.
pub(crate) fn moment(value: &Value) -> String {
    let text = text(value);
    match text.split_once('.') {
        Some((seconds, _)) if text.ends_with('Z') => format!("{seconds}Z"),
        _ => text,
    }
}

/// Without control characters: a receiver's answer must not steer the terminal it is shown on.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// `1 webhook`, `2 webhooks`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = match (number, noun.strip_suffix('y')) {
        (1, _) => noun.to_owned(),
        (_, Some(stem)) => format!("{stem}ies"),
        (_, None) => format!("{noun}s"),
    };
    format!("{number} {plural}")
}

/// JSON for programs.
pub(crate) fn json(value: &Value) -> String {
    // A Value always becomes JSON.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// The elements of a list.
pub(crate) fn list<'a>(body: &'a Value, name: &str) -> &'a [Value] {
    body[name].as_array().map_or(&[], Vec::as_slice)
}

fn shortened(cell: &str) -> String {
    let cell = clean(cell);
    if cell.chars().count() <= CELL_MAX {
        return cell;
    }
    let short: String = cell.chars().take(CELL_MAX - 1).collect();
    format!("{short}…")
}
