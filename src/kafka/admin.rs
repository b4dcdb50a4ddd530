//! Questions about the cluster, and making the topic.

use super::native::{self, Group};
use super::reason::Reason;
use super::reasons::Reasons;
use super::topic_identity;
use anyhow::{Context, Result, anyhow, bail};
use flows::Backoff;
use flows::TopicIdentity;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time until each broker of a cluster knows a new topic.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);

/// The result of a request for a topic.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The topic exists, with these partitions.
    Partitions(Vec<i32>),
    /// The cluster answers, and has no such topic.
    Missing,
}

/// A client to ask with; it joins no group.
pub type Client = BaseConsumer<Reasons>;

/// A client for a command that needs these settings.
///
/// # Errors
/// When librdkafka does not take them, or cannot read a file that they name.
pub fn client(config: &ClientConfig) -> Result<Client> {
    let reasons = Reasons::of_asker(config, "DESCRIBE");
    config.create_with_context(reasons).context("cannot set up the Kafka client: check --kafka settings")
}

/// Why a request of this client failed, for which the right to `operation` is needed.
pub fn explain(client: &Client, operation: &'static str, topic: &str, error: &KafkaError) -> Reason {
    listen(client);
    client.context().explain(operation, topic, error)
}

/// Polls librdkafka's events, which wait until a client asks for them.
pub fn listen(client: &Client) {
    while client.poll(Duration::from_millis(1)).is_some() {}
}

/// Requests a topic. A broker that does not know it may not have heard of it yet, so with several brokers this takes up
/// to [`METADATA_TIMEOUT`].
///
/// # Errors
/// When no broker answers within `patience`, or when a broker's answer is an error of the topic.
pub fn find(client: &Client, topic: &str, patience: Duration) -> KafkaResult<Found> {
    let began = Instant::now();
    loop {
        let metadata = client.fetch_metadata(Some(topic), patience)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        match found.map(|found| (found, found.error().map(RDKafkaErrorCode::from))) {
            Some((found, None)) => {
                return Ok(Found::Partitions(found.partitions().iter().map(|partition| partition.id()).collect()));
            }
            None | Some((_, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic))) => {
                if metadata.brokers().len() == 1 || began.elapsed() > METADATA_TIMEOUT {
                    return Ok(Found::Missing);
                }
                std::thread::park_timeout(METADATA_TIMEOUT / 20);
            }
            Some((_, Some(error))) => return Err(KafkaError::MetadataFetch(error)),
        }
    }
}

/// The first offset and the one after the last, for each partition.
///
/// # Errors
/// The reason why Kafka does not answer.
pub fn watermarks(client: &Client, topic: &str, partitions: &[i32]) -> Result<BTreeMap<i32, (i64, i64)>> {
    ends(client, topic, partitions, REQUEST_TIMEOUT).map_err(|error| {
        anyhow!("cannot read the end offsets of topic {topic}: {}", explain(client, "DESCRIBE", topic, &error))
    })
}

/// The first offset and the one behind the last: two requests for each broker, however many partitions it leads.
///
/// # Errors
/// When not all of them answer within `patience`.
pub fn ends<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    patience: Duration,
) -> KafkaResult<BTreeMap<i32, (i64, i64)>> {
    let end = |end| end_of(client, topic, partitions, end, patience);
    let (low, high) = (end(Offset::Beginning)?, end(Offset::End)?);
    Ok(low.into_iter().zip(high).map(|((partition, low), (_, high))| (partition, (low, high))).collect())
}

fn end_of<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    end: Offset,
    patience: Duration,
) -> KafkaResult<BTreeMap<i32, i64>> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut wanted = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        // Both ends are times, too: special ones.
        wanted.add_partition_offset(topic, partition, end)?;
    }
    let found = native::offsets_for_times(client.client().native_client(), wanted, patience)?;
    let offset = |place: &TopicPartitionListElem<'_>| match place.offset() {
        Offset::Offset(offset) => place.error().map(|()| (place.partition(), offset)),
        _ => place.error().and(Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OffsetNotAvailable))),
    };
    found.elements().iter().map(offset).collect()
}

/// The first offset with a message of `since_ms` or later, for each partition that has one.
///
/// # Errors
/// When Kafka does not answer.
pub fn offsets_since(client: &Client, topic: &str, partitions: &[i32], since_ms: i64) -> Result<BTreeMap<i32, i64>> {
    let mut wanted = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        wanted.add_partition_offset(topic, partition, Offset::Offset(since_ms)).context("a time that Kafka takes")?;
    }
    let unanswered = |error| {
        anyhow!(
            "cannot read the offsets of topic {topic} at a given time: {}",
            explain(client, "DESCRIBE", topic, &error)
        )
    };
    let found =
        native::offsets_for_times(client.client().native_client(), wanted, REQUEST_TIMEOUT).map_err(unanswered)?;
    let mut offsets = BTreeMap::new();
    for place in found.elements() {
        place.error().map_err(unanswered)?;
        if let Offset::Offset(offset) = place.offset() {
            offsets.insert(place.partition(), offset);
        }
    }
    Ok(offsets)
}

