//! Properties of Digest's headers.

use http_auth::PasswordParams;

use super::lines;
use crate::digest::header::{Params, Scheme, params, schemes};
use crate::digest::{Challenge, Login, PART_BYTES_MAX, Request, schemes_asked_for};

/// Longest text of an error about a header: it shows some names of the header, and those shortened.
const ERROR_CHARS_MAX: usize = 512;

/// `WWW-Authenticate`, one header a line.
pub fn challenge(input: &[u8]) {
    let headers: Vec<&[u8]> = lines(input).collect();
    for header in &headers {
        reads_as_others_do(header);
    }
    any_headers_are_answered_or_not(&headers);
}

/// `Authentication-Info`.
pub fn next_nonce(input: &[u8]) {
    let first = Challenge::strongest([&b"Digest realm=r, nonce=n, stale=true"[..]]).unwrap();
    let Some(next) = first.next(input) else {
        return;
    };
    assert!((1..=PART_BYTES_MAX).contains(&next.nonce.len()));
    assert!(!next.is_stale() && !next.same_nonce(&first) && next.realm == first.realm);
    assert_eq!(next.next(input), None, "it is the next one already");
    assert_eq!(params(input).unwrap().get("NextNonce"), Some(&*next.nonce));
    let headers: Vec<_> = next.reply(LOGIN, POST, "c1", 1);
    assert_eq!(written(&headers).get("nonce"), Some(&*next.nonce));
}

/// A reply as `http-auth` computes it: lines with hash, realm, nonce, user name, password, body; what
/// cannot be in such a place is left out.
pub fn reply(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n').map(|line| {
        let plain = line.chars().filter(|c| !c.is_control());
        plain.take(100).collect::<String>()
    });
    let mut next = || lines.next().unwrap_or_default();
    let [options, realm, nonce, username, password, body] = std::array::from_fn(|_| next());
    let options = options
        .bytes()
        .fold(0_usize, |all, byte| all.wrapping_add(byte.into()));
    let ascii = |text: String| text.chars().filter(char::is_ascii).collect::<String>();
    let nonce = ascii(nonce).replace(['"', '\\'], "");
    replies_as_others_do(&Reply {
        hash: ["MD5", "SHA-256", "SHA-512-256"][options % 3],
        session: options & 4 > 0,
        qop: ["auth", "auth,auth-int"][options >> 3 & 1],
        userhash: options & 16 > 0,
        realm: &ascii(realm),
        nonce: &nonce,
        username: &username.replace(':', ""),
        password: &password,
        body: body.as_bytes(),
        count: 1 + (options as u32 >> 5 & 3),
    });
}

/// What the grammar allows is read as `http-auth` does, which is written and tested by others.
pub(crate) fn reads_as_others_do(header: &[u8]) {
    let (read, malformed) = schemes(header);
    let Some(Ok(theirs)) = std::str::from_utf8(header)
        .ok()
        .map(http_auth::parse_challenges)
    else {
        return;
    };
    let theirs: Vec<_> = theirs
        .iter()
        .map(|challenge| Scheme {
            name: challenge.scheme,
            params: Params(
                challenge
                    .params
                    .iter()
                    .map(|(name, value)| (*name, value.to_unescaped().into_bytes()))
                    .collect(),
            ),
        })
        .collect();
    assert_eq!((read, malformed), (theirs, None));
}

/// Whatever a server sends: an error is short and fit to be shown, and a reply is a header that names
/// what the challenge named.
pub(crate) fn any_headers_are_answered_or_not(headers: &[&[u8]]) {
    let all = || headers.iter().copied();
    let fit =
        |text: &str| text.chars().count() <= ERROR_CHARS_MAX && !text.contains(char::is_control);
    let asked = schemes_asked_for(all());
    assert!(fit(&asked), "{asked}");
    let challenge = match Challenge::strongest(all()) {
        Ok(challenge) => challenge,
        Err(error) => return assert!(fit(&error.to_string()), "{error}"),
    };
    assert!(asked.split(", ").count() == 4 || asked.to_ascii_lowercase().contains("digest"));
    // Of what HTTP lets into a header (RFC 9110 §5.5), nothing else is made.
    let in_header = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    let reply = challenge.reply(LOGIN, POST, "c1", 1);
    if all().all(|header| header.iter().all(in_header)) {
        assert!(reply.iter().all(in_header), "{}", reply.escape_ascii());
    }
    let params = written(&reply);
    for (name, expected) in [
        ("realm", Some(&challenge.realm)),
        ("nonce", Some(&challenge.nonce)),
        ("opaque", challenge.opaque.as_ref()),
    ] {
        assert_eq!(params.get(name), expected.map(Vec::as_slice), "{name}");
    }
}

/// What a reply is made of.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    pub(crate) hash: &'a str,
    pub(crate) session: bool,
    pub(crate) qop: &'a str,
    pub(crate) userhash: bool,
    pub(crate) realm: &'a str,
    pub(crate) nonce: &'a str,
    pub(crate) username: &'a str,
    pub(crate) password: &'a str,
    pub(crate) body: &'a [u8],
    pub(crate) count: u32,
}

/// Every algorithm and kind of reply as `http-auth` computes it, which is written and tested by others.
pub(crate) fn replies_as_others_do(reply: &Reply<'_>) {
    let realm = reply.realm.replace('\\', "\\\\").replace('"', "\\\"");
    let session = if reply.session { "-sess" } else { "" };
    let Reply {
        hash,
        qop,
        userhash,
        nonce,
        ..
    } = reply;
    let header = format!(
        "Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm={hash}{session}, \
         qop=\"{qop}\", charset=UTF-8, userhash={userhash}"
    );
    let request = Request {
        method: "POST",
        uri: "/a?b=c",
        body: reply.body,
    };
    let login = Login {
        username: reply.username,
        password: reply.password,
    };
    let challenge = Challenge::strongest([header.as_bytes()]).unwrap();
    let ours = challenge.reply(login, request, "c1", reply.count);
    let theirs = http_auth::parse_challenges(&header).unwrap();
    let mut theirs = http_auth::DigestClient::try_from(&theirs[0]).unwrap();
    let params = PasswordParams {
        username: reply.username,
        password: reply.password,
        uri: request.uri,
        method: request.method,
        // With a body it would prefer `auth-int`, which it computes against §3.4.3.
        body: None,
    };
    let mut expected = String::new();
    for _ in 0..reply.count {
        expected = theirs.respond_with_testing_cnonce(&params, "c1").unwrap();
    }
    let sorted = |reply: &[u8]| {
        let mut params = written(reply)
            .0
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<Vec<_>>();
        params.sort();
        params
    };
    assert_eq!(sorted(&ours), sorted(expected.as_bytes()), "{reply:?}");
}

const LOGIN: Login<'_> = Login {
    username: "Jäsøn \"Doe\"",
    password: "Secret, or not?",
};
const POST: Request<'_> = Request {
    method: "POST",
    uri: "/a?b=c",
    body: b"{}",
};

/// The parameters of a reply.
fn written(reply: &[u8]) -> Params<'_> {
    let (mut schemes, malformed) = schemes(reply);
    assert_eq!(
        (schemes.len(), malformed),
        (1, None),
        "{}",
        reply.escape_ascii()
    );
    let scheme = schemes.remove(0);
    assert_eq!(scheme.name, "Digest");
    scheme.params
}
