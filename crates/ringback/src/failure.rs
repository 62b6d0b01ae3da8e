//! Why a command ends without success.

use std::fmt;

/// What is printed on standard error, and the exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What was being done, to what, what went wrong, and what to do.
    pub(crate) message: String,
    /// One of the codes below.
    pub(crate) code: u8,
}

/// The answer is no, a check failed, or anything else.
pub(crate) const FAILED: u8 = 1;
/// Wrong usage or configuration (`EX_USAGE` of `sysexits.h`).
pub(crate) const USAGE: u8 = 64;
/// What is needed is not there, or does not answer (`EX_UNAVAILABLE`).
pub(crate) const UNAVAILABLE: u8 = 69;
/// It may work later (`EX_TEMPFAIL`).
pub(crate) const TRY_LATER: u8 = 75;
/// Not with this token (`EX_NOPERM`).
pub(crate) const FORBIDDEN: u8 = 77;

impl Failure {
    /// The command could not do its work.
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            code: FAILED,
        }
    }

    /// The command was called or configured wrongly.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            code: USAGE,
        }
    }

    /// The same with another code.
    pub(crate) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
