//! `clickstream`: click events from Kafka to ClickHouse, nothing lost, nothing twice.
//!
//! The pipelines are in the crate `flows`; here are the adapters to Kafka and ClickHouse, the command line and the wiring.

// `println!` panics where nobody reads: see `output`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod audit;
mod cli;
mod clickhouse;
mod commands;
mod connect;
mod dashboard;
mod demo;
mod failpoints;
mod http;
mod ingest;
mod kafka;
mod latency_log;
mod log;
mod log_throttle;
mod manifest;
mod metrics;
mod output;
mod percentile;
mod printable;
mod private;
mod produce;
mod rejections;
mod report;
mod secrets;
mod shutdown;
mod status;
mod stuck;
mod table;

use cli::Command;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

/// The exit code of wrong usage.
const USAGE: u8 = 2;

/// What still blocks a thread at the end (a name that is being resolved, a broker that does not answer) ends with the process.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let command = cli::parse().and_then(|command| log::begin(level(&command)).map(|()| command));
    match command {
        Ok(command) => output::end(failpoints::check().and_then(|()| run(command))),
        // Help, or the version.
        Err(text) if !text.use_stderr() => output::end(output::judge(text.print())),
        Err(error) => {
            output::usage(&error);
            ExitCode::from(USAGE)
        }
    }
}

/// How much is logged, if nothing else is asked for. The demo's panel is drawn where the log would be.
fn level(command: &Command) -> &'static str {
    let quiet = matches!(command, Command::Demo(_)) && std::io::stderr().is_terminal();
    if quiet { "error" } else { "info" }
}

fn run(command: Command) -> anyhow::Result<()> {
    // These two have a process to themselves, without a runtime's threads.
    match command {
        Command::Guard { home } => demo::guard::guard(&home),
        Command::Libchdb { home } => demo::guard::serve_libchdb(&home),
        command => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let outcome = runtime.block_on(run_async(command));
            runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
            outcome
        }
    }
}

async fn run_async(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo(args) => commands::demo::run(args).await,
        Command::Dashboard(args) => commands::dashboard::run(args).await,
        Command::Setup(args) => commands::setup::run(args).await,
        Command::Produce(args) => produce::run(args).await,
        Command::Ingest(args) => ingest::run(args).await,
        Command::Report(args) => commands::report::run(&args),
        Command::Audit(args) => commands::audit::run(args).await,
        Command::Rejects(args) => commands::rejects::run(args).await,
        Command::Erase(args) => commands::erase::run(args).await,
        Command::Secrets(args) => commands::secrets::run(&args),
        Command::Health(args) => commands::health::run(args).await,
        Command::Guard { .. } | Command::Libchdb { .. } => unreachable!("these run without a runtime"),
    }
}
