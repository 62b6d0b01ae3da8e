//! Which passwords are accepted, by NIST SP 800-63B §5.1.1: long ones, whatever they are made of, but
//! none of those that are tried first.

use super::Login;

/// Fewest characters.
pub const CHARACTERS_MIN: usize = 12;
/// Most bytes, so that hashing is bounded.
pub const BYTES_MAX: usize = 1024;

/// What is tried first, of those that are long enough; a short one that is repeated counts as well.
const COMMON: [&str; 24] = [
    "1q2w3e4r5t6y",
    "1qaz2wsx3edc",
    "adminadmin",
    "administrator",
    "asterisk",
    "changeme",
    "changeit",
    "correcthorsebatterystaple",
    "freepbx",
    "iloveyou",
    "kamailio",
    "letmein",
    "monkey",
    "passw0rd",
    "password",
    "passwort",
    "princess",
    "qwertyuiop",
    "qwerty",
    "qazwsxedc",
    "ringback",
    "secret",
    "superman",
    "welcome",
];

/// A password that is not accepted. Says nothing of the password itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WeakPassword {
    /// It is too short.
    #[error(
        "use at least {CHARACTERS_MIN} characters; a few words that do not belong together are good"
    )]
    Short,
    /// It is too long.
    #[error("use at most {BYTES_MAX} bytes")]
    Long,
    /// It is one of those that are tried first.
    #[error(
        "this password is among the first to be tried: it is common, a sequence, or made of the login; use another"
    )]
    Guessable,
}

/// Whether this may become the password of an account.
pub fn check(password: &str, login: &Login) -> Result<(), WeakPassword> {
    if password.chars().count() < CHARACTERS_MIN {
        return Err(WeakPassword::Short);
    }
    if password.len() > BYTES_MAX {
        return Err(WeakPassword::Long);
    }
    let folded = password.to_lowercase();
    let name = login.as_str().split('@').next().unwrap_or_default();
    let guessable = is_sequence(&folded)
        || is_made_of(&folded, login.as_str())
        || is_made_of(&folded, name)
        || COMMON.iter().any(|common| is_made_of(&folded, common));
    match guessable {
        true => Err(WeakPassword::Guessable),
        false => Ok(()),
    }
}

/// Whether it is this word, once or several times, with no more than digits and signs around.
fn is_made_of(password: &str, word: &str) -> bool {
    password.contains(word) && !password.replace(word, "").chars().any(char::is_alphabetic)
}

/// Whether each character follows from the one before: `aaaa`, `abcd`, `4321`, with `0` after `9`.
fn is_sequence(password: &str) -> bool {
    [0, 1, -1].into_iter().any(|step: i64| {
        let mut pairs = password.chars().zip(password.chars().skip(1));
        pairs.all(|(one, next)| {
            let by = i64::from(u32::from(next)) - i64::from(u32::from(one));
            by == step || (step != 0 && by == -9 * step)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(password: &str) -> Result<(), WeakPassword> {
        check(password, &Login::parse("ann.smith@example.com").unwrap())
    }

    #[test]
    fn length_is_what_counts() {
        assert_eq!(said("zwölf Zeich."), Ok(()));
        assert_eq!(said("elf Zeichen"), Err(WeakPassword::Short));
        // Characters, not bytes.
        assert_eq!(said("ööööööäääää"), Err(WeakPassword::Short));
        let longest = "no1 ".repeat(256);
        assert_eq!(said(&longest), Ok(()));
        assert_eq!(said(&(longest + "x")), Err(WeakPassword::Long));
        // No rule of composition.
        assert_eq!(said("only lower case letters"), Ok(()));
    }

    #[test]
    fn what_is_tried_first_is_refused() {
        for guessable in [
            "password1234",
            "Password!!!!",
            "passwordpassword",
            "aaaaaaaaaaaa",
            "123456789012",
            "abcdefghijklm",
            "zyxwvutsrqponm",
            "210987654321",
            "Ann.Smith2026",
            "ann.smith@example.com",
            "RINGBACK-2026",
            "correcthorsebatterystaple",
        ] {
            assert_eq!(said(guessable), Err(WeakPassword::Guessable), "{guessable}");
        }
        for fine in [
            "my password is long",
            "abcdefghijkmn",
            "ann.smithereens",
            "1234567890a12",
        ] {
            assert_eq!(said(fine), Ok(()), "{fine}");
        }
    }

    #[test]
    fn nothing_is_said_of_the_password() {
        let text = said("password1234").unwrap_err().to_string();
        assert!(!text.contains("1234"), "{text}");
    }
}
