//! The ingesting pipeline, assembled: from the topic into ClickHouse, each message exactly once.

mod instance;
pub(crate) mod start;
mod topic;

pub(crate) use topic::owner;

use crate::clickhouse::{ClickHouse, ClickHouseConfig};
use crate::kafka::{KafkaConfig, Naming, version};
use crate::shutdown::Shutdown;
use crate::stuck::Stuck;
use crate::telemetry::Ready;
use anyhow::{Context as _, Result};
use flows::{BatchConfig, Metrics, Waiting};
use futures::StreamExt as _;
use futures::future::try_join_all;
use futures::stream::FuturesUnordered;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;
use topic::TopicIngest;
use tracing::Instrument as _;

/// The input and the target of [`run`].
#[derive(Clone, Debug)]
pub struct IngestConfig {
    /// The topic, which exists.
    pub kafka: KafkaConfig,
    /// Further topics whose messages go into the same table.
    pub more_topics: Vec<String>,
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

impl IngestConfig {
    /// All topics, each once.
    fn topics(&self) -> Vec<String> {
        let mut topics = vec![self.kafka.topic.clone()];
        for topic in &self.more_topics {
            if !topics.contains(topic) {
                topics.push(topic.clone());
            }
        }
        topics
    }

    /// The configuration for one of its topics alone.
    fn of_topic(&self, topic: &str) -> Self {
        let mut one = self.clone();
        topic.clone_into(&mut one.kafka.topic);
        if let Instance::Named(name) = &self.instance
            && self.topics().len() > 1
        {
            // Each topic has a member of its own, and no two of a group may have one name.
            one.instance = Instance::Named(format!("{name}.{topic}"));
        }
        one
    }
}

/// Ingests until a shutdown is requested or, with `until_end`, everything is stored that was there at the start.
///
/// Each topic has a member of the group, leases and commits of its own. If one of them fails, all end in order.
///
/// # Errors
/// When something does not fit at the start, when a failure will not pass by itself, or when the drain took too long.
pub async fn run(config: &IngestConfig, shutdown: &Shutdown, metrics: &Arc<Metrics>, ready: &Ready) -> Result<()> {
    let topics = config.topics();
    let count = topics.len();
    let start = |topic: String| async move {
        let started = TopicIngest::start(config.of_topic(&topic), count).await;
        if count > 1 { started.with_context(|| format!("topic {topic}")) } else { started }
    };
    // No member joins before all topics are known to be well.
    let mut started = tokio::select! {
        started = try_join_all(topics.iter().cloned().map(start)) => started?,
        () = shutdown.requested() => return Ok(()),
    };
    ready.begun();
    let clickhouse = started[0].clickhouse.clone();
    let _versions = AbortOnDropHandle::new(tokio::spawn(versions(config.kafka.clone(), clickhouse, metrics.clone())));
    match started.pop() {
        Some(topic) if count == 1 => topic.run(shutdown, metrics, &ready.stuck).await,
        last => run_all(topics.into_iter().zip(started.into_iter().chain(last)), shutdown, metrics, &ready.stuck).await,
    }
}

/// Runs the pipelines of several topics side by side, until all have ended.
async fn run_all(
    topics: impl Iterator<Item = (String, TopicIngest)>,
    shutdown: &Shutdown,
    metrics: &Metrics,
    stuck: &Stuck,
) -> Result<()> {
    let ingest = |(name, topic): (String, TopicIngest)| {
        let (shutdown, metrics, stuck) = (shutdown.of_part(), metrics.of_topic(&name), stuck.of_topic(&name));
        let span = tracing::error_span!("topic", message = %name);
        let work = async move {
            let ended = topic.run(&shutdown, &metrics, &stuck).await;
            // The other topics may go on for long: what it has left is not late, and not this process's any more.
            stuck.forget_all();
            *metrics.waiting() = Waiting::default();
            for gauge in [&metrics.lag, &metrics.partitions, &metrics.unleased, &metrics.queue_bytes] {
                gauge.store(0, Relaxed);
            }
            ended.with_context(|| format!("topic {name}"))
        };
        work.instrument(span)
    };
    let mut running: FuturesUnordered<_> = topics.map(ingest).collect();
    let mut outcome = Ok(());
    while let Some(ended) = running.next().await {
        let Err(error) = ended else { continue };
        shutdown.request();
        match &outcome {
            Ok(()) => outcome = Err(error),
            Err(_) => tracing::error!("{error:#}"),
        }
    }
    outcome
}

/// Learns the versions of the services, for the latency log only: the pipeline neither waits for them nor fails without them.
async fn versions(kafka: KafkaConfig, clickhouse: Arc<ClickHouse>, metrics: Arc<Metrics>) {
    let (kafka, clickhouse) = tokio::join!(version::of_broker(&kafka), clickhouse.version());
    for (name, version) in [("Kafka", kafka), ("ClickHouse", clickhouse.ok())] {
        version.into_iter().for_each(|version| metrics.learn(name, version));
    }
}
