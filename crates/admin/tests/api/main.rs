//! The API as a client sees it, over the local engine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod access;
mod accounts;
mod audit;
mod configuration;
mod document;
mod erasures;
mod full_disk;
mod notify;
mod projection;
mod reading;
mod redaction;
mod replays;
mod replicas;
mod rig;
mod rotation;
mod secrets;
mod sessions;
mod signing;
mod targets;
mod uses;
