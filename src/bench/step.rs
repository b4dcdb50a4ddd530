//! One measured step, in a process of its own, so that its CPU time and its peak of memory are its own.
//!
//! The parent writes the step in one line to the child's standard input. The child prepares, and prints `ready`. With the next line the clock
//! starts, and the child prints its [`Reply`] when it is done. When its input ends, it ends as well.

use super::usage::{self, Process};
use crate::clickhouse::{ClickHouse, ClickHouseConfig, encode_rows};
use crate::ingest::{self, IngestConfig, Instance};
use crate::kafka::consume_only::ConsumeOnly;
use crate::kafka::ranges::{self, Ranges};
use crate::kafka::{self, KafkaConfig, Naming, Setting};
use crate::{Ready, Shutdown, output};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use flows::{BatchConfig, Metrics, OffsetRange, Payload, Record, Shop, Table, now};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, stdin};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

/// `ready`, and `go`: the words between parent and child.
pub const READY: &str = "ready";
pub const GO: &str = "go";

/// In place of a topic's id, as long as one.
const SOURCE: &str = "bench-bench-bench-benc";

/// Records of one partition that stand together in an encoded insert, as in a drain.
const TOGETHER: usize = 1_000;
/// The batch timeout of a drain: a backlog fills its batches long before.
const BATCH_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The order to a child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    pub services: Services,
    pub group: String,
    pub database: String,
    /// For each partition the first offset, and the one after its last record.
    pub ends: BTreeMap<i32, (i64, i64)>,
    pub work: Work,
}

/// Where both services are, as plain values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Services {
    pub brokers: String,
    pub topic: String,
    pub settings: Vec<(String, String)>,
    pub url: String,
    pub user: String,
    pub password_file: Option<PathBuf>,
}

/// The kinds of steps.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Work {
    /// Read the topic, and do nothing with it.
    Consume,
    /// Insert this many rows, which are encoded beforehand.
    Insert { rows: u64, batching: Batching },
    /// Ingest the whole topic.
    Drain(Batching),
}

/// How rows become inserts: a point of the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Batching {
    pub batch_rows: u32,
    pub in_flight: u8,
    pub coalesce_rows: u32,
}

/// The measurements of a child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub peak_bytes: u64,
    pub rows: u64,
    pub inserts: u64,
    pub retries: u64,
}

/// The last line of a child.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Done(Done),
    Failed(String),
}

impl Batching {
    fn config(self) -> BatchConfig {
        let coalesce = (self.coalesce_rows / self.batch_rows).max(1) as usize;
        let config = BatchConfig::new(self.batch_rows as usize, BATCH_TIMEOUT, self.in_flight.into());
        BatchConfig { coalesce, ..config }
    }

    /// Rows of the largest insert.
    pub fn insert_rows(self) -> usize {
        let BatchConfig { rows, coalesce, .. } = self.config();
        rows * coalesce
    }
}

impl Services {
    pub fn new(kafka: &KafkaConfig, clickhouse: &ClickHouseConfig) -> Self {
        let settings = kafka.settings.iter().map(|setting| (setting.key.clone(), setting.value.clone()));
        Self {
            brokers: kafka.brokers.clone(),
            topic: kafka.topic.clone(),
            settings: settings.collect(),
            url: clickhouse.url.to_string(),
            user: clickhouse.user.clone(),
            password_file: clickhouse.password_file.clone(),
        }
    }

    fn kafka(&self) -> KafkaConfig {
        let setting =
            |(key, value): &(String, String)| Setting { key: key.clone(), value: value.clone(), from: "--kafka" };
        let settings = self.settings.iter().map(setting).collect();
        KafkaConfig { brokers: self.brokers.clone(), topic: self.topic.clone(), settings }
    }

    fn clickhouse(&self, database: &str) -> Result<ClickHouseConfig> {
        Ok(ClickHouseConfig {
            url: self.url.parse().context("the address of ClickHouse")?,
            user: self.user.clone(),
            password_file: self.password_file.clone(),
            database: database.to_owned(),
            table: None,
            evolve: false,
        })
    }
}

/// Runs the step that standard input names, and prints the outcome.
///
/// # Errors
/// When the parent is gone.
pub async fn run() -> Result<()> {
    let step = block_in_place(read_line)?;
    let outcome = match serde_json::from_str(&step) {
        Ok(step) => take(&step).await,
        Err(_) => bail!("this command is a part of `clickstream bench`, which runs it"),
    };
    let reply = outcome.map_or_else(|why| Reply::Failed(format!("{why:#}")), Reply::Done);
    output::line(serde_json::to_string(&reply)?)
}

async fn take(step: &Step) -> Result<Done> {
    match step.work {
        Work::Consume => consume(step),
        Work::Insert { rows, batching } => insert(step, rows, batching).await,
        Work::Drain(batching) => drain(step, batching).await,
    }
}

