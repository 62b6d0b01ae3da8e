//! Administration: the REST API for tenants, webhooks, tokens and accounts, for what was attempted and what is
//! parked, and for replays.
//!
//! **Architecture invariant:** it keeps nothing that the log does not have. Configuration is written by
//! compare-and-set and read from a [`LiveDirectory`](ringback_log::directory::LiveDirectory); attempts
//! and parked deliveries are read from a [`Projection`] of the log, or from the log itself.

#![forbid(unsafe_code)]

mod access;
mod accounts;
mod asker;
mod attempts;
mod audit;
mod authentication;
mod carried_account;
mod certificates;
mod client;
mod config;
mod cookie;
mod erasures;
mod events;
mod export;
mod health;
mod import;
pub mod mail;
mod names;
mod notify;
mod openapi;
mod operations;
mod page;
mod parked;
mod passwords;
mod portal;
mod previous_authentication;
mod problem;
pub mod projection;
mod projection_status;
mod reading;
mod replay;
mod replay_runner;
mod replay_work;
mod request;
mod schema;
mod sealed;
mod server;
mod sessions;
mod sign_in_limits;
mod signing;
mod source;
mod state;
mod stats;
mod store;
mod stream;
mod tail;
mod tenants;
mod test_event;
mod tls_form;
mod tokens;
mod webhook_form;
mod webhook_secret;
mod webhooks;

pub use access::Needs;
pub use config::{Config, OperatorToken, SessionConfig};
pub use openapi::openapi;
pub use projection::{Engine, Projecting, Projection, ProjectionConfig, SslMode};
pub use server::{Route, router, routes, serve};
pub use state::{AdminState, ROLES, StartError};
