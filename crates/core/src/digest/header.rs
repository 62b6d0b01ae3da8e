//! The headers in which a server challenges: lists of schemes with parameters (RFC 9110 §11.2), and of
//! parameters alone.
//!
//! Read more generously than written: whatever can be told apart is taken, as bytes, since a realm is
//! hashed as the server wrote it and not every server writes ASCII.

/// Longest header that is read, in bytes.
const HEADER_BYTES_MAX: usize = 8192;

/// A scheme with its parameters; those of other forms (`Negotiate abc==`) are left out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scheme<'a> {
    pub(crate) name: &'a str,
    pub(crate) params: Params<'a>,
}

/// Parameters in their order, unquoted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Params<'a>(pub(crate) Vec<(&'a str, Vec<u8>)>);

impl Params<'_> {
    /// The value of a parameter (names have no case). The first counts.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self
            .0
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_slice())
    }

    /// Whether a parameter says `true`.
    pub(crate) fn is_true(&self, name: &str) -> bool {
        let value = self.get(name);
        value.is_some_and(|value| value.eq_ignore_ascii_case(b"true"))
    }
}

/// What cannot be read in a header.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// It is not read at all.
    #[error("it has more than {HEADER_BYTES_MAX} bytes")]
    TooLong,
    /// A name should stand there.
    #[error("byte {0} begins no name")]
    NoName(usize),
    /// A parameter should come after a scheme.
    #[error("byte {0}: a parameter without a scheme")]
    NoScheme(usize),
    /// A parameter without a value.
    #[error("byte {0}: a parameter without a value")]
    NoValue(usize),
    /// A quotation mark opens and none closes.
    #[error("byte {0}: a quotation that does not end")]
    Unquoted(usize),
}

/// The schemes of a `WWW-Authenticate` header, up to where it cannot be read.
pub(crate) fn schemes(header: &[u8]) -> (Vec<Scheme<'_>>, Option<Malformed>) {
    let mut schemes = Vec::new();
    let ended = Cursor::new(header).and_then(|cursor| read_schemes(cursor, &mut schemes));
    (schemes, ended.err())
}

fn read_schemes<'a>(
    mut cursor: Cursor<'a>,
    schemes: &mut Vec<Scheme<'a>>,
) -> Result<(), Malformed> {
    while cursor.skip_commas() {
        let at = cursor.at;
        let name = cursor.name()?;
        let spaced = cursor.skip_spaces();
        if cursor.take(b'=') {
            let scheme = schemes.last_mut().ok_or(Malformed::NoScheme(at))?;
            scheme.params.0.push((name, cursor.value()?));
        } else {
            if spaced {
                cursor.skip_token68();
            }
            let params = Params::default();
            schemes.push(Scheme { name, params });
        }
    }
    Ok(())
}

