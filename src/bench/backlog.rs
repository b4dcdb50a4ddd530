//! The messages that are drained: a topic of the user's, or one that is made and filled for this.

use super::BenchConfig;
use super::checksum::Checksum;
use crate::connect;
use crate::kafka::admin::{self, Client, Found};
use crate::kafka::ranges::{self, Ranges};
use crate::kafka::{self, KafkaConfig};
use crate::numbers::grouped;
use crate::produce::{self, ProduceConfig};
use crate::{Ready, Shutdown};
use anyhow::{Result, bail};
use flows::{Faults, Metrics, OffsetRange, Rate, Shop};
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// The shop whose events fill a topic: the same in each run.
const SEED: u64 = 1;
const USERS: usize = 500;
/// A topic of our own keeps its messages until it is deleted.
const SETTINGS: [(&str, &str); 2] = [("retention.ms", "-1"), ("retention.bytes", "-1")];
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The topic, and all that it held when it was read.
pub struct Backlog {
    pub kafka: KafkaConfig,
    /// Addresses of the brokers, as clients are told them.
    pub brokers: Vec<(String, u16)>,
    /// For each partition the first offset, and the one after its last record.
    pub ends: BTreeMap<i32, (i64, i64)>,
    pub checksum: Checksum,
    pub bytes: u64,
}

/// Settings of the clients of a benchmark, which are members of no group.
pub fn client_config(kafka: &KafkaConfig, group: &str) -> Result<ClientConfig> {
    let mut config = kafka::client_config(kafka, ranges::DEFAULTS)?;
    config.set("group.id", group);
    Ok(config)
}

impl Backlog {
    /// Makes a topic and fills it; `made` has its name from the moment on from which it may exist.
    ///
    /// # Errors
    /// When Kafka does not answer or refuses, or a shutdown is requested.
    pub async fn make(
        config: &BenchConfig,
        group: &str,
        kafka: &KafkaConfig,
        made: &mut Option<String>,
        shutdown: &Shutdown,
    ) -> Result<()> {
        let client_config = client_config(kafka, group)?;
        let client = Arc::new(admin::client(&client_config)?);
        if connect::kafka(&client, &kafka.topic, config.connect_timeout).await? != Found::Missing {
            bail!("topic {} is there already: run this again", kafka.topic);
        }
        *made = Some(kafka.topic.clone());
        admin::create(&client_config, client, &kafka.topic, config.partitions, &SETTINGS).await?;
        tracing::info!("producing {} messages into topic {}", grouped(config.messages.get()), kafka.topic);
        let produce = ProduceConfig {
            kafka: kafka.clone(),
            connect_timeout: config.connect_timeout,
            rate: Rate::Max,
            users: NonZeroUsize::new(USERS).unwrap_or(NonZeroUsize::MIN),
            count: Some(config.messages),
            duration: None,
            template: None,
            seed: Some(SEED),
            manifest: None,
            faults: Faults::default(),
            in_flight: None,
            drain_timeout: DRAIN_TIMEOUT,
        };
        let (metrics, ready) = (Arc::new(Metrics::default()), Ready::default());
        let produced = produce::run(&produce, shutdown, &metrics, &ready).await?;
        let acknowledged = produced.map_or(0, |produced| produced.tally.acknowledged);
        if acknowledged != config.messages.get() {
            bail!("Kafka has acknowledged {} of {} messages", grouped(acknowledged), grouped(config.messages.get()));
        }
        Ok(())
    }

    /// Reads the topic as it is now, from its beginning to its end.
    ///
    /// # Errors
    /// When Kafka does not answer, when the topic is missing, or when it holds nothing.
    pub async fn read(config: &BenchConfig, group: &str, kafka: KafkaConfig) -> Result<Self> {
        let client_config = client_config(&kafka, group)?;
        let client = Arc::new(admin::client(&client_config)?);
        let Found::Partitions(partitions) = connect::kafka(&client, &kafka.topic, config.connect_timeout).await? else {
            bail!("topic {} is missing at {}: see --backlog", kafka.topic, kafka.brokers);
        };
        let ends = connect::leaders(&client, &kafka.topic, &partitions, config.connect_timeout).await?;
        tracing::info!("reading topic {}", kafka.topic);
        let backlog =
            tokio::task::spawn_blocking(move || Self::read_all(&client, &client_config, kafka, ends)).await??;
        if backlog.checksum.rows() == 0 {
            bail!("topic {} holds no messages: there is nothing to drain", backlog.kafka.topic);
        }
        Ok(backlog)
    }

    fn read_all(
        client: &Client,
        config: &ClientConfig,
        kafka: KafkaConfig,
        all: BTreeMap<i32, (i64, i64)>,
    ) -> Result<Self> {
        let mut topic = Ranges::new(config, &kafka.topic)?;
        let (mut checksum, mut text, mut bytes, mut ends) = (Checksum::default(), String::new(), 0, BTreeMap::new());
        for (partition, (low, high)) in all.into_iter().filter(|(_, (low, high))| low < high) {
            topic.read(partition, OffsetRange::new(low, high), |record| {
                bytes += record.payload.map_or(0, |payload| payload.len() as u64);
                checksum.add(partition, record.offset, &record.decode(&Shop), &mut text);
                ends.insert(partition, (low, record.offset + 1));
                ControlFlow::Continue(())
            })?;
        }
        Ok(Self { brokers: brokers(client, &kafka.topic), kafka, ends, checksum, bytes })
    }
}

/// The brokers' addresses, as far as they are known.
fn brokers(client: &Client, topic: &str) -> Vec<(String, u16)> {
    let Ok(metadata) = client.fetch_metadata(Some(topic), DRAIN_TIMEOUT) else { return Vec::new() };
    let address = |broker: &rdkafka::metadata::MetadataBroker| {
        (broker.host().to_owned(), u16::try_from(broker.port()).unwrap_or(0))
    };
    metadata.brokers().iter().map(address).collect()
}
