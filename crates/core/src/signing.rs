//! The keys a webhook's requests are signed with, and how they are rotated: for a while both the old
//! and the new key sign, so that the receiver can change its own in between.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::secret::Sealed;
use crate::signature::Kind;
use crate::time::Timestamp;

/// Keys that sign for one webhook at the same time, of both kinds together.
pub const KEYS_MAX: usize = 4;
/// How long old keys still sign when a rotation does not say.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);
/// The longest that a rotation can say.
pub const GRACE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// What a key is sealed as, see [`crate::secret`].
pub const FIELD: &str = "signing";

/// A key as it stands in a webhook's record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SigningKey {
    /// How it signs.
    pub kind: Kind,
    /// `whsec_…` or `whsk_…`, sealed with field [`FIELD`].
    pub secret: Sealed,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it signs no more; without, until it is rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl SigningKey {
    /// Whether it signs at this time.
    pub fn signs(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// The keys that sign at this time, in the order of their signatures.
pub fn in_force(keys: &[SigningKey], now: Timestamp) -> impl Iterator<Item = &SigningKey> + Clone {
    keys.iter().filter(move |key| key.signs(now))
}

/// Too many keys sign already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{KEYS_MAX} keys sign for this webhook already, which is the most; wait until an older one ends, or rotate with grace 0, which ends those of the same kind at once"
)]
pub struct TooManyKeys;

/// The keys after `new` has come: HMAC first, because every receiver knows it, and the newest first of
/// each kind. Those of its kind sign for `grace` more, never longer than they had; those that sign no
/// more are dropped.
pub fn rotated(
    keys: &[SigningKey],
    new: SigningKey,
    grace: Duration,
    now: Timestamp,
) -> Result<Vec<SigningKey>, TooManyKeys> {
    let kind = new.kind;
    let mut next = vec![new];
    next.extend(ended(keys, kind, grace, now));
    next.sort_by_key(|key| key.kind != Kind::Hmac);
    match next.len() <= KEYS_MAX {
        true => Ok(next),
        false => Err(TooManyKeys),
    }
}

/// The keys after those of a kind were ended after `grace`, without a new one.
pub fn ended(keys: &[SigningKey], kind: Kind, grace: Duration, now: Timestamp) -> Vec<SigningKey> {
    let end = now + grace;
    let mut next: Vec<_> = keys.to_vec();
    for key in next.iter_mut().filter(|key| key.kind == kind) {
        key.until = Some(key.until.map_or(end, |until| until.min(end)));
    }
    next.retain(|key| key.signs(now));
    next
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::secret::{KeyRing, Secret};

    fn key(kind: Kind, made: u64) -> SigningKey {
        let ring = KeyRing::new("k", [("k", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")]);
        let secret = Secret::new(made.to_string());
        SigningKey {
            kind,
            secret: ring
                .unwrap()
                .seal(&secret, Uuid::nil(), FIELD, [1; 24])
                .unwrap(),
            created: at(made),
            until: None,
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::parse("2026-11-21T00:00:00Z").unwrap() + Duration::from_secs(seconds)
    }

    #[test]
    fn both_sign_until_the_grace_is_over() {
        let first = rotated(&[], key(Kind::Hmac, 0), GRACE, at(0)).unwrap();
        assert_eq!(first, [key(Kind::Hmac, 0)]);
        let hour = Duration::from_secs(3600);
        let both = rotated(&first, key(Kind::Hmac, 10), hour, at(10)).unwrap();
        let signs = |keys: &[SigningKey], now| {
            let made = |key: &SigningKey| key.created.since(at(0)).as_secs();
            in_force(keys, at(now)).map(made).collect::<Vec<_>>()
        };
        assert_eq!(signs(&both, 10), [10, 0]);
        assert_eq!(signs(&both, 3609), [10, 0]);
        assert_eq!(signs(&both, 3610), [10]);
        // The next change drops what signs no more; another kind is another matter.
        let three = rotated(&both, key(Kind::Ed25519, 4000), hour, at(4000)).unwrap();
        assert_eq!(three.len(), 2);
        assert_eq!(signs(&three, 1_000_000), [10, 4000]);
        // A compromised key ends at once, also if it had some time left.
        let at_once = rotated(&both, key(Kind::Hmac, 20), Duration::ZERO, at(20)).unwrap();
        assert_eq!(at_once, [key(Kind::Hmac, 20)]);
        assert_eq!(
            ended(&three, Kind::Ed25519, Duration::ZERO, at(5000)).len(),
            1
        );
    }

    #[test]
    fn a_rotation_never_lengthens_the_life_of_an_old_key() {
        let keys = rotated(&[], key(Kind::Hmac, 0), GRACE, at(0)).unwrap();
        let keys = rotated(&keys, key(Kind::Hmac, 1), Duration::from_secs(60), at(1)).unwrap();
        let keys = rotated(&keys, key(Kind::Hmac, 2), GRACE_MAX, at(2)).unwrap();
        assert_eq!(keys[2].until, Some(at(61)));
    }

    proptest! {
        /// Whatever is rotated in whatever order: never too many, always one that signs for good, of
        /// each kind that was ever asked for, and the newest first.
        #[test]
        fn there_is_always_a_key_and_never_too_many(
            steps in prop::collection::vec((any::<bool>(), 0_u64..100, 0_u64..60), 1..40)
        ) {
            let (mut keys, mut now) = (Vec::new(), 0);
            let mut kinds = Vec::new();
            for (ed25519, grace, later) in steps {
                now += later;
                let kind = if ed25519 { Kind::Ed25519 } else { Kind::Hmac };
                let grace = Duration::from_secs(grace);
                match rotated(&keys, key(kind, now), grace, at(now)) {
                    Ok(next) => {
                        keys = next;
                        kinds.push(kind);
                        let first = keys.iter().find(|key| key.kind == kind).unwrap();
                        prop_assert_eq!((first.created, first.until), (at(now), None));
                        prop_assert!(keys.is_sorted_by_key(|key| key.kind != Kind::Hmac));
                    }
                    Err(TooManyKeys) => {
                        prop_assert!(in_force(&keys, at(now)).count() >= KEYS_MAX);
                        prop_assert!(rotated(&keys, key(kind, now), Duration::ZERO, at(now)).is_ok()
                            || keys.iter().all(|key| key.kind != kind));
                    }
                }
                prop_assert!(keys.len() <= KEYS_MAX);
                for kind in &kinds {
                    let lasting = |key: &&SigningKey| key.kind == *kind && key.until.is_none();
                    prop_assert_eq!(keys.iter().filter(lasting).count(), 1);
                }
            }
        }
    }

    #[test]
    fn old_keys_sign_for_a_day_or_a_month_at_most() {
        assert_eq!(GRACE, Duration::from_secs(86_400));
        assert_eq!(GRACE_MAX, Duration::from_secs(2_592_000));
    }
}
