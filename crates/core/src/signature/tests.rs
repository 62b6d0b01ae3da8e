//! Signatures against fixed vectors of other implementations, and their properties.

use proptest::prelude::*;

use super::*;
use crate::properties;

const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TIMESTAMP: i64 = 1_614_265_330;
const BODY: &[u8] = b"{\"test\": 2432232314}";
const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// RFC 8032 §7.1, test 1.
const WHSK: &str = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const WHPK: &str = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

fn signer(text: &str) -> Signer {
    Signer::read(&Secret::new(text)).unwrap()
}

fn verifier(text: &str) -> Verifier {
    Verifier::read(&Secret::new(text)).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::parse("1970-01-01T00:00:00Z").unwrap() + Duration::from_secs(seconds as u64)
}

/// The first as the published library for Python signs it, the second as Node's crypto does.
#[test]
fn fixed_vectors() {
    assert_eq!(
        signer(WHSEC).sign(ID, TIMESTAMP, BODY),
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    );
    let ed25519 = signer(WHSK);
    assert_eq!(ed25519.public().unwrap(), WHPK);
    assert_eq!(
        ed25519.sign(ID, TIMESTAMP, BODY),
        "v1a,fldxM4gAKugP6nnt1hdz3sgGfZ6d99nzrMFnZOELIxbzEHoVmAb2ADpkJK7zgPePmPsle0zV9jSeGlHFG2NVAw=="
    );
}

#[test]
fn keys_are_read_in_every_form() {
    let private = STANDARD.decode(&WHSK[5..]).unwrap();
    let public = STANDARD.decode(&WHPK[5..]).unwrap();
    let both = [private.clone(), public.clone()].concat();
    let both = format!("whsk_{}", STANDARD.encode(both));
    assert_eq!(signer(&both).public().unwrap(), WHPK);
    assert_eq!(signer(WHSK.trim_end_matches('=')).public().unwrap(), WHPK);
    let wrong_half = [private.clone(), private].concat();
    let whsec = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
    for (text, error) in [
        ("", InvalidKey::Prefix),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", InvalidKey::Prefix),
        (WHPK, InvalidKey::Public),
        ("whsec_", InvalidKey::HmacBytes),
        ("whsec_ä", InvalidKey::Base64),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaL-_w", InvalidKey::Base64),
        (&whsec(23), InvalidKey::HmacBytes),
        (&whsec(65), InvalidKey::HmacBytes),
        ("whsk_", InvalidKey::Ed25519Bytes),
        ("whsk_AAAA", InvalidKey::Ed25519Bytes),
        (
            &format!("whsk_{}", STANDARD.encode(wrong_half)),
            InvalidKey::Ed25519Bytes,
        ),
    ] {
        let read = Signer::read(&Secret::new(text)).map(|signer| signer.kind());
        assert_eq!(read, Err(error), "{text}");
    }
    for bytes in [24, 64] {
        assert_eq!(signer(&whsec(bytes)).kind(), Kind::Hmac);
    }
}

#[test]
fn a_time_far_away_is_refused() {
    let signatures = signer(WHSEC).sign(ID, TIMESTAMP, BODY);
    let signed = Signed {
        id: ID,
        timestamp: "1614265330",
        signatures: &signatures,
        body: BODY,
    };
    let verify = |seconds| verifier(WHSEC).verify(signed, at(TIMESTAMP + seconds));
    for fine in [-300, 0, 300] {
        assert_eq!(verify(fine), Ok(()), "{fine}");
    }
    for far in [-301, 301, 1_000_000] {
        assert_eq!(verify(far), Err(Refused::Time), "{far}");
    }
    for timestamp in ["", "x", "1e9", "99999999999999999999"] {
        let signed = Signed {
            timestamp,
            ..signed
        };
        let refused = verifier(WHSEC).verify(signed, at(TIMESTAMP));
        assert_eq!(refused, Err(Refused::Timestamp), "{timestamp}");
    }
}

#[test]
fn nothing_shows_a_key() {
    let shown = format!(
        "{:?} {:?} {:?} {:?}",
        signer(WHSEC),
        signer(WHSK),
        verifier(WHSEC),
        generate(Kind::Hmac, [7; RANDOM_BYTES]),
    );
    assert_eq!(shown, "[hmac key] [ed25519 key] [verifier] [secret]");
}

proptest! {
    /// What a key signed, its receiver accepts, also among signatures of others; and nothing else.
    #[test]
    fn only_what_was_signed_is_accepted(
        random in any::<[u8; RANDOM_BYTES]>(),
        other in any::<[u8; RANDOM_BYTES]>(),
        ed25519 in any::<bool>(),
        id in "[a-z0-9-]{1,36}",
        timestamp in 0_i64..4_000_000_000,
        body in prop::collection::vec(any::<u8>(), 0..200),
        at_byte in any::<prop::sample::Index>(),
    ) {
        prop_assume!(random != other);
        let kind = if ed25519 { Kind::Ed25519 } else { Kind::Hmac };
        let [ours, theirs] = [random, other].map(|random| generate(kind, random));
        let sign = |secret| Signer::read(secret).unwrap().sign(&id, timestamp, &body);
        let ours_and_theirs = format!("{} v9,x {}", sign(&theirs), sign(&ours));
        let (text, now) = (timestamp.to_string(), at(timestamp));
        let signed = Signed { id: &id, timestamp: &text, signatures: &ours_and_theirs, body: &body };
        let verifier = Verifier::read(&ours).unwrap();
        prop_assert_eq!(verifier.verify(signed, now), Ok(()));
        let public = Signer::read(&ours).unwrap().public();
        if let Some(public) = public {
            let public = Verifier::read(&Secret::new(public)).unwrap();
            prop_assert_eq!(public.verify(signed, now), Ok(()));
        }
        let refused = |signed| verifier.verify(signed, now) == Err(Refused::Signature);
        let alone = sign(&theirs);
        let wrong_key = Signed { signatures: &alone, ..signed };
        prop_assert!(refused(wrong_key));
        let later = (timestamp + 1).to_string();
        let wrong_time = Signed { timestamp: &later, ..signed };
        prop_assert!(refused(wrong_time));
        let longer = format!("{id}0");
        let wrong_id = Signed { id: &longer, ..signed };
        prop_assert!(refused(wrong_id));
        let mut changed = body.clone();
        match changed.is_empty() {
            true => changed.push(0),
            false => changed[at_byte.index(body.len())] ^= 1,
        }
        let wrong_body = Signed { body: &changed, ..signed };
        prop_assert!(refused(wrong_body));
    }

    /// Whatever a header says.
    #[test]
    fn only_the_right_text_is_accepted(signatures in "((v1,|v1a,)?.{0,100} ?){0,3}", rest in "(\n[0-9+]{0,10}(\n.*)?)?") {
        properties::signature(format!("{signatures}{rest}").as_bytes());
    }

    /// Whatever a key says.
    #[test]
    fn a_key_does_what_it_is_for(prefix in "(whsec_|whsk_|whpk_)?", text in "[a-zA-Z0-9+/]{30,50}=?|.{0,200}") {
        properties::signature::a_key_does_what_it_is_for(&format!("{prefix}{text}"), BODY);
    }
}
