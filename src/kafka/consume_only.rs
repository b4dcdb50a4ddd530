//! Reading a topic to its end and doing nothing with it: a ceiling for everything that reads it.

use super::admin::{self, Client};
use super::consumer;
use super::native::Inbox;
use super::{KafkaConfig, Reason};
use anyhow::{Context, Result, bail};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// As many messages as an ingester takes at a time.
const BATCH: usize = 1_000;
const WAIT: Duration = Duration::from_millis(5);
/// The longest time without a message.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// A topic that is about to be read, with the settings of an ingester and without its group.
pub struct ConsumeOnly {
    // Dropped in this order: a consumer that is destroyed waits for a queue of its own that is still held.
    inbox: Inbox,
    client: Client,
    topic: String,
    ends: BTreeMap<i32, (i64, i64)>,
}

impl ConsumeOnly {
    /// Nothing is read yet. `ends` has the first offset of each partition, and the one after its last record.
    ///
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn new(kafka: &KafkaConfig, group: &str, ends: BTreeMap<i32, (i64, i64)>) -> Result<Self> {
        let config = consumer::client_config(kafka, group, Duration::ZERO, true, 1)?;
        let client = admin::client(&config)?;
        let inbox = Inbox::new(client.client().native_client(), BATCH);
        Ok(Self { inbox, client, topic: kafka.topic.clone(), ends })
    }

    /// Reads all of it; returns the number of messages.
    ///
    /// # Errors
    /// When Kafka returns an error, or nothing more before the end.
    pub fn run(mut self) -> Result<u64> {
        let mut list = TopicPartitionList::new();
        for (&partition, &(low, _)) in &self.ends {
            self.inbox.redirect().partition(self.client.client().native_client(), &self.topic, partition);
            list.add_partition_offset(&self.topic, partition, Offset::Offset(low)).context("an offset to read from")?;
        }
        self.client.assign(&list).context("cannot read from the topic")?;
        let mut open: BTreeMap<_, _> = self.ends.iter().map(|(&partition, &(_, next))| (partition, next)).collect();
        let (mut messages, mut last, mut failed) = (0, Instant::now(), None);
        while !open.is_empty() {
            admin::listen(&self.client);
            let taken = self.inbox.take(WAIT, |record| {
                failed = failed.or(record.error);
                messages += 1;
                if open.get(&record.partition).is_some_and(|next| record.offset + 1 >= *next) {
                    open.remove(&record.partition);
                }
            });
            if let Some(code) = failed {
                bail!("cannot read topic {}: {}", self.topic, self.why(&KafkaError::MessageConsumption(code)));
            }
            if taken > 0 {
                last = Instant::now();
            } else if last.elapsed() > FETCH_TIMEOUT {
                bail!("Kafka returned no more messages of topic {} within {} s", self.topic, FETCH_TIMEOUT.as_secs());
            }
        }
        Ok(messages)
    }

    fn why(&self, error: &KafkaError) -> Reason {
        admin::explain(&self.client, "READ", &self.topic, error)
    }
}
