//! Why a command ends without success.

use std::fmt;

/// What is printed on standard error, and the exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What was being done, to what, what went wrong, and what to do.
    pub(crate) message: String,
    /// 64 for wrong usage or configuration (`EX_USAGE`), 1 for anything else.
    pub(crate) code: u8,
}

impl Failure {
    /// The command could not do its work.
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            code: 1,
        }
    }

    /// The command was called or configured wrongly.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            code: 64,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
