//! How a name becomes addresses: the interface of a resolver, which is the system's, or a test.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

/// A resolver. Clones share it.
#[derive(Clone)]
pub struct Lookup(Arc<dyn Fn(String) -> Looking + Send + Sync>);

/// A lookup under way. The addresses' ports mean nothing.
pub type Looking = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

impl Lookup {
    /// Looks names up with this.
    pub fn new<F>(find: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        Self(Arc::new(move |name| Box::pin(find(name))))
    }

    /// All addresses of a name.
    pub fn find(&self, name: &str) -> Looking {
        (self.0)(name.to_owned())
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_its_name() {
        let lookup = Lookup::new(|_| async { Ok(Vec::new()) });
        assert_eq!(format!("{lookup:?}"), "Lookup");
    }
}
