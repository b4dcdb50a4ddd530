//! The consumer: a member of the consumer group, whose leases are streams of records.
//!
//! | file | what it does |
//! |---|---|
//! | `poll_loop.rs` | the thread that polls, and does what the state machine says |
//! | `callbacks.rs` | the rebalance callbacks, logs and statistics of librdkafka |
//! | `shared.rs` | the state machine ([`flows::Member`]) between the threads |
//! | `start_offsets.rs` | looks up where to go on, and opens a lease |
//! | `fetching.rs` | takes records out of librdkafka's queue |
//! | `records.rs` | the records of a lease, from the consumer to the pipeline |
//! | `lease.rs` | the pipeline's end of a lease: its records, the right to write them, its commits |
//! | `committing.rs` | the thread that commits |
//! | `settings.rs` | librdkafka's settings, and those that are refused |
//! | `static_membership.rs` | the name of a member that comes back |
//! | `lag.rs` | how far behind this member is |
//! | `reach.rs` | how far each partition goes |
//!
//! No file but the state machine decides anything about leases, partitions or commits.

mod callbacks;
mod committing;
mod fetching;
mod lag;
mod lease;
mod poll_loop;
mod reach;
mod records;
mod settings;
mod shared;
mod start_offsets;
pub mod static_membership;

pub(crate) use fetching::BUDGET_BYTES;
pub use lease::Lease;
pub(crate) use reach::Reach;
pub(crate) use settings::client_config;
pub use start_offsets::{OWN_TABLE, belongs_to};

use super::{KafkaConfig, Naming};
use crate::shutdown::Shutdown;
use crate::stuck::Stuck;
use anyhow::{Result, anyhow};
use callbacks::Callbacks;
use flows::{BatchConfig, Claim, Metrics, Store};
use futures::Stream;
use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

pub(crate) type Client = BaseConsumer<Callbacks>;

/// The default for the time of a drain.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The configuration and the collaborators of a consumer.
pub struct ConsumerConfig<S> {
    /// The topic that it reads.
    pub topic: String,
    /// The identity of the topic, which differs from that of a later one of the same name.
    pub naming: Naming,
    /// librdkafka's settings.
    pub client: ClientConfig,
    /// Where rows are stored.
    pub store: Arc<S>,
    /// Whose leases it may replace.
    pub claim: Claim,
    /// The time for a pipeline to store its records when partitions are revoked.
    pub drain_timeout: Duration,
    /// Within this time a partial batch is stored.
    pub batch_timeout: Duration,
    /// The place for reports about a stuck flow.
    pub(crate) stuck: Arc<Stuck>,
    /// How far each partition goes.
    pub(crate) reach: Arc<Reach>,
    /// Where to stop, for each partition; none to go on without end.
    pub until: Option<BTreeMap<i32, i64>>,
    /// Bytes of records that may be on their way to the ledger at a time.
    pub budget_bytes: usize,
}

impl<S> ConsumerConfig<S> {
    /// A member of `group` that reads the topic without end, with the defaults of `clickstream ingest`.
    ///
    /// # Errors
    /// When a setting of librdkafka is wrong, or is one that the promises need otherwise.
    pub fn new(kafka: &KafkaConfig, group: &str, store: Arc<S>) -> Result<Self> {
        Ok(Self {
            topic: kafka.topic.clone(),
            naming: Naming::ById,
            client: client_config(kafka, group, DRAIN_TIMEOUT, false, 1)?,
            store,
            claim: Claim::Group { group: group.to_owned(), take_over: None },
            drain_timeout: DRAIN_TIMEOUT,
            batch_timeout: BatchConfig::default().timeout,
            stuck: Arc::default(),
            reach: Arc::default(),
            until: None,
            budget_bytes: BUDGET_BYTES,
        })
    }
}

impl<S> Clone for ConsumerConfig<S> {
    fn clone(&self) -> Self {
        let Self {
            topic,
            naming,
            client,
            store,
            claim,
            drain_timeout,
            batch_timeout,
            stuck,
            reach,
            until,
            budget_bytes,
        } = self;
        Self {
            topic: topic.clone(),
            naming: *naming,
            client: client.clone(),
            store: store.clone(),
            claim: claim.clone(),
            drain_timeout: *drain_timeout,
            batch_timeout: *batch_timeout,
            stuck: stuck.clone(),
            reach: reach.clone(),
            until: until.clone(),
            budget_bytes: *budget_bytes,
        }
    }
}

/// This client is not a member any more, and has to join again as a new one.
#[derive(Debug, thiserror::Error)]
pub enum Evicted {
    /// Another client has joined under its instance id.
    #[error("Kafka has removed this member from its group: {0}: does another process use the same --instance-id?")]
    Fenced(RDKafkaErrorCode),
    /// The member's session ended during a rebalance, and librdkafka, which has joined again, continues with the
    /// earlier partitions.
    #[error("the group has given this member's partitions to others")]
    StaleMemberId,
}

/// A member of the consumer group.
pub struct Consumer<S: Store> {
    leases: mpsc::UnboundedReceiver<Result<Lease<S::Sink>>>,
    thread: JoinHandle<()>,
}

impl<S: Store> Consumer<S> {
    /// Joins the group. The member drains its last lease and leaves the group when `shutdown` is requested.
    ///
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn join(config: &ConsumerConfig<S>, metrics: &Arc<Metrics>, shutdown: &Shutdown) -> Result<Self> {
        let (sender, leases) = mpsc::unbounded_channel();
        let thread = poll_loop::start(config.clone(), metrics.clone(), shutdown.clone(), sender)?;
        Ok(Self { leases, thread })
    }

    /// The leases of this member, one after the other: each until the next rebalance or the shutdown. The stream ends
    /// when the member has left its group, and with an error when no lease is possible any more.
    pub fn leases(&mut self) -> impl Stream<Item = Result<Lease<S::Sink>>> + use<S> {
        let closed = mpsc::unbounded_channel().1;
        UnboundedReceiverStream::new(std::mem::replace(&mut self.leases, closed))
    }

    /// Waits until the member has left its group.
    ///
    /// # Errors
    /// When its thread has crashed.
    pub async fn left(self) -> Result<()> {
        tokio::task::spawn_blocking(move || self.thread.join()).await?.map_err(|_| anyhow!("the Kafka thread crashed"))
    }
}
