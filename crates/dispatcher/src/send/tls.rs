//! Clients of webhooks with a TLS setting of their own: one for each setting, and not too many.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use reqwest::{Certificate, Identity};
use ringback_core::secret::KeyRing;
use ringback_core::tls::{TLS_KEY, Tls};
use ringback_core::webhook::Webhook;
use uuid::Uuid;

use super::Unsendable;
use super::client::{Maker, Pool, Setting};
use super::response::chain;

/// Most settings whose clients are kept; beyond, that goes which was not used for the longest time.
const SETTINGS_MAX: usize = 256;

/// A setting with a key belongs to its webhook: nobody else's requests may travel on a connection that
/// was made with its certificate.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    webhook: Option<Uuid>,
    tls: Tls,
}

/// The clients.
#[derive(Default)]
pub(super) struct Clients {
    kept: Mutex<HashMap<Key, Kept>>,
    uses: AtomicU64,
}

struct Kept {
    pool: Arc<Pool>,
    used: u64,
}

impl Clients {
    /// The pool for a webhook with this setting.
    pub(super) fn pool(
        &self,
        maker: &Maker,
        keys: &KeyRing,
        webhook: &Webhook,
        tls: &Tls,
    ) -> Result<Arc<Pool>, Unsendable> {
        let key = Key {
            webhook: tls.key.is_some().then_some(webhook.id),
            tls: tls.clone(),
        };
        let used = self.uses.fetch_add(1, Ordering::Relaxed);
        if let Some(kept) = self.kept.lock().get_mut(&key) {
            kept.used = used;
            return Ok(kept.pool.clone());
        }
        // Outside of the lock: reading certificates takes its time.
        let setting = setting(keys, webhook, tls)?;
        let pool = Pool::new(maker, setting).map_err(Unsendable::Tls)?;
        let pool = Arc::new(pool);
        let mut kept = self.kept.lock();
        if kept.len() >= SETTINGS_MAX {
            let oldest = kept.iter().min_by_key(|(_, kept)| kept.used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                kept.remove(&oldest);
            }
        }
        let entry = Kept {
            pool: pool.clone(),
            used,
        };
        kept.insert(key, entry);
        Ok(pool)
    }
}

fn setting(keys: &KeyRing, webhook: &Webhook, tls: &Tls) -> Result<Setting, Unsendable> {
    let failed = |what: &str, error: &reqwest::Error| {
        Unsendable::Tls(format!("reading tls.{what}: {}", chain(error)))
    };
    let mut setting = Setting::default();
    if let Some(ca) = &tls.ca {
        setting.authorities =
            Certificate::from_pem_bundle(ca.as_bytes()).map_err(|error| failed("ca", &error))?;
        if setting.authorities.is_empty() {
            // With none of its own it would trust everybody's.
            return Err(Unsendable::Tls("there is no certificate in tls.ca".into()));
        }
    }
    if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
        let key = keys.open(key, webhook.id, TLS_KEY)?;
        let both = format!("{}\n{certificate}", key.expose());
        let identity = Identity::from_pem(both.as_bytes())
            .map_err(|error| failed("certificate and tls.key", &error))?;
        setting.identity = Some(identity);
    }
    Ok(setting)
}
