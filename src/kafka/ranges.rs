//! Reading ranges of a topic again, outside of any group: what stands at these offsets?

use super::admin::{self, Client};
use super::native::borrowed_headers;
use super::{Reason, Reasons};
use anyhow::{Context, Result, bail};
use flows::{Consumed, Decode, Header, OffsetRange, Payload};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedHeaders, OwnedMessage};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// The longest time until Kafka returns the next record.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// The reader reads on to a range that begins at most this many offsets later: that is quicker than another fetch.
const NEAR: i64 = 10_000;

/// Settings of range readers, unless `--kafka` overrides them.
pub const DEFAULTS: &[(&str, &str)] = &[
    ("fetch.queue.backoff.ms", "10"),
    ("fetch.wait.max.ms", "100"),
    ("queued.min.messages", "50000"),
    ("queued.max.messages.kbytes", "16384"), // bounds the memory
    ("fetch.max.bytes", "8388608"),
];
/// Settings that the answers hang on.
const FIXED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.partition.eof", "true"),      // says where nothing more comes
    ("auto.offset.reset", "error"),        // what was deleted is never passed over in silence
    ("isolation.level", "read_committed"), // what an ingester is given
];

/// A record of the topic.
pub struct RawRecord<'m> {
    pub offset: i64,
    pub key: Option<&'m [u8]>,
    pub payload: Option<&'m [u8]>,
    /// Its time as Kafka has it: of its producer, or of the broker, as the topic is set.
    pub timestamp_ms: Option<i64>,
    pub headers: &'m [Header<'m>],
}

impl RawRecord<'_> {
    /// The payload of its row.
    pub fn decode(&self, decoder: &dyn Decode) -> Payload {
        let &Self { key, payload, timestamp_ms, headers, .. } = self;
        let mut decoded = decoder.decode(&Consumed { key, payload, timestamp_ms, headers });
        if let Payload::Rejected(reject) = &mut decoded {
            reject.keep(timestamp_ms, headers);
        }
        decoded
    }
}

/// A reader of ranges.
pub struct Ranges {
    consumer: Client,
    topic: String,
    /// The partition, and the offset that is read next; none where it has to be gone to.
    at: Option<(i32, i64)>,
    /// A record that was read before it was asked for, and the offset from which on there is none before it.
    ahead: Option<(i64, OwnedMessage)>,
}

impl Ranges {
    /// Nothing is read yet.
    ///
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn new(config: &ClientConfig, topic: &str) -> Result<Self> {
        let mut config = config.clone();
        for (key, value) in FIXED {
            config.set(*key, *value);
        }
        let reasons = Reasons::of_asker(&config, "READ");
        let consumer = config.create_with_context(reasons).context("cannot set up the Kafka client")?;
        Ok(Self { consumer, topic: topic.to_owned(), at: None, ahead: None })
    }

