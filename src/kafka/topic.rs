//! The topic that is produced into.

use super::statistics::Statistics;
use super::{Reasons, broker_recovery};
use crate::stuck::{At, Stuck};
use flows::{Acked, Lost, Message, Metrics, Topic};
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Settings of the producer, unless `--kafka` says otherwise.
pub const DEFAULTS: &[(&str, &str)] = &[
    ("enable.idempotence", "true"), // a retry is written once, and in order
    // With a second request behind a failed one, librdkafka (its issue 4953) takes a new producer epoch. It then writes
    // again the unacknowledged messages that another partition has stored already. One request with the batch of one
    // partition is as fast.
    ("max.in.flight.requests.per.connection", "1"),
    ("acks", "all"),
    ("message.timeout.ms", "0"), // late is better than never: only a stop gives up
    ("linger.ms", "5"),
    ("statistics.interval.ms", "200"), // says when the producer is ready
    ("queue.buffering.max.messages", "100000"),
    ("queue.buffering.max.kbytes", "65536"),
];

/// Hears what the client of a producer reports. Clones share it.
#[derive(Clone)]
pub struct Reports {
    pub reasons: Arc<Reasons>,
    ready: Arc<Notify>,
    lost: Arc<Notify>,
    /// Of a producer that is measured.
    progress: Option<Arc<Progress>>,
}

/// Whether messages are acknowledged.
struct Progress {
    metrics: Arc<Metrics>,
    stuck: Arc<Stuck>,
    acknowledged: AtomicU64,
}

impl Progress {
    /// Looks whether messages wait while none is acknowledged.
    fn look(&self, statistics: &Statistics, reasons: &Reasons) {
        let queued = statistics.queued_bytes();
        self.metrics.queue_bytes.store(queued, Relaxed);
        let acknowledged = Metrics::read(&self.metrics.events);
        if queued == 0 || self.acknowledged.swap(acknowledged, Relaxed) != acknowledged {
            self.stuck.is_over(At::Acknowledgement);
        } else {
            let why = reasons.worst().map_or_else(|| "no broker says why".into(), |reason| reason.to_string());
            self.stuck.is(At::Acknowledgement, why);
            self.stuck.warn();
        }
    }
}

impl Reports {
    /// For a producer into this topic without status reports.
    pub fn new(config: &ClientConfig, topic: &str) -> Self {
        let reasons = Arc::new(Reasons::of_worker(config, topic, "WRITE"));
        Self { reasons, ready: Arc::default(), lost: Arc::default(), progress: None }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.reasons.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, text: &str) {
        self.reasons.error(error, text);
    }

    /// librdkafka says nowhere else that it has the producer id without which an idempotent producer sends nothing.
    fn stats_raw(&self, json: &[u8]) {
        let Some(statistics) = Statistics::read(json) else { return };
        self.reasons.follow(&statistics);
        if statistics.has_producer_id() {
            self.ready.notify_one();
        }
        if broker_recovery::has_no_brokers(&statistics) {
            self.lost.notify_one();
        }
        if let Some(progress) = &self.progress {
            progress.look(&statistics, &self.reasons);
        }
    }
}

/// How often a producer that has no id yet looks whether it will ever get one.
const LOOK_FOR_ID: Duration = Duration::from_millis(100);
/// How long to wait for an acknowledgement before room is looked for again: it gives up its room a moment later.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(5);

/// A topic, and a producer for it.
pub struct KafkaTopic {
    producer: FutureProducer<Reports>,
    reports: Reports,
    name: String,
    idempotent: bool,
    /// A message was acknowledged: there may be room for another one.
    acknowledged: Arc<Notify>,
    given_up: CancellationToken,
    _recovery: AbortOnDropHandle<()>,
}