/// The parameters of an `Authentication-Info` header (RFC 7616 §3.5).
pub(crate) fn params(header: &[u8]) -> Result<Params<'_>, Malformed> {
    let mut cursor = Cursor::new(header)?;
    let mut params = Params::default();
    while cursor.skip_commas() {
        let at = cursor.at;
        let name = cursor.name()?;
        cursor.skip_spaces();
        if !cursor.take(b'=') {
            return Err(Malformed::NoValue(at));
        }
        params.0.push((name, cursor.value()?));
    }
    Ok(params)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes.len() > HEADER_BYTES_MAX {
            true => Err(Malformed::TooLong),
            false => Ok(Self { bytes, at: 0 }),
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Moves on while bytes are of a kind, and returns these.
    fn run(&mut self, kind: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let end = rest.iter().position(|byte| !kind(*byte));
        let run = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        self.at += run.len();
        run
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.rest().first() == Some(&byte);
        self.at += usize::from(there);
        there
    }

    fn skip_spaces(&mut self) -> bool {
        !self.run(is_space).is_empty()
    }

    /// Moves to the next element; `false` at the end.
    fn skip_commas(&mut self) -> bool {
        self.run(|byte| is_space(byte) || byte == b',');
        !self.rest().is_empty()
    }

    fn name(&mut self) -> Result<&'a str, Malformed> {
        let at = self.at;
        match std::str::from_utf8(self.run(is_token)) {
            Ok(name) if !name.is_empty() => Ok(name),
            _ => Err(Malformed::NoName(at)),
        }
    }

    /// A quoted string or, more than the grammar allows, anything up to the next comma or space: some
    /// servers do not quote a nonce that ends with `==`.
    fn value(&mut self) -> Result<Vec<u8>, Malformed> {
        self.skip_spaces();
        let at = self.at;
        if !self.take(b'"') {
            let value = self.run(|byte| !is_space(byte) && !matches!(byte, b',' | b'"'));
            return match value.is_empty() {
                true => Err(Malformed::NoValue(at)),
                false => Ok(value.to_vec()),
            };
        }
        let mut value = Vec::new();
        let mut rest = self.rest().iter();
        while let Some(&byte) = rest.next() {
            match byte {
                b'"' => {
                    self.at = self.bytes.len() - rest.len();
                    return Ok(value);
                }
                b'\\' => value.extend(rest.next()),
                _ => value.push(byte),
            }
        }
        Err(Malformed::Unquoted(at))
    }

    /// Moves past `token68` (RFC 9110 §11.2), if that is what stands here.
    fn skip_token68(&mut self) {
        let at = self.at;
        self.run(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte));
        self.run(|byte| byte == b'=');
        self.skip_spaces();
        if !matches!(self.rest().first(), None | Some(b',')) {
            self.at = at;
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Schemes and parameters in one line.
    fn shown(header: &str) -> String {
        let (schemes, malformed) = schemes(header.as_bytes());
        let mut text = String::new();
        for scheme in schemes {
            text += &format!("{}(", scheme.name);
            for (name, value) in scheme.params.0 {
                text += &format!("{name}={};", String::from_utf8_lossy(&value));
            }
            text += ")";
        }
        malformed.map_or(text.clone(), |malformed| format!("{text} {malformed}"))
    }

    #[test]
    fn lists_of_challenges() {
        for (header, expected) in [
            ("", ""),
            (" , ,", ""),
            ("Basic", "Basic()"),
            ("NTLM, Negotiate", "NTLM()Negotiate()"),
            (
                "Negotiate YII/+x==, Digest realm=\"a\"",
                "Negotiate()Digest(realm=a;)",
            ),
            (
                "Basic realm=\"a, b=\\\"c\\\\\", Digest nonce=x,qop = \"auth,auth-int\"",
                "Basic(realm=a, b=\"c\\;)Digest(nonce=x;qop=auth,auth-int;)",
            ),
            // Not by the grammar, and understood.
            (
                "Digest realm=\"Büro\" nonce=ab/c==",
                "Digest(realm=Büro;nonce=ab/c==;)",
            ),
            (
                "Digest  realm=\"\" , Basic  realm=a",
                "Digest(realm=;)Basic(realm=a;)",
            ),
            // Broken: what stands before counts.
            ("realm=a", " byte 0: a parameter without a scheme"),
            (
                "Basic realm=a, Digest realm=\"b",
                "Basic(realm=a;)Digest() byte 28: a quotation that does not end",
            ),
            (
                "Digest realm=\"b\\",
                "Digest() byte 13: a quotation that does not end",
            ),
            (
                "Digest a=1, b=,",
                "Digest(a=1;) byte 14: a parameter without a value",
            ),
            ("Digest a=1, =2", "Digest(a=1;) byte 12 begins no name"),
            ("\"", " byte 0 begins no name"),
        ] {
            assert_eq!(shown(header), expected, "{header}");
        }
        assert!(shown(&"a".repeat(8193)).contains("8192"));
    }

    #[test]
    fn parameters_alone() {
        let read = |header: &'static str| params(header.as_bytes());
        let info = read("nextnonce=\"n,2\", NC=00000001").unwrap();
        assert_eq!(info.get("nextNonce"), Some(b"n,2".as_slice()));
        assert_eq!(info.get("nc"), Some(b"00000001".as_slice()));
        assert_eq!(read("Digest a=1"), Err(Malformed::NoValue(0)));
    }

    proptest! {
        #[test]
        fn no_header_panics(header in prop::collection::vec(any::<u8>(), 0..200)) {
            schemes(&header);
            let _ = params(&header);
        }

        /// What the grammar allows is read as `http-auth` does, which is written and tested by others.
        #[test]
        fn reads_as_others_do(header in "[ -~]{0,40}|((Basic|Digest|NTLM) ([a-z]{1,5} ?= ?([a-z1-9/]{1,5}|\"([ -!#-\\[\\]-~]|\\\\[ -~]){0,8}\")( ?, ?,?)?){0,4},){0,4}") {
            crate::properties::digest::reads_as_others_do(header.as_bytes());
        }
    }
}
