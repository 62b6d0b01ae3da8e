//! What our HTTP servers have in common: connections that are bounded in number and may not dawdle, and
//! TLS whose certificate can be replaced while they run.

#![forbid(unsafe_code)]

mod certificate;
mod connections;
mod tls;

pub use certificate::Unusable;
pub use connections::{Serving, serve};
pub use tls::{Tls, TlsConfig};
