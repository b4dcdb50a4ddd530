//! Re-publishing rejected messages to their topic, each once.
//!
//! One Kafka transaction writes the message into the topic, and the mark that it was replayed into `TOPIC.replayed`.
//! That topic is compacted, so it keeps a mark for each position forever. Replayers share a transactional id, so Kafka
//! fences the older one. A new replayer first ends the transaction of a previous one, and only then reads the marks. A
//! message without a mark was never sent, or its transaction never became visible to an ingester.

use crate::kafka::Reason;
use crate::kafka::admin::{self, Client, Found};
use crate::kafka::ranges::Ranges;
use crate::kafka::topic::Reports;
use anyhow::{Context, Result, anyhow, bail};
use flows::OffsetRange;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::block_in_place;

/// The header of a replayed message: `SOURCE/PARTITION/OFFSET` of the rejected one.
const REPLAY_OF: &str = "clickstream-replay-of";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of the producer, whatever `--kafka` says.
const SETTINGS: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // While a transaction is open, ingesters wait in front of it: one that died must not hold them up for long.
    ("transaction.timeout.ms", "10000"),
    ("message.timeout.ms", "10000"),
    ("linger.ms", "5"),
    ("message.max.bytes", "104857600"), // the topic's own limit decides
    ("queue.buffering.max.kbytes", "262144"),
];

/// A message to send again.
pub struct Rejected {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since the Unix epoch; without one, it gets the time at which it is sent.
    pub timestamp_ms: Option<i64>,
}

/// The topic with the marks.
pub fn marks_topic(topic: &str) -> String {
    format!("{topic}.replayed")
}

/// Positions, (partition, offset), of rejects of `source` that were replayed before.
///
/// # Errors
/// When Kafka does not answer.
pub fn replayed(config: &ClientConfig, client: &Client, topic: &str, source: &str) -> Result<HashSet<(i32, i64)>> {
    let name = marks_topic(topic);
    let mut found = HashSet::new();
    if find(client, &name)? == Found::Missing {
        return Ok(found);
    }
    let mut ranges = Ranges::new(config, &name)?;
    for (partition, (low, high)) in admin::watermarks(client, &name, &[0])? {
        let (mut first, whole) = (low, OffsetRange::new(low, high));
        while first < whole.next {
            first = ranges.read(partition, OffsetRange::new(first, high), |mark| {
                found.extend(mark.key.and_then(|key| position(key, source)));
                ControlFlow::Continue(())
            })?;
        }
    }
    Ok(found)
}

fn find(client: &Client, name: &str) -> Result<Found> {
    let found = block_in_place(|| admin::find(client, name, METADATA_TIMEOUT));
    found.map_err(|error| anyhow!("Kafka: {}", admin::explain(client, "DESCRIBE", name, &error)))
}

/// `SOURCE/PARTITION/OFFSET` → (partition, offset), if it is of this source.
fn position(key: &[u8], source: &str) -> Option<(i32, i64)> {
    let place = str::from_utf8(key).ok()?.strip_prefix(source)?.strip_prefix('/')?;
    let (partition, offset) = place.split_once('/')?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

/// The message's own headers, and the one with its position. A message that was itself a replay has that one already.
fn headers(reject: &Rejected, origin: &str) -> OwnedHeaders {
    let own = reject.headers.iter().filter(|(name, _)| name != REPLAY_OF);
    let own = own.fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: value.as_ref() }));
    own.insert(Header { key: REPLAY_OF, value: Some(origin) })
}

/// The producer of replayed messages.
pub struct Replayer {
    producer: FutureProducer<Reports>,
    reports: Reports,
    topic: String,
    source: String,
}

impl Replayer {
    /// Makes the topic with the marks where it is missing, and ends what another replayer of the topic has begun.
    ///
    /// # Errors
    /// When Kafka does not answer, or refuses transactions.
    pub async fn open(config: &ClientConfig, client: &Arc<Client>, topic: &str, source: &str) -> Result<Self> {
        let name = marks_topic(topic);
        if find(client, &name)? == Found::Missing {
            admin::create(config, client.clone(), &name, 1, &[("cleanup.policy", "compact")]).await?;
        }
        let mut config = config.clone();
        for (key, value) in SETTINGS {
            config.set(*key, *value);
        }
        config.set("transactional.id", format!("clickstream-replay/{topic}"));
        let reports = Reports::new(&config, topic);
        let producer: FutureProducer<Reports> =
            config.create_with_context(reports.clone()).context("cannot set up the Kafka producer")?;
        let replayer = Self { producer, reports, topic: topic.to_owned(), source: source.to_owned() };
        let begun = block_in_place(|| replayer.producer.init_transactions(REQUEST_TIMEOUT));
        begun.map_err(|error| anyhow!("cannot begin transactions: {}", replayer.why(topic, &error)))?;
        Ok(replayer)
    }

