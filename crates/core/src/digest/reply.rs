//! The reply to a challenge: the `Authorization` header (RFC 7616 §3.4).

use md5::Md5;
use sha2::{Digest, Sha256, Sha512_256};

use super::header::schemes;
use super::{Challenge, Hash, Qop};
use crate::account::{hex, same_secret};

/// Who asks.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// Without a colon.
    pub username: &'a str,
    /// In clear.
    pub password: &'a str,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method, such as `POST`.
    pub method: &'a str,
    /// The target as it stands in the request line: path and query.
    pub uri: &'a str,
    /// The body, hashed for servers that insist on `auth-int`.
    pub body: &'a [u8],
}

impl Challenge {
    /// The value of the `Authorization` header. `count` is how often this nonce has been used, this time
    /// included; `cnonce` must be the same for all uses of a nonce, since for `-sess` it is in their
    /// common key (RFC 7616 §3.4.2).
    ///
    /// The bytes are those of a header: the challenge's come from one, and a user name has no control
    /// characters.
    pub fn reply(
        &self,
        login: Login<'_>,
        request: Request<'_>,
        cnonce: &str,
        count: u32,
    ) -> Vec<u8> {
        let count = format!("{count:08x}");
        let response = self.response(login, request, cnonce, &count);
        let mut reply = Reply(b"Digest ".to_vec());
        self.put_username(&mut reply, login.username);
        reply.quoted("realm", &self.realm);
        reply.quoted("uri", request.uri.as_bytes());
        if self.named {
            reply.plain("algorithm", self.algorithm.name());
        }
        reply.quoted("nonce", &self.nonce);
        if let Some(qop) = self.qop {
            reply.plain("nc", &count);
            reply.plain("qop", qop.name());
        }
        if self.qop.is_some() || self.algorithm.session {
            reply.quoted("cnonce", cnonce.as_bytes());
        }
        reply.quoted("response", response.as_bytes());
        if let Some(opaque) = &self.opaque {
            reply.quoted("opaque", opaque);
        }
        if self.userhash {
            reply.plain("userhash", "true");
        }
        reply.0
    }

    /// The server's side: whether this `Authorization` header replies to this challenge with this
    /// login. How often a nonce was used is not looked at.
    pub fn is_answered_by(
        &self,
        authorization: &[u8],
        login: Login<'_>,
        request: Request<'_>,
    ) -> bool {
        let (given, _) = schemes(authorization);
        let Some(given) = given
            .iter()
            .find(|scheme| scheme.name.eq_ignore_ascii_case("digest"))
        else {
            return false;
        };
        let part = |name: &str| given.params.get(name).unwrap_or_default();
        let text = |name: &str| std::str::from_utf8(part(name)).unwrap_or_default();
        let response = self.response(login, request, text("cnonce"), text("nc"));
        part("nonce") == self.nonce
            && part("uri") == request.uri.as_bytes()
            && same_secret(text("response"), &response)
    }

    /// RFC 7616 §3.4.1 to §3.4.3; without `qop`, RFC 2069 §2.1.2.
    fn response(
        &self,
        login: Login<'_>,
        request: Request<'_>,
        cnonce: &str,
        count: &str,
    ) -> String {
        let hash = |parts: &[&[u8]]| self.algorithm.hash.hex(parts);
        let (user, password) = (login.username.as_bytes(), login.password.as_bytes());
        let mut key = hash(&[user, &self.realm, password]);
        if self.algorithm.session {
            key = hash(&[key.as_bytes(), &self.nonce, cnonce.as_bytes()]);
        }
        let (method, uri) = (request.method.as_bytes(), request.uri.as_bytes());
        let asked = match self.qop {
            Some(Qop::AuthInt) => {
                let body = hash(&[request.body]);
                hash(&[method, uri, body.as_bytes()])
            }
            _ => hash(&[method, uri]),
        };
        let (key, asked) = (key.as_bytes(), asked.as_bytes());
        match self.qop {
            None => hash(&[key, &self.nonce, asked]),
            Some(qop) => hash(&[
                key,
                &self.nonce,
                count.as_bytes(),
                cnonce.as_bytes(),
                qop.name().as_bytes(),
                asked,
            ]),
        }
    }

    /// Hashed where the server wants so (§3.4.4); else quoted; with characters beyond ASCII in the
    /// extended form (RFC 8187) for servers that know UTF-8, and as it is for those of before.
    fn put_username(&self, reply: &mut Reply, username: &str) {
        if self.userhash {
            let hashed = self.algorithm.hash.hex(&[username.as_bytes(), &self.realm]);
            reply.quoted("username", hashed.as_bytes());
        } else if username.is_ascii() || !self.utf8 {
            reply.quoted("username", username.as_bytes());
        } else {
            let mut extended = String::from("UTF-8''");
            for byte in username.bytes() {
                // `attr-char` of RFC 8187 §3.2.1.
                match byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
                    true => extended.push(char::from(byte)),
                    false => extended += &format!("%{byte:02X}"),
                }
            }
            reply.plain("username*", &extended);
        }
    }
}

