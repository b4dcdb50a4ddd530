//! What happens in the consumer's callbacks: a rebalance ends the lease.

use super::lag::Reach;
use super::lease::{Hold, Place};
use super::member::{Consumer, Membership};
use super::native::{Redirect, member_id};
use super::statistics::Statistics;
use super::{Committer, Reasons, lifeline};
use crate::failpoints::{self, Step};
use crate::stuck::{At, Stuck};
use flows::{Metrics, Tokens};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// The context of the consumer. All callbacks run on the thread that polls, inside its `poll`.
pub struct Callbacks {
    topic: String,
    drain_timeout: Duration,
    tokens: Arc<Tokens>,
    hold: Mutex<Hold>,
    pub reach: Reach,
    stuck: Arc<Stuck>,
    /// Set before the consumer subscribes.
    tools: OnceLock<(Redirect, Arc<Committer>)>,
    reasons: Reasons,
    lost: AtomicBool,
    topic_is_gone: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Callbacks {
    pub fn new(to: &Membership, metrics: Arc<Metrics>) -> Self {
        Self {
            topic: to.topic.clone(),
            drain_timeout: to.drain_timeout,
            tokens: to.writer.tokens.clone(),
            hold: Mutex::default(),
            reach: Reach::default(),
            stuck: to.stuck.clone(),
            tools: OnceLock::new(),
            reasons: Reasons::of_worker(&to.config, &to.topic, "READ"),
            lost: AtomicBool::default(),
            topic_is_gone: AtomicBool::default(),
            metrics,
        }
    }

    pub fn equip(&self, redirect: Redirect, committer: Arc<Committer>) {
        // Called once, by whoever made the consumer.
        let _ = self.tools.set((redirect, committer));
    }

    /// Whether the client has no broker left, by the last statistics. Said once for each of them.
    pub fn is_lost(&self) -> bool {
        self.lost.swap(false, Relaxed)
    }

    /// What stands in this member's way.
    pub fn reasons(&self) -> &Reasons {
        &self.reasons
    }

    /// What this member holds. Not to be locked across a `poll`.
    pub fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mine<'t>(&self, list: &'t TopicPartitionList) -> impl Iterator<Item = i32> + use<'t> {
        let topic = self.topic.clone();
        list.elements().into_iter().filter(move |place| place.topic() == topic).map(|place| place.partition())
    }

    /// The broker says that there is no such topic: partitions that are revoked next are revoked for that.
    pub fn topic_is_gone(&self) {
        self.topic_is_gone.store(true, Relaxed);
    }

    /// The id of the topic whose offsets were committed last.
    pub fn last_source(&self) -> Option<String> {
        self.tools.get().and_then(|(_, committer)| committer.source())
    }

    /// The stream ends, what is under way is stored and committed, and only then the partitions go.
    fn revoke(&self, consumer: &Consumer, gone: &[i32]) {
        let mut hold = self.hold();
        let patience = if consumer.assignment_lost() { Duration::ZERO } else { self.drain_timeout };
        hold.end_lease(patience);
        hold.places.retain(|partition, _| !gone.contains(partition));
        (hold.changed, hold.is_assigned) = (true, false);
        self.tokens.forget(gone);
        drop(hold);
        if let Some((_, committer)) = self.tools.get() {
            if self.topic_is_gone.swap(false, Relaxed) {
                self.reach.topic_gone(gone, |partition| committer.confirmed(partition));
            } else {
                self.reach.forget(gone);
            }
            // Right after the drain this is one round trip. It can fail for good when the group has moved on, and then the
            // next owner finds the rows stored: no reason to hold up the whole group for long.
            committer.settle_up(patience.min(Duration::from_secs(2)));
            committer.forget(gone);
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
        self.reasons.follow(&statistics);
        self.metrics.queue_bytes.store(statistics.queued_bytes(), Relaxed);
        self.lost.store(lifeline::is_lost(&statistics), Relaxed);
    }
}

impl ConsumerContext for Callbacks {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                let Some((redirect, _)) = self.tools.get() else { return };
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
                    self.stuck.is(At::Group, "it has taken partitions back, and a rebalance is under way");
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
            let member = member_id(consumer.client().native_client());
            let mut hold = self.hold();
            if hold.places.is_empty() {
                hold.member = member;
            }
            hold.is_assigned = true;
            self.stuck.is_over(At::Group);
            Metrics::count(&self.metrics.rebalances, 1);
            // A cooperative rebalance that gives nothing new ends no lease.
            if !new.is_empty() {
                hold.places.extend(new.into_iter().map(|partition| (partition, Place::Unknown)));
                hold.changed = true;
            }
        }
    }
}
