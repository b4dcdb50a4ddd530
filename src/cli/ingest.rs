//! `clickstream ingest`: from the topic into ClickHouse, each message exactly once.

use super::kafka::several;
use super::values::{not_empty, some_time, switch};
use super::{ClickHouseArgs, KafkaArgs, RunArgs, TableArgs, TimeArgs};
use crate::clickhouse::ClickHouseConfig;
use crate::ingest::{self, IngestConfig, Instance};
use crate::kafka::Naming;
use crate::latency::log::{BATCH_TIMEOUT, Conditions};
use crate::latency::{conditions, promise, table};
use crate::output;
use crate::shutdown::Shutdown;
use crate::telemetry::Ready;
use crate::telemetry::status::{Pipeline, Status, watch};
use crate::telemetry::summary;
use anyhow::Result;
use clap::Args;
use flows::{BatchConfig, Metrics};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The `--instance-id` that turns static membership off.
const NO_NAME: &str = "none";

#[derive(Args, Debug)]
#[command(mut_arg("topic", several))]
pub struct IngestArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,
    #[command(flatten)]
    pub table: TableArgs,
    #[command(flatten)]
    pub time: TimeArgs,

    /// Add a column to the table for each field that it does not name, with a type drafted from the messages
    #[arg(long, env = "CLICKSTREAM_EVOLVE", value_parser = switch, requires = "table")]
    pub evolve: bool,

    /// The consumer group
    #[arg(long, env = "CLICKSTREAM_GROUP", default_value = "clickstream", value_parser = not_empty)]
    pub group: String,

    /// The member's group.instance.id (static membership): a restarted member gets its partitions again at once. `none`
    /// turns this off [default: a random id, kept in --state-dir]
    #[arg(long, env = "CLICKSTREAM_INSTANCE_ID", value_name = "NAME", value_parser = not_empty)]
    pub instance_id: Option<String>,

    /// The directory that keeps this id from one start to the next [default: one in the directory for temporary files]
    #[arg(long, env = "CLICKSTREAM_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Take over the topic's rows from this other group, whose members then stop
    #[arg(long, env = "CLICKSTREAM_TAKE_OVER", value_name = "GROUP", value_parser = not_empty)]
    pub take_over: Option<String>,

    /// Maximum number of rows in a batch
    #[arg(long, env = "CLICKSTREAM_BATCH_ROWS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=500_000))]
    pub batch_rows: u32,

    /// Latency target: a partial batch is flushed early enough that its oldest event is queryable within this time
    #[arg(long, env = "CLICKSTREAM_BATCH_TIMEOUT", default_value = "5s", value_parser = some_time, value_name = "TIME")]
    pub batch_timeout: Duration,

    /// Number of inserts in flight at the same time
    #[arg(long, env = "CLICKSTREAM_IN_FLIGHT", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub in_flight: u8,

    /// Stop when all messages that the topic held at the start are stored, however long that takes
    #[arg(long, env = "CLICKSTREAM_UNTIL_END", value_parser = switch)]
    pub until_end: bool,

    #[command(flatten)]
    pub run: RunArgs,
}

impl IngestArgs {
    /// The configuration of the pipeline.
    fn config(&self) -> IngestConfig {
        IngestConfig {
            kafka: self.kafka.config(),
            more_topics: self.kafka.topics()[1..].to_vec(),
            naming: Naming::ById,
            group: self.group.clone(),
            instance: match self.instance_id.as_deref() {
                None => Instance::Kept,
                Some(NO_NAME) => Instance::None,
                Some(name) => Instance::Named(name.to_owned()),
            },
            state_dir: self.state_dir.clone(),
            take_over: self.take_over.clone(),
            clickhouse: ClickHouseConfig { evolve: self.evolve, ..self.table.config(&self.clickhouse) },
            time: self.time.time.clone(),
            batching: BatchConfig::new(self.batch_rows as usize, self.batch_timeout, self.in_flight.into()),
            until_end: self.until_end,
            connect_timeout: self.kafka.connect_timeout,
            drain_timeout: self.run.drain_timeout,
        }
    }

    /// The settings that latencies depend on, for their log.
    fn conditions(&self) -> Conditions {
        let settings = [
            (BATCH_TIMEOUT, humantime::format_duration(self.batch_timeout).to_string()),
            ("batch-rows", self.batch_rows.to_string()),
            ("in-flight", self.in_flight.to_string()),
        ];
        conditions::of("ingest", &settings)
    }
}

/// Ingests until a stop is requested or, with `--until-end`, until all messages of the start are stored.
///
/// # Errors
/// When a check of the start fails, when a failure will not pass by itself, or when the drain timed out.
pub async fn run(args: IngestArgs) -> Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let (metrics, ready) = (Arc::new(Metrics::default()), Arc::new(Ready::default()));
    let mut recorder = args.run.recorder(&metrics, &args.conditions())?;
    let pipeline = Pipeline::Ingest { promise: args.batch_timeout };
    args.run.serve(pipeline, &metrics, &recorder, &ready).await?;
    let mut status = Status::new(pipeline, &metrics, &recorder, &ready, &shutdown);
    let outcome = watch(&mut status, &mut recorder, ingest::run(&args.config(), &shutdown, &metrics, &ready)).await;
    let latencies = recorder.close();
    // A member that has not joined its group has nothing to report but the reason.
    if Metrics::read(&metrics.rebalances) == 0 {
        return outcome;
    }
    let table = table::render(&latencies, promise::nanos(args.batch_timeout));
    output::closing(format_args!("{table}\n{}", summary(&metrics)), outcome)
}
