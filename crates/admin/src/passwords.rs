//! Hashing of passwords: slow on purpose, so off the runtime, and only a few at a time.

use std::sync::{Arc, OnceLock};

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Params, Version};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringback_core::secret::Secret;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::authentication::fill_random;
use crate::problem::Problem;

/// What OWASP recommends for Argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Hashes at a time: so much memory and so many cores at most.
const AT_ONCE: usize = 2;
/// Hashes at a time and in line; more are refused, rather than answered when nobody waits any more.
const IN_LINE: usize = 32;
const SALT_BYTES: usize = 16;
/// Of passwords that we make: 120 bits.
const MADE_BYTES: usize = 15;

/// Makes and checks hashes.
pub(crate) struct Passwords {
    line: Arc<Semaphore>,
    room: Arc<Semaphore>,
    /// Checked for logins that do not exist, so that they take as long.
    nobodys: Arc<OnceLock<String>>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            line: Arc::new(Semaphore::new(IN_LINE)),
            room: Arc::new(Semaphore::new(AT_ONCE)),
            nobodys: Arc::default(),
        }
    }
}

impl Passwords {
    /// The hash of a new password, as a PHC string.
    pub(crate) async fn hash(&self, password: Secret) -> Result<String, Problem> {
        self.working(move || hash(&password)).await
    }

    /// Whether this is the password with this hash. Without a hash it is not, and that takes as long.
    pub(crate) async fn verify(
        &self,
        password: Secret,
        expected: Option<String>,
    ) -> Result<bool, Problem> {
        let nobodys = self.nobodys.clone();
        self.working(move || {
            let known = expected.is_some();
            let expected = match (expected, nobodys.get()) {
                (Some(expected), _) => expected,
                (None, Some(nobodys)) => nobodys.clone(),
                (None, None) => {
                    let made = hash(&Secret::new("nobody's password"))?;
                    nobodys.get_or_init(|| made).clone()
                }
            };
            let parsed = PasswordHash::new(&expected).map_err(|error| failed(&error))?;
            let verified = hasher()?.verify_password(password.expose().as_bytes(), &parsed);
            Ok(known && verified.is_ok())
        })
        .await
    }

    /// Takes its turn on a thread for blocking work, to the end even if nobody waits any more.
    async fn working<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<R, Problem> + Send + 'static,
    ) -> Result<R, Problem> {
        let permits = self.permits().await?;
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permits);
            result
        })
        .await
        .map_err(|error| failed(&error))?
    }

    async fn permits(&self) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), Problem> {
        let line = self.line.clone().try_acquire_owned().map_err(|_| {
            let detail = "too many passwords are being checked at the moment; try again";
            Problem::unavailable("busy", detail)
        })?;
        let room = self.room.clone().acquire_owned().await;
        Ok((line, room.map_err(|error| failed(&error))?))
    }
}

/// Whether a foreign hash can be checked here, and takes no more of us than a few of our own.
pub(crate) fn is_usable(hash: &str) -> bool {
    let usable = |hash: &PasswordHash<'_>| {
        let params = Params::try_from(hash).ok()?;
        let (memory, passes) = (params.m_cost(), params.t_cost());
        let bounded = memory <= 4 * MEMORY_KIB && passes <= 4 * PASSES && params.p_cost() <= 4;
        Some(bounded && hash.algorithm == ARGON2ID_IDENT && hash.hash.is_some())
    };
    PasswordHash::new(hash).is_ok_and(|hash| usable(&hash) == Some(true))
}

/// A password that nobody can guess, to be shown once.
pub(crate) fn make() -> Result<Secret, Problem> {
    let mut random = [0; MADE_BYTES];
    fill_random(&mut random)?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(random)))
}

fn hasher() -> Result<Argon2<'static>, Problem> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| failed(&error))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &Secret) -> Result<String, Problem> {
    let mut salt = [0; SALT_BYTES];
    fill_random(&mut salt)?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| failed(&error))?;
    let hash = hasher()?.hash_password(password.expose().as_bytes(), &salt);
    Ok(hash.map_err(|error| failed(&error))?.to_string())
}

fn failed(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "a password could not be hashed or checked");
    let detail = "the password could not be checked; Ringback's log says more";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_verifies() {
        let passwords = Passwords::default();
        let hash = passwords
            .hash(Secret::new("a long password"))
            .await
            .unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        let verify = async |password: &str, hash: Option<&String>| {
            let password = Secret::new(password);
            passwords.verify(password, hash.cloned()).await.unwrap()
        };
        assert!(verify("a long password", Some(&hash)).await);
        assert!(!verify("a long passwore", Some(&hash)).await);
        assert!(!verify("nobody's password", None).await);
        let again = passwords
            .hash(Secret::new("a long password"))
            .await
            .unwrap();
        assert_ne!(hash, again, "the salt is fresh");
    }

    #[test]
    fn foreign_hashes_are_bounded() {
        let hash = hash(&Secret::new("a long password")).unwrap();
        assert!(is_usable(&hash));
        for (ours, theirs) in [
            ("argon2id", "argon2i"),
            ("m=19456", "m=4000000"),
            ("t=2", "t=1000"),
            ("p=1", "p=64"),
            ("m=19456,", ""),
        ] {
            // Without a parameter its default holds, which is as much.
            let usable = theirs.is_empty();
            assert_eq!(is_usable(&hash.replace(ours, theirs)), usable, "{theirs}");
        }
        let unfinished = hash.rsplit_once('$').unwrap().0;
        for wrong in ["", "$argon2id$", unfinished] {
            assert!(!is_usable(wrong), "{wrong}");
        }
    }

    /// Who does not get a place is told so at once.
    #[tokio::test]
    async fn the_line_is_bounded() {
        let passwords = Passwords::default();
        let _room = passwords.room.clone().acquire_many_owned(2).await.unwrap();
        let asking = || passwords.verify(Secret::new("x"), None);
        let mut waiting: Vec<_> = (0..IN_LINE).map(|_| Box::pin(asking())).collect();
        for asked in &mut waiting {
            let polled = futures_util::poll!(asked);
            assert!(polled.is_pending());
        }
        let refused = asking().await.unwrap_err();
        assert!(refused.detail().contains("try again"));
    }

    #[test]
    fn made_passwords_are_long_and_different() {
        let (one, other) = (make().unwrap(), make().unwrap());
        assert_eq!(one.expose().len(), 20);
        assert_ne!(one, other);
    }
}
