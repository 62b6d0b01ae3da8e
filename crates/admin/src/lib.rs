//! Administration: the REST API for tenants, webhooks and tokens, for what was attempted and what is
//! parked, and for replays.
//!
//! **Architecture invariant:** it keeps nothing that the log does not have. Configuration is written by
//! compare-and-set and read from a [`LiveDirectory`](ringback_log::directory::LiveDirectory); attempts
//! and parked deliveries are read from a [`Projection`] of the log, or from the log itself.

#![forbid(unsafe_code)]

mod access;
mod attempts;
mod authentication;
mod certificates;
mod config;
mod events;
mod export;
mod import;
mod names;
mod parked;
mod previous_authentication;
mod problem;
pub mod projection;
mod projection_status;
mod reading;
mod replay;
mod request;
mod sealed;
mod server;
mod signing;
mod source;
mod state;
mod stats;
mod store;
mod tenants;
mod test_event;
mod tls_form;
mod tokens;
mod webhook_form;
mod webhook_secret;
mod webhooks;

pub use access::{Needs, Right};
pub use config::{Config, OperatorToken};
pub use projection::{Engine, Projecting, Projection, ProjectionConfig};
pub use server::{Route, router, routes, serve};
pub use state::{AdminState, StartError};
