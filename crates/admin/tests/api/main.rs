//! The API as a client sees it, over the local engine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod access;
mod configuration;
mod projection;
mod reading;
mod replays;
mod rig;
mod rotation;
mod secrets;
mod signing;
mod targets;
