//! The ingesting pipeline, assembled: from the topic into ClickHouse, each message exactly once.

mod consumer;
mod start;

use crate::clickhouse::{ClickHouseConfig, Role, Writer, describe};
use crate::kafka::lease::{Ended, Lease};
use crate::kafka::member::{self, Membership, PutOut};
use crate::kafka::static_membership::InstanceFile;
use crate::kafka::{Committer, KafkaConfig, Naming};
use crate::shutdown::Shutdown;
use crate::telemetry::Ready;
use anyhow::{Result, anyhow, bail};
use flows::{BatchConfig, Claim, IngestError, Ledger, Metrics, SettleError};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::task::AbortOnDropHandle;

/// Who is put out of the group again before this time is over has a twin.
const A_WHILE: Duration = Duration::from_secs(30);

/// What [`run`] ingests, where from and where to.
#[derive(Clone, Debug)]
pub struct IngestConfig {
    /// The topic, which is there.
    pub kafka: KafkaConfig,
    /// What tells the topic from another one of the same name.
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
    /// When a batch is full, and how many inserts are under way at the same time.
    pub batching: BatchConfig,
    /// Stop when everything is stored that the topic held at the start.
    pub until_end: bool,
    /// How long to wait for a service that does not answer at the start.
    pub connect_timeout: Duration,
    /// How long the drain may take when a shutdown is requested, or partitions are revoked.
    pub drain_timeout: Duration,
}

/// The name by which a member has its partitions back at once when it is started again (static membership).
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
    let mut consumer = consumer::client_config(config)?;
    let instance = consumer::instance_file(config)?;
    if let Some(instance) = &instance {
        consumer.set("group.instance.id", instance.name());
    }
    let claim = Claim::Group { group: config.group.clone(), take_over: config.take_over.clone() };
    let started = tokio::select! {
        started = start::start(config, &claim) => started?,
        () = shutdown.requested() => return Ok(()),
    };
    let (clickhouse, until) = started;
    let asked = clickhouse.clone();
    ready.ingesting(move || {
        let asked = asked.clone();
        async move { asked.ping().await.is_ok() }.boxed()
    });
    let _watch = AbortOnDropHandle::new(tokio::spawn(clickhouse.clone().keep_watch()));
    let to = Membership {
        topic: config.kafka.topic.clone(),
        naming: config.naming,
        config: consumer,
        writer: Writer::new(Role::Ingest, &config.group),
        claim,
        clickhouse,
        drain_timeout: config.drain_timeout,
        batch_timeout: config.batching.timeout,
        stuck: ready.stuck.clone(),
        until,
    };
    tracing::info!("ingesting {} as a member of group {}", config.kafka.topic, config.group);
    let (mut joined, is_random) = (Instant::now(), instance.as_ref().is_some_and(InstanceFile::is_random));
    let drained = loop {
        let drained = membership(&to, config.batching, shutdown, metrics).await;
        let Some(put_out) = drained.as_ref().err().and_then(|error| error.downcast_ref()) else { break drained };
        match put_out {
            // After a broker's death, a late request of ours under our old member id has us taken for somebody else. Under a
            // name that others could have it may be somebody else, who would be put out in turn.
            PutOut::Fenced(_) if is_random || joined.elapsed() > A_WHILE => joined = Instant::now(),
            PutOut::Fenced(_) => break drained,
            PutOut::GivenAway => {}
        }
        tracing::warn!("{put_out}; joining again");
    };
    if !drained? {
        bail!(
            "not drained within --drain-timeout: what was not stored is not committed either, the next start goes on there"
        );
    }
    Ok(())
}

/// From joining the group to leaving it, one lease after the other; whether the last one ended in order.
async fn membership(
    to: &Membership,
    batching: BatchConfig,
    shutdown: &Shutdown,
    metrics: &Arc<Metrics>,
) -> Result<bool> {
    let (leases, opened) = mpsc::unbounded_channel();
    let (thread, committer) = member::join(to.clone(), metrics.clone(), shutdown.clone(), leases)?;
    let drained = UnboundedReceiverStream::new(opened)
        .try_fold(true, |_, lease| ingest_lease(lease, batching, metrics, &committer))
        .await;
    // Whatever ended the work ends the membership too.
    if !matches!(&drained, Err(error) if error.is::<PutOut>()) {
        shutdown.request();
    }
    tokio::task::spawn_blocking(move || thread.join()).await?.map_err(|_| anyhow!("the Kafka thread crashed"))?;
    drained
}

/// The pipeline, for as long as the lease lasts; false if its drain took too long.
async fn ingest_lease(
    mut lease: Lease,
    batching: BatchConfig,
    metrics: &Arc<Metrics>,
    committer: &Arc<Committer>,
) -> Result<bool> {
    let hauls = std::mem::replace(&mut lease.records, futures::channel::mpsc::channel(0).1);
    let records = hauls.flat_map(stream::iter);
    let ledger = Ledger::open(lease.starts.iter().copied(), lease.offsets(committer), metrics.clone());
    let ownership = lease.ownership.clone();
    let flow = flows::ingest(records, batching, lease.sink.clone(), ownership.clone(), metrics.clone(), ledger);
    // Dropping the flow lets go of what is under way; nothing of it is committed.
    let outcome = tokio::select! {
        outcome = flow => outcome.map(Some),
        () = ownership.lost() => Ok(None),
    };
    match outcome {
        Ok(Some(ledger)) => {
            lease.end(Ended::Drained(ledger.marks().collect()));
            Ok(true)
        }
        Err(IngestError::Settle(SettleError::Lost(_))) => {
            let drained = !lease.given_up.load(SeqCst);
            lease.end(Ended::Fenced);
            Ok(drained)
        }
        Ok(None) => {
            let drained = !lease.given_up.load(SeqCst);
            lease.end(Ended::Stopped);
            Ok(drained)
        }
        Err(error) => {
            lease.end(Ended::Stopped);
            Err(anyhow!("stopped, nothing of the current batches is committed: {}", describe(&error)))
        }
    }
}
