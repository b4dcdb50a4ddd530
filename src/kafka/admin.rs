//! Questions about the cluster, and making the topic.

use super::topic::Quiet;
use anyhow::{Context, Result, bail};
use flows::Backoff;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ANSWER: Duration = Duration::from_secs(5);
/// How long it may take until a new topic is known to each broker of a cluster.
const NEWS: Duration = Duration::from_secs(3);

/// What asking for a topic found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// It has these partitions.
    Partitions(Vec<i32>),
    /// The cluster answers, and has no such topic.
    Missing,
}

/// A client to ask with; it joins no group.
pub fn client(config: &ClientConfig) -> Result<BaseConsumer> {
    config.create().context("cannot set up the Kafka client: check --kafka settings")
}

/// Asks for a topic. Of several brokers, one that does not know it may not have heard of it yet: then this takes [`NEWS`].
///
/// # Errors
/// When no broker answers within `patience`.
pub fn find(client: &BaseConsumer, topic: &str, patience: Duration) -> Result<Found> {
    let began = Instant::now();
    loop {
        let metadata = client.fetch_metadata(Some(topic), patience)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        match found.map(|found| (found, found.error().map(RDKafkaErrorCode::from))) {
            Some((found, None)) => {
                return Ok(Found::Partitions(found.partitions().iter().map(|partition| partition.id()).collect()));
            }
            None | Some((_, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic))) => {
                if metadata.brokers().len() == 1 || began.elapsed() > NEWS {
                    return Ok(Found::Missing);
                }
                std::thread::park_timeout(NEWS / 20);
            }
            Some((_, Some(error))) => bail!("topic {topic}: {error}"),
        }
    }
}

/// The first offset and the one behind the last, for each partition.
///
/// # Errors
/// When Kafka does not say.
pub fn watermarks(client: &BaseConsumer, topic: &str, partitions: &[i32]) -> Result<BTreeMap<i32, (i64, i64)>> {
    ends(client, topic, partitions).with_context(|| format!("cannot ask for the ends of topic {topic}"))
}

/// The same: two requests for each broker, however many partitions it leads.
///
/// # Errors
/// When Kafka does not say.
pub fn ends<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
) -> KafkaResult<BTreeMap<i32, (i64, i64)>> {
    let (low, high) =
        (end(client, topic, partitions, Offset::Beginning)?, end(client, topic, partitions, Offset::End)?);
    Ok(low.into_iter().zip(high).map(|((partition, low), (_, high))| (partition, (low, high))).collect())
}

fn end<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    end: Offset,
) -> KafkaResult<BTreeMap<i32, i64>> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut wanted = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        // Both ends are times, too: special ones.
        wanted.add_partition_offset(topic, partition, end)?;
    }
    let found = client.offsets_for_times(wanted, ANSWER)?;
    let offset = |place: &TopicPartitionListElem<'_>| match place.offset() {
        Offset::Offset(offset) => Ok((place.partition(), offset)),
        _ => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OffsetNotAvailable)),
    };
    found.elements().iter().map(offset).collect()
}

/// The first offset with a message of `since_ms` or later, for each partition that has one.
///
/// # Errors
/// When Kafka does not say.
pub fn offsets_since(
    client: &BaseConsumer,
    topic: &str,
    partitions: &[i32],
    since_ms: i64,
) -> Result<BTreeMap<i32, i64>> {
    let mut wanted = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        wanted.add_partition_offset(topic, partition, Offset::Offset(since_ms)).context("a time that Kafka takes")?;
    }
    let asked = || format!("cannot ask for the offsets of topic {topic} at a time");
    let found = client.offsets_for_times(wanted, ANSWER).with_context(asked)?;
    let mut offsets = BTreeMap::new();
    for place in found.elements() {
        place.error().with_context(asked)?;
        if let Offset::Offset(offset) = place.offset() {
            offsets.insert(place.partition(), offset);
        }
    }
    Ok(offsets)
}

/// Makes a topic; the cluster's default says how often it is replicated. Returns when the cluster knows it: its answer may come
/// before the broker that is asked next has heard of it.
pub async fn create(
    config: &ClientConfig,
    client: Arc<BaseConsumer>,
    topic: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> Result<()> {
    let admin: AdminClient<Quiet> =
        config.create_with_context(Quiet::default()).context("cannot set up the Kafka client")?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
    let options = AdminOptions::new().operation_timeout(Some(ANSWER)).request_timeout(Some(ANSWER * 2));
    let results = admin.create_topics([&new], &options).await.context("cannot create the topic")?;
    match results.into_iter().next() {
        Some(Ok(_)) | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
        Some(Err((_, code))) => bail!("cannot create topic {topic}: {code}"),
        None => bail!("cannot create topic {topic}: the broker gave no answer"),
    }
    let deadline = Instant::now() + ANSWER * 2;
    let mut backoff = Backoff::default();
    while Instant::now() < deadline {
        let (client, name) = (client.clone(), topic.to_owned());
        let found = tokio::task::spawn_blocking(move || find(&client, &name, ANSWER)).await?;
        if matches!(found, Ok(Found::Partitions(known)) if known.len() == partitions as usize) {
            return Ok(());
        }
        backoff.wait().await;
    }
    bail!("topic {topic} was created, but the broker does not know it yet: try again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::mocking::MockCluster;

    #[test]
    fn of_several_brokers_one_may_not_have_heard_of_a_topic_yet() {
        let cluster = MockCluster::new(3).unwrap();
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("allow.auto.create.topics", "false")
            .create()
            .unwrap();
        std::thread::scope(|scope| {
            let found = scope.spawn(|| find(&client, "clicks", ANSWER).unwrap());
            std::thread::park_timeout(NEWS / 6); // the news is on its way
            cluster.create_topic("clicks", 2, 1).unwrap();
            assert_eq!(found.join().unwrap(), Found::Partitions(vec![0, 1]));
        });
    }
}
