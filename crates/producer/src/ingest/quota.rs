//! How many events a tenant may hand in, so that none takes the room of the others.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use ringback_core::account::throttle::{Allowance, Throttle};
use ringback_core::event::TenantId;

/// Tenants that are remembered at least; those that have rested are forgotten beyond.
const REMEMBERED: usize = 10_000;

/// What is left to each tenant.
pub(super) struct Quota {
    allowance: Option<Allowance>,
    tenants: Mutex<Tenants>,
}

#[derive(Default)]
struct Tenants {
    left: HashMap<TenantId, Throttle>,
    /// How many may be remembered before the rested ones are looked for again.
    room: usize,
}

impl Quota {
    /// So many events per second, and so many at once; 0 per second is no limit.
    pub(super) fn new(rate: u32, burst: u32) -> Self {
        let allowance = (rate > 0).then(|| Allowance {
            burst,
            every: Duration::from_secs(1) / rate,
        });
        Self {
            allowance,
            tenants: Mutex::default(),
        }
    }

    /// Takes one event of a tenant that exists, or says how long to wait. `now` is of a steady clock.
    pub(super) fn take(&self, tenant: &TenantId, now: Duration) -> Result<(), Duration> {
        let Some(allowance) = self.allowance else {
            return Ok(());
        };
        let mut tenants = self.tenants.lock();
        if let Some(left) = tenants.left.get_mut(tenant) {
            return left.take(1, now, allowance);
        }
        if tenants.left.len() >= tenants.room.max(REMEMBERED) {
            tenants.left.retain(|_, left| !left.is_rested(now));
            // Whoever is left is a tenant that has just sent something.
            tenants.room = tenants.left.len() * 2;
        }
        let mut left = Throttle::default();
        let taken = left.take(1, now, allowance);
        tenants.left.insert(tenant.clone(), left);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    #[test]
    fn no_tenant_takes_what_is_anothers() {
        let quota = Quota::new(10, 3);
        let now = Duration::from_secs(50);
        for _ in 0..3 {
            quota.take(&tenant("a"), now).unwrap();
        }
        assert_eq!(
            quota.take(&tenant("a"), now),
            Err(Duration::from_millis(100))
        );
        quota.take(&tenant("b"), now).unwrap();
        quota
            .take(&tenant("a"), now + Duration::from_millis(100))
            .unwrap();
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        let quota = Quota::new(0, 0);
        for _ in 0..1000 {
            quota.take(&tenant("a"), Duration::ZERO).unwrap();
        }
        assert!(quota.tenants.lock().left.is_empty());
    }

    #[test]
    fn those_who_have_rested_are_forgotten() {
        let quota = Quota::new(1, 1);
        for number in 0..REMEMBERED {
            quota
                .take(&tenant(&format!("t{number}")), Duration::ZERO)
                .unwrap();
        }
        let later = Duration::from_secs(1);
        quota.take(&tenant("another"), later).unwrap();
        assert_eq!(quota.tenants.lock().left.len(), 1);
        quota.take(&tenant("another"), later).unwrap_err();
    }
}
