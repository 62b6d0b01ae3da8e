//! The place of disablement (contract R14): folding `attempts` into windows, and verdicts about
//! webhooks. Nothing of it exists yet; dispatchers deliver without verdicts, and no webhook is ever
//! disabled. The topics it will read and write (`health`, `windows`) are in the table already.

#![forbid(unsafe_code)]