impl Hash {
    /// Of the parts with colons between them.
    fn hex(self, parts: &[&[u8]]) -> String {
        fn of<D: Digest>(parts: &[&[u8]]) -> String {
            let mut digest = D::new();
            for (number, part) in parts.iter().enumerate() {
                if number > 0 {
                    digest.update(b":");
                }
                digest.update(part);
            }
            hex(&digest.finalize())
        }
        match self {
            Self::Md5 => of::<Md5>(parts),
            Self::Sha256 => of::<Sha256>(parts),
            Self::Sha512_256 => of::<Sha512_256>(parts),
        }
    }
}

/// A header being written.
struct Reply(Vec<u8>);

impl Reply {
    fn name(&mut self, name: &str) {
        if self.0.last() != Some(&b' ') {
            self.0.extend(b", ");
        }
        self.0.extend(name.as_bytes());
        self.0.push(b'=');
    }

    fn plain(&mut self, name: &str, value: &str) {
        self.name(name);
        self.0.extend(value.as_bytes());
    }

    fn quoted(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.0.push(b'"');
        for byte in value {
            if matches!(byte, b'"' | b'\\') {
                self.0.push(b'\\');
            }
            self.0.push(*byte);
        }
        self.0.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Challenge, Login, Request};
    use crate::properties::digest as properties;

    fn challenge(header: &str) -> Challenge {
        Challenge::strongest([header.as_bytes()]).unwrap()
    }

