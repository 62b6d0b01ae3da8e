//! What the tests of the whole need: real Kafka, receivers, oracles.

pub mod kafka;
