//! The alert rules as they are shipped, with shorter times: the one place that says what is scaled, and how.
//!
//! - Times of Prometheus, that is `for`, ranges (`[5m]`) and `offset`: by [`FASTER`].
//! - What a gauge in seconds is compared with, from a minute on: by [`LOWER`]. Less, because dispatchers
//!   look at what waits every 5 s only. Thresholds below a minute, and what is compared with `time()`, stay.
//! - Times of Alertmanager (`group_wait`, `group_interval`, `repeat_interval`): by [`FASTER`].
//!
//! Everything else stays as it is: no expression is written a second time. A rule with a time in any other
//! place, or with one that would be too short for [`SCRAPE`], is an error.

use std::time::Duration;

/// How many times shorter the times of Prometheus and Alertmanager are.
pub const FASTER: u32 = 30;
/// How many times lower thresholds in seconds are.
pub const LOWER: f64 = 6.0;
/// Thresholds from here on, in seconds, are lowered.
const LOWERED_FROM: f64 = 60.0;
/// How often Prometheus scrapes and evaluates.
pub const SCRAPE: Duration = Duration::from_secs(1);
/// Samples that a range must hold, so that its rate tells something.
const SAMPLES_MIN: u32 = 4;
/// Where rules begin, as the file is written.
const KEY: &str = "        ";

/// The names of the alerts in a file of rules, in its order.
pub fn alerts(rules: &str) -> Vec<&str> {
    let lines = rules.lines();
    lines
        .filter_map(|line| line.trim_start().strip_prefix("- alert: "))
        .collect()
}

/// A file of rules with shorter times.
pub fn shortened(rules: &str) -> Result<String, String> {
    let mut scaled = Vec::new();
    let mut lines = rules.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let at = |error: String| format!("line {} of the rules: {error}", number + 1);
        let is_key = |key: &&str| !key.starts_with([' ', '#']);
        let Some(key) = line.strip_prefix(KEY).filter(is_key) else {
            scaled.push(between(line).map_err(at)?);
            continue;
        };
        let (key, value) = key.split_once(':').ok_or_else(|| at(line.to_owned()))?;
        match key {
            "expr" => {
                // Its continuation stands deeper.
                let mut text = value.to_owned();
                while let Some((_, more)) =
                    lines.next_if(|(_, more)| more.starts_with(&format!("{KEY} ")))
                {
                    text = format!("{text}\n{more}");
                }
                scaled.push(format!("{KEY}expr:{}", expression(&text).map_err(at)?));
            }
            "for" => {
                let time = shorter(value.trim(), 1).map_err(at)?;
                scaled.push(format!("{KEY}for: {time}"));
            }
            "labels" | "annotations" => scaled.push(line.to_owned()),
            _ => return Err(at(format!("it is not known how to shorten {key}"))),
        }
    }
    Ok(scaled.join("\n") + "\n")
}

/// A line that belongs to no expression.
fn between(line: &str) -> Result<String, String> {
    let text = line.trim_start();
    let known = [
        "- alert: ",
        "- record: ",
        "- name: ",
        "#",
        "groups:",
        "rules:",
    ];
    let inside = line.starts_with(&format!("{KEY}  "));
    match text.is_empty() || inside || known.iter().any(|known| text.starts_with(known)) {
        true => Ok(line.to_owned()),
        false => Err(format!("it is not known how to shorten {text}")),
    }
}

/// Alertmanager's configuration with shorter times, and `receiver` (`http://host:port`) in place of where
/// its notifications go.
pub fn shortened_routes(config: &str, receiver: &str) -> Result<String, String> {
    const RECEIVER: &str = "http://127.0.0.1:9095/";
    let mut scaled = Vec::new();
    for line in config.lines() {
        let (key, value) = line.split_once(": ").unwrap_or((line, ""));
        scaled.push(match key.trim_start() {
            "group_wait" | "group_interval" | "repeat_interval" => {
                format!("{key}: {}", shorter(value, 1)?)
            }
            "- url" => match value.strip_prefix(RECEIVER) {
                Some(path) => format!("{key}: {receiver}/{path}"),
                None => return Err(format!("{value} does not begin with {RECEIVER}")),
            },
            _ => line.to_owned(),
        });
    }
    Ok(scaled.join("\n") + "\n")
}

/// What a time is written behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Range,
    Offset,
    Compared,
    Other,
}

