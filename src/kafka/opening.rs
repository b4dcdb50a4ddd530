//! Opening a lease: for each partition that is new here, where to go on and what of it is stored already.

use super::loss::Loss;
use super::member::{Consumer, Membership};
use super::metadata::{Metadata, UNMARKED_LIFETIME};
use super::{Committer, Identity, Naming, Notes, Origin, admin, native};
use crate::clickhouse::{ClickHouse, ClickHouseSink, Writer};
use crate::stuck::{At, Stuck};
use anyhow::{Result, anyhow};
use flows::{Backoff, Claim, ErrorKind, Failure, Metrics, OffsetRanges, OpenError, open_lease};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

/// How long Kafka may take for one answer before it is asked again.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a committed offset may lie above the topic's end: a partition's new leader learns only after a moment how far the
/// old one had come.
const CATCHING_UP: Duration = Duration::from_secs(10);

/// A lease that is being opened, on the runtime, while its member goes on polling. Dropping it gives up.
pub struct Opening {
    answer: oneshot::Receiver<Result<Opened>>,
    _task: AbortOnDropHandle<()>,
}

/// What was found out.
pub struct Opened {
    pub sink: Arc<ClickHouseSink>,
    pub identity: Identity,
    /// Where what is committed lies outside of what the topic holds, or belongs to another one.
    pub losses: Vec<Loss>,
    /// What the group has noted of partitions.
    pub notes: Vec<(i32, Notes)>,
    pub starts: Vec<Start>,
}

/// What Kafka says.
struct Found {
    identity: Identity,
    /// For each partition the offset to go on at.
    positions: Vec<(i32, i64)>,
    /// A member of before there were leases has committed for one of them.
    is_unmarked: bool,
    losses: Vec<Loss>,
    notes: Vec<(i32, Notes)>,
}

/// Where to go on in a partition.
pub struct Start {
    pub partition: i32,
    pub first: i64,
    pub stored: OffsetRanges,
}

/// Everything that is asked, and of whom.
struct Question {
    consumer: Arc<Consumer>,
    clickhouse: Arc<ClickHouse>,
    writer: Writer,
    claim: Claim,
    committer: Arc<Committer>,
    /// Another owner has opened a lease meanwhile.
    was_fenced: bool,
    topic: String,
    naming: Naming,
    from_end: bool,
    partitions: Vec<i32>,
    since: Instant,
    stuck: Arc<Stuck>,
    metrics: Arc<Metrics>,
    translated: Once,
}

impl Opening {
    /// Begins to ask about `partitions`; tries until there is an answer.
    pub fn start(
        runtime: &Handle,
        consumer: &Arc<Consumer>,
        to: &Membership,
        metrics: &Arc<Metrics>,
        committer: &Arc<Committer>,
        was_fenced: bool,
        partitions: Vec<i32>,
    ) -> Self {
        to.stuck.is(At::Lease, "what is committed and stored is being asked");
        let question = Question {
            consumer: consumer.clone(),
            clickhouse: to.clickhouse.clone(),
            writer: to.writer.clone(),
            claim: to.claim.clone(),
            committer: committer.clone(),
            was_fenced,
            topic: to.topic.clone(),
            naming: to.naming,
            from_end: matches!(to.config.get("auto.offset.reset"), Some("latest" | "largest" | "end")),
            partitions,
            since: Instant::now(),
            stuck: to.stuck.clone(),
            metrics: metrics.clone(),
            translated: Once::new(),
        };
        let (tell, answer) = oneshot::channel();
        let task = runtime.spawn(async move {
            let _ = tell.send(question.ask().await);
        });
        Self { answer, _task: AbortOnDropHandle::new(task) }
    }

    /// The answer, once it is there.
    pub fn poll(&mut self) -> Option<Result<Opened>> {
        match self.answer.try_recv() {
            Ok(answer) => Some(answer),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(anyhow!("opening a lease crashed"))),
        }
    }
}

