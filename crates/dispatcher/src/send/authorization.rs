//! How a request authenticates (contract R3).

use base64::Engine as _;
use http::header::HeaderValue;
use ringback_core::webhook::{Authentication, Webhook};

use super::headers::value;
use super::{Http, Unsendable};

impl Http {
    /// The `Authorization` header (contract R3): RFC 7617 §2, RFC 6750 §2.1. Digest (RFC 7616) needs
    /// the receiver's challenge, and takes its place here.
    pub(super) fn authorization(
        &self,
        webhook: &Webhook,
    ) -> Result<Option<HeaderValue>, Unsendable> {
        let text = match &webhook.authentication {
            Authentication::None => return Ok(None),
            Authentication::Basic { username, password } => {
                let password = self.keys.open(password, webhook.id, "password")?;
                let pair = format!("{username}:{}", password.expose());
                format!(
                    "Basic {}",
                    base64::engine::general_purpose::STANDARD.encode(pair)
                )
            }
            Authentication::Bearer { token } => {
                format!(
                    "Bearer {}",
                    self.keys.open(token, webhook.id, "token")?.expose()
                )
            }
        };
        value(text, "authentication secret").map(Some)
    }
}
