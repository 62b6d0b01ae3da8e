//! Logs, metrics, traces and health, the same for every component.

#![forbid(unsafe_code)]

mod config;
mod health;
mod inventory;
mod logging;
mod metrics;
mod server;
pub mod traces;
pub mod waiting;

pub use config::{Config, Format, Traces};
pub use health::{ComponentHealth, Health, Needed, Standing};
pub use inventory::{Described, inventory};
pub use logging::{init_logging, trace_id};
pub use metrics::{Counter, Gauge, Histogram, Metrics};
pub use server::serve;