impl Question {
    async fn ask(self) -> Result<Opened> {
        let question = Arc::new(self);
        let (mut backoff, mut said) = (Backoff::default(), false);
        loop {
            let failure = match question.clone().once().await {
                Ok(opened) => return Ok(opened),
                Err(failure) => failure,
            };
            Metrics::count(&question.metrics.lease_failures, 1);
            question.metrics.note_failure(&failure);
            if failure.kind == ErrorKind::Permanent {
                return Err(anyhow!(failure));
            }
            // Once here; what lasts is said where everything is that does.
            if !std::mem::replace(&mut said, true) {
                tracing::info!("cannot open a lease yet: {failure}");
            }
            question.stuck.is(At::Lease, format!("partitions {:?}: {failure}", question.partitions));
            backoff.wait().await;
        }
    }

    async fn once(self: Arc<Self>) -> Result<Opened, Failure> {
        let kafka = self.clone();
        if self.was_fenced {
            self.committer.confirmed_as_member().await;
        }
        let asked = tokio::task::spawn_blocking(move || kafka.ask_kafka());
        self.clickhouse.check_to_write().await?;
        let asked = asked.await.map_err(|crash| transient(format!("asking Kafka crashed: {crash}")))?;
        let Found { identity, positions, is_unmarked, losses, notes } = asked?;
        self.consumer.context().reach.starts(&positions);
        let source = identity.source();
        let sink = ClickHouseSink::new(self.clickhouse.clone(), source, self.writer.clone());
        // First the lease, then the question: what others had on its way has ended, or will be refused.
        let opened = open_lease(&sink, &self.writer.tokens, &self.claim, &self.partitions).await;
        opened.map_err(|error| self.not_opened(error))?;
        if is_unmarked {
            tokio::time::sleep(UNMARKED_LIFETIME).await;
        }
        let mut stored = self.clickhouse.stored_from(source, &positions).await?;
        let start =
            |(partition, first)| Start { partition, first, stored: stored.remove(&partition).unwrap_or_default() };
        let starts = positions.into_iter().map(start).collect();
        Ok(Opened { sink: Arc::new(sink), identity, losses, notes, starts })
    }

    fn not_opened(&self, error: OpenError) -> Failure {
        match error {
            OpenError::Failure(failure) => failure,
            OpenError::OtherGroup { group, .. } => {
                let topic = &self.topic;
                let message = if self.was_fenced { taken_over(topic, &group) } else { belongs_to(topic, &group) };
                Failure { kind: ErrorKind::Permanent, ended: true, message }
            }
            error => transient(error.to_string()),
        }
    }

