//! Every alert on a real fault, seen by a real Prometheus and Alertmanager: `cargo xtask alerts` runs this.
//!
//! In the environment: `RINGBACK`, the program that is tried.

// A tool of the tests: it prints.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringback_tests::alerts;
use tokio::signal::unix::{SignalKind, signal};

/// All of it takes some minutes; what hangs is ended, and everything it started with it.
const MAX: Duration = Duration::from_secs(900);

#[tokio::main]
async fn main() -> ExitCode {
    let began = Instant::now();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut told = signal(SignalKind::terminate()).unwrap();
    // Whatever ends first: the rest is dropped, and what it started ends.
    tokio::select! {
        () = alerts::run() => {}
        () = tokio::time::sleep(MAX) => {
            eprintln!("alerts: not done within {} s", MAX.as_secs());
            return ExitCode::FAILURE;
        }
        _ = told.recv() => return ExitCode::FAILURE,
        _ = tokio::signal::ctrl_c() => return ExitCode::FAILURE,
    }
    println!(
        "figure alerts.seconds {:.0} s",
        began.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}