impl KafkaTopic {
    /// To be made on the runtime.
    ///
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn new(
        config: &ClientConfig,
        name: &str,
        metrics: Arc<Metrics>,
        stuck: Arc<Stuck>,
    ) -> Result<Self, KafkaError> {
        let progress = Arc::new(Progress { metrics, stuck, acknowledged: AtomicU64::default() });
        let reports = Reports { progress: Some(progress), ..Reports::new(config, name) };
        let producer: FutureProducer<Reports> = config.create_with_context(reports.clone())?;
        let brokers = config.get("bootstrap.servers").unwrap_or_default().to_owned();
        let (client, lost) = (producer.clone(), reports.lost.clone());
        let recovery = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                lost.notified().await;
                broker_recovery::readd_bootstrap(client.client().native_client(), &brokers);
            }
        }));
        Ok(Self {
            producer,
            reports,
            name: name.to_owned(),
            idempotent: config.get("enable.idempotence") == Some("true"),
            acknowledged: Arc::default(),
            given_up: CancellationToken::new(),
            _recovery: recovery,
        })
    }

    /// Waits until the producer is connected and has its id, so that the first message is not late; no longer than `patience`.
    ///
    /// # Errors
    /// When it will never be: a right is missing.
    pub async fn warm_up(&self, patience: Duration) -> Result<(), Refused> {
        let (producer, name) = (self.producer.clone(), self.name.clone());
        let asked =
            tokio::task::spawn_blocking(move || producer.client().fetch_metadata(Some(&name), patience).map(drop));
        let ready = async {
            let _ = asked.await;
            while self.idempotent && self.refused().is_ok() {
                if tokio::time::timeout(LOOK_FOR_ID, self.reports.ready.notified()).await.is_ok() {
                    return;
                }
            }
        };
        if tokio::time::timeout(patience, ready).await.is_err() {
            tracing::debug!("the producer is not ready yet: the first events will be late");
        }
        self.refused()
    }

    /// Whether this producer can go on. After one of these errors it never sends a message again.
    ///
    /// # Errors
    /// When it cannot, and why.
    pub fn refused(&self) -> Result<(), Refused> {
        if let Some(reason) = self.reports.reasons.denial() {
            return Err(Refused(reason.to_string()));
        }
        self.producer.client().fatal_error().map_or(Ok(()), |(_, words)| Err(Refused(words)))
    }

    /// Gives up unacknowledged messages: each of those sends is answered with [`Lost`].
    pub fn give_up(&self) {
        self.given_up.cancel();
        self.producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    }

    /// Resolves when everything was given up.
    pub async fn given_up(&self) {
        self.given_up.cancelled().await;
    }

    /// Puts a message into librdkafka's queue, once there is room.
    async fn enqueue(&self, message: &Message) -> Result<DeliveryFuture, Lost> {
        // A message that came into the purged queue would wait without end.
        while !self.given_up.is_cancelled() {
            let record = FutureRecord::to(&self.name).key(message.key.as_str());
            let record = match &message.payload {
                Some(payload) => record.payload(payload),
                None => record,
            };
            match self.producer.send_result(record) {
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {}
                enqueued => return enqueued.map_err(|(error, _)| self.lost(&error)),
            }
            let acknowledged = tokio::time::timeout(LOOK_FOR_ROOM, self.acknowledged.notified());
            tokio::select! {
                _ = acknowledged => {}
                () = self.given_up.cancelled() => {}
            }
        }
        Err(Lost("there was no room for it".into()))
    }

    fn lost(&self, error: &KafkaError) -> Lost {
        lost(&self.reports.reasons, error)
    }
}

/// Why a producer cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("Kafka: {0}")]
pub struct Refused(String);

fn lost(reasons: &Reasons, error: &KafkaError) -> Lost {
    if let Some(code) = error.rdkafka_error_code() {
        reasons.note_answer(code);
    }
    Lost(error.to_string())
}

