//! The command line: every option is a flag and an environment variable.

mod audit;
mod demo;
mod deploy;
mod environment;
mod erase;
mod hosts;
mod rejects;
mod report;
mod settings;
mod values;

pub use audit::{AuditArgs, Format};
pub use demo::{DashboardArgs, DemoArgs};
pub use deploy::{HealthArgs, SecretsArgs};
pub use environment::parse;
pub use erase::EraseArgs;
pub use hosts::HostArgs;
pub use rejects::RejectsArgs;
pub use report::{ReportArgs, ReportFormat};
pub use settings::Settings;

use crate::latency_log::Recorder;
use clap::{Args, Parser, Subcommand};
use flows::{Faults, Metrics, Rate};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use url::Url;
use values::{
    HttpUrl, Unseen, address, brokers, duration, header_value, identifier, interval, not_empty, some_time, switch,
    topic_name,
};

/// Click events from Kafka to ClickHouse: nothing lost, nothing twice, in less than five seconds.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run all of it on this machine, with a broker and a ClickHouse of its own and a live dashboard; no set-up
    Demo(DemoArgs),
    /// Create the topic and the tables, where they are missing
    Setup(SetupArgs),
    /// Simulate shoppers into the topic
    Produce(ProduceArgs),
    /// Take the topic's events into ClickHouse, each exactly once
    Ingest(IngestArgs),
    /// Show the dashboards as live web pages, without Grafana
    Dashboard(DashboardArgs),
    /// Show the latencies in log files
    Report(ReportArgs),
    /// For `demo`: run the ClickHouse of its directory until standard input ends
    #[command(hide = true)]
    Guard { home: PathBuf },
    /// For `demo`: be the server that libchdb is
    #[command(hide = true)]
    Libchdb { home: PathBuf },
    /// Prove, offset by offset, that the tables hold what the topic held
    Audit(AuditArgs),
    /// List the messages that are no events, and replay them after a fix
    Rejects(RejectsArgs),
    /// Delete the rows of a user, or those that meet a condition, for good: no audit, no ingester puts them back
    Erase(EraseArgs),
    /// Make the passwords of an installation and ClickHouse's users file, where they are missing
    Secrets(SecretsArgs),
    /// Ask a running `produce` or `ingest` how it is; exit code 1 if it is not well
    Health(HealthArgs),
}

/// Where Kafka is.
#[derive(Args, Clone, Debug)]
pub struct KafkaArgs {
    /// Kafka's brokers, HOST:PORT, separated by commas
    #[arg(long, env = "CLICKSTREAM_BROKERS", default_value = "localhost:9092", value_parser = Unseen(brokers))]
    pub brokers: String,

    /// The topic
    #[arg(long, env = "CLICKSTREAM_TOPIC", default_value = "clicks", value_parser = topic_name)]
    pub topic: String,

    #[command(flatten)]
    pub settings: Settings,

    /// How long to wait for a service that does not answer at the start
    #[arg(long, env = "CLICKSTREAM_CONNECT_TIMEOUT", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub connect_timeout: Duration,
}

/// Where ClickHouse is.
#[derive(Args, Clone, Debug)]
pub struct ClickHouseArgs {
    /// ClickHouse's HTTP interface
    #[arg(long, env = "CLICKSTREAM_CLICKHOUSE_URL", default_value = "http://localhost:8123", value_parser = HttpUrl, hide_env_values = true)]
    pub clickhouse_url: Url,

    /// The user there
    #[arg(long, env = "CLICKSTREAM_CLICKHOUSE_USER", default_value = "default", value_parser = header_value)]
    pub clickhouse_user: String,

    /// A file with the user's password, in one line
    #[arg(long, env = "CLICKSTREAM_CLICKHOUSE_PASSWORD_FILE", value_name = "FILE")]
    pub clickhouse_password_file: Option<PathBuf>,

    /// The database
    #[arg(long, env = "CLICKSTREAM_DATABASE", default_value = "clickstream", value_parser = identifier)]
    pub database: String,
}

#[derive(Args, Debug)]
pub struct SetupArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,

    /// Partitions of a topic that is made
    #[arg(long, env = "CLICKSTREAM_PARTITIONS", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub partitions: i32,
}

