//! Kafka through a plain client: what stands in a topic, what a group has committed, and messages of a test's own.

use super::eventually;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The longest time until a broker answers, on a busy machine.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// `offsets.topic.num.partitions` of ci/kafka.sh
const OFFSETS_PARTITIONS: i32 = 4;

/// A message as it stands in a topic.
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Vec<u8>,
    pub payload: Vec<u8>,
}

/// A cluster, and a consumer group to ask about.
#[derive(Clone)]
pub struct Kafka {
    pub brokers: String,
    /// Of the test's topic.
    pub partitions: i32,
    /// A client that is never subscribed, so it is not a member of the group.
    asks: Arc<BaseConsumer>,
}

impl Kafka {
    pub fn new(brokers: &str, group: &str, partitions: i32) -> Self {
        let asks = config(brokers)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .expect("settings that are valid");
        Self { brokers: brokers.to_owned(), partitions, asks: Arc::new(asks) }
    }

    /// Whether a broker answers.
    pub fn answers(&self) -> Result<(), String> {
        self.asks.fetch_metadata(None, Duration::from_secs(5)).map(drop).map_err(|error| error.to_string())
    }

    /// Whether the cluster has this topic.
    pub fn has(&self, topic: &str) -> bool {
        let metadata = self.asks.fetch_metadata(None, REQUEST_TIMEOUT).expect("the cluster answers");
        metadata.topics().iter().any(|found| found.name() == topic)
    }

    /// For each partition the offset behind its last message. A cluster that loses a broker may not answer for a while.
    pub fn ends(&self, topic: &str) -> BTreeMap<i32, i64> {
        let end = |partition| {
            eventually(super::WAIT_TIMEOUT, &format!("the end of partition {partition} is known"), || {
                let end = self.asks.fetch_watermarks(topic, partition, REQUEST_TIMEOUT).map(|(_, high)| high);
                if end.is_err() {
                    // A broker that has just started may name a part of the partitions, and librdkafka remembers that.
                    let _ = self.asks.fetch_metadata(Some(topic), REQUEST_TIMEOUT);
                }
                end
            })
        };
        (0..self.partitions).map(|partition| (partition, end(partition))).collect()
    }

    /// The node that leads a partition.
    pub fn leader(&self, topic: &str, partition: i32) -> i32 {
        eventually(super::WAIT_TIMEOUT, &format!("{topic}/{partition} has a leader"), || {
            let metadata = self.asks.fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(|error| error.to_string())?;
            let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            let leader = partitions.filter(|found| found.id() == partition).map(|found| found.leader()).next();
            leader.filter(|node| *node > 0).ok_or_else(|| "none".to_owned())
        })
    }

    /// The node that coordinates a group: the leader of that partition of Kafka's own topic which Java's hash of the group's
    /// name chooses.
    pub fn coordinator(&self, group: &str) -> i32 {
        let hash = group.bytes().fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        self.leader("__consumer_offsets", (hash & i32::MAX) % OFFSETS_PARTITIONS)
    }

