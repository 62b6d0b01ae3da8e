//! `ringback`: one binary, every component and tool by argument.

#![forbid(unsafe_code)]

mod canary;
mod cli;
mod component;
mod config;
mod demo;
mod doctor;
mod failure;
mod http;
mod inventory;
mod kafka_metrics;
mod listen;
mod manual;
mod moved;
mod output;
mod relocate;
mod send;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::component::Components;
use crate::config::{Config, ConfigArgs};
use crate::failure::Failure;

/// Deliveries are small allocations in many threads: mimalloc keeps them off a common lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Delivers what happens in a PBX to the webhooks of its tenants.
#[derive(Parser)]
#[command(name = "ringback", version, propagate_version = true, after_help = EXIT)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What scripts go by.
const EXIT: &str = "\
Exit status: 0 done; 1 the answer is no, or a check failed; 64 wrong usage or configuration; 69 what is
needed does not answer; 75 it may work later; 77 not with this token.";

#[derive(Subcommand)]
enum Command {
    /// The whole pipeline in one process, on the local log (or on Kafka, by configuration)
    Up(ConfigArgs),
    /// A tour of about a minute that ends by itself: recorded calls go in, deliveries come out
    Demo(demo::DemoArgs),
    /// Only the ingest of events, against Kafka
    Producer(ConfigArgs),
    /// Only the delivery, against Kafka
    Dispatcher(ConfigArgs),
    /// Only the verdicts on webhooks that disable those which fail, against Kafka
    Metrics(ConfigArgs),
    /// Only the administration, against Kafka; creates missing topics
    Admin(ConfigArgs),
    /// Watches an installation as its customer: sends events and measures how long they take to come
    Canary(ConfigArgs),
    /// Sends events: JSON lines from files or standard input
    Send(send::SendArgs),
    /// A receiver that shows each request, and can misbehave on command
    Listen(listen::ListenArgs),
    /// Checks configuration and topics, and says exactly what differs
    Doctor(doctor::DoctorArgs),
    /// Every metric: name, type, labels, meaning
    MetricsInventory(inventory::InventoryArgs),
    /// Shows the effective configuration as TOML, secrets hidden
    Config(ConfigArgs),
    /// Every key of the configuration: name, default, meaning
    ConfigReference(config::reference::ReferenceArgs),
    /// Tenants
    #[command(subcommand)]
    Tenant(cli::TenantCommand),
    /// Webhooks of a tenant
    #[command(subcommand)]
    Webhook(cli::WebhookCommand),
    /// Tokens for publishing events
    #[command(subcommand)]
    Token(cli::TokenCommand),
    /// Accounts of people, who sign in to the administration
    #[command(subcommand)]
    Account(cli::AccountCommand),
    /// What was sent, and what came back
    #[command(subcommand)]
    Attempts(cli::AttemptsCommand),
    /// Who changed what
    #[command(subcommand)]
    Audit(cli::AuditCommand),
    /// What ended without success, and can be replayed
    #[command(subcommand)]
    Parked(cli::ParkedCommand),
    /// The database that attempts and parked deliveries are shown from
    #[command(subcommand)]
    Projection(cli::ProjectionCommand),
    /// Sends parked deliveries again, as a new run
    Replay(cli::ReplayArgs),
    /// Has what is kept for showing of a subject, or of a tenant, forgotten
    Erase(cli::EraseArgs),
    /// Writes tenants, webhooks and tokens to a file, secrets sealed with a passphrase
    Export(cli::ExportArgs),
    /// Reads such a file into this installation
    Import(cli::ImportArgs),
    /// Replays that run or have run
    #[command(subcommand)]
    Replays(cli::ReplaysCommand),
    /// Prints a script that completes commands and options in a shell
    Completions(manual::CompletionsArgs),
    /// Writes manual pages into a directory
    Man(manual::ManArgs),
    /// Moves an installation from the local log to Kafka, with everything that waits
    Move(relocate::MoveArgs),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are asked for; anything else is wrong usage.
            let code = if error.use_stderr() {
                failure::USAGE
            } else {
                0
            };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::new(format!("starting the runtime: {error}"))),
    };
    let ended = runtime.block_on(run(arguments.command));
    // What still runs has been drained or given up.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(args) => Box::pin(up::run(load(&args)?)).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Producer(args) => alone(&args, Components::PRODUCER).await,
        Command::Dispatcher(args) => alone(&args, Components::DISPATCHER).await,
        Command::Metrics(args) => alone(&args, Components::METRICS).await,
        Command::Admin(args) => alone(&args, Components::ADMIN).await,
        Command::Canary(args) => {
            let config = load(&args).inspect_err(tell)?;
            canary::run(config).await.inspect_err(tell)
        }
        Command::Send(args) => send::run(args).await,
        Command::Listen(args) => listen::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::MetricsInventory(args) => inventory::run(&args),
        Command::Config(args) => {
            out!("{}", Config::load(&args)?);
            Ok(())
        }
        Command::ConfigReference(args) => config::reference::run(&args),
        Command::Tenant(command) => cli::tenant(command).await,
        Command::Webhook(command) => cli::webhook(command).await,
        Command::Token(command) => cli::token(command).await,
        Command::Account(command) => cli::account(command).await,
        Command::Attempts(command) => cli::attempts(command).await,
        Command::Audit(command) => cli::audit(command).await,
        Command::Parked(command) => cli::parked(command).await,
        Command::Projection(command) => cli::projection(command).await,
        Command::Replay(args) => cli::replay(args).await,
        Command::Erase(args) => cli::erase(args).await,
        Command::Replays(command) => cli::replays(command).await,
        Command::Completions(args) => manual::completions::<Arguments>(&args),
        Command::Man(args) => manual::pages::<Arguments>(&args),
        Command::Export(args) => cli::export(args).await,
        Command::Import(args) => cli::import(args).await,
        Command::Move(args) => relocate::run(load(&args.config)?, args.from).await,
    }
}

/// Loads configuration and starts logging as it says.
fn load(args: &ConfigArgs) -> Result<Config, Failure> {
    let config = Config::load(args)?;
    ringback_telemetry::init_logging(&config.telemetry).map_err(Failure::usage)?;
    Ok(config)
}

async fn alone(args: &ConfigArgs, components: Components) -> Result<(), Failure> {
    let config = load(args).inspect_err(tell);
    let running = component::run_until_signal(config?, components, |addresses| {
        tracing::info!(?addresses, "running");
    });
    Box::pin(running).await.inspect_err(tell)
}

fn tell(failure: &Failure) {
    output::last_words(&failure.message);
}

fn fail(failure: &Failure) -> ExitCode {
    output::complain(&failure.message);
    ExitCode::from(failure.code)
}
