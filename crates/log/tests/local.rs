//! The local engine: the conformance suite, and what only it promises.

use ringback_log::conformance;
use ringback_log::local::{LocalLog, LocalOptions};

#[test]
fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::all(|topics| LocalLog::open(dir.path(), topics, LocalOptions::default()).unwrap());
}