    /// Sends these and their marks, all or none; returns when Kafka has acknowledged and committed them.
    ///
    /// # Errors
    /// When it has not. None of them can be read by an ingester then, unless the answer to the commit itself was lost: the
    /// marks tell, the next time.
    pub async fn send(&self, rejects: &[Rejected]) -> Result<()> {
        let begun = self.producer.begin_transaction();
        begun.map_err(|error| anyhow!("cannot begin a transaction: {}", self.why(&self.topic, &error)))?;
        let sent = self.messages_and_marks(rejects).await;
        let committed = sent.and_then(|()| self.commit());
        if let Err(error) = committed {
            // If this fails too, the transaction times out, or the next replayer ends it.
            let _ = block_in_place(|| self.producer.abort_transaction(REQUEST_TIMEOUT));
            return Err(error);
        }
        Ok(())
    }

    fn commit(&self) -> Result<()> {
        loop {
            match block_in_place(|| self.producer.commit_transaction(REQUEST_TIMEOUT)) {
                Err(KafkaError::Transaction(error)) if error.is_retriable() => {}
                Err(error) => bail!("the transaction was not committed: {}", self.why(&self.topic, &error)),
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn messages_and_marks(&self, rejects: &[Rejected]) -> Result<()> {
        let mut under_way = Vec::with_capacity(rejects.len());
        for reject in rejects {
            let headers = headers(reject, &self.origin(reject));
            let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.topic).headers(headers);
            (record.key, record.payload) = (reject.key.as_deref(), reject.payload.as_deref());
            record.timestamp = reject.timestamp_ms;
            under_way.push(self.enqueue(&self.topic, record)?);
        }
        let mut marks = Vec::with_capacity(rejects.len());
        for (reject, sent) in rejects.iter().zip(under_way) {
            let (partition, offset) = self.acknowledged(&self.topic, sent).await?;
            let mark = format!(r#"{{"topic":"{}","partition":{partition},"offset":{offset}}}"#, self.topic);
            marks.push((self.origin(reject), mark));
        }
        let name = marks_topic(&self.topic);
        let mut under_way = Vec::with_capacity(marks.len());
        for (origin, mark) in &marks {
            let record = FutureRecord::to(&name).partition(0).key(origin.as_bytes()).payload(mark.as_bytes());
            under_way.push(self.enqueue(&name, record)?);
        }
        for sent in under_way {
            self.acknowledged(&name, sent).await?;
        }
        Ok(())
    }

    fn origin(&self, reject: &Rejected) -> String {
        format!("{}/{}/{}", self.source, reject.partition, reject.offset)
    }

    fn enqueue(&self, topic: &str, record: FutureRecord<'_, [u8], [u8]>) -> Result<DeliveryFuture> {
        self.producer.send_result(record).map_err(|(error, _)| anyhow!("cannot send: {}", self.why(topic, &error)))
    }

    async fn acknowledged(&self, topic: &str, sent: DeliveryFuture) -> Result<(i32, i64)> {
        match sent.await {
            Ok(Ok(record)) => Ok((record.partition, record.offset)),
            Ok(Err((error, _))) => bail!("not acknowledged: {}", self.why(topic, &error)),
            Err(_) => bail!("not acknowledged: the producer was closed"),
        }
    }

    fn why(&self, topic: &str, error: &KafkaError) -> Reason {
        self.reports.reasons.explain("WRITE", topic, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    struct Replay {
        cluster: MockCluster<'static, DefaultProducerContext>,
        config: ClientConfig,
        client: Arc<Client>,
        replayer: Replayer,
    }

    impl Replay {
        async fn open() -> Self {
            let cluster = MockCluster::new(1).unwrap();
            cluster.create_topic("clicks", 1, 1).unwrap();
            cluster.create_topic("clicks.replayed", 1, 1).unwrap();
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", cluster.bootstrap_servers()).set("group.id", "clickstream");
            let client = Arc::new(admin::client(&config).unwrap());
            let replayer = Replayer::open(&config, &client, "clicks", "Xz9").await.unwrap();
            Self { cluster, config, client, replayer }
        }

        fn marks(&self, source: &str) -> Vec<(i32, i64)> {
            let marks = replayed(&self.config, &self.client, "clicks", source).unwrap();
            let mut marks: Vec<_> = marks.into_iter().collect();
            marks.sort_unstable();
            marks
        }

        fn end(&self) -> i64 {
            admin::ends(&self.client, "clicks", &[0], REQUEST_TIMEOUT).unwrap()[&0].1
        }
    }

    fn rejected(partition: i32, offset: i64) -> Rejected {
        let headers = vec![
            ("b".to_owned(), Some(b"\xff\0".to_vec())),
            (REPLAY_OF.to_owned(), Some(b"Xz9/0/1".to_vec())),
            ("a".to_owned(), None),
            ("b".to_owned(), Some(Vec::new())),
        ];
        Rejected { partition, offset, key: Some(b"u".to_vec()), payload: None, headers, timestamp_ms: Some(1_500) }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_message_is_sent_with_a_mark_by_which_it_is_known_again() {
        let replay = Replay::open().await;
        assert_eq!(replay.marks("Xz9"), []);
        replay.replayer.send(&[rejected(2, 17), rejected(0, 3)]).await.unwrap();
        assert_eq!((replay.marks("Xz9"), replay.end()), (vec![(0, 3), (2, 17)], 2));
        replay.replayer.send(&[rejected(1, 1)]).await.unwrap();
        assert_eq!(replay.marks("Xz9"), [(0, 3), (1, 1), (2, 17)]);
        assert_eq!(replay.marks("Xz"), [], "of another topic");
        let mut ranges = Ranges::new(&replay.config, "clicks").unwrap();
        let mut records = Vec::new();
        ranges
            .read(0, OffsetRange::new(0, 2), |record| {
                let headers: Vec<_> =
                    record.headers.iter().map(|(name, value)| (*name, value.map(<[u8]>::to_vec))).collect();
                let own = [("b", Some(b"\xff\0".to_vec())), ("a", None), ("b", Some(vec![]))];
                assert_eq!(headers[..3], own, "all of its own, and none of an earlier replay");
                let origin = [b"Xz9/2/17".to_vec(), b"Xz9/0/3".to_vec()][record.offset as usize].clone();
                assert_eq!(headers[3..], [(REPLAY_OF, Some(origin))]);
                records.push((record.key.map(<[u8]>::to_vec), record.payload.map(<[u8]>::to_vec), record.timestamp_ms));
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(records, vec![(Some(b"u".to_vec()), None, Some(1_500)); 2], "as they came");
    }

    /// The next run tries it again, since it finds no mark.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_message_that_kafka_does_not_take_has_no_mark() {
        let replay = Replay::open().await;
        let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
        replay.cluster.request_errors(RDKafkaApiKey::Produce, &[too_large]);
        let said = replay.replayer.send(&[rejected(0, 3)]).await.unwrap_err().to_string();
        assert!(said.starts_with("not acknowledged: "), "{said}");
        assert_eq!(replay.marks("Xz9"), []);
    }

    /// The one that was there first is fenced, and says so.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_transaction_that_is_not_committed_is_an_error() {
        let replay = Replay::open().await;
        let fenced = RDKafkaRespErr::RD_KAFKA_RESP_ERR_PRODUCER_FENCED;
        replay.cluster.request_errors(RDKafkaApiKey::EndTxn, &[fenced]);
        let said = replay.replayer.send(&[rejected(0, 3)]).await.unwrap_err().to_string();
        assert!(said.starts_with("the transaction was not committed: "), "{said}");
    }

    #[test]
    fn a_mark_of_another_source_is_none_of_ours() {
        assert_eq!(position(b"Xz9/2/17", "Xz9"), Some((2, 17)));
        for foreign in [b"Xz9a/2/17".as_slice(), b"Xz9/2", b"Xz9/2/17/3", b"\xff/2/17", b"Xz9/2/x"] {
            assert_eq!(position(foreign, "Xz9"), None);
        }
    }
}
