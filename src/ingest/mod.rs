//! The ingesting pipeline, assembled: from the topic into ClickHouse, each message exactly once.

mod instance;
pub(crate) mod start;

use crate::clickhouse::{ClickHouse, ClickHouseConfig, ClickHouseStore, Role, Writer, describe};
use crate::kafka::consumer::OWN_TABLE;
use crate::kafka::consumer::client_config;
use crate::kafka::consumer::static_membership::InstanceFile;
use crate::kafka::{Consumer, ConsumerConfig, Evicted, KafkaConfig, Naming, version};
use crate::shutdown::Shutdown;
use crate::telemetry::Ready;
use anyhow::{Result, anyhow, bail};
use flows::{Backoff, BatchConfig, Claim, Metrics, Store};
use futures::TryStreamExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;

/// Fenced twice within this window: another process probably uses the same instance id.
const TWIN_WINDOW: Duration = Duration::from_secs(30);

/// How often in a row, each time within [`TWIN_WINDOW`], a late request of its own may have a member fenced. A member that is fenced more
/// often has a twin after all: somebody has copied the file with its random name.
const FENCED_BY_ITSELF: u32 = 3;

/// The input and the target of [`run`].
#[derive(Clone, Debug)]
pub struct IngestConfig {
    /// The topic, which exists.
    pub kafka: KafkaConfig,
    /// The identity of the topic, which differs from that of a later one of the same name.
    pub naming: Naming,
    /// The consumer group.
    pub group: String,
    /// The name that the member has in its group.
    pub instance: Instance,
    /// The directory where that name is kept; without one, the directory for temporary files has it.
    pub state_dir: Option<PathBuf>,
    /// The other group whose rows this one takes over. The members of that group stop then.
    pub take_over: Option<String>,
    /// The tables, which are there.
    pub clickhouse: ClickHouseConfig,
    /// The column of the user's own table with the event's time.
    pub time: Option<String>,
    /// When a batch is full, and how many inserts are under way at the same time.
    pub batching: BatchConfig,
    /// Stop when everything is stored that the topic held at the start.
    pub until_end: bool,
    /// How long to wait for a service that does not answer at the start.
    pub connect_timeout: Duration,
    /// How long the drain may take when a shutdown is requested, or partitions are revoked.
    pub drain_timeout: Duration,
}

/// The `group.instance.id` (static membership), with which a restarted member gets its partitions again at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instance {
    /// None: after a crash the partitions wait for the session timeout.
    None,
    /// This one, `group.instance.id`.
    Named(String),
    /// A random one that is kept from one start to the next.
    Kept,
}

/// Ingests until a shutdown is requested or, with `until_end`, everything is stored that was there at the start.
///
/// # Errors
/// When something does not fit at the start, when a failure will not pass by itself, or when the drain took too long.
pub async fn run(config: &IngestConfig, shutdown: &Shutdown, metrics: &Arc<Metrics>, ready: &Ready) -> Result<()> {
    let mut client = client_config(&config.kafka, &config.group, config.drain_timeout, config.until_end)?;
    let instance = instance::acquire(config)?;
    if let Some(instance) = &instance {
        client.set("group.instance.id", instance.name());
    }
    let owner = owner(&config.clickhouse, &config.group);
    let take_over = config.take_over.as_deref().map(|group| self::owner(&config.clickhouse, group));
    let claim = Claim::Group { group: owner.clone(), take_over };
    let started = tokio::select! {
        started = start::start(config, &claim) => started?,
        () = shutdown.requested() => return Ok(()),
    };
    let (clickhouse, until) = started;
    ready.begun();
    let _watch = AbortOnDropHandle::new(tokio::spawn(clickhouse.clone().keep_watch()));
    let _versions =
        AbortOnDropHandle::new(tokio::spawn(versions(config.kafka.clone(), clickhouse.clone(), metrics.clone())));
    let (asked, stuck, told) = (clickhouse.clone(), ready.stuck.clone(), clickhouse.clone());
    let _pings = AbortOnDropHandle::new(tokio::spawn(async move { asked.watch_answers(&stuck).await }));
    let consumer = ConsumerConfig {
        topic: config.kafka.topic.clone(),
        naming: config.naming,
        client,
        store: Arc::new(ClickHouseStore::new(clickhouse, Writer::new(Role::Ingest, &owner))),
        claim,
        drain_timeout: config.drain_timeout,
        batch_timeout: config.batching.timeout,
        stuck: ready.stuck.clone(),
        reach: Arc::default(),
        until,
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

/// The owner of a topic's rows, as it stands in `leases`. A topic's rows go into one table of a database, so the name of the
/// user's own table belongs to it.
pub(crate) fn owner(clickhouse: &ClickHouseConfig, group: &str) -> String {
    match &clickhouse.table {
        Some(table) if !group.contains(OWN_TABLE) => format!("{group}{OWN_TABLE}{table}"),
        _ => group.to_owned(),
    }
}

/// Learns the versions of the services, for the latency log only: the pipeline neither waits for them nor fails without them.
async fn versions(kafka: KafkaConfig, clickhouse: Arc<ClickHouse>, metrics: Arc<Metrics>) {
    let (kafka, clickhouse) = tokio::join!(version::of_broker(&kafka), clickhouse.version());
    for (name, version) in [("Kafka", kafka), ("ClickHouse", clickhouse.ok())] {
        version.into_iter().for_each(|version| metrics.learn(name, version));
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
