//! The signatures of a request (Standard Webhooks), over exactly the bytes that are sent.

use std::collections::HashMap;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use ringback_core::secret::KeyRing;
use ringback_core::signature::Signer;
use ringback_core::signing::{FIELD, SigningKey, in_force};
use ringback_core::time::Timestamp;
use ringback_core::webhook::Webhook;
use uuid::Uuid;

use super::headers::value;
use super::{Http, Unsendable};

/// The header of the signatures.
pub(super) const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Webhooks whose keys are kept open. Beyond, all are opened again as they are needed: that costs
/// microseconds, a map without end would cost the process.
const OPENED_MAX: usize = 16_384;

/// Opened keys by webhook. A rotation, or the end of a key, is another list of keys and opens anew.
#[derive(Default)]
pub(super) struct Signers(Mutex<HashMap<Uuid, Arc<Opened>>>);

struct Opened {
    keys: Vec<SigningKey>,
    signers: Vec<Signer>,
}

impl Signers {
    /// The keys of a webhook that sign at this time, opened.
    fn of(
        &self,
        webhook: &Webhook,
        ring: &KeyRing,
        now: Timestamp,
    ) -> Result<Arc<Opened>, Unsendable> {
        let keys = in_force(&webhook.signing, now);
        if let Some(opened) = self.0.lock().get(&webhook.id)
            && opened.keys.iter().eq(keys.clone())
        {
            return Ok(opened.clone());
        }
        let signers = keys.clone().map(|key| {
            let secret = ring.open(&key.secret, webhook.id, FIELD)?;
            Signer::read(&secret).map_err(|error| Unsendable::SigningKey(webhook.id, error))
        });
        let opened = Arc::new(Opened {
            signers: signers.collect::<Result<_, Unsendable>>()?,
            keys: keys.cloned().collect(),
        });
        let mut kept = self.0.lock();
        if kept.len() >= OPENED_MAX {
            kept.clear();
        }
        kept.insert(webhook.id, opened.clone());
        Ok(opened)
    }
}

impl Http {
    /// The value of `webhook-signature` over this body, a signature for each key; none for a webhook
    /// without keys.
    pub(super) fn signature(
        &self,
        webhook: &Webhook,
        event: Uuid,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Option<HeaderValue>, Unsendable> {
        if webhook.signing.is_empty() {
            return Ok(None);
        }
        let opened = self.signers.of(webhook, &self.keys, now)?;
        let id = event.as_hyphenated().to_string();
        let signatures = opened
            .signers
            .iter()
            .map(|signer| signer.sign(&id, now.as_secs(), body))
            .collect::<Vec<_>>()
            .join(" ");
        match signatures.is_empty() {
            true => Ok(None),
            false => value(signatures, "signature").map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringback_core::secret::{Secret, SecretError};
    use ringback_core::signature::{Kind, generate};
    use ringback_core::signing::rotated;

    use super::*;

    fn ring() -> KeyRing {
        KeyRing::new("k", [("k", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")]).unwrap()
    }

    fn webhook(id: u128) -> Webhook {
        serde_json::from_value(serde_json::json!({
            "version": 1, "id": Uuid::from_u128(id), "tenant": "acme", "name": "cdr",
            "subscription": ["cdr.*"], "url": "https://crm.example.com/",
            "authentication": { "method": "none" }, "enabled": true, "generation": 0,
            "created": "2026-11-21T00:00:00Z", "updated": "2026-11-21T00:00:00Z",
        }))
        .unwrap()
    }

    fn key(webhook: &Webhook, secret: &Secret, created: Timestamp) -> SigningKey {
        SigningKey {
            kind: Signer::read(secret).map_or(Kind::Hmac, |signer| signer.kind()),
            secret: ring().seal(secret, webhook.id, FIELD, [9; 24]).unwrap(),
            created,
            until: None,
        }
    }

    /// Keys are opened once, again after a rotation, and gone when their time is over.
    #[test]
    fn keys_are_kept_open_until_others_sign() {
        let (signers, ring, now) = (Signers::default(), ring(), webhook(1).created);
        let mut webhook = webhook(1);
        let hour = Duration::from_secs(3600);
        for (kind, random) in [(Kind::Hmac, 1), (Kind::Hmac, 2), (Kind::Ed25519, 3)] {
            let key = key(&webhook, &generate(kind, [random; 32]), now);
            webhook.signing = rotated(&webhook.signing, key, hour, now).unwrap();
        }
        let of = |now| signers.of(&webhook, &ring, now).unwrap();
        let first = of(now);
        assert_eq!(first.signers.len(), 3);
        assert!(Arc::ptr_eq(&first, &of(now + Duration::from_secs(3599))));
        let later = of(now + hour);
        assert_eq!(later.signers.len(), 2);
        assert!(Arc::ptr_eq(&later, &of(now + hour)));
    }

    /// A fault of ours: nothing is sent unsigned for it.
    #[test]
    fn what_does_not_open_is_an_error_without_the_key() {
        let signers = Signers::default();
        let mut webhook = webhook(1);
        let now = webhook.created;
        webhook.signing = vec![key(&webhook, &Secret::new("whsec_hunter2"), now)];
        let error = signers.of(&webhook, &ring(), now).err().unwrap();
        assert!(matches!(error, Unsendable::SigningKey(..)), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        webhook.id = Uuid::from_u128(2);
        let error = signers.of(&webhook, &ring(), now).err().unwrap();
        let foreign = matches!(
            error,
            Unsendable::Secret(SecretError::DoesNotOpen { field: FIELD, .. })
        );
        assert!(foreign, "{error}");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (signers, ring) = (Signers::default(), ring());
        for id in 0..OPENED_MAX as u128 + 10 {
            let webhook = webhook(id);
            signers.of(&webhook, &ring, webhook.created).unwrap();
        }
        assert_eq!(signers.0.lock().len(), 10);
    }
}
