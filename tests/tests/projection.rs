//! The projection in a PostgreSQL server.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use ringback_admin::projection::conformance;
use ringback_admin::{Engine, Projection, ProjectionConfig, SslMode};
use ringback_tests::certificates::{self, Authority};
use ringback_tests::postgres;

fn config(url: String) -> ProjectionConfig {
    ProjectionConfig {
        engine: Engine::Postgres,
        url: url.into(),
        sslmode: SslMode::Disable,
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

/// What the tests do where no PostgreSQL is installed, done where one is, too.
#[test]
fn a_postgres_of_unpacked_packages_serves_like_an_installed_one() {
    let programs = postgres::unpack().unwrap();
    let folder = programs.folder().to_owned();
    assert!(
        folder
            .components()
            .any(|part| part.as_os_str() == "postgres-unpacked")
    );
    let server = programs.start();
    let config = config(server.database("unpacked"));
    let clock = ringback_log::system_clock();
    let projection = Projection::new(&config, "test", "unused".as_ref(), clock).unwrap();
    assert!(projection.check().unwrap().contains("answers"));
    // Nothing of the machine's is running in its place.
    let running = std::fs::read_link(format!("/proc/{}/exe", server.process())).unwrap();
    assert_eq!(running, folder.canonicalize().unwrap().join("postgres"));
}

#[test]
fn a_postgres_that_is_killed_is_waited_for() {
    let server = Mutex::new(postgres::prepare().unwrap().start());
    let url = server.lock().database("outage");
    let authority = Authority::new("ours");
    server.lock().insist_on_tls(&authority.issue("postgres"));
    let dir = tempfile::tempdir().unwrap();
    let config = ProjectionConfig {
        sslmode: SslMode::VerifyFull,
        ca_file: Some(certificates::write(dir.path(), "ca.pem", authority.pem())),
        ..config(url)
    };
    let (mut end, mut begin) = (|| server.lock().kill(), || server.lock().restart());
    conformance::outage(config, &mut end, &mut begin);
}

#[test]
fn the_way_to_postgres_is_protected_as_configured() {
    let mut server = postgres::prepare().unwrap().start();
    let url = server.database("tls");
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| Some(certificates::write(dir.path(), name, text));
    let check = |url: &str, sslmode: SslMode, ca_file: Option<PathBuf>| {
        let config = ProjectionConfig {
            sslmode,
            ca_file,
            ..config(url.to_owned())
        };
        let clock = ringback_log::system_clock();
        let projection = Projection::new(&config, "test", dir.path(), clock).unwrap();
        projection.check()
    };
    let refused = |url: &str, sslmode, ca_file, words: &[&str]| {
        let error = check(url, sslmode, ca_file).unwrap_err();
        for word in words {
            assert!(error.contains(word), "{word}: {error}");
        }
        assert!(!error.contains("open-sesame"), "{error}");
    };
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let (ours_file, others_file) = (
        file("ours.pem", ours.pem()),
        file("others.pem", others.pem()),
    );
    let (right, wrong) = (|| ours_file.clone(), || others_file.clone());

    // A server that speaks in clear only is not spoken to when TLS is wanted, as it is by default.
    assert_eq!(ProjectionConfig::default().sslmode, SslMode::VerifyFull);
    let advice = "admin.projection.sslmode = \"disable\"";
    let said = ["server does not support TLS", advice];
    refused(&url, SslMode::VerifyFull, right(), &said);
    refused(&url, SslMode::Require, None, &said);
    check(&url, SslMode::Disable, None).unwrap();

    server.insist_on_tls(&ours.issue("postgres"));
    check(&url, SslMode::VerifyFull, right()).unwrap();
    check(&url, SslMode::Require, None).unwrap();
    let said = ["no encryption", "admin.projection.sslmode"];
    refused(&url, SslMode::Disable, None, &said);
    let said = ["UnknownIssuer", "admin.projection.ca_file"];
    refused(&url, SslMode::VerifyFull, wrong(), &said);
    refused(&url, SslMode::VerifyFull, None, &said);
    let missing = dir.path().join("missing.pem");
    let said = [
        "reading admin.projection.ca_file",
        "missing.pem",
        "No such file",
    ];
    refused(&url, SslMode::VerifyFull, Some(missing), &said);
    let said = ["empty.pem", "no certificate in PEM"];
    refused(&url, SslMode::VerifyFull, file("empty.pem", "hello"), &said);

    // One for another name, of the right authority.
    let params = rcgen::CertificateParams::new(["elsewhere.example".to_owned()]).unwrap();
    server.insist_on_tls(&ours.sign(params));
    let said = ["elsewhere.example", "use a name of its certificate"];
    refused(&url, SslMode::VerifyFull, right(), &said);
    check(&url, SslMode::Require, None).unwrap();
}
