//! The producer side: events of the PBX go in here, by HTTP or from a program that embeds this crate.
//!
//! An event is accepted when the log has acknowledged it, and only then:
//!
//! ```no_run
//! # async fn example<L: ringback_core::log::Log>(log: L, event: ringback_core::event::Event)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use ringback_producer::Publisher;
//!
//! let publisher = Publisher::start(&log, Default::default())?;
//! let acknowledged = publisher.publish(event).await?;
//! println!("durable at offset {}", acknowledged.offset);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod config;
mod ingest;
pub mod mapping;
mod publisher;
mod raw;

pub use config::{Config, RawConfig};
pub use ingest::{IngestState, StartError, serve};
pub use publisher::{PublishError, Publisher, PublisherOptions};
pub use raw::{RawIntake, RawStartError};
