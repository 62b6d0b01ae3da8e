//! Unpacks Prometheus and prints where its programs are, see `ringback_tests::prometheus`.
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a command line tool"
)]

use std::process::ExitCode;

fn main() -> ExitCode {
    match ringback_tests::prometheus::prepare() {
        Ok(dir) => {
            println!("{}", dir.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("prometheus: {error}");
            ExitCode::FAILURE
        }
    }
}
