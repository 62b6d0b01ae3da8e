//! The domain of Ringback, pure: what an event, a webhook and a delivery are, what the delivery
//! contract says about them, and the interface of the log they travel through.
//!
//! **Architecture invariant:** nothing here does I/O, reads a clock, or knows a runtime. Time is an
//! argument, randomness is an argument, and the log is a trait. That is what lets the same code run
//! in the dispatcher, in property tests and in a simulation.

#![forbid(unsafe_code)]

pub mod account;
pub mod address;
pub mod admission;
pub mod audit;
pub mod canary;
pub mod catalogue;
pub mod clock;
pub mod cloudevent;
pub mod compare_and_set;
pub mod custom_headers;
pub mod digest;
pub mod directory;
pub mod erasure;
pub mod event;
pub mod health;
pub mod invariant;
pub mod lane;
pub mod log;
pub mod lookup;
pub mod mail_address;
pub mod notice;
#[cfg(any(test, feature = "properties"))]
pub mod properties;
pub mod record;
pub mod redaction;
pub mod replay_job;
pub mod schedule;
pub mod secret;
pub mod sendable;
pub mod signature;
pub mod signing;
pub mod target;
pub mod time;
pub mod tls;
pub mod topics;
pub mod trace;
pub mod tracker;
pub mod verdict;
pub mod webhook;
