//! Whose turn it is to heal: membership in a group of its own, `GROUP.heal`. Kafka gives each partition to one member, so two
//! that heal at once never write the same rows.

use super::admin::{self, Client};
use super::{Reasons, native, topic_id};
use anyhow::{Context, Result, anyhow, bail};
use flows::{LeaseLost, Tenure};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// How long the group may take to give us its partitions: longer than it waits for a member that died.
const PATIENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Settings of the membership, whatever `--kafka` says.
const SETTINGS: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("auto.offset.reset", "latest"),
    ("group.protocol", "classic"), // in which nobody takes a partition from a member that does not give it
    ("partition.assignment.strategy", "range"), // all partitions to the one member
    ("session.timeout.ms", "8000"), // longer than an insert of a dead member can still begin
    ("heartbeat.interval.ms", "1000"),
    ("max.poll.interval.ms", "300000"),
    ("queued.min.messages", "1"), // it reads nothing
];

/// The turn, for as long as it is ours. Clones share it.
#[derive(Clone)]
pub struct Turn(Arc<Parts>);

struct Parts {
    /// A member of `GROUP.heal`. It is polled between inserts only, so a partition can go to another in the middle of one
    /// only when this process hangs for longer than its session.
    member: BaseConsumer<Membership>,
    /// Asks what the group itself has committed.
    client: Arc<Client>,
    topic: String,
    source: String,
    /// What was committed when the audit began, for each partition: what is put back lies below.
    marks: BTreeMap<i32, Option<i64>>,
}

/// Remembers that partitions went away. Whoever had the turn meanwhile may have put back what we are about to, so it does not
/// help that they come again.
struct Membership {
    interrupted: AtomicBool,
    reasons: Reasons,
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.reasons.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, text: &str) {
        self.reasons.error(error, text);
    }
}

impl ConsumerContext for Membership {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Revoke(_)) {
            self.interrupted.store(true, SeqCst);
        }
    }
}

impl Turn {
    /// The name of the group in which those who heal for `group` take turns.
    pub fn group(group: &str) -> String {
        format!("{group}.heal")
    }

    /// Waits until it is our turn.
    ///
    /// # Errors
    /// When it is somebody else's, and stays that.
    pub fn take(
        config: &ClientConfig,
        client: &Arc<Client>,
        topic: &str,
        source: &str,
        group: &str,
        marks: BTreeMap<i32, Option<i64>>,
    ) -> Result<Self> {
        let mut config = config.clone();
        for (key, value) in SETTINGS {
            config.set(*key, *value);
        }
        config.set("group.id", Self::group(group));
        let membership =
            Membership { interrupted: AtomicBool::default(), reasons: Reasons::of_worker(&config, topic, "READ") };
        let member: BaseConsumer<Membership> =
            config.create_with_context(membership).context("cannot set up the Kafka client")?;
        member.subscribe(&[topic]).context("cannot subscribe")?;
        let parts = Parts { member, client: client.clone(), topic: topic.into(), source: source.into(), marks };
        let deadline = Instant::now() + PATIENCE;
        while !parts.holds_all(LOOK_AGAIN) {
            let reasons = &parts.member.context().reasons;
            if let Some(missing) = reasons.refusal() {
                bail!("Kafka: {missing}");
            }
            if let Some(reason) = reasons.worst().filter(|_| Instant::now() > deadline) {
                bail!("cannot join group {}: {reason}", Self::group(group));
            }
            if Instant::now() > deadline {
                bail!("another `audit --heal` of group {group} is at work: let it end, and run this again");
            }
        }
        // Partitions may have gone to and fro before; from now on they must not.
        parts.member.context().interrupted.store(false, SeqCst);
        Ok(Self(Arc::new(parts)))
    }
}

impl Tenure for Turn {
    /// Proves before each insert what it hangs on: that the turn is ours, that the group still stands where it stood (who sets
    /// its offsets back has these rows read again by an ingester), and that the topic is still the same one.
    async fn prove(&self) -> Result<(), LeaseLost> {
        let parts = self.0.clone();
        let proved = tokio::task::spawn_blocking(move || parts.prove()).await;
        proved.unwrap_or(Err(LeaseLost))
    }
}

impl Parts {
    fn prove(&self) -> Result<(), LeaseLost> {
        let deadline = Instant::now() + ANSWER;
        let reason = loop {
            let reason = match self.doubt() {
                Ok(None) => return Ok(()),
                Ok(Some(reason)) => break reason,
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > deadline {
                break reason;
            }
        };
        tracing::error!("not writing any more: {reason}");
        Err(LeaseLost)
    }

    /// Why not to write, if there is a reason.
    fn doubt(&self) -> Result<Option<String>> {
        if !self.holds_all(Duration::ZERO) || self.member.context().interrupted.load(SeqCst) {
            return Ok(Some("another `audit --heal` of this group has begun".into()));
        }
        // Only the member of the group's present generation may commit in it.
        let proof = native::commit(self.member.client().native_client(), &self.list(Offset::Offset(0))?);
        proof.map_err(|error| anyhow!("{}", self.member.context().reasons.explain("READ", &self.topic, &error)))?;
        let partitions: Vec<_> = self.marks.keys().copied().collect();
        for (partition, now) in admin::committed_or_why(&self.client, &self.topic, &partitions)? {
            if self.marks.get(&partition).is_some_and(|mark| now < *mark) {
                return Ok(Some(format!("the group's offset of partition {partition} was set back")));
            }
        }
        match topic_id(self.client.client().native_client(), &self.topic, ANSWER) {
            Ok(None) => Ok(None), // a broker without ids
            Ok(Some(id)) if id == self.source => Ok(None),
            Ok(Some(_)) | Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Ok(Some(format!("topic {} was deleted", self.topic)))
            }
            Err(error) => bail!("topic {}: {error}", self.topic),
        }
    }

    /// Takes part in the group, and says whether all partitions are ours.
    fn holds_all(&self, wait: Duration) -> bool {
        // Messages are none of its business: the partitions are paused as soon as they are there.
        let _ = self.member.poll(wait);
        let Ok(mine) = self.member.assignment() else { return false };
        let _ = self.member.pause(&mine);
        !self.member.assignment_lost() && self.marks.keys().all(|&at| mine.find_partition(&self.topic, at).is_some())
    }

    fn list(&self, offset: Offset) -> Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for &partition in self.marks.keys() {
            list.add_partition_offset(&self.topic, partition, offset).context("an offset that Kafka takes")?;
        }
        Ok(list)
    }
}
