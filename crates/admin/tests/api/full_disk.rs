//! The projection on a disk that may not be written to, and on one that is full: a real file system of a
//! megabyte, which a process of its own mounts where nobody else sees it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringback_telemetry::Counter;
use serde_json::json;

use crate::projection::{CDR, out_of_order};
use crate::reading::{attempt, events};
use crate::rig::Rig;

/// Says to the process of its own where its file system is.
const MOUNT: &str = "RINGBACK_TEST_MOUNT";
/// As root as it is, or as root of a name space that every user may make, if the system lets him.
const WAYS: [&[&str]; 2] = [&["--mount"], &["--map-root-user", "--mount"]];

#[test]
fn a_disk_that_is_full_or_read_only_is_told_once_and_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let possible = |way: &&&[&str]| {
        let mut tried = Command::new("unshare");
        tried.args(**way).args(["mount", "-t", "tmpfs", "none"]);
        let tried = tried.arg(dir.path()).output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let Some(way) = WAYS.iter().find(possible) else {
        eprintln!("not run: nobody here may mount a file system for himself");
        return;
    };
    let test = "full_disk::within_a_mount";
    let done = Command::new("unshare")
        .args(*way)
        .args([
            "sh",
            "-ec",
            "mount -t tmpfs -o size=1m,ro none \"$0\"; exec \"$@\"",
        ])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(MOUNT, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn count(&self, what: &str) -> usize {
        let lines = self.0.lock();
        let text = String::from_utf8_lossy(&lines);
        text.lines().filter(|line| line.contains(what)).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the test above runs it in a process of its own"]
async fn within_a_mount() {
    let Some(mount) = std::env::var_os(MOUNT) else {
        return;
    };
    let mount = Path::new(&mount);
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let mut rig = Rig::new().await;
    let cdr = rig.acme().await["id"].as_str().unwrap().to_owned();
    attempt(&rig, &cdr, 1, 200);

    rig.project(mount);
    let status = rig.until("failing").await;
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("Read-only file system"), "{error}");
    assert!(error.contains("may be written to"), "{error}");
    out_of_order(&rig).await;
    let mut remount = Command::new("mount");
    let remounted = remount.args(["-o", "remount,rw"]).arg(mount).status();
    assert!(remounted.unwrap().success());
    rig.until("projecting").await;
    let path = format!("{CDR}/attempts?limit=200");
    let shown = rig.get(&path).await;
    assert_eq!(events(&shown.body, "attempts"), [1]);
    assert_eq!(shown.body["source"], "projection");

    // Somebody else fills it to the last byte.
    let ballast = mount.join("ballast");
    let full = fs::write(&ballast, vec![0; 2 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let mut count = 1;
    while count < 150 {
        count += 1;
        attempt(&rig, &cdr, count, 503);
    }
    let status = rig.until("failing").await;
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("full") && !error.contains('\n'), "{error}");
    out_of_order(&rig).await;
    // However often it is tried, it is said once, when it begins.
    let tried = || rig.metrics.count(Counter::ProjectionErrors, &["database"]);
    let before = tried();
    while tried() == before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fs::remove_file(&ballast).unwrap();
    rig.until("projecting").await;
    let shown = rig.get(&path).await;
    let expected: Vec<u128> = (1..=count).rev().collect();
    assert_eq!(json!(events(&shown.body, "attempts")), json!(expected));
    assert_eq!(lines.count("the projection fails"), 2);
    assert_eq!(lines.count("the projection works again"), 2);
    assert_eq!(lines.count(" ERROR "), 2);
}
