//! How a request authenticates (contract R3), and what a 401 says about that.

use base64::Engine as _;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use ringback_core::digest::schemes_asked_for;
use ringback_core::verdict::Outcome;
use ringback_core::webhook::{Authentication, PASSWORD, TOKEN, Webhook};
use uuid::Uuid;

use super::headers::value;
use super::post::{Answer, Post};
use super::{Http, Unsendable};

impl Http {
    /// The whole exchange of an attempt: one request, but for Digest. A receiver that refuses the
    /// webhook's authentication is asked once more with that of before, while this is good: it may not
    /// have changed yet.
    pub(super) async fn exchange(
        &self,
        webhook: &Webhook,
        post: Post,
    ) -> Result<Answer, Unsendable> {
        let Some(previous) = webhook.previous_authentication(post.now) else {
            return self
                .authenticated(webhook, &webhook.authentication, post)
                .await;
        };
        let present = self
            .authenticated(webhook, &webhook.authentication, post.clone())
            .await?;
        if present.outcome != Outcome::Status(401) {
            return Ok(present);
        }
        let previous = &previous.authentication;
        let mut earlier = self.authenticated(webhook, previous, post).await?;
        if earlier.outcome == Outcome::Status(401) {
            return Ok(present);
        }
        // Seen in the log of attempts, before the time of grace is over.
        let note = format!(
            "the receiver takes only the earlier authentication ({}), and refuses the present one ({})",
            previous.method(),
            webhook.authentication.method()
        );
        earlier.error = Some(match earlier.error {
            Some(error) => format!("{error}; {note}"),
            None => note,
        });
        Ok(earlier)
    }

    async fn authenticated(
        &self,
        webhook: &Webhook,
        authentication: &Authentication,
        mut post: Post,
    ) -> Result<Answer, Unsendable> {
        if let Authentication::Digest { username, password } = authentication {
            return self
                .post_with_digest(webhook, username, password, post)
                .await;
        }
        if let Some(mut value) = self.authorization(webhook.id, authentication)? {
            value.set_sensitive(true);
            post.headers.insert(AUTHORIZATION, value);
        }
        let mut answer = self.post(&post).await?;
        if answer.outcome == Outcome::Status(401) {
            answer.error = Some(unauthorized(authentication, &answer.headers));
        }
        Ok(answer)
    }

    /// The `Authorization` header (contract R3): RFC 7617 §2, RFC 6750 §2.1. Digest needs the receiver's
    /// challenge, and adds its own, see [`super::digest`].
    fn authorization(
        &self,
        webhook: Uuid,
        authentication: &Authentication,
    ) -> Result<Option<HeaderValue>, Unsendable> {
        let text = match authentication {
            Authentication::None | Authentication::Digest { .. } => return Ok(None),
            Authentication::Basic { username, password } => {
                let password = self.keys.open(password, webhook, PASSWORD)?;
                let pair = format!("{username}:{}", password.expose());
                let pair = base64::engine::general_purpose::STANDARD.encode(pair);
                format!("Basic {pair}")
            }
            Authentication::Bearer { token } => {
                format!("Bearer {}", self.keys.open(token, webhook, TOKEN)?.expose())
            }
        };
        value(text, "authentication secret").map(Some)
    }
}

/// What a 401 means when no challenge is replied to.
fn unauthorized(authentication: &Authentication, headers: &HeaderMap) -> String {
    let asked = headers.get_all(WWW_AUTHENTICATE);
    let asked = schemes_asked_for(asked.iter().map(HeaderValue::as_bytes));
    let (had, method) = match authentication {
        Authentication::None => {
            return match asked.is_empty() {
                true => "the receiver wants credentials, and the webhook has none".to_owned(),
                false => {
                    format!("the receiver wants credentials ({asked}), and the webhook has none")
                }
            };
        }
        Authentication::Basic { .. } => ("Basic", "basic"),
        Authentication::Bearer { .. } => ("Bearer", "bearer"),
        Authentication::Digest { .. } => ("Digest", "digest"),
    };
    let same = |name: &str| name.eq_ignore_ascii_case(method);
    match asked.is_empty() || asked.split(", ").any(same) {
        true => refused(had),
        false => format!("{}; it asks for {asked}", refused(had)),
    }
}

pub(super) fn refused(how: &str) -> String {
    format!("the receiver refused the credentials ({how})")
}
