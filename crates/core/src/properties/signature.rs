//! Properties of signatures and of the texts of their keys.

use super::lines;
use crate::secret::Secret;
use crate::signature::{
    Kind, RANDOM_BYTES, Refused, SIGNATURES_MAX, Signed, Signer, Verifier, generate,
};
use crate::time::Timestamp;

const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TIMESTAMP: i64 = 1_614_265_330;
const BODY: &[u8] = b"{\"test\": 2432232314}";

/// `webhook-signature`; then, on further lines, `webhook-timestamp` and the body if they are others.
///
/// Accepted is what holds the one text that the key makes of the request, and nothing else: no second
/// spelling of a signature, and no request of another time.
pub fn signature(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.splitn(3, '\n');
    let signatures = lines.next().unwrap_or_default();
    let own = TIMESTAMP.to_string();
    let timestamp = lines.next().unwrap_or(&own);
    let body = lines.next().map_or(BODY, str::as_bytes);
    let signed = Signed {
        id: ID,
        timestamp,
        signatures,
        body,
    };
    let now = Timestamp::from_millis(TIMESTAMP * 1000);
    for kind in [Kind::Hmac, Kind::Ed25519] {
        let secret = generate(kind, [7; RANDOM_BYTES]);
        let verified = Verifier::read(&secret).unwrap().verify(signed, now);
        let expected = match timestamp.parse::<i64>() {
            Err(_) => Err(Refused::Timestamp),
            Ok(seconds) if seconds.abs_diff(TIMESTAMP) > 300 => Err(Refused::Time),
            // `+5` and `05` are numbers, and none that a sender writes.
            Ok(seconds) if seconds.to_string() != timestamp => Err(Refused::Signature),
            Ok(seconds) => {
                let right = Signer::read(&secret).unwrap().sign(ID, seconds, body);
                let mut signatures = signatures.split(' ').take(SIGNATURES_MAX);
                signatures
                    .any(|one| one == right)
                    .then_some(())
                    .ok_or(Refused::Signature)
            }
        };
        assert_eq!(verified, expected, "{kind:?}");
    }
}

/// The text of a key; then, on a further line, a body.
pub fn key(input: &[u8]) {
    let mut lines = lines(input);
    let text = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    a_key_does_what_it_is_for(&text, lines.next().unwrap_or(BODY));
}

/// A text that signs verifies what it signed, and with Ed25519 so does its public key; a text that only
/// verifies is a public key; and no error or debugging output shows one.
pub(crate) fn a_key_does_what_it_is_for(text: &str, body: &[u8]) {
    let secret = Secret::new(text);
    let (signer, verifier) = (Signer::read(&secret), Verifier::read(&secret));
    // Not a piece of the error by chance.
    let hidden = text
        .trim()
        .split_once('_')
        .map(|(_, key)| key)
        .filter(|key| key.len() >= 20 && !key.contains(char::is_whitespace));
    for shown in [
        format!("{signer:?} {verifier:?}"),
        signer
            .as_ref()
            .err()
            .map(ToString::to_string)
            .unwrap_or_default(),
    ] {
        assert!(hidden.is_none_or(|key| !shown.contains(key)), "{shown}");
    }
    let Ok(signer) = signer else {
        return assert!(verifier.is_err() || text.trim().starts_with("whpk_"));
    };
    assert!(verifier.is_ok(), "it signs and does not verify");
    let own = signer.sign(ID, TIMESTAMP, body);
    let timestamp = TIMESTAMP.to_string();
    let signed = Signed {
        id: ID,
        timestamp: &timestamp,
        signatures: &own,
        body,
    };
    let changed = Signed {
        id: "msg_x",
        ..signed
    };
    let public = signer
        .public()
        .map(|public| Verifier::read(&Secret::new(public)).unwrap());
    assert_eq!(public.is_some(), signer.kind() == Kind::Ed25519);
    for verifier in verifier.iter().chain(&public) {
        let now = Timestamp::from_millis(TIMESTAMP * 1000);
        assert_eq!(verifier.verify(signed, now), Ok(()));
        assert_eq!(verifier.verify(changed, now), Err(Refused::Signature));
    }
}
