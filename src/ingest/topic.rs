//! One topic's way into the table: a member of the group, lease after lease.

use super::{IngestConfig, instance, start};
use crate::clickhouse::{ClickHouse, ClickHouseConfig, ClickHouseStore, Role, Writer, describe};
use crate::kafka::consumer::static_membership::InstanceFile;
use crate::kafka::consumer::{BUDGET_BYTES, OWN_TABLE, client_config};
use crate::kafka::{Consumer, ConsumerConfig, Evicted};
use crate::shutdown::Shutdown;
use crate::stuck::Stuck;
use anyhow::{Result, anyhow, bail};
use flows::{Backoff, BatchConfig, Claim, Metrics, Store};
use futures::TryStreamExt;
use rdkafka::ClientConfig;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

/// Fenced twice within this window: another process probably uses the same instance id.
const TWIN_WINDOW: Duration = Duration::from_secs(30);

/// How often in a row, each time within [`TWIN_WINDOW`], a late request of its own may have a member fenced. A member that is fenced more
/// often has a twin after all: somebody has copied the file with its random name.
const FENCED_BY_ITSELF: u32 = 3;

/// The least room for records of one of many topics.
const LEAST_BUDGET_BYTES: usize = 1024 * 1024;

/// The pipeline of one topic, whose checks at the start are done.
pub struct TopicIngest {
    pub clickhouse: Arc<ClickHouse>,
    config: IngestConfig,
    client: ClientConfig,
    instance: Option<InstanceFile>,
    owner: String,
    claim: Claim,
    until: Option<BTreeMap<i32, i64>>,
    budget_bytes: usize,
}

impl TopicIngest {
    /// Waits for the services, and checks all that has to be there. The pipeline is one of `pipelines`, which share the memory.
    pub async fn start(config: IngestConfig, pipelines: usize) -> Result<Self> {
        let mut client =
            client_config(&config.kafka, &config.group, config.drain_timeout, config.until_end, pipelines as u64)?;
        let instance = instance::acquire(&config)?;
        if let Some(instance) = &instance {
            client.set("group.instance.id", instance.name());
        }
        let owner = owner(&config.clickhouse, &config.group);
        let take_over = config.take_over.as_deref().map(|group| self::owner(&config.clickhouse, group));
        let claim = Claim::Group { group: owner.clone(), take_over };
        let (clickhouse, until) = start::start(&config, &claim).await?;
        let budget_bytes = (BUDGET_BYTES / pipelines).max(LEAST_BUDGET_BYTES);
        Ok(Self { clickhouse, config, client, instance, owner, claim, until, budget_bytes })
    }

    /// Ingests the topic until a shutdown is requested, or until its end.
    pub async fn run(self, shutdown: &Shutdown, metrics: &Arc<Metrics>, stuck: &Arc<Stuck>) -> Result<()> {
        let Self { clickhouse, config, client, instance, owner, claim, until, budget_bytes } = self;
        let _watch = AbortOnDropHandle::new(tokio::spawn(clickhouse.clone().keep_watch().in_current_span()));
        let (asked, flow, told) = (clickhouse.clone(), stuck.clone(), clickhouse.clone());
        let _pings = AbortOnDropHandle::new(tokio::spawn(async move { asked.watch_answers(&flow).await }));
        let consumer = ConsumerConfig {
            topic: config.kafka.topic.clone(),
            naming: config.naming,
            client,
            store: Arc::new(ClickHouseStore::new(clickhouse, Writer::new(Role::Ingest, &owner))),
            claim,
            drain_timeout: config.drain_timeout,
            batch_timeout: config.batching.timeout,
            stuck: stuck.clone(),
            reach: Arc::default(),
            until,
            budget_bytes,
        };
        tracing::info!("ingesting {} as a member of group {}", config.kafka.topic, config.group);
        let (mut joined, is_random) = (Instant::now(), instance.as_ref().is_some_and(InstanceFile::is_random));
        let (mut fenced, mut backoff) = (0, Backoff::default());
        let drained = loop {
            let began = Instant::now();
            let drained = membership(&consumer, config.batching, shutdown, metrics).await;
            let Some(evicted) = drained.as_ref().err().and_then(|error| error.downcast_ref()) else { break drained };
            match evicted {
                // After a broker's death, the coordinator may take a late request under the old member id for another client's. Under an
                // instance id that others could have, it may be another client, which would be evicted in turn.
                Evicted::Fenced(_) if joined.elapsed() > TWIN_WINDOW => (joined, fenced) = (Instant::now(), 1),
                Evicted::Fenced(_) if is_random && fenced < FENCED_BY_ITSELF => {
                    (joined, fenced) = (Instant::now(), fenced + 1)
                }
                Evicted::Fenced(_) if is_random => bail!(
                    "{evicted} This name is a random one, so another process has a copy of the directory that holds it. Nothing is lost: the other \
                     process goes on. Give each ingester a --state-dir of its own, or an --instance-id"
                ),
                Evicted::Fenced(_) => break drained,
                Evicted::StaleMemberId => {}
            }
            tracing::warn!("{evicted}; joining again");
            if began.elapsed() > TWIN_WINDOW {
                backoff = Backoff::default();
            }
            tokio::select! {
                () = backoff.wait() => {}
                () = shutdown.requested() => {}
            }
        };
        told.tell_unknown_fields();
        if !drained? {
            let timeout = config.drain_timeout;
            bail!(
                "shutdown timed out after {timeout:?} (--drain-timeout): the last batches were not stored. Nothing is lost: their offsets \
                 are uncommitted, the next start resumes there"
            );
        }
        Ok(())
    }
}

/// The owner of a topic's rows, as it stands in `leases`. A topic's rows go into one table of a database, so the name of the
/// user's own table belongs to it.
pub fn owner(clickhouse: &ClickHouseConfig, group: &str) -> String {
    match &clickhouse.table {
        Some(table) if !group.contains(OWN_TABLE) => format!("{group}{OWN_TABLE}{table}"),
        _ => group.to_owned(),
    }
}

/// From joining the group to leaving it, one lease after the other; false where a shutdown cut the last drain short.
async fn membership<S: Store>(
    config: &ConsumerConfig<S>,
    batching: BatchConfig,
    shutdown: &Shutdown,
    metrics: &Arc<Metrics>,
) -> Result<bool> {
    let mut consumer = Consumer::join(config, metrics, shutdown)?;
    let drained = consumer
        .leases() // what this member owns, until the next rebalance or the shutdown
        .try_fold(true, async |_, lease| {
            let ended = lease.ingest(batching, metrics).await;
            let in_order = ended.map_err(|error| {
                anyhow!("stopped, nothing of the current batches is committed: {}", describe(&error))
            })?;
            // Where only a rebalance cut the drain short, later leases store the rest.
            Ok(in_order || !shutdown.is_requested())
        })
        .await;
    // Whatever ended the work ends the membership, too.
    if !matches!(&drained, Err(error) if error.is::<Evicted>()) {
        shutdown.request();
    }
    consumer.left().await?;
    drained
}
