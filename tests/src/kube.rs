//! Ringback on a real cluster: installed by its chart, under a steady load whose books are kept, while pods,
//! releases and Kafka come and go. `src/bin/kube.rs` runs it; `cargo xtask kube` starts that.

pub mod cluster;
pub mod load;
pub mod pods;
pub mod refusals;
pub mod releases;
pub mod scaling;

pub use cluster::{Cluster, until};
pub use load::Load;
pub use releases::Release;
