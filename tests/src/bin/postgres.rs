//! Unpacks PostgreSQL, see `ringback_tests::postgres`.
#![allow(clippy::print_stderr, reason = "a command line tool")]

use std::process::ExitCode;

fn main() -> ExitCode {
    match ringback_tests::postgres::prepare() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postgres: {error}");
            ExitCode::FAILURE
        }
    }
}
