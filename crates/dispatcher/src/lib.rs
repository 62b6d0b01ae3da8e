//! The dispatcher: takes deliveries from the log, sends them, and puts what becomes of them back into
//! the log.
//!
//! ```text
//!  log ─► intake ─► route ─► lanes ─► send ─► settle ─► log
//!           ▲ commit ◄── work (a record and its deliveries) ◄──┘
//! ```
//!
//! **Architecture invariant:** decisions are made in `ringback-core`; this crate carries bytes, and is
//! the only one that sends requests to webhooks. It has no state that a topic cannot rebuild: killed
//! at any moment, another instance goes on from the last commit.

#![forbid(unsafe_code)]

mod attempt;
mod config;
mod dispatcher;
mod intake;
mod lanes;
mod partition;
mod rate;
mod raw;
mod route;
mod send;
mod settle;
mod span;
mod stepped;
mod watch;

pub use config::{Config, RecordHeaders};
pub use dispatcher::{Dispatcher, Environment, StartError};
pub use send::{Exchanged, Http, Sent, Transport, Unsendable};
pub use stepped::Stepped;
