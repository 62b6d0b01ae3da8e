//! When tokens were used last, coarsely: of each token there is one record in a while.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;

/// Version of the records written here.
pub const USE_VERSION: u32 = 1;
/// For so long a use of a token stands for all that follow it.
pub const USE_EVERY: Duration = Duration::from_secs(600);
/// Tokens that are remembered at least; those that may be noted again are forgotten beyond.
const REMEMBERED: usize = 1000;

/// A record of topic `uses`, keyed by the token's id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenUse {
    /// Version of the record.
    pub version: u32,
    /// The token's id.
    pub token: Uuid,
    /// When it was used.
    pub used: Timestamp,
}

/// Which tokens were noted lately, so that a busy one is not noted with each request.
#[derive(Default, Debug)]
pub struct Noted {
    tokens: HashMap<Uuid, Duration>,
    /// How many may be remembered before the old ones are looked for again.
    room: usize,
}

impl Noted {
    /// Whether a use of this token is to be noted now, by a steady clock. Only of tokens that exist, or
    /// anybody could fill the memory.
    pub fn is_due(&mut self, token: Uuid, now: Duration) -> bool {
        let is_old = |noted: &Duration| now.saturating_sub(*noted) >= USE_EVERY;
        if self.tokens.get(&token).is_some_and(|noted| !is_old(noted)) {
            return false;
        }
        if self.tokens.len() >= self.room.max(REMEMBERED) {
            self.tokens.retain(|_, noted| !is_old(noted));
            self.room = self.tokens.len() * 2;
        }
        self.tokens.insert(token, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_noted_once_in_a_while() {
        let mut noted = Noted::default();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let start = Duration::from_secs(5);
        assert!(noted.is_due(one, start));
        assert!(!noted.is_due(one, start));
        assert!(noted.is_due(other, start + Duration::from_secs(1)));
        assert!(!noted.is_due(one, start + USE_EVERY - Duration::from_nanos(1)));
        assert!(noted.is_due(one, start + USE_EVERY));
        assert!(!noted.is_due(one, start + USE_EVERY + Duration::from_secs(1)));
        assert!(!noted.is_due(other, start + USE_EVERY));
    }

    #[test]
    fn those_that_may_be_noted_again_are_forgotten() {
        let mut noted = Noted::default();
        for number in 0..REMEMBERED as u128 {
            assert!(noted.is_due(Uuid::from_u128(number), Duration::ZERO));
        }
        assert!(noted.is_due(Uuid::from_u128(9999), USE_EVERY));
        assert_eq!(noted.tokens.len(), 1);
        assert!(!noted.is_due(Uuid::from_u128(9999), USE_EVERY));
    }
}
