//! Where Kafka is: the options of every command that asks it.

use super::settings::SettingArgs;
use super::values::{Unseen, brokers, duration, topic_name};
use crate::kafka::KafkaConfig;
use clap::Args;
use std::time::Duration;

/// The address of Kafka.
#[derive(Args, Clone, Debug)]
pub struct KafkaArgs {
    /// Kafka's bootstrap brokers: HOST:PORT, separated by commas
    #[arg(long, env = "CLICKSTREAM_BROKERS", default_value = "localhost:9092", value_parser = Unseen(brokers))]
    pub brokers: String,

    /// Kafka's topic
    #[arg(long, env = "CLICKSTREAM_TOPIC", default_value = "clicks", value_parser = topic_name)]
    pub topic: String,

    #[command(flatten)]
    pub settings: SettingArgs,

    /// Time to wait for services that do not answer at the start
    #[arg(long, env = "CLICKSTREAM_CONNECT_TIMEOUT", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub connect_timeout: Duration,
}

impl KafkaArgs {
    /// The configuration of the adapter.
    pub fn config(&self) -> KafkaConfig {
        KafkaConfig { brokers: self.brokers.clone(), topic: self.topic.clone(), settings: self.settings.in_order() }
    }
}
