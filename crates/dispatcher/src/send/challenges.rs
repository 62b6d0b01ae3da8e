//! The Digest challenges that webhooks were last given, so that in steady state a delivery is one
//! request.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use ringback_core::digest::{Challenge, cnonce};
use uuid::Uuid;

/// Challenges kept at most, each of some hundred bytes and at most 3 KiB. Beyond, those that were not
/// used for longest are asked for anew.
const KEPT_MAX: usize = 65_536;

/// One use of a challenge, which is nobody else's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Use {
    pub(super) challenge: Arc<Challenge>,
    pub(super) cnonce: Arc<str>,
    /// `nc`: uses of the nonce, this one included.
    pub(super) count: u32,
}

/// What a challenge belongs to. It tells configurations apart, so that a changed one begins anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Owner {
    webhook: Uuid,
    configuration: u64,
}

/// The challenges of all webhooks. No use of a nonce is given out twice.
pub(super) struct Challenges {
    generations: Mutex<Generations>,
    /// Keyed at random: nothing can be read from a hash of a password.
    hasher: RandomState,
    seed: [u8; 32],
    drawn: AtomicU64,
}

/// Two maps instead of an order of use: what is used moves to the young one; when that is full it
/// becomes the old one, and what was in the old one is forgotten.
#[derive(Default)]
struct Generations {
    young: HashMap<Uuid, Kept>,
    old: HashMap<Uuid, Kept>,
    kept_max: usize,
}

struct Kept {
    configuration: u64,
    last: Use,
}

impl Challenges {
    pub(super) fn new() -> Result<Self, String> {
        Self::of(KEPT_MAX)
    }

    fn of(kept_max: usize) -> Result<Self, String> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| format!("drawing the seed of client nonces: {error}"))?;
        let generations = Generations {
            kept_max,
            ..Generations::default()
        };
        Ok(Self {
            generations: Mutex::new(generations),
            hasher: RandomState::new(),
            seed,
            drawn: AtomicU64::new(0),
        })
    }

    pub(super) fn owner(&self, webhook: Uuid, url: &str, login: (&str, &str)) -> Owner {
        Owner {
            webhook,
            configuration: self.hasher.hash_one((url, login)),
        }
    }

    /// The next use of the challenge that is kept.
    pub(super) fn next(&self, owner: Owner) -> Option<Use> {
        self.generations.lock().kept(owner)?.again()
    }

    /// The first use of a challenge just received, which replaces what is kept.
    pub(super) fn begin(&self, owner: Owner, challenge: Challenge) -> Use {
        let mut generations = self.generations.lock();
        // Servers exist that give the same nonce to all who ask in the same second.
        let same = generations
            .kept(owner)
            .filter(|kept| kept.last.challenge.same_nonce(&challenge));
        if let Some(again) = same.and_then(Kept::again) {
            return again;
        }
        let first = self.first(challenge);
        generations.keep(owner, first.clone());
        first
    }

    /// The answer to a use named the nonce to use from now on (RFC 7616 §3.5).
    pub(super) fn renew(&self, owner: Owner, used: &Use, challenge: Challenge) {
        let mut generations = self.generations.lock();
        // Answers overtake each other: a nonce that others follow already is not gone back to.
        let current = generations
            .kept(owner)
            .is_some_and(|kept| kept.last.challenge.same_nonce(&used.challenge));
        if current {
            let unused = Use {
                count: 0,
                ..self.first(challenge)
            };
            generations.keep(owner, unused);
        }
    }

    fn first(&self, challenge: Challenge) -> Use {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        Use {
            challenge: Arc::new(challenge),
            cnonce: cnonce(&self.seed, number).into(),
            count: 1,
        }
    }
}

impl Generations {
    fn kept(&mut self, owner: Owner) -> Option<&mut Kept> {
        if let Some(kept) = self.old.remove(&owner.webhook) {
            self.put(owner.webhook, kept);
        }
        let kept = self.young.get_mut(&owner.webhook)?;
        (kept.configuration == owner.configuration).then_some(kept)
    }

    fn keep(&mut self, owner: Owner, last: Use) {
        self.old.remove(&owner.webhook);
        let configuration = owner.configuration;
        self.put(
            owner.webhook,
            Kept {
                configuration,
                last,
            },
        );
    }

    fn put(&mut self, webhook: Uuid, kept: Kept) {
        if self.young.len() >= self.kept_max.div_ceil(2) && !self.young.contains_key(&webhook) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(webhook, kept);
    }
}

