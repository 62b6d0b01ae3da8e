//! Unpacks PostgreSQL, see `ringback_tests::postgres`; once for what the machine lacks, and once whole,
//! for the test of that.
#![allow(clippy::print_stderr, reason = "a command line tool")]

use std::process::ExitCode;

fn main() -> ExitCode {
    let prepared = ringback_tests::postgres::prepare();
    match prepared.and_then(|_| ringback_tests::postgres::unpack()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postgres: {error}");
            ExitCode::FAILURE
        }
    }
}