    /// Which topic it is, and where to go on.
    fn ask_kafka(&self) -> Result<Found, Failure> {
        let identity = Identity::ask(&self.consumer, &self.topic, self.naming)
            .map_err(|code| self.unanswered(&KafkaError::Global(code)))?;
        let mut wanted = TopicPartitionList::new();
        for &partition in &self.partitions {
            wanted.add_partition(&self.topic, partition);
        }
        let unanswered = |error| self.unanswered(&error);
        let committed =
            native::committed(self.consumer.client().native_client(), wanted, ANSWER).map_err(unanswered)?;
        let ends = admin::ends(&self.consumer, &self.topic, &self.partitions, ANSWER).map_err(unanswered)?;
        let is_another = self.consumer.context().last_source().is_some_and(|last| last != identity.source());
        let mut is_unmarked = false;
        let (mut positions, mut losses, mut all_notes) = (Vec::new(), Vec::new(), Vec::new());
        let mut translated = BTreeMap::new();
        for place in committed.elements() {
            // Not to know what is committed is not the same as that nothing is.
            place.error().map_err(unanswered)?;
            let (low, high) = ends[&place.partition()];
            let origin = identity.origin(place.metadata());
            is_unmarked |= Metadata::is_unmarked(place.metadata());
            let is_made_again = origin == Origin::MadeAgain;
            let other_cluster = if let Origin::OtherCluster(other) = &origin { Some(other.clone()) } else { None };
            let mut notes = origin.notes();
            let first = match place.offset() {
                Offset::Offset(mark) if is_made_again => {
                    let seen = self.consumer.context().reach.seen(place.partition());
                    losses.push(Loss::made_again(place.partition(), mark, seen, low));
                    low
                }
                Offset::Offset(mark) if (low..=high).contains(&mark) => mark,
                // Only markers of transactions were deleted.
                Offset::Offset(mark) if mark < low && notes.read >= Some(low) => low,
                Offset::Offset(mark) if mark > high && self.since.elapsed() < CATCHING_UP => {
                    let at = place.partition();
                    return Err(transient(format!("partition {at}: committed offset {mark} is above its end {high}")));
                }
                Offset::Offset(mark) => {
                    losses.push(Loss::out_of_range(place.partition(), notes.read_up_to(mark), low, high));
                    low
                }
                _ => match self.consumer.context().reach.gone(place.partition()).filter(|_| is_another) {
                    Some((mark, seen)) => {
                        losses.push(Loss::made_again(place.partition(), mark, seen, low));
                        low
                    }
                    None if self.from_end => {
                        self.say_passed_over(place.partition(), low, high);
                        high
                    }
                    None => low,
                },
            };
            // Where it was out of range, this cluster's messages are read from the beginning.
            if let Some(other) = other_cluster.filter(|_| place.offset() == Offset::Offset(first)) {
                notes.from = Some(first);
                translated.insert(place.partition(), other);
            }
            notes.from = notes.from.filter(|from| *from <= first);
            positions.push((place.partition(), first));
            all_notes.push((place.partition(), notes));
        }
        self.say_translated(&identity, &translated);
        Ok(Found { identity, positions, is_unmarked, losses, notes: all_notes })
    }

    /// Offsets came from another cluster, and count here. Said once, however often it is asked until the lease is open.
    fn say_translated(&self, identity: &Identity, from: &BTreeMap<i32, String>) {
        let Some(other) = from.values().next() else { return };
        let partitions: Vec<_> = from.keys().collect();
        let (cluster, source) = (identity.cluster().unwrap_or("unknown"), identity.source());
        self.translated.call_once(|| {
            tracing::warn!(
                "partitions {partitions:?}: the committed offsets were translated from cluster {other} to this one, \
                 {cluster}: going on at them. Such offsets may lag: messages that are read again become rows once more, under \
                 this topic's own _source, {source}"
            );
        });
    }

    /// A group that has committed nothing begins at the end, as the user wants it.
    fn say_passed_over(&self, partition: i32, low: i64, high: i64) {
        if high > low {
            let passed = high - low;
            tracing::warn!(
                "partition {partition}: {passed} messages before offset {high} are not read: auto.offset.reset"
            );
        }
    }

    fn unanswered(&self, error: &KafkaError) -> Failure {
        let reasons = self.consumer.context().reasons();
        error.rdkafka_error_code().into_iter().for_each(|code| reasons.note_answer(code));
        transient(format!("Kafka: {}", reasons.explain("READ", &self.topic, error)))
    }
}

/// What it means that another group owns the rows of a topic.
pub fn belongs_to(topic: &str, group: &str) -> String {
    format!(
        "the rows of topic {topic} in this database are those of group {group}; a second group would store each of them twice: \
         nothing is stored by this one. --group {group} shares its work, --take-over {group} ends its members and goes on in their place"
    )
}

fn taken_over(topic: &str, group: &str) -> String {
    format!(
        "group {group} has taken over the rows of topic {topic} (--take-over): members of this group stop. Nothing is lost: group \
         {group} stores what this one has not"
    )
}

fn transient(message: String) -> Failure {
    Failure { kind: ErrorKind::Transient, ended: true, message }
}
