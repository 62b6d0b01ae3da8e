//! Kafka for tests and people: `prepare` fetches what is needed, `run` runs a broker.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ringback_tests::kafka::{self, KafkaOptions, KafkaServer};

const USAGE: &str = "usage:
  kafka prepare               installs Java and Maven where possible, and fetches Kafka
  kafka run [--port N] [--perf] [--dir D]
                              runs a broker on 127.0.0.1:N (default 9092) until Ctrl-C;
                              its data stays in D (default target/kafka-run-N)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.split_first() {
        Some((&"prepare", [])) => prepare(),
        Some((&"run", rest)) => run(rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kafka: {error}");
            ExitCode::FAILURE
        }
    }
}

fn prepare() -> kafka::Result<()> {
    kafka::install_prerequisites()?;
    let libs = kafka::prepare()?;
    println!("Kafka {} is in {}", kafka::VERSION, libs.display());
    Ok(())
}

fn run(mut args: &[&str]) -> kafka::Result<()> {
    let (mut port, mut perf, mut dir) = (9092, false, None);
    loop {
        args = match args {
            [] => break,
            ["--perf", rest @ ..] => {
                perf = true;
                rest
            }
            ["--dir", path, rest @ ..] => {
                dir = Some(PathBuf::from(path));
                rest
            }
            ["--port", number, rest @ ..] => {
                let bad = |_| format!("{number} is not a port");
                port = number.parse().map_err(bad)?;
                rest
            }
            [other, ..] => return Err(format!("unknown argument {other}\n{USAGE}")),
        };
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let options = KafkaOptions {
        port: Some(port),
        perf,
        dir: Some(dir.unwrap_or_else(|| target.join(format!("kafka-run-{port}")))),
        ..KafkaOptions::default()
    };
    let mut server = KafkaServer::start_with(&options)?;
    println!(
        "Kafka {} is on {}; Ctrl-C ends it",
        kafka::VERSION,
        server.bootstrap()
    );
    server.wait()
}
