//! The topic that is produced into.

use super::{complain, lifeline, log, queue};
use crate::seldom::Seldom;
use flows::{Acked, Lost, Message, Meter, Topic};
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

/// Settings of the producer, unless `--kafka` says otherwise.
pub const DEFAULTS: &[(&str, &str)] = &[
    ("enable.idempotence", "true"), // a retry is written once, and in order
    // With a second request behind one that fails, librdkafka (its issue 4953) takes a new producer epoch, and what another
    // partition holds already, unacknowledged, is written once more. One partition's batch is as fast alone.
    ("max.in.flight.requests.per.connection", "1"),
    ("acks", "all"),
    ("message.timeout.ms", "0"), // late is better than never: only a stop gives up
    ("linger.ms", "5"),
    ("statistics.interval.ms", "200"), // says when the producer is ready
    ("queue.buffering.max.messages", "100000"),
    ("queue.buffering.max.kbytes", "65536"),
];

/// How librdkafka's statistics say that the producer has its id.
const READY: &[u8] = br#""idemp_state": "Assigned""#;

/// Logs through our own log, and notices when the producer may begin.
#[derive(Default)]
pub struct Quiet {
    complaints: Seldom,
    ready: Arc<Notify>,
    lost: Arc<Notify>,
    meter: Option<Arc<Meter>>,
}

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        log(facility, text);
    }

    fn error(&self, _: KafkaError, reason: &str) {
        complain(&self.complaints, reason);
    }

    /// librdkafka says nowhere else that it has the producer id without which an idempotent producer sends nothing.
    fn stats_raw(&self, statistics: &[u8]) {
        if statistics.windows(READY.len()).any(|part| part == READY) {
            self.ready.notify_one();
        }
        if lifeline::is_lost(statistics) {
            self.lost.notify_one();
        }
        if let Some(meter) = &self.meter {
            meter.queue_bytes.store(queue::bytes(statistics), Relaxed);
        }
    }
}

/// A topic, and a producer for it.
pub struct KafkaTopic {
    producer: FutureProducer<Quiet>,
    name: String,
    idempotent: bool,
    ready: Arc<Notify>,
    _lifeline: AbortOnDropHandle<()>,
}

impl KafkaTopic {
    /// To be made on the runtime.
    ///
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn new(config: &ClientConfig, name: &str, meter: Arc<Meter>) -> Result<Self, KafkaError> {
        let idempotent = config.get("enable.idempotence") == Some("true");
        let context = Quiet { meter: Some(meter), ..Quiet::default() };
        let (ready, lost) = (context.ready.clone(), context.lost.clone());
        let producer: FutureProducer<Quiet> = config.create_with_context(context)?;
        let brokers = config.get("bootstrap.servers").unwrap_or_default().to_owned();
        let client = producer.clone();
        let lifeline = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                lost.notified().await;
                lifeline::throw(client.client().native_client(), &brokers);
            }
        }));
        Ok(Self { producer, name: name.to_owned(), idempotent, ready, _lifeline: lifeline })
    }

    /// Waits until the producer is connected and has its id, so that the first message is not late; no longer than `patience`.
    pub async fn warm_up(&self, patience: Duration) {
        let (producer, name) = (self.producer.clone(), self.name.clone());
        let asked =
            tokio::task::spawn_blocking(move || producer.client().fetch_metadata(Some(&name), patience).map(drop));
        let ready = async {
            let _ = asked.await;
            if self.idempotent {
                self.ready.notified().await;
            }
        };
        if tokio::time::timeout(patience, ready).await.is_err() {
            tracing::debug!("the producer is not ready yet: the first events will be late");
        }
    }

    /// Gives up what is not acknowledged yet: each of those sends is answered with [`Lost`].
    pub fn give_up(&self) {
        self.producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    }
}

impl Topic for KafkaTopic {
    fn send(&self, message: &Message) -> impl Future<Output = Result<Acked, Lost>> + Send + use<> {
        let record = || {
            let record = FutureRecord::to(&self.name).key(message.key.as_str());
            match &message.payload {
                Some(payload) => record.payload(payload),
                None => record,
            }
        };
        // The flow keeps fewer messages in flight than the queue holds; only large messages can fill it by their size.
        let handed = loop {
            match self.producer.send_result(record()) {
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                handed => break handed.map_err(|(error, _)| Lost(error.to_string())),
            }
        };
        async move {
            match handed?.await {
                Ok(Ok(delivery)) => Ok(Acked { partition: delivery.partition, offset: delivery.offset }),
                Ok(Err((error, _))) => Err(Lost(error.to_string())),
                Err(_) => Err(Lost("the producer was closed".into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flows::{Faults, Shoppers};
    use futures::future::join_all;
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    /// This broker takes messages in any order: with a second request on its way, that one would come before the first.
    #[tokio::test]
    async fn nothing_is_sent_behind_a_request_that_may_have_to_be_sent_again() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("clicks", 1, 1).unwrap();
        let mut config: ClientConfig = DEFAULTS.iter().map(|&(key, value)| (key.into(), value.into())).collect();
        config.set("bootstrap.servers", cluster.bootstrap_servers()).set("batch.num.messages", "1");
        let topic = KafkaTopic::new(&config, "clicks", Arc::default()).unwrap();
        topic.warm_up(Duration::from_secs(20)).await;
        cluster.broker_round_trip_time(1, Duration::from_millis(200)).unwrap();
        cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION]);
        let mut shoppers = Shoppers::new(1, 1, Faults::default());
        let sent: Vec<_> = (0..4).map(|due| topic.send(&shoppers.next(due))).collect();
        let offsets: Vec<_> = join_all(sent).await.into_iter().map(|acked| acked.unwrap().offset).collect();
        assert_eq!(offsets, [0, 1, 2, 3]);
    }
}
