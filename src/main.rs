//! `clickstream`: click events from Kafka to ClickHouse, nothing lost, nothing twice.
//!
//! The pipelines are in the crate `flows`; here are the adapters to Kafka and ClickHouse, the command line and the wiring.

mod cli;
mod clickhouse;
mod commands;
mod connect;
mod http;
mod kafka;
mod latency_log;
mod manifest;
mod metrics;
mod seldom;
mod status;
mod stop;
mod table;

use clap::Parser;
use cli::{Cli, Command};
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("CLICKSTREAM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let outcome = match cli.command {
        Command::Setup(args) => commands::setup::run(args).await,
        Command::Produce(args) => commands::produce::run(args).await,
        Command::Ingest(args) => commands::ingest::run(args).await,
        Command::Report(args) => commands::report::run(&args),
        Command::Audit(args) => commands::audit::run(args).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clickstream: {error:#}");
            ExitCode::FAILURE
        }
    }
}
