//! The throughput and the cost of a row on this machine: a backlog is drained into fresh tables, over a sweep of settings, beside two ceilings
//! in the same run: reading alone, and inserting alone.
//!
//! | file | what it does |
//! |---|---|
//! | `backlog.rs` | the topic: taken or made, and read once for its checksum |
//! | `step.rs`, `child.rs` | one measured step, in a process of its own |
//! | `servers.rs`, `usage.rs` | the costs of the servers and of a process |
//! | `checksum.rs` | a number for all rows, of the topic and of the tables |
//! | `report.rs` | medians, as text and as JSON |

mod backlog;
mod checksum;
mod child;
mod report;
mod servers;
mod step;
mod usage;

pub use report::Report;
pub use step::{Batching, run as run_step};

use crate::clickhouse::{ClickHouse, ClickHouseConfig};
use crate::kafka::{KafkaConfig, removal, version};
use crate::latency::conditions;
use crate::numbers::grouped;
use crate::{Shutdown, connect};
use anyhow::{Context, Result, anyhow, bail};
use backlog::Backlog;
use checksum::{Checksum, EVENT, REJECT};
use child::Child;
use flows::Table;
use report::{Kind, Run};
use servers::Servers;
use std::num::NonZeroU64;
use std::time::Duration;
use step::{Services, Step, Work};

/// Rows of an insert-only step at most: they are encoded beforehand, and wait in memory.
const ENCODED_ROWS: u64 = 1_000_000;

/// The services, the backlog and the sweep of a benchmark.
#[derive(Clone, Debug)]
pub struct BenchConfig {
    /// The brokers, and the topic that is drained; if it has no name, one is made.
    pub kafka: KafkaConfig,
    /// The server. The name of its database is the beginning of those that are made.
    pub clickhouse: ClickHouseConfig,
    /// Messages of a topic that is made.
    pub messages: NonZeroU64,
    pub partitions: i32,
    /// The settings that are compared.
    pub sweep: Vec<Batching>,
    pub runs: u32,
    /// Whether topic and tables stay.
    pub keep: bool,
    pub connect_timeout: Duration,
}

/// The names of all that a benchmark makes.
struct Made {
    /// A random number in all of them.
    id: String,
    topic: Option<String>,
    databases: Vec<String>,
    groups: Vec<String>,
}

/// A benchmark whose backlog is there.
struct Bench<'b> {
    config: &'b BenchConfig,
    made: &'b mut Made,
    backlog: Backlog,
    servers: Servers,
}

/// Measures all of it, and removes what was made for that.
///
/// # Errors
/// When a service does not answer or refuses, when a shutdown is requested, and when the tables do not hold what the topic does.
pub async fn run(config: &BenchConfig, shutdown: &Shutdown) -> Result<Report> {
    // The password's file is read before any service is waited for.
    let clickhouse = ClickHouse::new(&config.clickhouse)?;
    let id = format!("{:08x}", rand::random::<u32>());
    let mut made = Made { id, topic: None, databases: Vec::new(), groups: Vec::new() };
    let measured = tokio::select! {
        measured = measure(config, &clickhouse, &mut made, shutdown) => measured,
        () = shutdown.requested() => Err(anyhow!("stopped before the end: nothing is reported")),
    };
    if config.keep {
        let (topic, databases) = (made.topic.as_deref().unwrap_or("(yours)"), made.databases.join(", "));
        tracing::info!("kept: topic {topic}; databases {databases}");
        return measured;
    }
    let removed = made.remove(config).await;
    measured.and_then(|report| removed.map(|()| report))
}

async fn measure(
    config: &BenchConfig,
    clickhouse: &ClickHouse,
    made: &mut Made,
    shutdown: &Shutdown,
) -> Result<Report> {
    let mut kafka = config.kafka.clone();
    let (name, is_own) = (made.name(), kafka.topic.is_empty());
    if is_own {
        kafka.topic.clone_from(&name);
        Backlog::make(config, &name, &kafka, &mut made.topic, shutdown).await?;
    }
    let backlog = Backlog::read(config, &name, kafka).await?;
    connect::clickhouse(clickhouse, config.connect_timeout).await?;
    let servers = Servers::find(&config.clickhouse.url, &backlog.brokers);
    let (broker, version) = tokio::join!(version::of_broker(&backlog.kafka), clickhouse.version());
    let mut conditions = conditions::of("bench", &[]);
    conditions.extend(broker.map(|version| ("Kafka".to_owned(), version)));
    conditions.push(("ClickHouse".into(), version?));
    let mut report = Report::new(conditions, &backlog, &servers);
    Bench { config, made, backlog, servers }.rounds(&mut report).await?;
    Ok(report)
}

