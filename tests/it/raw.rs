//! Kafka as only some tests need it: messages of any bytes, transactions, headers, and topics that lose or hold more.

use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, eventually};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedHeaders, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// The longest time until a broker answers, on a busy machine.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The name of a header, and its value.
pub type RawHeader = (&'static str, Option<&'static [u8]>);
/// The headers of a message that is sent with no others.
const HEADERS: [RawHeader; 3] = [("h\u{1b}", Some(b"\xff\x00")), ("none", None), ("h\u{1b}", Some(b"again"))];
/// The parts of one message.
pub type Raw = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A message as a consumer is given it.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub timestamp_ms: Option<i64>,
    /// All others than `clickstream-replay-of`.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The value of the header `clickstream-replay-of`.
    pub replay_of: Option<String>,
}

fn config(env: &TestEnv) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &env.kafka.brokers).set("message.max.bytes", "50000000");
    config
}

fn admin<T>(env: &TestEnv, ask: impl AsyncFnOnce(&AdminClient<DefaultClientContext>, &AdminOptions) -> T) -> T {
    let admin = config(env).create().expect("settings that are valid");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT)).request_timeout(Some(REQUEST_TIMEOUT));
    runtime.block_on(ask(&admin, &options))
}

/// Lets the topic hold messages of up to 20 MB.
pub fn take_large_messages(env: &TestEnv) {
    let change = AlterConfig::new(ResourceSpecifier::Topic(&env.topic)).set("max.message.bytes", "20971520");
    let outcome = admin(env, async |admin, options| admin.alter_configs([&change], options).await);
    assert!(outcome.expect("the broker answers").iter().all(Result::is_ok));
}

/// Lets a partition begin at `offset`, as retention does.
pub fn delete_before(env: &TestEnv, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&env.topic, partition, Offset::Offset(offset)).expect("a valid offset");
    admin(env, async |admin, options| admin.delete_records(&list, options).await.map(drop))
        .expect("the broker does it");
}

/// The notes of the group's members beside the committed offset of a partition.
pub fn committed_metadata(env: &TestEnv, partition: i32) -> String {
    let client: BaseConsumer = config(env).set("group.id", &env.group).create().expect("valid settings");
    let mut list = TopicPartitionList::new();
    list.add_partition(&env.topic, partition);
    let committed = client.committed_offsets(list, REQUEST_TIMEOUT).expect("the group's coordinator answers");
    committed.elements()[0].metadata().to_owned()
}

/// Commits offsets of the group as another client does, each with what that one says beside it. The group has no members.
pub fn commit(env: &TestEnv, places: &[(i32, i64, &str)]) {
    let client: BaseConsumer = config(env).set("group.id", &env.group).create().expect("valid settings");
    let mut list = TopicPartitionList::new();
    for &(partition, offset, metadata) in places {
        let mut place = list.add_partition(&env.topic, partition);
        place.set_offset(Offset::Offset(offset)).expect("a valid offset");
        place.set_metadata(metadata);
    }
    eventually(WAIT_TIMEOUT, "the group has these offsets", || client.commit(&list, CommitMode::Sync));
}

/// Sends messages of any bytes, all to one partition, in order; some headers go along.
pub fn send(env: &TestEnv, partition: i32, messages: &[Raw]) {
    send_of(env, partition, messages, None, &HEADERS);
}

/// Sends one message with these headers.
pub fn send_with(env: &TestEnv, partition: i32, message: Raw, headers: &[RawHeader]) {
    send_of(env, partition, &[message], None, headers);
}

/// Sends messages with another timestamp: milliseconds since the Unix epoch.
pub fn send_at(env: &TestEnv, partition: i32, messages: &[Raw], time_ms: i64) {
    send_of(env, partition, messages, Some(time_ms), &HEADERS);
}

fn send_of(env: &TestEnv, partition: i32, messages: &[Raw], time_ms: Option<i64>, headers: &[RawHeader]) {
    let producer: BaseProducer = config(env).set("enable.idempotence", "true").create().expect("valid settings");
    enqueue(&producer, env, partition, messages, time_ms, headers);
    producer.flush(REQUEST_TIMEOUT).expect("the broker acknowledges");
    assert_eq!(producer.in_flight_count(), 0);
}

/// Sends them in a transaction, which is open until the producer is dropped or ends it.
pub fn begin(env: &TestEnv, partition: i32, messages: &[Raw]) -> BaseProducer {
    let id = format!("it-{:08x}", rand::random::<u32>());
    let producer: BaseProducer = config(env).set("transactional.id", id).create().expect("valid settings");
    producer.init_transactions(REQUEST_TIMEOUT).expect("the broker has transactions");
    producer.begin_transaction().expect("there is none yet");
    enqueue(&producer, env, partition, messages, None, &HEADERS);
    producer.flush(REQUEST_TIMEOUT).expect("the broker acknowledges");
    producer
}

/// Sends them in one transaction, which is committed or aborted.
pub fn transact(env: &TestEnv, partition: i32, messages: &[Raw], commit: bool) {
    let producer = begin(env, partition, messages);
    let end =
        if commit { producer.commit_transaction(REQUEST_TIMEOUT) } else { producer.abort_transaction(REQUEST_TIMEOUT) };
    end.expect("the transaction ends");
}

fn enqueue(
    producer: &BaseProducer,
    env: &TestEnv,
    partition: i32,
    messages: &[Raw],
    time_ms: Option<i64>,
    headers: &[RawHeader],
) {
    for (key, payload) in messages {
        let headers = headers.iter().fold(OwnedHeaders::new(), |all, &(key, value)| all.insert(Header { key, value }));
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&env.topic).partition(partition).headers(headers);
        (record.key, record.payload, record.timestamp) = (key.as_deref(), payload.as_deref(), time_ms);
        producer.send(record).unwrap_or_else(|(error, _)| panic!("cannot send: {error}"));
        producer.poll(Duration::ZERO);
    }
}

/// All that a consumer is given of the topic, in the order of partitions and offsets.
pub fn read(env: &TestEnv) -> Vec<Given> {
    let reader: BaseConsumer = config(env)
        .set("group.id", "nobody")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .expect("valid settings");
    let mut list = TopicPartitionList::new();
    for partition in 0..env.kafka.partitions {
        list.add_partition_offset(&env.topic, partition, Offset::Beginning).expect("a valid offset");
    }
    reader.assign(&list).expect("partitions that exist");
    let (mut given, mut open, deadline) = (Vec::new(), env.kafka.partitions, Instant::now() + WAIT_TIMEOUT);
    while open > 0 {
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => given.push(Given {
                partition: message.partition(),
                offset: message.offset(),
                key: message.key().map(<[u8]>::to_vec),
                payload: message.payload().map(<[u8]>::to_vec),
                timestamp_ms: message.timestamp().to_millis(),
                headers: message.headers().map(own).unwrap_or_default(),
                replay_of: message.headers().and_then(replay_of),
            }),
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => panic!("cannot read the topic: {error}"),
            None => assert!(Instant::now() < deadline, "the topic could not be read to its end"),
        }
    }
    given.sort_by_key(|message| (message.partition, message.offset));
    given
}

const REPLAY_OF: &str = "clickstream-replay-of";

fn own(headers: &BorrowedHeaders) -> Vec<(String, Option<Vec<u8>>)> {
    let own = headers.iter().filter(|header| header.key != REPLAY_OF);
    own.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
}

fn replay_of(headers: &BorrowedHeaders) -> Option<String> {
    let found = headers.iter().find(|header| header.key == REPLAY_OF)?;
    Some(String::from_utf8_lossy(found.value.unwrap_or_default()).into_owned())
}