impl Topic for KafkaTopic {
    async fn send(&self, message: &Message) -> impl Future<Output = Result<Acked, Lost>> + Send + use<> {
        let enqueued = self.enqueue(message).await;
        let (reasons, acknowledged) = (self.reports.reasons.clone(), self.acknowledged.clone());
        async move {
            let delivered = enqueued?.await;
            acknowledged.notify_one();
            match delivered {
                Ok(Ok(record)) => Ok(Acked { partition: record.partition, offset: record.offset }),
                Ok(Err((error, _))) => Err(lost(&reasons, &error)),
                Err(_) => Err(Lost("the producer was closed".into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flows::{Faults, Rate, Receipt, Shoppers, produce, schedule};
    use futures::StreamExt;
    use futures::future::join_all;
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use std::convert::Infallible;

    /// The broker takes requests and answers none: the queue is full before as many are in flight as may be.
    #[tokio::test]
    async fn a_producer_without_room_can_be_given_up_and_has_kept_the_order() {
        const ROOM: u64 = 500;
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("clicks", 1, 1).unwrap();
        let mut config: ClientConfig = DEFAULTS.iter().map(|&(key, value)| (key.into(), value.into())).collect();
        config
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("queue.buffering.max.messages", ROOM.to_string())
            .set("batch.num.messages", "100");
        let (metrics, stuck) = (Arc::new(Metrics::default()), Arc::new(Stuck::default()));
        let topic = KafkaTopic::new(&config, "clicks", metrics.clone(), stuck.clone()).unwrap();
        topic.warm_up(Duration::from_secs(20)).await.unwrap();

        let (mut shoppers, mut receipts) = (Shoppers::new(1, 1, Faults::default()), Vec::new());
        let keep = |receipt: Receipt| {
            if receipt.acked.is_ok() && receipts.len() as u64 == 4 * ROOM {
                cluster.broker_round_trip_time(1, Duration::from_secs(3_600)).unwrap();
            }
            receipts.push(receipt.acked);
            Ok::<_, Infallible>(())
        };
        let (stopped, late) = (CancellationToken::new(), Duration::from_secs(2));
        let due = schedule(Rate::Max, None).take_until(stopped.clone().cancelled_owned());
        let flow = produce(due, |due| shoppers.next(due), &topic, 200_000, &metrics, keep);
        let give_up = async {
            // As a drain timeout does it: another timer, on the same task.
            tokio::time::sleep(late).await;
            assert!(stuck.lasts(At::Acknowledgement) > Duration::ZERO, "it is seen that none is acknowledged");
            stopped.cancel();
            topic.give_up();
        };
        let both = futures::future::join(flow, give_up);
        let Ok(tally) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it ends").0;
        assert!(tally.acknowledged > 4 * ROOM, "{tally:?}");
        assert!((1..=ROOM + 1).contains(&tally.lost), "what was in the queue, and the one that waited: {tally:?}");
        let offsets: Vec<_> = receipts.iter().flatten().map(|acked| acked.offset as u64).collect();
        assert_eq!(offsets, Vec::from_iter(0..tally.acknowledged));
    }

    /// This broker takes messages in any order: with a second request on its way, that one would come before the first.
    #[tokio::test]
    async fn nothing_is_sent_behind_a_request_that_may_have_to_be_sent_again() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("clicks", 1, 1).unwrap();
        let mut config: ClientConfig = DEFAULTS.iter().map(|&(key, value)| (key.into(), value.into())).collect();
        config.set("bootstrap.servers", cluster.bootstrap_servers()).set("batch.num.messages", "1");
        let topic = KafkaTopic::new(&config, "clicks", Arc::default(), Arc::default()).unwrap();
        topic.warm_up(Duration::from_secs(20)).await.unwrap();
        cluster.broker_round_trip_time(1, Duration::from_millis(200)).unwrap();
        cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION]);
        let mut shoppers = Shoppers::new(1, 1, Faults::default());
        let mut sent = Vec::new();
        for due in 0..4 {
            sent.push(topic.send(&shoppers.next(due)).await);
        }
        let offsets: Vec<_> = join_all(sent).await.into_iter().map(|acked| acked.unwrap().offset).collect();
        assert_eq!(offsets, [0, 1, 2, 3]);
    }
}
