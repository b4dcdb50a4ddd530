//! The two pipelines of the demo: the very ones of `produce` and `ingest`, with what they would be given.

use super::work_dir::WorkDir;
use crate::clickhouse::ClickHouseConfig;
use crate::clickhouse::users::{Account, WRITER};
use crate::ingest::{self, IngestConfig, Instance};
use crate::kafka::{KafkaConfig, Naming, Settings};
use crate::produce::{self, ProduceConfig};
use crate::shutdown::Shutdown;
use crate::stuck::Stuck;
use crate::telemetry::Ready;
use anyhow::Result;
use flows::{BatchConfig, Faults, Metrics, Rate};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// The longest time for storing sent events after a Ctrl-C, or after the shoppers' time is over. A ClickHouse that was
/// just killed is back within some seconds.
pub const DRAIN: Duration = Duration::from_secs(10);
/// The longest wait for the broker and for ClickHouse, which have answered before.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval of checks then.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The traffic of a demo.
#[derive(Clone, Copy, Debug)]
pub struct DemoConfig {
    /// How many events a second.
    pub rate: Rate,
    /// How many shoppers there are.
    pub users: NonZeroUsize,
    /// When the shoppers stop.
    pub duration: Option<Duration>,
    /// Latency target of the ingester.
    pub batch_timeout: Duration,
}

/// Shoppers and ingester of one demo.
pub struct Pipelines {
    produce: ProduceConfig,
    ingest: IngestConfig,
    /// The producer's tally.
    pub sent: Arc<Metrics>,
    /// The ingester's report.
    pub stored: Arc<Metrics>,
    /// The present problems of either.
    pub stuck: Arc<Stuck>,
    ready: Ready,
}

impl Pipelines {
    /// Over this topic, into the ClickHouse of this work_dir.
    ///
    /// # Errors
    /// Never, for a home that is open.
    pub fn new(config: &DemoConfig, topic: &str, brokers: &str, work_dir: &WorkDir) -> Result<Self> {
        let kafka = KafkaConfig { brokers: brokers.to_owned(), topic: topic.to_owned(), settings: Settings::default() };
        let produce = ProduceConfig {
            template: None,
            kafka: kafka.clone(),
            connect_timeout: CONNECT_TIMEOUT,
            rate: config.rate,
            users: config.users,
            count: None,
            duration: config.duration,
            seed: None,
            manifest: None,
            faults: Faults::default(),
            in_flight: None,
            drain_timeout: DRAIN,
        };
        let ingest = IngestConfig {
            kafka,
            more_topics: Vec::new(),
            naming: Naming::ByName,
            group: "clickstream".into(),
            instance: Instance::None, // its group is gone when it is
            state_dir: None,
            take_over: None,
            clickhouse: clickhouse_as(&WRITER, work_dir)?,
            time: None,
            batching: BatchConfig { timeout: config.batch_timeout, ..BatchConfig::default() },
            until_end: false,
            connect_timeout: CONNECT_TIMEOUT,
            drain_timeout: DRAIN,
        };
        let ready = Ready::default();
        Ok(Self { produce, ingest, sent: Arc::default(), stored: Arc::default(), stuck: ready.stuck.clone(), ready })
    }

    /// Runs both pipelines until a stop is requested or the shoppers' time is over. Then the ingester stores the
    /// remaining events.
    ///
    /// # Errors
    /// Those of either pipeline.
    pub async fn run(&self, shutdown: &Shutdown) -> Result<()> {
        let (ready, drained) = (&self.ready, Shutdown::default());
        let producing = async {
            // Events from before the group has its partitions would look slow.
            until(|| Metrics::read(&self.stored.rebalances) > 0 || shutdown.is_requested()).await;
            produce::run(&self.produce, shutdown, &self.sent, ready).await?;
            let _ = tokio::time::timeout(DRAIN, until(|| self.rows() >= Metrics::read(&self.sent.events))).await;
            drained.request();
            anyhow::Ok(())
        };
        let ingesting = async {
            let outcome = ingest::run(&self.ingest, &drained, &self.stored, ready).await;
            // Without it there is nothing more to show.
            shutdown.request();
            outcome
        };
        let (produced, ingested) = futures::future::join(producing, ingesting).await;
        produced.and(ingested)
    }

    /// Rows stored.
    pub fn rows(&self) -> u64 {
        Metrics::read(&self.stored.events) + self.stored.rejects.total()
    }
}

/// How a user reaches the ClickHouse of a work_dir.
///
/// # Errors
/// Never, for a home that is open.
pub fn clickhouse_as(account: &Account, work_dir: &WorkDir) -> Result<ClickHouseConfig> {
    Ok(ClickHouseConfig {
        url: Url::parse(&format!("http://127.0.0.1:{}", work_dir.http_port))?,
        user: account.name.into(),
        password_file: Some(work_dir.password(account)),
        database: "clickstream".into(),
        table: None,
        evolve: false,
    })
}

async fn until(reached: impl Fn() -> bool) {
    while !reached() {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