fn consume(step: &Step) -> Result<Done> {
    let reader = ConsumeOnly::new(&step.services.kafka(), &step.group, step.ends.clone())?;
    block_in_place(|| {
        let clock = Clock::start()?;
        let messages = reader.run()?;
        Ok(Done { rows: messages, ..clock.stop() })
    })
}

async fn insert(step: &Step, rows: u64, batching: Batching) -> Result<Done> {
    let clickhouse = ClickHouse::new(&step.services.clickhouse(&step.database)?)?;
    clickhouse.learn_settings().await?;
    let blocks = block_in_place(|| blocks(step, rows, batching.insert_rows()))?;
    let inserts = blocks.len() as u64;
    let clock = block_in_place(Clock::start)?;
    let insert = |(nth, block)| {
        let (clickhouse, id) = (&clickhouse, format!("{}/{nth}", step.database));
        async move { clickhouse.insert_unguarded(&id, block).await }
    };
    let inserted = stream::iter(blocks.into_iter().enumerate()).map(insert).buffer_unordered(batching.in_flight.into());
    let rows = inserted.try_fold(0, async |all, rows| Ok(all + rows)).await?;
    Ok(Done { rows, inserts, ..clock.stop() })
}

async fn drain(step: &Step, batching: Batching) -> Result<Done> {
    let config = IngestConfig {
        kafka: step.services.kafka(),
        more_topics: Vec::new(),
        naming: Naming::ById,
        group: step.group.clone(),
        instance: Instance::None,
        state_dir: None,
        take_over: None,
        clickhouse: step.services.clickhouse(&step.database)?,
        time: None,
        batching: batching.config(),
        until_end: true,
        connect_timeout: CONNECT_TIMEOUT,
        drain_timeout: DRAIN_TIMEOUT,
    };
    let metrics = Arc::new(Metrics::default());
    let clock = block_in_place(Clock::start)?;
    ingest::run(&config, &Shutdown::default(), &metrics, &Ready::default()).await?;
    Ok(Done {
        rows: Metrics::read(&metrics.events) + metrics.rejects.total(),
        inserts: Metrics::read(&metrics.inserts),
        retries: Metrics::read(&metrics.retries),
        ..clock.stop()
    })
}

/// The first events of each partition, about as many of each, encoded as inserts.
fn blocks(step: &Step, rows: u64, insert_rows: usize) -> Result<Vec<Bytes>> {
    let mut config = kafka::client_config(&step.services.kafka(), ranges::DEFAULTS)?;
    config.set("group.id", &step.group);
    let mut topic = Ranges::new(&config, &step.services.topic)?;
    let share = rows.div_ceil(step.ends.len().max(1) as u64) as usize;
    let mut partitions = Vec::new();
    for (&partition, &(low, next)) in &step.ends {
        let mut records = Vec::with_capacity(share);
        topic.read(partition, OffsetRange::new(low, next), |record| {
            if let payload @ Payload::Event(_) = record.decode(&Shop) {
                let range = OffsetRange::new(record.offset, record.offset + 1);
                records.push(Record::new(partition, range, now(), payload));
            }
            if records.len() < share { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        partitions.push(records);
    }
    let longest = partitions.iter().map(Vec::len).max().unwrap_or(0);
    let mixed: Vec<_> = (0..longest)
        .step_by(TOGETHER)
        .flat_map(|from| partitions.iter().flat_map(move |records| records.iter().skip(from).take(TOGETHER)))
        .take(rows as usize)
        .collect();
    if mixed.is_empty() {
        bail!("topic {} holds no event, so there is nothing to insert", step.services.topic);
    }
    Ok(mixed
        .chunks(insert_rows)
        .map(|chunk| encode_rows(Table::Events, (&step.services.topic, SOURCE), chunk))
        .collect())
}

/// From the parent's word to the end.
struct Clock {
    began: Instant,
    cpu: Duration,
}

impl Clock {
    /// Says that all is prepared, and waits for the parent's word.
    fn start() -> Result<Self> {
        output::line(READY)?;
        if read_line()?.trim() != GO {
            bail!("`clickstream bench` has ended");
        }
        // A parent that was killed must not leave a child at work.
        std::thread::spawn(|| {
            let _ = stdin().read_to_end(&mut Vec::new());
            std::process::exit(1);
        });
        Ok(Self { began: Instant::now(), cpu: cpu() })
    }

    fn stop(self) -> Done {
        let (seconds, cpu) = (self.began.elapsed().as_secs_f64(), cpu().saturating_sub(self.cpu));
        let peak_bytes = usage::own_peak_bytes().unwrap_or(0);
        Done { seconds, cpu_seconds: cpu.as_secs_f64(), peak_bytes, rows: 0, inserts: 0, retries: 0 }
    }
}

fn cpu() -> Duration {
    Process::own().cpu().unwrap_or_default()
}

fn read_line() -> Result<String> {
    let mut line = String::new();
    stdin().read_line(&mut line).context("cannot read standard input")?;
    Ok(line)
}
