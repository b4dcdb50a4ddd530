//! `clickstream bench`: throughput and costs on this machine.

use super::values::topic_name;
use super::{ClickHouseArgs, Format, KafkaArgs};
use crate::bench::{self, Batching, BenchConfig};
use crate::output;
use crate::shutdown::Shutdown;
use anyhow::Result;
use clap::Args;
use clap::builder::Resettable;
use std::num::NonZeroU64;

#[derive(Args, Debug)]
#[command(
    mut_arg("topic", |arg| arg
        .long("backlog")
        .env(Resettable::Reset)
        .default_value("")
        .hide_default_value(true)
        .value_name("TOPIC")
        .value_parser(no_topic_or_name)
        .help("Drain the messages of this topic, which nobody may write to meanwhile [default: a topic that is made and filled]")),
    mut_arg("database", |arg| arg
        .env(Resettable::Reset)
        .default_value("clickstream_bench")
        .value_name("NAME")
        .help("The beginning of the names of the databases that are made"))
)]
pub struct BenchArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,

    /// Messages of a topic that is made
    #[arg(long, default_value = "2000000", value_name = "N", conflicts_with = "topic")]
    pub messages: NonZeroU64,

    /// Partitions of a topic that is made
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000), conflicts_with = "topic")]
    pub partitions: i32,

    /// Maximum number of rows in a batch; several numbers, separated by commas, are compared
    #[arg(long, default_value = "1000", value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=500_000))]
    pub batch_rows: Vec<u32>,

    /// Number of inserts in flight at the same time; several numbers are compared
    #[arg(long, default_value = "4", value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=64))]
    pub in_flight: Vec<u8>,

    /// Number of rows up to which batches that are due leave as one insert; several numbers are compared
    #[arg(long, default_value = "50000", value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=500_000))]
    pub coalesce_rows: Vec<u32>,

    /// How often everything is measured
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,

    /// Keep the topic and the tables
    #[arg(long)]
    pub keep: bool,

    /// The format of the report
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// The name of a topic, or nothing.
fn no_topic_or_name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Ok(String::new()) } else { topic_name(text) }
}

impl BenchArgs {
    fn config(&self) -> BenchConfig {
        BenchConfig {
            kafka: self.kafka.config(),
            clickhouse: self.clickhouse.config(),
            messages: self.messages,
            partitions: self.partitions,
            sweep: self.sweep(),
            runs: self.runs,
            keep: self.keep,
            connect_timeout: self.kafka.connect_timeout,
        }
    }

    /// Each combination of the settings.
    fn sweep(&self) -> Vec<Batching> {
        let in_flight = |batch_rows: u32, coalesce_rows: u32| {
            self.in_flight.iter().map(move |&in_flight| Batching { batch_rows, in_flight, coalesce_rows })
        };
        let coalesced = |batch_rows: u32| self.coalesce_rows.iter().flat_map(move |&rows| in_flight(batch_rows, rows));
        self.batch_rows.iter().flat_map(|&rows| coalesced(rows)).collect()
    }
}

/// Measures, and prints the report.
///
/// # Errors
/// When a service does not answer or refuses, and when the tables do not hold what the topic does.
pub async fn run(args: BenchArgs) -> Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let report = bench::run(&args.config(), &shutdown).await?;
    match args.format {
        Format::Text => output::line(report),
        Format::Json => output::line(report.json()),
    }
}

/// Runs one step for `bench`, whose child this process is.
///
/// # Errors
/// When the parent is gone.
pub async fn step() -> Result<()> {
    bench::run_step().await
}
