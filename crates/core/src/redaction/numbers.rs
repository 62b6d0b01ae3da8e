//! Telephone numbers in a text.

use std::borrow::Cow;

use uuid::Uuid;

/// Fewer digits are an extension, a status, a port, or part of something else.
pub(super) const DIGITS_MIN: usize = 7;
/// What people write between digits; at most two of them at a time.
const BETWEEN: [char; 7] = [' ', '-', '.', '/', '(', ')', '\u{a0}'];

/// The text with stars in place of all but the last `keep` digits of each number. What else looks like
/// one is masked as well; ids (UUID), dates as in ISO 8601 and IPv4 addresses are not.
pub(super) fn mask(text: &str, keep: usize) -> Cow<'_, str> {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if digits < DIGITS_MIN {
        return Cow::Borrowed(text);
    }
    let mut masked = String::new();
    let (mut at, mut copied) = (0, 0);
    while at < text.len() {
        if let Some(bytes) = exempt(text, at) {
            at += bytes;
            continue;
        }
        let Run { bytes, digits } = run(text, at);
        if digits >= DIGITS_MIN {
            masked.push_str(&text[copied..at]);
            push_stars(
                &mut masked,
                &text[at..at + bytes],
                digits - keep.min(digits),
            );
            copied = at + bytes;
        }
        at += bytes;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    masked.push_str(&text[copied..]);
    Cow::Owned(masked)
}

fn push_stars(to: &mut String, number: &str, mut hidden: usize) {
    for char in number.chars() {
        if char.is_ascii_digit() && hidden > 0 {
            hidden -= 1;
            to.push('*');
        } else {
            to.push(char);
        }
    }
}

/// Digits with what stands between them; or else one other character.
struct Run {
    bytes: usize,
    digits: usize,
}

/// What begins here, up to where something begins that is no number.
fn run(text: &str, start: usize) -> Run {
    let mut run = Run {
        bytes: 0,
        digits: 0,
    };
    let mut between = 0;
    for (at, char) in text[start..].char_indices() {
        if char.is_ascii_digit() {
            // Something else may begin behind a gap: a time behind a number, say.
            if between > 0 && exempt(text, start + at).is_some() {
                break;
            }
            run.digits += 1;
            run.bytes = at + 1;
            between = 0;
        } else if run.digits > 0 && BETWEEN.contains(&char) && between < 2 {
            between += 1;
        } else {
            break;
        }
    }
    if run.digits == 0 {
        run.bytes = text[start..].chars().next().map_or(1, char::len_utf8);
    }
    run
}

/// How many bytes from here on are something else that has many digits.
fn exempt(text: &str, at: usize) -> Option<usize> {
    let (before, text) = text.split_at(at);
    let mut before = before.chars().rev();
    let is_part = match before.next() {
        Some('-' | '.' | '/') => before.next().is_some_and(|char| char.is_ascii_digit()),
        Some(char) => char.is_alphanumeric(),
        None => false,
    };
    if is_part {
        return None;
    }
    let found = uuid(text)
        .or_else(|| date(text))
        .or_else(|| address(text))?;
    // With more digits behind it, it is only a part of something.
    let mut behind = text[found..].chars();
    let next = behind.next();
    let ends = match next {
        None => true,
        Some(char) if char.is_alphanumeric() => false,
        Some('-' | '.' | '/') => !behind.next().is_some_and(|char| char.is_ascii_digit()),
        Some(_) => true,
    };
    ends.then_some(found)
}

const UUID_BYTES: usize = 36;

fn uuid(text: &str) -> Option<usize> {
    let text = text.get(..UUID_BYTES)?;
    Uuid::try_parse(text).is_ok().then_some(UUID_BYTES)
}