/// The offsets that the client's group has committed in each partition; none where it has committed nothing.
///
/// # Errors
/// When its coordinator does not answer within `patience`.
pub fn committed<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    patience: Duration,
) -> KafkaResult<BTreeMap<i32, Option<i64>>> {
    let mut wanted = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        wanted.add_partition(topic, partition);
    }
    let found = native::committed(client.client().native_client(), wanted, patience)?;
    let offset = |place: &TopicPartitionListElem<'_>| {
        let mark = match place.offset() {
            Offset::Offset(mark) => Some(mark),
            _ => None,
        };
        place.error().map(|()| (place.partition(), mark))
    };
    found.elements().iter().map(offset).collect()
}

/// The committed offsets of the client's group, or the reason why they are unknown.
///
/// # Errors
/// When its coordinator does not answer.
pub fn committed_or_why(client: &Client, topic: &str, partitions: &[i32]) -> Result<BTreeMap<i32, Option<i64>>> {
    committed(client, topic, partitions, REQUEST_TIMEOUT * 2).map_err(|error| {
        anyhow!("cannot read the group's committed offsets: {}", explain(client, "DESCRIBE", topic, &error))
    })
}

/// The members of the client's group, and how they share the partitions.
///
/// # Errors
/// When its coordinator does not answer, or does not let this user join.
pub fn group(client: &Client, name: &str) -> Result<Group> {
    let refused = |code| anyhow!("group {name}: {}", explain(client, "READ", "", &KafkaError::Global(code)));
    let found = native::group(client.client().native_client(), name, REQUEST_TIMEOUT * 2).map_err(refused)?;
    match found.may_read {
        Some(false) => Err(refused(RDKafkaErrorCode::GroupAuthorizationFailed)),
        _ => Ok(found),
    }
}

/// The `_source` of a topic's rows: its id, or its name if the brokers have no ids.
///
/// # Errors
/// When Kafka does not answer.
pub fn source(client: &Client, topic: &str) -> Result<String> {
    identity(client, topic).map(|topic| topic.source().to_owned())
}

/// The identity of the topic and its cluster.
///
/// # Errors
/// When Kafka does not answer.
pub fn identity(client: &Client, topic: &str) -> Result<TopicIdentity> {
    topic_identity::ask(client.client().native_client(), topic, true, REQUEST_TIMEOUT * 2)
        .map_err(|code| anyhow!("topic {topic}: {}", explain(client, "DESCRIBE", topic, &KafkaError::Global(code))))
}

/// The topics of the cluster whose id is one of these: id and name. Topics that cannot be asked for are left out.
///
/// # Errors
/// When Kafka does not answer.
pub fn topics_with(client: &Client, ids: &BTreeSet<&str>) -> Result<BTreeMap<String, String>> {
    let metadata = client.fetch_metadata(None, REQUEST_TIMEOUT * 2);
    let metadata = metadata.map_err(|error| anyhow!("cannot list the cluster's topics: {error}"))?;
    let with_id = |topic: &MetadataTopic| {
        let id = native::topic_id(client.client().native_client(), topic.name(), REQUEST_TIMEOUT).ok()??;
        ids.contains(id.as_str()).then(|| (id, topic.name().to_owned()))
    };
    // Each costs a request.
    Ok(metadata.topics().iter().filter_map(with_id).take(ids.len()).collect())
}