    /// Hands each record of `range` to `each`, in order, until that breaks. Returns the offset up to which all of the range was
    /// read. Offsets without a record (transaction markers, what compaction or retention has removed) are passed over.
    ///
    /// # Errors
    /// When Kafka does not answer, or with anything but records.
    pub fn read(
        &mut self,
        partition: i32,
        range: OffsetRange,
        mut each: impl FnMut(RawRecord<'_>) -> ControlFlow<()>,
    ) -> Result<i64> {
        self.go_to(partition, range.first)?;
        if let Some((from, ahead)) = self.ahead.take() {
            let headers = borrowed_headers(ahead.headers().map(OwnedHeaders::as_borrowed));
            match pass(&ahead, &headers, range, &mut each) {
                Passed::Behind => {
                    self.ahead = Some((from, ahead));
                    return Ok(range.next);
                }
                Passed::Last(reached) => return Ok(reached),
                Passed::More => {}
            }
        }
        let mut deadline = Instant::now() + FETCH_TIMEOUT;
        loop {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    deadline = Instant::now() + FETCH_TIMEOUT;
                    self.at = Some((partition, message.offset() + 1));
                    match pass(&message, &borrowed_headers(message.headers()), range, &mut each) {
                        Passed::More => {}
                        Passed::Last(reached) => return Ok(reached),
                        Passed::Behind => {
                            self.ahead = Some((range.next, message.detach()));
                            return Ok(range.next);
                        }
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.at = None;
                    return Ok(range.next);
                }
                // librdkafka looks for the coordinator of a group that is not read as a member of.
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::GroupAuthorizationFailed))) => {}
                Some(Err(error)) => {
                    let low = self.consumer.fetch_watermarks(&self.topic, partition, FETCH_TIMEOUT).map(|(low, _)| low);
                    match low {
                        // Retention has passed this offset: the remaining messages are read.
                        Ok(low) if was_deleted(&error) && low > range.first => {
                            if low >= range.next {
                                self.at = None;
                                return Ok(range.next);
                            }
                            self.seek(partition, low)?;
                        }
                        _ => {
                            bail!("cannot read partition {partition} from offset {}: {}", range.first, self.why(&error))
                        }
                    }
                }
                None if Instant::now() > deadline => {
                    let why = self.why(&KafkaError::Global(RDKafkaErrorCode::OperationTimedOut));
                    bail!(
                        "Kafka returned no messages of partition {partition} from offset {} within 10 s: {why}",
                        range.first
                    )
                }
                None => {}
            }
        }
    }

    fn why(&self, error: &KafkaError) -> Reason {
        admin::explain(&self.consumer, "READ", &self.topic, error)
    }

    /// Goes on at `offset`, by reading on where that is near.
    fn go_to(&mut self, partition: i32, offset: i64) -> Result<()> {
        if let Some((from, ahead)) = &self.ahead
            && ahead.partition() == partition
            && (*from..=ahead.offset()).contains(&offset)
        {
            return Ok(());
        }
        match self.at {
            Some((at, next)) if at == partition && (next..next + NEAR).contains(&offset) => Ok(()),
            _ => self.seek(partition, offset),
        }
    }

    fn seek(&mut self, partition: i32, offset: i64) -> Result<()> {
        self.ahead = None;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(offset)).context("an offset to read from")?;
        self.consumer.assign(&list).context("cannot read from the topic")?;
        self.at = Some((partition, offset));
        Ok(())
    }
}

/// Where a record stands.
enum Passed {
    /// In the range or before it, and there may be more.
    More,
    /// This was the last wanted offset; all earlier ones were read.
    Last(i64),
    /// Behind the range.
    Behind,
}

