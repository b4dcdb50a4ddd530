//! Start offsets: reads the committed offsets from Kafka, opens a lease, and asks which offsets are stored already.

use super::lease::Opened;
use super::{Client, ConsumerConfig};
use crate::kafka::{Identity, admin, native};
use crate::printable::name;
use crate::stuck::At;
use flows::{
    Backoff, ErrorKind, Failure, Found as InKafka, LeaseTable as _, Metadata, Metrics, OffsetRanges, OpenError, Origin,
    Start, StartOffsets, Store, UNMARKED_LIFETIME, open_lease, start_offset,
};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::Span;

/// The longest time until Kafka answers one request, before it is repeated.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a committed offset may lie above the topic's end: a partition's new leader learns only after a moment how far the
/// old one had come.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// The result of a lookup.
pub struct Found<K> {
    pub offsets: StartOffsets,
    pub opened: Opened<K>,
}

/// Why nothing was found.
pub enum LookupError {
    /// Another owner has opened a lease meanwhile.
    RaceLost,
    /// A failure that will not pass by itself.
    Permanent(Failure),
}

/// The inputs of a lookup, and its clients.
pub struct Lookup<S> {
    client: Arc<Client>,
    config: ConsumerConfig<S>,
    metrics: Arc<Metrics>,
    partitions: Vec<i32>,
    since: Instant,
    /// Whether the log says already that offsets came from another cluster: once, for all attempts until the lease is
    /// open.
    translated: Once,
}

/// Kafka's answers.
struct Committed {
    identity: Identity,
    starts: Vec<(i32, Start)>,
    /// A build from before leases has committed for one of the partitions.
    is_unmarked: bool,
    /// Partitions that go on at an offset which another client has committed.
    foreign: Vec<i32>,
}

impl<S: Store> Lookup<S> {
    pub fn new(client: &Arc<Client>, config: &ConsumerConfig<S>, metrics: &Arc<Metrics>, partitions: Vec<i32>) -> Self {
        config.stuck.is(At::Lease, "what is committed and stored is being asked");
        Self {
            client: client.clone(),
            config: config.clone(),
            metrics: metrics.clone(),
            partitions,
            since: Instant::now(),
            translated: Once::new(),
        }
    }

    /// Repeats the lookup until there is an answer.
    pub async fn answer(self) -> Result<Found<S::Sink>, LookupError> {
        let lookup = Arc::new(self);
        let (mut backoff, mut is_said) = (Backoff::default(), false);
        loop {
            let error = match lookup.clone().once().await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            let (failure, is_race) = match error {
                OpenError::Failure(failure) => (failure, false),
                OpenError::OtherGroup { group, has_opened, .. } => (lookup.other_group(&group, has_opened), false),
                error => (transient(error.to_string()), true),
            };
            Metrics::count(&lookup.metrics.lease_failures, 1);
            lookup.metrics.note_failure(&failure);
            if failure.kind == ErrorKind::Permanent {
                return Err(LookupError::Permanent(failure));
            }
            // Logged once here; the report about a stuck flow repeats a lasting problem.
            if !std::mem::replace(&mut is_said, true) {
                tracing::info!("cannot open a lease yet: {failure}");
            }
            lookup.config.stuck.is(At::Lease, format!("partitions {:?}: {failure}", lookup.partitions));
            backoff.wait().await;
            if is_race {
                return Err(LookupError::RaceLost);
            }
        }
    }

    async fn once(self: Arc<Self>) -> Result<Found<S::Sink>, OpenError> {
        let store = &self.config.store;
        let (kafka, span) = (self.clone(), Span::current());
        let asked = tokio::task::spawn_blocking(move || span.in_scope(|| kafka.ask_kafka()));
        store.check().await?;
        let asked = asked.await.map_err(|crash| transient(format!("asking Kafka crashed: {crash}")))?;
        let Committed { identity, mut starts, is_unmarked, foreign } = asked?;
        let positions: Vec<_> = starts.iter().map(|(partition, start)| (*partition, start.offset)).collect();
        self.client.context().reach.starts(&positions);
        let (source, closed) = (identity.source().to_owned(), CancellationToken::new());
        let sink = store.sink(&self.config.topic, &source, closed.clone());
        self.note_cut_over(&sink, &foreign, &mut starts).await?;
        // First the lease, then the question: what others had on its way has ended, or will be refused.
        open_lease(&sink, store.tokens(), &self.config.claim, &self.partitions).await?;
        if is_unmarked {
            tokio::time::sleep(UNMARKED_LIFETIME).await;
        }
        let mut stored = store.stored_from(&source, &positions).await?;
        let with_stored = |(partition, start)| -> (i32, Start, OffsetRanges) {
            (partition, start, stored.remove(&partition).unwrap_or_default())
        };
        let starts = starts.into_iter().map(with_stored).collect();
        let opened = Opened { sink: Arc::new(sink), identity, tokens: store.tokens().clone(), closed };
        Ok(Found { offsets: StartOffsets { source, starts }, opened })
    }