/// Creates a topic, with the cluster's default replication factor. Returns when the cluster knows it: Kafka's answer
/// may come before the next broker has heard of the topic.
///
/// # Errors
/// The reason why Kafka does not create it.
pub async fn create(
    config: &ClientConfig,
    client: Arc<Client>,
    topic: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> Result<()> {
    let admin: AdminClient<Reasons> =
        config.create_with_context(Reasons::of_asker(config, "CREATE")).context("cannot set up the Kafka client")?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
    let options =
        AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT)).request_timeout(Some(REQUEST_TIMEOUT * 2));
    let created = match admin.create_topics([&new], &options).await {
        Ok(results) => results.into_iter().next().unwrap_or(Err((topic.to_owned(), RDKafkaErrorCode::Unknown))),
        Err(KafkaError::AdminOp(code)) => Err((topic.to_owned(), code)),
        Err(error) => return Err(error).context("cannot create the topic"),
    };
    match created {
        Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
        Err((_, code)) => {
            bail!("cannot create topic {topic}: {}", explain(&client, "CREATE", topic, &KafkaError::Global(code)))
        }
    }
    let deadline = Instant::now() + REQUEST_TIMEOUT * 2;
    let mut backoff = Backoff::default();
    while Instant::now() < deadline {
        let (client, name) = (client.clone(), topic.to_owned());
        let found = tokio::task::spawn_blocking(move || find(&client, &name, REQUEST_TIMEOUT)).await?;
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
    use rdkafka::consumer::CommitMode;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

    fn cluster(brokers: i32) -> (MockCluster<'static, DefaultProducerContext>, ClientConfig) {
        let cluster = MockCluster::new(brokers).unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers()).set("group.id", "clickstream");
        (cluster, config)
    }

    #[test]
    fn a_cluster_of_one_broker_knows_at_once_which_topics_there_are() {
        let (cluster, config) = cluster(1);
        cluster.create_topic("clicks", 3, 1).unwrap();
        let client = client(config.clone().set("allow.auto.create.topics", "false")).unwrap();
        assert_eq!(find(&client, "clicks", REQUEST_TIMEOUT).unwrap(), Found::Partitions(vec![0, 1, 2]));
        let began = Instant::now();
        assert_eq!(find(&client, "other", REQUEST_TIMEOUT).unwrap(), Found::Missing);
        assert!(began.elapsed() < METADATA_TIMEOUT, "there is no other broker whose news could be late");
    }

    #[test]
    fn a_cluster_that_is_away_is_not_one_without_the_topic() {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1");
        let client = client(&config).unwrap();
        let error = find(&client, "clicks", Duration::from_millis(300)).unwrap_err();
        let said = explain(&client, "DESCRIBE", "clicks", &error).to_string();
        assert!(said.contains("127.0.0.1:1"), "{said}");
    }

    #[test]
    fn the_ends_of_each_partition_are_asked_of_its_leader() {
        let (cluster, config) = cluster(3);
        cluster.create_topic("clicks", 3, 1).unwrap();
        for partition in 0..3 {
            cluster.partition_leader("clicks", partition, Some(partition + 1)).unwrap();
        }
        let producer: BaseProducer = config.create().unwrap();
        for partition in [1, 2, 2] {
            producer.send(BaseRecord::<(), str>::to("clicks").partition(partition).payload("x")).unwrap();
        }
        producer.flush(Duration::from_secs(20)).unwrap();
        let client = client(&config).unwrap();
        let found = ends(&client, "clicks", &[0, 1, 2], Duration::from_secs(20)).unwrap();
        assert_eq!(found, BTreeMap::from([(0, (0, 0)), (1, (0, 1)), (2, (0, 2))]));
        assert_eq!(ends(&client, "clicks", &[], REQUEST_TIMEOUT).unwrap(), BTreeMap::new());
    }

    /// Not to know an end is not the same as that it is 0.
    #[test]
    fn ends_that_one_leader_does_not_give_are_no_ends() {
        let (cluster, config) = cluster(2);
        cluster.create_topic("clicks", 2, 1).unwrap();
        cluster.partition_leader("clicks", 0, Some(1)).unwrap();
        cluster.partition_leader("clicks", 1, Some(2)).unwrap();
        let client = client(&config).unwrap();
        ends(&client, "clicks", &[0, 1], Duration::from_secs(20)).unwrap();
        cluster.broker_down(2).unwrap();
        ends(&client, "clicks", &[0, 1], Duration::from_secs(2)).unwrap_err();
    }

    #[test]
    fn a_partition_without_a_commit_is_told_from_one_that_is_committed_at_0() {
        let (cluster, config) = cluster(1);
        cluster.create_topic("clicks", 3, 1).unwrap();
        let client = client(&config).unwrap();
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset("clicks", 0, Offset::Offset(0)).unwrap();
        offsets.add_partition_offset("clicks", 2, Offset::Offset(17)).unwrap();
        client.commit(&offsets, CommitMode::Sync).unwrap();
        let found = committed(&client, "clicks", &[0, 1, 2], Duration::from_secs(20)).unwrap();
        assert_eq!(found, BTreeMap::from([(0, Some(0)), (1, None), (2, Some(17))]));
    }

    #[test]
    fn of_several_brokers_one_may_not_have_heard_of_a_topic_yet() {
        let cluster = MockCluster::new(3).unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers()).set("allow.auto.create.topics", "false");
        let client = client(&config).unwrap();
        std::thread::scope(|scope| {
            let found = scope.spawn(|| find(&client, "clicks", REQUEST_TIMEOUT).unwrap());
            std::thread::park_timeout(METADATA_TIMEOUT / 6); // the news is on its way
            cluster.create_topic("clicks", 2, 1).unwrap();
            assert_eq!(found.join().unwrap(), Found::Partitions(vec![0, 1]));
        });
    }
}
