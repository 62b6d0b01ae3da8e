//! Installs schemathesis, which tests use, see `ringback_tests::schemathesis`.
#![allow(clippy::print_stderr, reason = "a command line tool")]

use std::process::ExitCode;

fn main() -> ExitCode {
    match ringback_tests::schemathesis::prepare() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("schemathesis: {error}");
            ExitCode::FAILURE
        }
    }
}