#[derive(Args, Debug)]
pub struct ProduceArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,

    /// Events per second, or `max`
    #[arg(long, env = "CLICKSTREAM_RATE", default_value = "100")]
    pub rate: Rate,

    /// How many shoppers there are
    #[arg(long, env = "CLICKSTREAM_USERS", default_value = "500")]
    pub users: NonZeroUsize,

    /// Stop after so many messages
    #[arg(long, env = "CLICKSTREAM_COUNT", value_name = "N")]
    pub count: Option<NonZeroU64>,

    /// Stop after this time, or later, when all is acknowledged; give up when nothing is for --drain-timeout
    #[arg(long = "for", env = "CLICKSTREAM_FOR", value_parser = some_time, value_name = "TIME")]
    pub duration: Option<Duration>,

    /// The same seed gives the same events; without one, each run has other ones
    #[arg(long, env = "CLICKSTREAM_SEED", value_name = "N")]
    pub seed: Option<u64>,

    /// Write one line of JSON for each acknowledged message
    #[arg(long, env = "CLICKSTREAM_MANIFEST", value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// Mix in faults: shares of messages that are bad, sent twice, or late, like bad=0.01,dup=0.01,late=0.01
    #[arg(long, env = "CLICKSTREAM_FAULTS", default_value = "", hide_default_value = true, value_name = "SHARES")]
    pub faults: Faults,

    /// Messages that may be unacknowledged [default: half a second's worth, 64 to 10,000]
    #[arg(long, env = "CLICKSTREAM_PRODUCE_IN_FLIGHT", value_name = "N")]
    pub in_flight: Option<NonZeroUsize>,

    #[command(flatten)]
    pub run: RunArgs,
}

/// What all pipelines that run for long have in common.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Write latency histograms to this file, an HdrHistogram interval log; one that exists is kept, the next gets a number
    #[arg(long, env = "CLICKSTREAM_LATENCY_LOG", value_name = "FILE")]
    pub latency_log: Option<PathBuf>,

    /// How much time each histogram in that file covers
    #[arg(long, env = "CLICKSTREAM_LATENCY_INTERVAL", default_value = "1s", value_parser = interval, value_name = "TIME")]
    pub latency_interval: Duration,

    /// Serve /metrics (Prometheus), /healthz and /readyz at this HOST:PORT
    #[arg(long, env = "CLICKSTREAM_METRICS", value_name = "HOST:PORT", value_parser = address)]
    pub metrics: Option<String>,

    #[command(flatten)]
    pub hosts: HostArgs,

    /// How long a stop may take to drain, from the signal on
    #[arg(long, env = "CLICKSTREAM_DRAIN_TIMEOUT", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub drain_timeout: Duration,
}

impl RunArgs {
    /// What takes and logs the latencies of a pipeline.
    ///
    /// # Errors
    /// When the log cannot be created.
    pub fn recorder(&self, metrics: &Arc<Metrics>) -> anyhow::Result<Recorder> {
        Recorder::with_interval(metrics.clone(), self.latency_log.as_deref(), self.latency_interval)
    }
}

#[derive(Args, Debug)]
pub struct IngestArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,

    /// The consumer group
    #[arg(long, env = "CLICKSTREAM_GROUP", default_value = "clickstream", value_parser = not_empty)]
    pub group: String,

    /// The name under which this member has its partitions back at once when it is started again (static membership), or
    /// `none` [default: a random one that is kept in --state-dir]
    #[arg(long, env = "CLICKSTREAM_INSTANCE_ID", value_name = "NAME", value_parser = not_empty)]
    pub instance_id: Option<String>,

    /// The directory where that name is kept from one start to the next [default: one in the directory for temporary files]
    #[arg(long, env = "CLICKSTREAM_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Take the topic's rows over from this other group, whose members stop then
    #[arg(long, env = "CLICKSTREAM_TAKE_OVER", value_name = "GROUP", value_parser = not_empty)]
    pub take_over: Option<String>,

    /// Rows of a batch
    #[arg(long, env = "CLICKSTREAM_BATCH_ROWS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=500_000))]
    pub batch_rows: u32,

    /// The time within which an event can be queried: a batch that is not full leaves early enough for that
    #[arg(long, env = "CLICKSTREAM_BATCH_TIMEOUT", default_value = "5s", value_parser = some_time, value_name = "TIME")]
    pub batch_timeout: Duration,

    /// Inserts under way at the same time
    #[arg(long, env = "CLICKSTREAM_IN_FLIGHT", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub in_flight: u8,

    /// Stop when everything is stored that the topic held at the start, however long that takes
    #[arg(long, env = "CLICKSTREAM_UNTIL_END", value_parser = switch)]
    pub until_end: bool,

    #[command(flatten)]
    pub run: RunArgs,
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
            // The parser of a switch that nobody chose takes `true` and `false` alone.
            let parser = format!("{:?}", arg.get_value_parser());
            assert_ne!(parser, "ValueParser::bool", "{}", arg.get_id());
        }
    }
}
