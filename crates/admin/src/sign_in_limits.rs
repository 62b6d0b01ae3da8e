//! How often somebody may try to sign in: per login and per address, in memory that does not grow.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;
use ringback_core::account::throttle::{Allowance, Throttle};

use crate::problem::Problem;

/// Guesses of one account's password.
const PER_LOGIN: Allowance = Allowance {
    burst: 10,
    every: Duration::from_secs(10),
};
/// Guesses of one address, whoever's password.
const PER_ADDRESS: Allowance = Allowance {
    burst: 30,
    every: Duration::from_secs(2),
};
/// Limits of each kind. Two logins that share one by chance guess together.
const LIMITS: usize = 4096;

/// What is left to everybody. With success nothing is used up.
pub(crate) struct SignInLimits {
    random: RandomState,
    logins: Vec<Mutex<Throttle>>,
    addresses: Vec<Mutex<Throttle>>,
}

impl Default for SignInLimits {
    fn default() -> Self {
        let limits = || (0..LIMITS).map(|_| Mutex::default()).collect();
        Self {
            random: RandomState::new(),
            logins: limits(),
            addresses: limits(),
        }
    }
}

impl SignInLimits {
    /// A try begins, at this time of a steady clock.
    pub(crate) fn take(
        &self,
        login: Option<&str>,
        address: Option<IpAddr>,
        now: Duration,
    ) -> Result<(), Problem> {
        let address = self.address(address).lock().take(1, now, PER_ADDRESS);
        let login = match login {
            Some(login) => self.login(login).lock().take(1, now, PER_LOGIN),
            None => Ok(()),
        };
        address.and(login).map_err(|wait| {
            let seconds = wait.as_millis().div_ceil(1000);
            let detail = format!("too many tries to sign in; try again in {seconds} s");
            Problem::too_many("too_many_sign_ins", detail, wait)
        })
    }

    /// The try that began had success.
    pub(crate) fn give_back(&self, login: Option<&str>, address: Option<IpAddr>) {
        self.address(address).lock().give_back(1, PER_ADDRESS);
        if let Some(login) = login {
            self.login(login).lock().give_back(1, PER_LOGIN);
        }
    }

    fn login(&self, login: &str) -> &Mutex<Throttle> {
        self.one_of(
            &self.logins,
            self.random.hash_one(login.to_ascii_lowercase()),
        )
    }

    /// One who has an IPv6 address has the other 2^64 of its network as well.
    fn address(&self, address: Option<IpAddr>) -> &Mutex<Throttle> {
        let network = match address {
            Some(IpAddr::V6(address)) => {
                let network = u128::from(address) >> 64 << 64;
                Some(IpAddr::V6(Ipv6Addr::from(network)))
            }
            other => other,
        };
        self.one_of(&self.addresses, self.random.hash_one(network))
    }

    fn one_of<'a>(&self, limits: &'a [Mutex<Throttle>], hash: u64) -> &'a Mutex<Throttle> {
        // LIMITS is far below 2^32, and there are so many.
        let place = usize::try_from(hash % LIMITS as u64).unwrap_or(0);
        &limits[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn v6(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_login_is_tried_so_often_from_wherever() {
        let limits = SignInLimits::default();
        for guess in 0..10 {
            let from = v6(&format!("2001:db8:{guess}::1"));
            limits.take(Some("ann"), from, NOW).unwrap();
        }
        let refused = limits.take(Some("ANN"), v6("2001:db8:99::1"), NOW);
        assert!(refused.unwrap_err().detail().contains("in 10 s"));
        let later = NOW + Duration::from_secs(10);
        limits
            .take(Some("ann"), v6("2001:db8:99::1"), later)
            .unwrap();
    }

    #[test]
    fn an_address_tries_so_often_whomever() {
        let limits = SignInLimits::default();
        for guess in 0..30 {
            let from = v6(&format!("2001:db8::{guess}"));
            limits.take(None, from, NOW).unwrap();
        }
        limits.take(None, v6("2001:db8::99"), NOW).unwrap_err();
        limits.give_back(None, v6("2001:db8::99"));
        limits.take(None, v6("2001:db8::99"), NOW).unwrap();
    }

    #[test]
    fn success_uses_nothing_up() {
        let limits = SignInLimits::default();
        for _ in 0..100 {
            limits.take(Some("ann"), None, NOW).unwrap();
            limits.give_back(Some("ann"), None);
        }
    }
}