impl Bench<'_> {
    /// Takes each step once in each round. Every second round goes backwards, so that a machine that gets slower favours none.
    async fn rounds(&mut self, report: &mut Report) -> Result<()> {
        for round in 1..=self.config.runs {
            let mut kinds = Kind::of_sweep(&self.config.sweep);
            if round % 2 == 0 {
                kinds.reverse();
            }
            for kind in kinds {
                let run = self.step(kind).await.with_context(|| kind.to_string())?;
                let rate = grouped(run.rows_per_second as u64);
                tracing::info!("run {round} of {}: {kind}: {rate} rows/s", self.config.runs);
                report.add(kind, run);
            }
        }
        Ok(())
    }

    async fn step(&mut self, kind: Kind) -> Result<Run> {
        let work = match kind {
            Kind::Consume => Work::Consume,
            Kind::Insert(batching) => Work::Insert { rows: self.backlog.checksum.events.min(ENCODED_ROWS), batching },
            Kind::Drain(batching) => Work::Drain(batching),
        };
        let (group, database) = self.made.next(&self.config.clickhouse.database);
        let config = ClickHouseConfig { database: database.clone(), ..self.config.clickhouse.clone() };
        let clickhouse = ClickHouse::new(&config)?;
        if kind != Kind::Consume {
            clickhouse.create_tables().await?;
        }
        let services = Services::new(&self.backlog.kafka, &config);
        let child = Child::prepare(&Step { services, group, database, ends: self.backlog.ends.clone(), work }).await?;
        let before = self.servers.read(&clickhouse).await?;
        let done = child.go().await?;
        let ended = self.servers.read(&clickhouse).await?;
        servers::rest(&clickhouse).await?;
        let rested = self.servers.read(&clickhouse).await?;
        let run = Run::new(&done, &ended.since(&before), &rested.since(&before), clickhouse.disk_bytes().await?);
        if let Kind::Drain(_) = kind {
            self.verify(&clickhouse).await?;
        }
        if !self.config.keep {
            clickhouse.drop_database().await?;
        }
        Ok(run)
    }

    /// Compares the tables with the topic.
    async fn verify(&self, clickhouse: &ClickHouse) -> Result<()> {
        let (events, events_sum) = clickhouse.crc_sum(Table::Events, EVENT).await?;
        let (rejects, rejects_sum) = clickhouse.crc_sum(Table::Rejected, REJECT).await?;
        let (there, expected) = (Checksum { events, events_sum, rejects, rejects_sum }, self.backlog.checksum);
        if there != expected {
            bail!(
                "the tables do not hold what the topic does: {} events and {} rejects in place of {} and {}, or other ones. If the topic was \
                 written to meanwhile, take one that is at rest; otherwise this is a fault of clickstream: run this again with --keep, and \
                 compare with `clickstream audit`",
                grouped(events),
                grouped(rejects),
                grouped(expected.events),
                grouped(expected.rejects)
            );
        }
        Ok(())
    }
}

impl Made {
    fn name(&self) -> String {
        format!("clickstream-bench-{}", self.id)
    }

    /// A new group, and a new database, which are removed in the end.
    fn next(&mut self, prefix: &str) -> (String, String) {
        let nth = self.databases.len() + 1;
        let (group, database) = (format!("{}-{nth}", self.name()), format!("{prefix}_{}_{nth}", self.id));
        self.groups.push(group.clone());
        self.databases.push(database.clone());
        (group, database)
    }

    /// Removes everything, or as much as can be removed.
    async fn remove(&self, config: &BenchConfig) -> Result<()> {
        let mut outcome = Ok(());
        for database in &self.databases {
            let config = ClickHouseConfig { database: database.clone(), ..config.clickhouse.clone() };
            let dropped = ClickHouse::new(&config)?.drop_database().await;
            outcome = outcome.and(dropped.with_context(|| format!("cannot drop database {database}")));
        }
        let client = backlog::client_config(&config.kafka, &self.name())?;
        for group in &self.groups {
            outcome = outcome.and(removal::group(&client, group).await);
        }
        if let Some(topic) = &self.topic {
            outcome = outcome.and(removal::topic(&client, topic).await);
        }
        outcome
    }
}