    /// For each partition the offset that the group has committed. Those without one are left out, and those where it is the
    /// topic's beginning: members prove by such a commit that they are members.
    pub fn committed(&self, topic: &str) -> Result<BTreeMap<i32, i64>, KafkaError> {
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition(topic, partition);
        }
        let answer = self.asks.committed_offsets(list, REQUEST_TIMEOUT)?;
        Ok(answer
            .elements()
            .iter()
            .filter_map(|place| match place.offset() {
                Offset::Offset(mark) if mark > 0 => Some((place.partition(), mark)),
                _ => None,
            })
            .collect())
    }

    /// Sets the group's offsets back to the topic's beginning, as soon as it has no members.
    pub fn set_back(&self, topic: &str) {
        self.commit(topic, &(0..self.partitions).map(|partition| (partition, 0)).collect(), "");
    }

    /// Commits these offsets with this metadata, as another client does, as soon as the group has no members.
    pub fn commit(&self, topic: &str, offsets: &BTreeMap<i32, i64>, metadata: &str) {
        let mut list = TopicPartitionList::new();
        for (&partition, &offset) in offsets {
            list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("a valid offset");
            list.find_partition(topic, partition).expect("it was added").set_metadata(metadata);
        }
        eventually(super::WAIT_TIMEOUT, "the offsets are committed", || self.asks.commit(&list, CommitMode::Sync));
    }

    /// Deletes the group and its offsets, as soon as it has no members.
    pub fn delete_group(&self, group: &str) {
        let (admin, runtime, options) = self.admin();
        eventually(super::WAIT_TIMEOUT, "the group is deleted", || {
            let deleted =
                runtime.block_on(admin.delete_groups(&[group], &options)).map_err(|error| error.to_string())?;
            deleted.into_iter().try_for_each(|group| group.map(drop)).map_err(|(_, code)| code.to_string())
        });
    }

    /// The id of the group's member whose client has this id.
    pub fn member_of(&self, group: &str, client_id: &str) -> Option<String> {
        let list = self.asks.fetch_group_list(Some(group), REQUEST_TIMEOUT).expect("the group's coordinator answers");
        let mut members = list.groups().iter().flat_map(|group| group.members());
        members.find(|member| member.client_id() == client_id).map(|member| member.id().to_owned())
    }

    /// The ids of the group's members, in alphabetical order.
    pub fn members(&self, group: &str) -> Vec<String> {
        let list = self.asks.fetch_group_list(Some(group), REQUEST_TIMEOUT).expect("the group's coordinator answers");
        let members = list.groups().iter().flat_map(|group| group.members());
        let mut ids: Vec<_> = members.map(|member| member.id().to_owned()).collect();
        ids.sort();
        ids
    }

    /// All that stands in a topic now.
    pub fn read(&self, topic: &str) -> Vec<Record> {
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning).expect("the beginning is a valid offset");
        }
        // A client of its own: an assignment would linger in the one that asks.
        let reader: BaseConsumer = config(&self.brokers)
            .set("group.id", "nobody")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .expect("settings that are valid");
        reader.assign(&list).expect("partitions that exist");
        let (mut records, mut open, deadline) = (Vec::new(), self.partitions, Instant::now() + super::WAIT_TIMEOUT);
        while open > 0 {
            match reader.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => records.push(Record {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().unwrap_or_default().to_vec(),
                    payload: message.payload().unwrap_or_default().to_vec(),
                }),
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) => panic!("cannot read topic {topic}: {error}"),
                None => assert!(Instant::now() < deadline, "topic {topic} could not be read to its end"),
            }
        }
        records
    }

    /// Sends messages in order; returns where each of them stands.
    pub fn send(&self, topic: &str, messages: &[(&str, &str)]) -> Vec<(i32, i64)> {
        self.sender(topic).send(messages)
    }

    /// A producer that is connected already.
    pub fn sender(&self, topic: &str) -> Sender {
        let mut settings = config(&self.brokers);
        settings.set("enable.idempotence", "true");
        let producer: BaseProducer<Receipts> =
            settings.create_with_context(Receipts::default()).expect("settings that are valid");
        producer.client().fetch_metadata(Some(topic), REQUEST_TIMEOUT).expect("the broker answers");
        Sender { producer, topic: topic.to_owned() }
    }

    /// Deletes the messages below these offsets, as retention does.
    pub fn delete_records(&self, topic: &str, below: &BTreeMap<i32, i64>) {
        let mut list = TopicPartitionList::new();
        for (&partition, &offset) in below {
            list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset of the topic");
        }
        let (admin, runtime, options) = self.admin();
        runtime.block_on(admin.delete_records(&list, &options)).expect("the broker deletes them");
    }

    /// Raises the number of a topic's partitions to this one.
    pub fn create_partitions(&self, topic: &str, count: usize) {
        let (admin, runtime, options) = self.admin();
        let created = runtime.block_on(admin.create_partitions(&[NewPartitions::new(topic, count)], &options));
        created.expect("the broker answers").into_iter().for_each(|created| {
            created.expect("the broker creates them");
        });
    }

    fn admin(&self) -> (AdminClient<DefaultClientContext>, tokio::runtime::Runtime, AdminOptions) {
        let admin = config(&self.brokers).create().expect("settings that are valid");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        (admin, runtime, AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT)))
    }

    /// Deletes a topic, if it exists.
    pub fn delete(&self, topic: &str) {
        let (admin, runtime, options) = self.admin();
        // A broker that is gone or a topic that is: both leave nothing to delete.
        let _ = runtime.block_on(admin.delete_topics(&[topic], &options));
    }
}

/// Sends a test's own messages.
pub struct Sender {
    producer: BaseProducer<Receipts>,
    topic: String,
}

impl Sender {
    /// Sends messages in order; returns where each of them stands.
    pub fn send(&self, messages: &[(&str, &str)]) -> Vec<(i32, i64)> {
        self.send_to(None, messages)
    }

    /// Sends messages in order to one partition.
    pub fn send_to(&self, partition: Option<i32>, messages: &[(&str, &str)]) -> Vec<(i32, i64)> {
        for (nth, (key, payload)) in messages.iter().enumerate() {
            let mut record = BaseRecord::with_opaque_to(&self.topic, nth).key(*key).payload(*payload);
            record.partition = partition;
            self.producer.send(record).unwrap_or_else(|(error, _)| panic!("cannot send: {error}"));
        }
        self.producer.flush(REQUEST_TIMEOUT).expect("the broker acknowledges");
        let receipts = std::mem::take(&mut *self.producer.context().0.lock().unwrap());
        assert_eq!(receipts.len(), messages.len(), "all were acknowledged");
        receipts.into_values().collect()
    }
}

/// Where each message stands, by its place in the order of sending.
#[derive(Default)]
struct Receipts(Mutex<BTreeMap<usize, (i32, i64)>>);

impl ClientContext for Receipts {}

impl ProducerContext for Receipts {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, nth: usize) {
        if let Ok(message) = result {
            self.0.lock().unwrap().insert(nth, (message.partition(), message.offset()));
        }
    }
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    // A client that measures a pipeline's recovery after a broker's death must reconnect faster itself; the default is
    // up to 10 s.
    config.set("bootstrap.servers", brokers).set("reconnect.backoff.max.ms", "200");
    config
}