/// `2026-11-22`, also with a time and its zone.
fn date(text: &str) -> Option<usize> {
    let parts = |text: &str| {
        let in_range = |at: std::ops::Range<usize>, allowed: std::ops::RangeInclusive<u32>| {
            let digits = text.get(at)?;
            let only_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
            let number = only_digits.then(|| digits.parse().ok()).flatten()?;
            allowed.contains(&number).then_some(())
        };
        in_range(0..4, 1900..=2199)?;
        in_range(5..7, 1..=12)?;
        in_range(8..10, 1..=31)
    };
    let bytes = text.as_bytes();
    if bytes.get(4) != Some(&b'-') || bytes.get(7) != Some(&b'-') {
        return None;
    }
    parts(text)?;
    Some(10 + time(&text[10..]))
}

/// How many bytes are a time behind a date.
fn time(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let pair = |at: usize| digit(at) && digit(at + 1);
    let is = |at: usize, byte: u8| bytes.get(at) == Some(&byte);
    if !(is(0, b'T') || is(0, b't') || is(0, b' ')) || !pair(1) || !is(3, b':') || !pair(4) {
        return 0;
    }
    let mut end = 6;
    if is(end, b':') && pair(end + 1) {
        end += 3;
        if is(end, b'.') && digit(end + 1) {
            let fraction = bytes[end + 1..].iter().take_while(|b| b.is_ascii_digit());
            end += 1 + fraction.count().min(9);
        }
    }
    if is(end, b'Z') || is(end, b'z') {
        end += 1;
    } else if (is(end, b'+') || is(end, b'-'))
        && pair(end + 1)
        && is(end + 3, b':')
        && pair(end + 4)
    {
        end += 6;
    }
    end
}

/// As long as an address can be, and then one.
const ADDRESS_BYTES_MAX: usize = 16;

/// `192.0.2.7`.
fn address(text: &str) -> Option<usize> {
    let is_part = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let parts = text.bytes().take(ADDRESS_BYTES_MAX).take_while(is_part);
    let address = text[..parts.count()].trim_end_matches('.');
    let parsed: Option<std::net::Ipv4Addr> = address.parse().ok();
    parsed.map(|_| address.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_last_digits() {
        for (text, shown) in [
            ("+49 170 1234567", "+** *** ****567"),
            ("tel:+491701234567;ext=12", "tel:+*********567;ext=12"),
            ("sip:491701234567@pbx", "sip:*********567@pbx"),
            (
                "(030) 901820-17",
                "(***) ****20-17".replace("20-1", "*0-1").as_str(),
            ),
            ("user1234567", "user****567"),
            ("1234567, 7654321", "****567, ****321"),
            ("call 1001", "call 1001"),
            ("123456", "123456"),
            ("no number", "no number"),
            ("ä1234567ä", "ä****567ä"),
            ("123  4567", "***  *567"),
            ("123   4567", "123   4567"),
        ] {
            assert_eq!(mask(text, 3), shown, "{text}");
            assert_eq!(mask(shown, 3), shown, "{text}");
        }
        assert_eq!(mask("1234567", 0), "*******");
    }

    #[test]
    fn ids_dates_and_addresses_are_no_numbers() {
        for text in [
            "0195b0a2-0652-7123-9055-123456789012",
            "call/01234567-0123-7123-8055-123456789012?",
            "2026-11-22",
            "2026-11-22T01:25:00.123456Z",
            "at 2026-11-22 01:25:00.123456789+01:00.",
            "192.168.100.200:8080",
            "from 192.168.100.200.",
            "1001 2026-11-22T01:25:00Z",
        ] {
            assert_eq!(mask(text, 0), text);
        }
    }

    #[test]
    fn what_only_begins_like_one_is_a_number() {
        for (text, shown) in [
            ("2026-11-22-55", "****-**-**-**"),
            ("2026-13-22", "****-**-**"),
            ("192.168.100.200.7", "***.***.***.***.*"),
            ("192.168.100.300", "***.***.***.***"),
            ("49 2026-11-2", "** ****-**-*"),
            ("012345670123712380551234567890123", "*".repeat(33).as_str()),
        ] {
            assert_eq!(mask(text, 0), shown, "{text}");
        }
    }
}