fn expression(text: &str) -> Result<String, String> {
    let in_seconds = names(text).any(is_gauge_in_seconds) && !text.contains("time()");
    let mut scaled = String::new();
    let mut before = Before::Other;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let taken = match first {
            '"' => quoted(rest)?,
            '0'..='9' => length(rest, |c| c.is_ascii_alphanumeric() || c == '.'),
            _ if is_name(first) => length(rest, is_name),
            _ => first.len_utf8(),
        };
        let (token, behind) = rest.split_at(taken);
        rest = behind;
        if !first.is_ascii_digit() {
            scaled.push_str(token);
            before = match token {
                "[" => Before::Range,
                "offset" => Before::Offset,
                ">" | "<" | ">=" => Before::Compared,
                _ if token.trim().is_empty() => before,
                _ => Before::Other,
            };
            continue;
        }
        let number = token.parse::<f64>();
        scaled.push_str(&match (before, number) {
            (Before::Range, Err(_)) if rest.starts_with(']') => shorter(token, SAMPLES_MIN)?,
            (Before::Offset, Err(_)) => shorter(token, 1)?,
            (Before::Range | Before::Offset, _) | (_, Err(_)) => {
                return Err(format!("it is not known how to shorten {token} in{text}"));
            }
            (Before::Compared, Ok(limit)) if in_seconds && limit >= LOWERED_FROM => {
                (limit / LOWER).to_string()
            }
            _ => token.to_owned(),
        });
        before = Before::Other;
    }
    Ok(scaled)
}

fn length(text: &str, holds: impl Fn(char) -> bool) -> usize {
    text.find(|c: char| !holds(c)).unwrap_or(text.len())
}

fn quoted(text: &str) -> Result<usize, String> {
    let end = text[1..].find('"');
    end.map(|end| end + 2)
        .ok_or_else(|| format!("no end of {text}"))
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
}

/// Whether this names a metric that is a time itself: histograms have suffixes behind the unit.
fn is_gauge_in_seconds(name: &str) -> bool {
    name.starts_with("ringback_") && name.ends_with("_seconds")
}

/// A time of one number and one unit, by [`FASTER`], if it then is that many scrapes at least.
fn shorter(time: &str, scrapes: u32) -> Result<String, String> {
    let digits = length(time, |c| c.is_ascii_digit());
    let (number, unit) = time.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(format!("{time} is not a time such as 5m")),
    };
    let number: u32 = number.parse().map_err(|error| format!("{time}: {error}"))?;
    let scaled = Duration::from_secs(u64::from(number) * seconds) / FASTER;
    match scaled >= SCRAPE * scrapes {
        true => Ok(format!("{}ms", scaled.as_millis())),
        false => Err(format!(
            "{time} would be {scaled:?}: too short to be seen with a scrape every {SCRAPE:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = include_str!("../../../helm/ringback/files/rules.yaml");

    /// Without times and numbers.
    fn bare(rules: &str) -> String {
        let is_value = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        let words = rules.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
        words
            .filter(|word| !is_value(word))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn only_times_of_the_shipped_rules_differ() {
        let scaled = shortened(RULES).unwrap();
        assert_ne!(scaled, RULES);
        assert_eq!(bare(&scaled), bare(RULES));
        assert_eq!(alerts(&scaled), alerts(RULES));
        assert!(alerts(RULES).len() > 20);
        for line in [
            r#"        expr: max by (namespace, job, topic) (ringback_oldest_waiting_seconds{group=~"dispatcher.events.+"}) > 10"#,
            "        for: 10000ms",
            "        expr: max by (namespace, job) (ringback_config_age_seconds) > 5",
            "        expr: min by (namespace, job, server) (ringback_tls_certificate_expiry_seconds) - time() < 7 * 86400",
            r#"            and sum by (namespace, job) (rate(ringback_attempts_total[30000ms])) > 0.2"#,
            r#"          1 - sum by (namespace, job) (rate(ringback_delivery_seconds_bucket{le="5"}[8640000ms]))"#,
            r#"          group by (namespace, job) (last_over_time(ringback_build_info{component=~"producer|up"}[2880000ms] offset 20000ms))"#,
        ] {
            assert!(
                scaled.lines().any(|scaled| scaled == line),
                "{line}\n{scaled}"
            );
        }
    }

    #[test]
    fn what_cannot_be_shortened_is_said() {
        for (rule, complaint) in [
            ("        keep_firing_for: 5m", "keep_firing_for"),
            ("    interval: 5m", "interval"),
            ("        for: 10s", "too short"),
            ("        for: 1h30m", "not a time"),
            ("        expr: rate(x[1m])", "too short"),
            ("        expr: max_over_time(x[30m:1m]) > 3", "30m"),
            ("        expr: x > 5m", "5m"),
            ("        expr: x offset 300", "300"),
        ] {
            let error = shortened(rule).unwrap_err();
            assert!(error.contains(complaint), "{rule}: {error}");
        }
        let offset = shortened("        expr: x unless x offset 15m").unwrap();
        assert_eq!(offset, "        expr: x unless x offset 30000ms\n");
    }

    #[test]
    fn routes_are_shortened_and_led_here() {
        let routes = include_str!("../../../deploy/prometheus/alertmanager.yml");
        let scaled = shortened_routes(routes, "http://127.0.0.1:1").unwrap();
        assert_eq!(scaled.lines().count(), routes.lines().count());
        for line in [
            "  group_wait: 1000ms",
            "      - url: http://127.0.0.1:1/on-call",
        ] {
            assert!(scaled.lines().any(|scaled| scaled == line), "{scaled}");
        }
        assert!(!scaled.contains("9095"));
    }
}
