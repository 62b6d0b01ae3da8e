//! What the tests of the whole need: real Kafka, a receiver that keeps the books, a rig of the whole
//! pipeline, and the delivery contract as a table.

// Test code: a broken expectation should panic, and its progress is printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

pub mod alerts;
pub mod append;
pub mod captured;
pub mod certificates;
pub mod collector;
pub mod contract;
mod debian;
pub mod installation;
pub mod kafka;
pub mod kube;
pub mod mail_server;
pub mod pipeline;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod receiver;
pub mod rig;
pub mod schemathesis;
pub mod sdks;
pub mod sender;
pub mod servers;
pub mod servers_tls;
pub mod simulation;
pub mod sip;
pub mod uncommitted;
