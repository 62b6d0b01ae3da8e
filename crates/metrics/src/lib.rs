//! Disablement (contract R14): reads what became of every attempt, keeps a window per webhook, and
//! gives verdicts that dispatchers obey.
//!
//! ```text
//!  attempts ─► fold ─► window ─► policy ─► health (verdict) ─► dispatchers, admin
//!               ▲        │            └──► events.system (notice) ─► webhooks subscribed to it
//!  windows ─────┴────────┘ snapshots
//! ```
//!
//! **Architecture invariant:** everything is folded from records with the log's own times, and a
//! snapshot says up to which attempt it counts. So a restart or a rebalance counts nothing twice and
//! nothing never, wherever it happens: attempts that a snapshot has are skipped, and positions are
//! committed only after what was counted is in a snapshot.

#![forbid(unsafe_code)]

mod component;
mod config;
mod fold;
mod service;
mod verdict;

pub use component::{Environment, MetricsService, StartError, Stepped};
pub use config::Config;
pub use fold::Fold;
pub use verdict::Verdict;
