//! Mail about webhooks that are failing, disabled or recovered.
//!
//! One member of the group of all administrations reads the notices, gathers them, and sends each
//! address one mail about all that concerns it. The group's commit says who has got it already, so that
//! neither a restart nor another administration sends it again.

mod batch;
mod config;
mod courier;
mod letter;
mod post;

pub use config::{MailConfig, MailTls};
pub use courier::{Courier, MailError};
pub use post::check;
