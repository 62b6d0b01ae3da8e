//! Installs the SDKs of CloudEvents and Standard Webhooks that tests use, see `ringback_tests::sdks`.
#![allow(clippy::print_stderr, reason = "a command line tool")]

use std::process::ExitCode;

fn main() -> ExitCode {
    match ringback_tests::sdks::prepare() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sdks: {error}");
            ExitCode::FAILURE
        }
    }
}
