//! The consumer's callbacks: a rebalance ends the lease.

use super::reach::Reach;
use super::shared::Shared;
use super::{Client, ConsumerConfig};
use crate::failpoints::{self, Step};
use crate::kafka::native::{Redirect, member_id};
use crate::kafka::statistics::Statistics;
use crate::kafka::{Reasons, broker_recovery};
use crate::stuck::{At, Stuck};
use flows::{Input, Metrics, Store, Tokens};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// The context of the consumer. All callbacks run on the thread that polls, inside its `poll`.
pub struct Callbacks {
    topic: String,
    shared: Arc<Shared>,
    tokens: Arc<Tokens>,
    pub reach: Arc<Reach>,
    stuck: Arc<Stuck>,
    /// Set before the consumer subscribes.
    redirect: OnceLock<Redirect>,
    reasons: Reasons,
    has_no_brokers: AtomicBool,
    topic_is_gone: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Callbacks {
    pub fn new<S: Store>(config: &ConsumerConfig<S>, shared: Arc<Shared>, metrics: Arc<Metrics>) -> Self {
        Self {
            topic: config.topic.clone(),
            shared,
            tokens: config.store.tokens().clone(),
            reach: config.reach.clone(),
            stuck: config.stuck.clone(),
            redirect: OnceLock::new(),
            reasons: Reasons::of_worker(&config.client, &config.topic, "READ"),
            has_no_brokers: AtomicBool::default(),
            topic_is_gone: AtomicBool::default(),
            metrics,
        }
    }

    /// The queue for fetched messages of assigned partitions.
    pub fn redirect_into(&self, redirect: Redirect) {
        // Called once, where the consumer is made.
        let _ = self.redirect.set(redirect);
    }

    /// Whether the client had no broker left, by the statistics since this was asked last.
    pub fn has_no_brokers(&self) -> bool {
        self.has_no_brokers.swap(false, Relaxed)
    }

    /// The present problems of this member.
    pub const fn reasons(&self) -> &Reasons {
        &self.reasons
    }

    /// The state machine.
    pub const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn mine<'t>(&self, list: &'t TopicPartitionList) -> impl Iterator<Item = i32> + use<'t> {
        let topic = self.topic.clone();
        list.elements().into_iter().filter(move |place| place.topic() == topic).map(|place| place.partition())
    }

    /// The broker says that there is no such topic: partitions that are revoked next are revoked for that.
    pub fn topic_is_gone(&self) {
        self.topic_is_gone.store(true, Relaxed);
    }

    /// The stream ends, received records are stored and committed, and only then the partitions are given back.
    fn revoke(&self, consumer: &Client, gone: &[i32]) {
        self.shared.handle(Input::Revoked { partitions: gone.to_vec(), is_lost: consumer.assignment_lost() });
        let released = self.shared.released();
        self.tokens.forget(gone);
        if self.topic_is_gone.swap(false, Relaxed) {
            self.reach.topic_gone(&released);
        } else {
            self.reach.revoked(&released);
        }
    }
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.reasons.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, text: &str) {
        self.reasons.error(error, text);
    }

    fn stats_raw(&self, json: &[u8]) {
        let Some(statistics) = Statistics::read(json) else { return };
        match self.reasons.follow(&statistics) {
            Some(since) => {
                let why = self.reasons.worst().map_or_else(|| "no broker is connected".into(), |why| why.to_string());
                self.stuck.is_since(At::Kafka, since, why);
                self.stuck.warn();
            }
            None => self.stuck.is_over(At::Kafka),
        }
        self.metrics.queue_bytes.store(statistics.queued_bytes(), Relaxed);
        self.has_no_brokers.store(broker_recovery::has_no_brokers(&statistics), Relaxed);
    }
}

impl ConsumerContext for Callbacks {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                let Some(redirect) = self.redirect.get() else { return };
                self.mine(list).for_each(|partition| {
                    redirect.partition(consumer.client().native_client(), &self.topic, partition);
                });
            }
            Rebalance::Revoke(list) => {
                let gone: Vec<_> = self.mine(list).collect();
                tracing::info!(?gone, lost = consumer.assignment_lost(), "partitions revoked");
                // This step can only die or stall.
                let _ = failpoints::reach_blocking(Step::OnRevoke);
                if !gone.is_empty() {
                    self.revoke(consumer, &gone);
                    self.stuck.is(At::Group, "partitions were taken back, and a rebalance is under way");
                }
            }
            Rebalance::Error(error) => tracing::warn!("rebalance failed: {error}"),
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            let new: Vec<_> = self.mine(list).collect();
            tracing::info!(?new, "partitions assigned");
            let _ = failpoints::reach_blocking(Step::OnAssign);
            self.reasons.joined();
            let id = member_id(consumer.client().native_client());
            self.shared.handle(Input::Assigned { partitions: new, id });
            self.reach.assigned(self.shared.lock().member.positions());
            self.stuck.is_over(At::Group);
            Metrics::count(&self.metrics.rebalances, 1);
        }
    }
}
