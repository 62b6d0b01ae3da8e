//! Logs, metrics and health, the same for every component.

#![forbid(unsafe_code)]

mod config;
mod health;
mod logging;
mod metrics;
mod server;

pub use config::{Config, Format};
pub use health::{ComponentHealth, Health};
pub use logging::init_logging;
pub use metrics::{Counter, Gauge, Histogram, Metrics};
pub use server::serve;