impl Kept {
    /// `None` when it was used as often as can be counted.
    fn again(&mut self) -> Option<Use> {
        self.last.count = self.last.count.checked_add(1)?;
        Some(self.last.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn challenge(nonce: &str) -> Challenge {
        let header = format!("Digest realm=r, nonce={nonce}, qop=auth");
        Challenge::strongest([header.as_bytes()]).unwrap()
    }

    fn owner(challenges: &Challenges, number: u128) -> Owner {
        challenges.owner(Uuid::from_u128(number), "http://x/", ("u", "p"))
    }

    #[test]
    fn uses_are_counted_and_a_changed_configuration_begins_anew() {
        let challenges = Challenges::new().unwrap();
        let ours = owner(&challenges, 1);
        assert_eq!(challenges.next(ours), None);
        let first = challenges.begin(ours, challenge("a"));
        assert_eq!(first.count, 1);
        let second = challenges.next(ours).unwrap();
        assert_eq!((second.count, &second.cnonce), (2, &first.cnonce));
        let webhook = Uuid::from_u128(1);
        for (url, login) in [
            ("http://y/", ("u", "p")),
            ("http://x/", ("v", "p")),
            ("http://x/", ("u", "q")),
            ("http://x/", ("up", "")),
        ] {
            let changed = challenges.owner(webhook, url, login);
            assert_eq!(challenges.next(changed), None, "{url} {login:?}");
        }
        assert_eq!(challenges.next(owner(&challenges, 2)), None);
        // Another nonce, another client nonce.
        let other = challenges.begin(ours, challenge("b"));
        assert_eq!(other.count, 1);
        assert_ne!(other.cnonce, first.cnonce);
        // The same nonce once more is counted on.
        assert_eq!(challenges.begin(ours, challenge("b")).count, 2);
    }

    #[test]
    fn the_next_nonce_replaces_only_the_one_that_was_answered() {
        let challenges = Challenges::new().unwrap();
        let ours = owner(&challenges, 1);
        let first = challenges.begin(ours, challenge("a"));
        challenges.renew(ours, &first, challenge("b"));
        let second = challenges.next(ours).unwrap();
        assert!(second.challenge.same_nonce(&challenge("b")));
        assert_eq!(second.count, 1);
        // A late answer to a use of the first nonce.
        challenges.renew(ours, &first, challenge("c"));
        let third = challenges.next(ours).unwrap();
        assert!(third.challenge.same_nonce(&challenge("b")));
        assert_eq!(third.count, 2);
    }

    #[test]
    fn the_number_kept_is_limited_and_what_is_used_stays() {
        let challenges = Challenges::of(8).unwrap();
        let busy = owner(&challenges, 0);
        challenges.begin(busy, challenge("a"));
        for number in 1..100 {
            challenges.begin(owner(&challenges, number), challenge("a"));
            assert!(challenges.next(busy).is_some(), "{number}");
            let generations = challenges.generations.lock();
            assert!(generations.young.len() + generations.old.len() <= 8);
        }
        assert_eq!(challenges.next(owner(&challenges, 1)), None);
        assert!(challenges.next(owner(&challenges, 99)).is_some());
    }

    #[test]
    fn a_nonce_that_cannot_be_counted_on_is_not_used() {
        let challenges = Challenges::new().unwrap();
        let ours = owner(&challenges, 1);
        challenges.begin(ours, challenge("a"));
        let all = |kept: &mut Kept| kept.last.count = u32::MAX;
        challenges.generations.lock().kept(ours).map(all).unwrap();
        assert_eq!(challenges.next(ours), None);
        // The server may say the same nonce again: there is no better one.
        assert_eq!(challenges.begin(ours, challenge("a")).count, 1);
    }

    #[test]
    fn no_use_is_given_twice_to_threads() {
        let challenges = Challenges::new().unwrap();
        let ours = owner(&challenges, 1);
        challenges.begin(ours, challenge("a"));
        let take = || -> Vec<u32> {
            let uses = (0..500).map(|_| challenges.next(ours).unwrap());
            uses.map(|used| used.count).collect()
        };
        let counts: Vec<u32> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            let joined = threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap());
            joined.collect()
        });
        let distinct: HashSet<_> = counts.iter().collect();
        assert_eq!((distinct.len(), counts.iter().max()), (2000, Some(&2001)));
    }
}
