//! Unpacks the HTTP servers that tests deliver to, see `ringback_tests::servers`.
#![allow(clippy::print_stderr, reason = "a command line tool")]

use std::process::ExitCode;

fn main() -> ExitCode {
    match ringback_tests::servers::prepare() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("servers: {error}");
            ExitCode::FAILURE
        }
    }
}