    /// Where no lease was ever opened, another program has read what lies before its offset, and its rows are not ours: the start is noted,
    /// and `audit` compares only what follows.
    async fn note_cut_over(&self, sink: &S::Sink, foreign: &[i32], starts: &mut [(i32, Start)]) -> Result<(), Failure> {
        if foreign.is_empty() {
            return Ok(());
        }
        let known = sink.newest(foreign).await?;
        for (partition, start) in starts {
            if foreign.contains(partition) && !known.contains_key(partition) && start.offset > 0 {
                start.notes.from = Some(start.offset);
                tracing::info!(
                    "partition {partition}: going on at offset {}, which another program has committed: what lies before it is not compared \
                     by `audit`",
                    start.offset
                );
            }
        }
        Ok(())
    }

    fn other_group(&self, group: &str, has_opened: bool) -> Failure {
        let topic = &self.config.topic;
        let message = if has_opened { taken_over(topic, group) } else { belongs_to(topic, group) };
        Failure { kind: ErrorKind::Permanent, ended: true, message }
    }

    /// Which topic it is, and where to go on.
    fn ask_kafka(&self) -> Result<Committed, Failure> {
        let topic = &self.config.topic;
        let reach = &self.client.context().reach;
        let identity = Identity::ask(&self.client, topic, self.config.naming)
            .map_err(|code| self.unanswered(&KafkaError::Global(code)))?;
        let mut wanted = TopicPartitionList::new();
        for &partition in &self.partitions {
            wanted.add_partition(topic, partition);
        }
        let unanswered = |error| self.unanswered(&error);
        let native = self.client.client().native_client();
        let committed = native::committed(native, wanted, REQUEST_TIMEOUT).map_err(unanswered)?;
        let ends = admin::ends(&self.client, topic, &self.partitions, REQUEST_TIMEOUT).map_err(unanswered)?;
        let last_source = self.client.context().shared().lock().member.source().map(str::to_owned);
        let is_another = last_source.is_some_and(|last| last != identity.source());
        let from_end = matches!(self.config.client.get("auto.offset.reset"), Some("latest" | "largest" | "end"));
        let (mut starts, mut is_unmarked, mut translated) = (Vec::new(), false, BTreeMap::new());
        let mut foreign = Vec::new();
        for place in committed.elements() {
            // An unknown committed offset is not the same as none.
            place.error().map_err(unanswered)?;
            let partition = place.partition();
            let (low, high) = ends[&partition];
            let origin = identity.origin(place.metadata());
            is_unmarked |= Metadata::is_unmarked(place.metadata());
            let committed = if let Offset::Offset(offset) = place.offset() { Some(offset) } else { None };
            if let (Origin::OtherCluster(cluster), Some(_)) = (&origin, committed) {
                translated.insert(partition, cluster.clone());
            }
            let is_foreign = origin == Origin::Foreign && !Metadata::is_unmarked(place.metadata());
            let found = InKafka {
                committed,
                origin,
                low,
                high,
                seen: reach.seen(partition),
                gone_at: reach.gone_at(partition).filter(|_| is_another),
                from_end,
                may_catch_up: self.since.elapsed() < CATCH_UP_TIMEOUT,
            };
            let is_new = committed.is_none() && found.gone_at.is_none();
            let start = start_offset(partition, found).map_err(|above| transient(above.to_string()))?;
            if committed != Some(start.offset) {
                translated.remove(&partition);
            } else if is_foreign {
                foreign.push(partition);
            }
            if is_new && start.offset > low {
                // A group that has committed nothing begins at the end, as the user wants it.
                let passed = high - low;
                tracing::warn!(
                    "partition {partition}: {passed} messages before offset {high} are not read: auto.offset.reset"
                );
            }
            starts.push((partition, start));
        }
        self.say_translated(&identity, &translated);
        Ok(Committed { identity, starts, is_unmarked, foreign })
    }

    fn say_translated(&self, identity: &Identity, from: &BTreeMap<i32, String>) {
        let Some(other) = from.values().next().map(|other| name(other)) else { return };
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

    fn unanswered(&self, error: &KafkaError) -> Failure {
        let reasons = self.client.context().reasons();
        error.rdkafka_error_code().into_iter().for_each(|code| reasons.note_answer(code));
        transient(format!("Kafka: {}", reasons.explain("READ", &self.config.topic, error)))
    }
}

/// Between the group and the table of a user's own that own the rows of a topic.
pub const OWN_TABLE: &str = ", table ";

/// The error when another group, or another table, owns the rows of a topic.
pub fn belongs_to(topic: &str, owner: &str) -> String {
    let group = name(owner);
    if let Some((group, table)) = owner.split_once(OWN_TABLE).map(|(group, table)| (name(group), name(table))) {
        return format!(
            "the rows of topic {topic} in this database go into table {table}, by group {group}; another group or table would store them \
             twice: nothing is stored by this one. Use another database for another table. With --table {table}, --group {group} \
             shares its work, --take-over {group} ends its members and goes on in their place"
        );
    }
    format!(
        "the rows of topic {topic} in this database are those of group {group}; a second group would store each of them twice: \
         nothing is stored by this one. --group {group} shares its work, --take-over {group} ends its members and goes on in their place"
    )
}

fn taken_over(topic: &str, group: &str) -> String {
    let group = name(group);
    format!(
        "the rows of topic {topic} are those of group {group} now, which was started with --take-over, or at the same time as this \
         group: members of this group stop. Nothing is lost: group {group} stores what this one has not"
    )
}

fn transient(message: String) -> Failure {
    Failure { kind: ErrorKind::Transient, ended: true, message }
}
