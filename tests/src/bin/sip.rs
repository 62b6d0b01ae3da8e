//! Installs Kamailio and sipp, which make the live calls of tests, see `ringback_tests::sip`.
#![allow(clippy::print_stderr, reason = "a command line tool")]

use std::process::ExitCode;

fn main() -> ExitCode {
    match ringback_tests::sip::prepare() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sip: {error}");
            ExitCode::FAILURE
        }
    }
}
