//! The projection in a PostgreSQL server.

use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use ringback_admin::projection::conformance;
use ringback_admin::{Engine, ProjectionConfig};
use ringback_tests::postgres;

fn config(url: String) -> ProjectionConfig {
    ProjectionConfig {
        engine: Engine::Postgres,
        url: url.into(),
        ..ProjectionConfig::default()
    }
}

#[test]
fn postgres_conforms() {
    let server = postgres::prepare().unwrap().start();
    let count = AtomicU32::new(0);
    conformance::all(&|| {
        let name = format!("test_{}", count.fetch_add(1, Ordering::Relaxed));
        config(server.database(&name))
    });
}

#[test]
fn a_postgres_that_is_killed_is_waited_for() {
    let server = Mutex::new(postgres::prepare().unwrap().start());
    let url = server.lock().database("outage");
    let (mut end, mut begin) = (|| server.lock().kill(), || server.lock().restart());
    conformance::outage(config(url), &mut end, &mut begin);
}
