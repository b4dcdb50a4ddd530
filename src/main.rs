//! `clickstream`: click events from Kafka to ClickHouse, nothing lost, nothing twice.
//!
//! The pipelines are in the crate `flows`; here are the adapters to Kafka and ClickHouse, the command line and the wiring.

mod audit;
mod cli;
mod clickhouse;
mod commands;
mod connect;
mod dashboard;
mod demo;
mod failpoints;
mod http;
mod kafka;
mod latency_log;
mod manifest;
mod metrics;
mod percentile;
mod printable;
mod rejections;
mod report;
mod seat;
mod secrets;
mod seldom;
mod status;
mod stop;
mod stuck;
mod table;

use clap::Parser;
use cli::{Cli, Command};
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The demo's panel is drawn where the log would be.
    let quiet = matches!(cli.command, Command::Demo(_)) && std::io::stderr().is_terminal();
    let level = if quiet { "error" } else { "info" };
    let filter = EnvFilter::try_from_env("CLICKSTREAM_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match failpoints::check().and_then(|()| run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clickstream: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    // These two have a process to themselves, without a runtime's threads.
    match command {
        Command::Guard { program, remove } => demo::guard::guard(&program, remove.as_deref()),
        Command::Libchdb { library, arguments } => demo::guard::serve_libchdb(library, arguments),
        command => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?
            .block_on(run_async(command)),
    }
}

async fn run_async(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo(args) => commands::demo::run(args).await,
        Command::Dashboard(args) => commands::dashboard::run(args).await,
        Command::Setup(args) => commands::setup::run(args).await,
        Command::Produce(args) => commands::produce::run(args).await,
        Command::Ingest(args) => commands::ingest::run(args).await,
        Command::Report(args) => commands::report::run(&args),
        Command::Audit(args) => commands::audit::run(args).await,
        Command::Rejects(args) => commands::rejects::run(args).await,
        Command::Erase(args) => commands::erase::run(args).await,
        Command::Secrets(args) => commands::secrets::run(&args),
        Command::Health(args) => commands::health::run(args).await,
        Command::Guard { .. } | Command::Libchdb { .. } => unreachable!("these run without a runtime"),
    }
}
