//! Requests that authenticate by Digest (RFC 7616): with the challenge that is kept, and once more when
//! the receiver gives another.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use ringback_core::digest::{Challenge, Login};
use ringback_core::secret::Sealed;
use ringback_core::verdict::Outcome;
use ringback_core::webhook::{PASSWORD, Webhook};

use super::authorization::refused;
use super::challenges::Use;
use super::post::{Answer, Post};
use super::{Http, Unsendable};

const AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("authentication-info");

impl Http {
    /// One attempt: one request while the receiver's nonce lasts; a second with the challenge of its
    /// 401; a third only if it calls the nonce of the second stale.
    pub(super) async fn post_with_digest(
        &self,
        webhook: &Webhook,
        username: &str,
        password: &Sealed,
        mut post: Post,
    ) -> Result<Answer, Unsendable> {
        let password = self.keys.open(password, webhook.id, PASSWORD)?;
        let login = Login {
            username,
            password: password.expose(),
        };
        let owner =
            self.challenges
                .owner(webhook.id, post.url.as_str(), (username, login.password));
        let mut used = self.challenges.next(owner);
        let mut turn = 1;
        loop {
            if let Some(used) = &used {
                let value = authorization(used, login, &post)?;
                post.headers.insert(AUTHORIZATION, value);
            }
            let mut answer = self.post(&post).await?;
            if answer.outcome != Outcome::Status(401) {
                if let Some(used) = &used
                    && let Some(next) = next_challenge(&answer.headers, used)
                {
                    self.challenges.renew(owner, used, next);
                }
                return Ok(answer);
            }
            let challenge = match Challenge::strongest(challenges(&answer.headers)) {
                Ok(challenge) => challenge,
                Err(why) => {
                    answer.error = Some(format!("the receiver wants credentials, but {why}"));
                    return Ok(answer);
                }
            };
            // The first 401 is either without credentials, or because the nonce that was kept is no
            // longer good, which not every receiver calls stale.
            if turn > 1 && !(turn == 2 && challenge.is_stale()) {
                answer.error = Some(match challenge.is_stale() {
                    true => {
                        "the receiver calls every nonce stale that it gives (Digest)".to_owned()
                    }
                    false => refused(&format!("Digest, {}", challenge.algorithm())),
                });
                return Ok(answer);
            }
            used = Some(self.challenges.begin(owner, challenge));
            turn += 1;
        }
    }
}

fn authorization(used: &Use, login: Login<'_>, post: &Post) -> Result<HeaderValue, Unsendable> {
    let target = match post.url.query() {
        Some(query) => format!("{}?{query}", post.url.path()),
        None => post.url.path().to_owned(),
    };
    let request = ringback_core::digest::Request {
        method: "POST",
        uri: &target,
        body: &post.body,
    };
    let reply = used
        .challenge
        .reply(login, request, &used.cnonce, used.count);
    let mut value =
        HeaderValue::try_from(reply).map_err(|_| Unsendable::Header("reply to a challenge"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn challenges(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .map(HeaderValue::as_bytes)
}

fn next_challenge(headers: &HeaderMap, used: &Use) -> Option<Challenge> {
    let info = headers.get(AUTHENTICATION_INFO)?;
    used.challenge.next(info.as_bytes())
}