fn pass(
    message: &impl Message,
    headers: &[Header<'_>],
    range: OffsetRange,
    each: &mut impl FnMut(RawRecord<'_>) -> ControlFlow<()>,
) -> Passed {
    let offset = message.offset();
    if offset >= range.next {
        return Passed::Behind;
    }
    let timestamp_ms = message.timestamp().to_millis();
    let record = RawRecord { offset, key: message.key(), payload: message.payload(), timestamp_ms, headers };
    let enough = offset >= range.first && each(record).is_break();
    if enough || offset + 1 == range.next { Passed::Last(offset + 1) } else { Passed::More }
}

fn was_deleted(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
    matches!(error.rdkafka_error_code(), Some(AutoOffsetReset | OffsetOutOfRange))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

    type Cluster = MockCluster<'static, DefaultProducerContext>;

    /// A topic of two partitions.
    fn cluster() -> Cluster {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("clicks", 2, 1).unwrap();
        cluster
    }

    fn config(cluster: &Cluster) -> ClientConfig {
        let mut config: ClientConfig = DEFAULTS.iter().map(|&(key, value)| (key.into(), value.into())).collect();
        config.set("bootstrap.servers", cluster.bootstrap_servers()).set("group.id", "audit");
        config
    }

    /// Sends so many records to a partition, ten in a batch: the key is the number, the payload so large.
    fn fill(cluster: &Cluster, partition: i32, records: usize, bytes: usize) {
        let producer: BaseProducer = config(cluster).set("batch.num.messages", "10").create().unwrap();
        let payload = vec![b'x'; bytes];
        for number in 0..records {
            let key = number.to_string();
            let mut record = BaseRecord::to("clicks").partition(partition).key(&key).payload(&payload);
            while let Err((_, back)) = producer.send(record) {
                producer.poll(Duration::from_millis(10));
                record = back;
            }
        }
        producer.flush(Duration::from_secs(20)).unwrap();
    }

    /// The offsets that are read of a range, up to one where it is enough, and the offset that is returned.
    fn read(ranges: &mut Ranges, partition: i32, (first, next): (i64, i64), enough: i64) -> (Vec<i64>, i64) {
        let mut offsets = Vec::new();
        let reached = ranges.read(partition, OffsetRange::new(first, next), |record| {
            let key = str::from_utf8(record.key.unwrap()).unwrap();
            assert_eq!(key, record.offset.to_string(), "each record with its own offset");
            assert!(record.timestamp_ms.is_some());
            offsets.push(record.offset);
            if record.offset == enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (offsets, reached.unwrap())
    }

    #[test]
    fn a_range_is_read_whole_and_nothing_beside_it_wherever_the_last_one_ended() {
        let cluster = cluster();
        fill(&cluster, 0, 300, 10);
        fill(&cluster, 1, 50, 10);
        let mut ranges = Ranges::new(&config(&cluster), "clicks").unwrap();
        // Further on, next to it, back, in another partition, the same again, and one record.
        for (partition, first, next) in
            [(0, 100, 120), (0, 150, 170), (0, 170, 180), (0, 5, 8), (1, 0, 50), (0, 5, 8), (0, 299, 300)]
        {
            let expected = ((first..next).collect::<Vec<_>>(), next);
            assert_eq!(read(&mut ranges, partition, (first, next), -1), expected, "{partition}: {first}..{next}");
        }
    }

    #[test]
    fn reading_goes_on_behind_the_record_where_it_was_enough() {
        let cluster = cluster();
        fill(&cluster, 0, 30, 10);
        let mut ranges = Ranges::new(&config(&cluster), "clicks").unwrap();
        assert_eq!(read(&mut ranges, 0, (3, 20), 7), (vec![3, 4, 5, 6, 7], 8));
        assert_eq!(read(&mut ranges, 0, (8, 10), 9), (vec![8, 9], 10));
    }

    #[test]
    fn a_range_ends_where_the_topic_does() {
        let cluster = cluster();
        fill(&cluster, 0, 30, 10);
        let mut ranges = Ranges::new(&config(&cluster), "clicks").unwrap();
        assert_eq!(read(&mut ranges, 0, (25, 1_000), -1), ((25..30).collect(), 1_000));
        // Records that came since then are read, too.
        assert_eq!(read(&mut ranges, 0, (30, 40), -1), (vec![], 40));
        assert_eq!(read(&mut ranges, 0, (29, 30), -1), (vec![29], 30));
    }

    /// The mock keeps some megabytes of a partition.
    #[test]
    fn records_that_retention_has_deleted_are_passed_over_and_the_rest_is_read() {
        let cluster = cluster();
        fill(&cluster, 0, 2_000, 10_000);
        let mut ranges = Ranges::new(&config(&cluster), "clicks").unwrap();
        let (low, high) = ranges.consumer.fetch_watermarks("clicks", 0, FETCH_TIMEOUT).unwrap();
        assert!(low > 100 && high == 2_000, "something was deleted: {low}..{high}");
        assert_eq!(read(&mut ranges, 0, (low - 50, low + 10), -1), ((low..low + 10).collect(), low + 10));
        assert_eq!(read(&mut ranges, 0, (0, low), -1), (vec![], low), "nothing is left of it");
        assert_eq!(read(&mut ranges, 0, (low, low + 1), -1), (vec![low], low + 1));
    }

    #[test]
    fn an_offset_that_the_topic_never_had_is_an_error_and_no_gap() {
        let cluster = cluster();
        fill(&cluster, 0, 30, 10);
        let mut ranges = Ranges::new(&config(&cluster), "clicks").unwrap();
        let said = ranges.read(0, OffsetRange::new(500, 600), |_| ControlFlow::Continue(())).unwrap_err().to_string();
        assert!(said.starts_with("cannot read partition 0 from offset 500: "), "{said}");
    }
}