    fn get(uri: &str) -> Request<'_> {
        Request {
            method: "GET",
            uri,
            body: b"",
        }
    }

    const MUFASA: Login<'_> = Login {
        username: "Mufasa",
        password: "Circle of Life",
    };

    const JASON: Login<'_> = Login {
        username: "Jäsøn Doe",
        password: "Secret, or not?",
    };

    fn reply(header: &str, login: Login<'_>, uri: &str, cnonce: &str) -> String {
        let reply = challenge(header).reply(login, get(uri), cnonce, 1);
        String::from_utf8(reply).unwrap()
    }

    /// The server's side takes what the client's side replies, and nothing that differs from it.
    #[test]
    fn a_reply_answers_its_challenge_alone() {
        let header = "Digest realm=\"r\", qop=\"auth\", algorithm=SHA-256, nonce=\"n\"";
        let right = reply(header, MUFASA, "/a", "c");
        let answers = |header: &str, given: &str, login, uri| {
            challenge(header).is_answered_by(given.as_bytes(), login, get(uri))
        };
        assert!(answers(header, &right, MUFASA, "/a"));
        assert!(!answers(header, &right, JASON, "/a"));
        assert!(!answers(header, &right, MUFASA, "/b"));
        // Each part counts by itself, also where the hash is right.
        let other = header.replace("\"n\"", "\"m\"");
        let elsewhere = reply(&other, MUFASA, "/a", "c").replace("\"m\"", "\"n\"");
        assert!(!answers(&other, &elsewhere, MUFASA, "/a"));
        let moved = right.replace("uri=\"/a\"", "uri=\"/b\"");
        assert!(!answers(header, &moved, MUFASA, "/a"));
        assert!(!answers(
            header,
            &right.replace("response=\"", "response=\"0"),
            MUFASA,
            "/a"
        ));
        for none in ["", "Digest", "Basic QQ==", "Digest nonce=\"n\", uri=\"/a\""] {
            assert!(!answers(header, none, MUFASA, "/a"), "{none}");
        }
    }

    /// RFC 7616 §3.9.1.
    #[test]
    fn the_example_with_sha_256_and_md5() {
        for (algorithm, response) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            (
                "SHA-256",
                "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            ),
        ] {
            let header = format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
                 opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            );
            let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
            assert_eq!(
                reply(&header, MUFASA, "/dir/index.html", cnonce),
                format!(
                    "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", \
                     uri=\"/dir/index.html\", algorithm={algorithm}, \
                     nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, qop=auth, \
                     cnonce=\"{cnonce}\", response=\"{response}\", \
                     opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
                )
            );
        }
    }

    /// RFC 7616 §3.9.2, with the values of erratum 4897: the RFC's own are not of its inputs.
    #[test]
    fn the_example_with_sha_512_256_charset_and_userhash() {
        let header = "Digest realm=\"api@example.org\", qop=\"auth\", algorithm=SHA-512-256, \
             nonce=\"5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK\", \
             opaque=\"HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS\", charset=UTF-8";
        let cnonce = "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v";
        let response =
            "response=\"3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5\"";
        let hashed = reply(
            &format!("{header}, userhash=true"),
            JASON,
            "/doe.json",
            cnonce,
        );
        let name = "username=\"793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b\"";
        assert!(
            hashed.contains(name) && hashed.ends_with("userhash=true"),
            "{hashed}"
        );
        assert!(hashed.contains(response), "{hashed}");
        let extended = reply(header, JASON, "/doe.json", cnonce);
        assert!(
            extended.starts_with("Digest username*=UTF-8''J%C3%A4s%C3%B8n%20Doe, "),
            "{extended}"
        );
        assert!(extended.contains(response), "{extended}");
        // A server that does not speak of UTF-8 gets the name as Basic would send it.
        let plain = header.replace(", charset=UTF-8", "");
        let plain = reply(&plain, JASON, "/doe.json", cnonce);
        assert!(
            plain.starts_with("Digest username=\"Jäsøn Doe\", "),
            "{plain}"
        );
        assert!(plain.contains(response), "{plain}");
    }

    /// RFC 2069 §2.4, with the response of its erratum 749.
    #[test]
    fn without_qop_the_reply_is_of_rfc_2069() {
        let header = "Digest realm=\"testrealm@host.com\", \
             nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
             opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
        let login = Login {
            username: "Mufasa",
            password: "CircleOfLife",
        };
        let reply = reply(header, login, "/dir/index.html", "unused");
        assert!(
            reply.contains("response=\"1949323746fe6a43ef61f9606e7febea\""),
            "{reply}"
        );
        for absent in ["nc=", "cnonce=", "qop=", "algorithm="] {
            assert!(!reply.contains(absent), "{reply}");
        }
    }

    #[test]
    fn bytes_and_quotes_of_the_server_come_back_as_they_were() {
        let header = b"Digest realm=\"a \\\"b\\\" \\\\ \xfc\", nonce=\"n\", qop=auth";
        let challenge = Challenge::strongest([&header[..]]).unwrap();
        let reply = challenge.reply(MUFASA, get("/"), "c", 1);
        let realm = b"realm=\"a \\\"b\\\" \\\\ \xfc\",";
        assert!(reply.windows(realm.len()).any(|window| window == realm));
    }

    /// The response computed with Python's `hashlib` after §3.4.2 and §3.4.3.
    #[test]
    fn a_server_that_insists_has_the_body_hashed() {
        let request = Request {
            method: "POST",
            uri: "/a?b=c",
            body: b"{\"id\":1}",
        };
        let header = "Digest realm=r, nonce=n, qop=auth-int, algorithm=SHA-256-sess";
        let reply = challenge(header).reply(MUFASA, request, "c1", 10);
        let reply = String::from_utf8(reply).unwrap();
        let response = "501f1151b4fcb0f9212598cc3118a2435dd12b246f211a3fc1de161a86d09a61";
        assert!(reply.contains(response), "{reply}");
        assert!(reply.contains("nc=0000000a, qop=auth-int"), "{reply}");
    }

    /// The values of §3.9.1 for the forms that it leaves out, computed in the same way.
    #[test]
    fn session_keys_of_every_algorithm() {
        for (algorithm, response) in [
            ("MD5-sess", "e783283f46242139c486a698fec7211d"),
            (
                "SHA-256-sess",
                "2fd51b3a77ad75bad6afad6003e818d767133c46d9e2749e7f5232ae1ea3efd7",
            ),
            (
                "SHA-512-256-sess",
                "3f2a34f923c38b0fb26dce2fdfc2ce326c23cecf86fbb1444f3e51fbbc2cb92e",
            ),
        ] {
            let header = format!(
                "Digest realm=\"http-auth@example.org\", qop=auth, algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\""
            );
            let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
            let reply = reply(&header, MUFASA, "/dir/index.html", cnonce);
            let expected = format!("response=\"{response}\"");
            assert!(reply.contains(&expected), "{reply}");
        }
    }

    proptest! {
        #[test]
        fn replies_as_others_do(
            hash in prop::sample::select(vec!["MD5", "SHA-256", "SHA-512-256"]),
            session in any::<bool>(),
            qop in prop::sample::select(vec!["auth", "auth,auth-int"]),
            userhash in any::<bool>(),
            realm in "[a-z@.\"\\\\]{0,12}",
            nonce in "[a-zA-Z0-9/+=]{1,20}",
            username in "[a-zA-Z\"\\\\é]{1,9}",
            password in "\\PC{0,12}",
            body in prop::collection::vec(any::<u8>(), 0..50),
            count in 1_u32..4,
        ) {
            properties::replies_as_others_do(&properties::Reply {
                hash, session, qop, userhash, count,
                realm: &realm, nonce: &nonce, username: &username, password: &password, body: &body,
            });
        }
    }
}
