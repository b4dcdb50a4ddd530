//! The two pipelines of the demo: the very ones of `produce` and `ingest`, with the arguments that they would be given.

use super::work_dir::WorkDir;
use crate::cli::{ClickHouseArgs, DemoArgs, HostArgs, IngestArgs, KafkaArgs, ProduceArgs, RunArgs, Settings};
use crate::clickhouse::users::{Account, WRITER};
use crate::ingest::{NO_NAME, ingest};
use crate::kafka::Naming;
use crate::latency_log::INTERVAL;
use crate::metrics::Ready;
use crate::produce::produce;
use crate::shutdown::Shutdown;
use anyhow::Result;
use flows::{Faults, Metrics};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// How long what was sent may take to be stored after a Ctrl-C, or after the shoppers' time is over. A ClickHouse that was just killed is
/// back within some seconds.
pub const DRAIN: Duration = Duration::from_secs(10);
/// How often it is looked at then.
const LOOK: Duration = Duration::from_millis(20);

/// Shoppers and ingester of one demo.
pub struct Pipelines {
    produce: ProduceArgs,
    ingest: IngestArgs,
    /// What the shoppers did.
    pub sent: Arc<Metrics>,
    /// What the ingester did.
    pub stored: Arc<Metrics>,
}

impl Pipelines {
    /// Over this topic, into the ClickHouse of this work_dir.
    ///
    /// # Errors
    /// Never, for a home that is open.
    pub fn new(args: &DemoArgs, topic: &str, brokers: &str, work_dir: &WorkDir) -> Result<Self> {
        let kafka = KafkaArgs {
            brokers: brokers.to_owned(),
            topic: topic.to_owned(),
            settings: Settings::default(),
            connect_timeout: Duration::from_secs(10),
        };
        let run = RunArgs {
            latency_log: None,
            latency_interval: INTERVAL,
            metrics: None,
            hosts: HostArgs::default(),
            drain_timeout: DRAIN,
        };
        let produce = ProduceArgs {
            kafka: kafka.clone(),
            rate: args.rate,
            users: args.users,
            count: None,
            duration: args.duration,
            seed: None,
            manifest: None,
            faults: Faults::default(),
            in_flight: None,
            run: run.clone(),
        };
        let ingest = IngestArgs {
            kafka,
            clickhouse: clickhouse_as(&WRITER, work_dir)?,
            group: "clickstream".into(),
            instance_id: Some(NO_NAME.into()), // its group is gone when it is
            state_dir: None,
            take_over: None,
            batch_rows: 1_000,
            batch_timeout: args.batch_timeout,
            in_flight: 4,
            until_end: false,
            run,
        };
        Ok(Self { produce, ingest, sent: Arc::default(), stored: Arc::default() })
    }

    /// Runs both until a stop is requested or the shoppers' time is over; then the ingester stores what is left.
    ///
    /// # Errors
    /// Those of either pipeline.
    pub async fn run(&self, shutdown: &Shutdown) -> Result<()> {
        let (ready, drained) = (Ready::default(), Shutdown::default());
        let producing = async {
            // Events from before the group has its partitions would look slow.
            until(|| Metrics::read(&self.stored.rebalances) > 0 || shutdown.is_requested()).await;
            produce(&self.produce, shutdown, &self.sent, &ready).await?;
            let _ = tokio::time::timeout(DRAIN, until(|| self.rows() >= Metrics::read(&self.sent.events))).await;
            drained.request();
            anyhow::Ok(())
        };
        let ingesting = async {
            let outcome = ingest(&self.ingest, Naming::ByName, &drained, &self.stored, &ready).await;
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
pub fn clickhouse_as(account: &Account, work_dir: &WorkDir) -> Result<ClickHouseArgs> {
    Ok(ClickHouseArgs {
        clickhouse_url: Url::parse(&format!("http://127.0.0.1:{}", work_dir.http_port))?,
        clickhouse_user: account.name.into(),
        clickhouse_password_file: Some(work_dir.password(account)),
        database: "clickstream".into(),
    })
}

async fn until(reached: impl Fn() -> bool) {
    while !reached() {
        tokio::time::sleep(LOOK).await;
    }
}
