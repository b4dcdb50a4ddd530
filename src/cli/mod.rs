//! The command line: every option is a flag and an environment variable.

mod audit;
mod bench;
mod check;
mod clickhouse;
mod completions;
mod dashboard;
mod demo;
mod environment;
mod erase;
mod format;
mod health;
mod hosts;
mod ingest;
mod kafka;
mod log;
mod man;
mod own_table;
mod pipeline;
mod produce;
mod rejects;
mod report;
mod schema;
mod secrets;
mod settings;
mod setup;
mod values;
mod version;

use clickhouse::ClickHouseArgs;
use format::Format;
use hosts::HostArgs;
use kafka::KafkaArgs;
use log::{LogArgs, LogFormat};
use own_table::{TableArgs, TimeArgs};
use pipeline::RunArgs;

use crate::demo::guard;
use crate::{failpoints, output};
use clap::{Parser, Subcommand};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The exit code of wrong usage.
const USAGE: u8 = 2;

/// The time for blocked threads to end: a name resolution, or a request to a silent broker, ends with the process.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Click events from Kafka to ClickHouse: nothing lost, nothing twice, in less than five seconds.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole pipeline on this machine, with its own broker, ClickHouse and live dashboard; no set-up
    Demo(demo::DemoArgs),
    /// Create the topic and the tables, if they are missing
    Setup(setup::SetupArgs),
    /// Draft a table of your own for a topic, from a sample of its messages
    Schema(schema::SchemaArgs),
    /// Produce simulated shop traffic
    Produce(produce::ProduceArgs),
    /// Check a set-up before `ingest` is started: services, rights, topic, tables, and the newest messages. Nothing is written
    Check(check::CheckArgs),
    /// Ingest the topic's events into ClickHouse, each exactly once
    Ingest(ingest::IngestArgs),
    /// Serve the dashboards as live web pages, without Grafana
    Dashboard(dashboard::DashboardArgs),
    /// Report on latency logs
    Report(report::ReportArgs),
    /// Measure throughput and costs on this machine: drain a backlog into fresh tables, beside two ceilings
    Bench(bench::BenchArgs),
    /// For `bench`: one measured step
    #[command(hide = true)]
    BenchStep,
    /// For `demo`: run the ClickHouse of its directory until standard input ends
    #[command(hide = true)]
    Guard { home: PathBuf },
    /// For `demo`: run libchdb as a server
    #[command(hide = true)]
    Libchdb { home: PathBuf },
    /// Prove, offset by offset, that the tables hold the topic's messages
    Audit(audit::AuditArgs),
    /// List rejected messages, and re-publish them after a fix
    Rejects(rejects::RejectsArgs),
    /// Delete the rows of a user, or rows that meet a condition, for good: no audit or ingester restores them
    Erase(erase::EraseArgs),
    /// Create the passwords of an installation and ClickHouse's users file, if they are missing
    Secrets(secrets::SecretsArgs),
    /// Check the health of a running `produce` or `ingest`; exit code 1 if it is not healthy
    Health(health::HealthArgs),
    /// Print the completions of a shell
    Completions(completions::CompletionsArgs),
    /// Write the manual pages into a directory
    Man(man::ManArgs),
}

/// The program: reads the command line, runs its command, and reports its outcome.
pub fn main() -> ExitCode {
    match environment::parse() {
        Ok(Cli { command, log }) => {
            log.begin(level(&command));
            output::end(failpoints::check().and_then(|()| run(command)), |error| log.log_format.last_line(error))
        }
        // Help, or the version.
        Err(text) if !text.use_stderr() => {
            output::end(output::judge(text.print()), |error| LogFormat::Text.last_line(error))
        }
        Err(error) => {
            output::usage(&error);
            ExitCode::from(USAGE)
        }
    }
}

/// The default log level. The demo's panel shows what the log of a healthy run would say.
fn level(command: &Command) -> &'static str {
    let quiet = matches!(command, Command::Demo(_)) && std::io::stderr().is_terminal();
    if quiet { "warn,clickstream::stuck=info" } else { "info" }
}

fn run(command: Command) -> anyhow::Result<()> {
    // These two have a process to themselves, without a runtime's threads.
    match command {
        Command::Guard { home } => guard::guard(&home),
        Command::Libchdb { home } => guard::serve_libchdb(&home),
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
        Command::Demo(args) => demo::run(args).await,
        Command::Dashboard(args) => dashboard::run(args).await,
        Command::Setup(args) => setup::run(args).await,
        Command::Schema(args) => schema::run(args).await,
        Command::Produce(args) => produce::run(args).await,
        Command::Check(args) => check::run(args).await,
        Command::Ingest(args) => ingest::run(args).await,
        Command::Report(args) => report::run(&args),
        Command::Bench(args) => bench::run(args).await,
        Command::BenchStep => bench::step().await,
        Command::Audit(args) => audit::run(args).await,
        Command::Rejects(args) => rejects::run(args).await,
        Command::Erase(args) => erase::run(args).await,
        Command::Secrets(args) => secrets::run(&args),
        Command::Health(args) => health::run(args).await,
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Guard { .. } | Command::Libchdb { .. } => unreachable!("these run without a runtime"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_switch_that_is_a_variable_is_read_as_people_write_it() {
        let command = Cli::command();
        let args = command.get_subcommands().flat_map(clap::Command::get_arguments);
        let switches: Vec<_> = args.filter(|arg| !arg.get_action().takes_values() && arg.get_env().is_some()).collect();
        assert!(switches.len() >= 3, "{switches:?}");
        for arg in switches {
            // clap's default parser of a switch accepts only `true` and `false`.
            let parser = format!("{:?}", arg.get_value_parser());
            assert_ne!(parser, "ValueParser::bool", "{}", arg.get_id());
        }
    }
}
