//! Where Kafka is: the options of every command that asks it.

use super::settings::SettingArgs;
use super::values::{Unseen, brokers, duration, topic_name};
use crate::kafka::KafkaConfig;
use clap::{Arg, ArgAction, Args};
use std::time::Duration;

/// The address of Kafka.
#[derive(Args, Clone, Debug)]
pub struct KafkaArgs {
    /// Kafka's bootstrap brokers: HOST:PORT, separated by commas
    #[arg(long, env = "CLICKSTREAM_BROKERS", default_value = "localhost:9092", value_parser = Unseen(brokers))]
    pub brokers: String,

    /// Kafka's topic
    #[arg(
        long = "topic", id = "topic", env = "CLICKSTREAM_TOPIC", default_value = "clicks", value_name = "TOPIC",
        value_parser = topic_name, action = ArgAction::Set
    )]
    topics: Vec<String>,

    #[command(flatten)]
    pub settings: SettingArgs,

    /// Time to wait for services that do not answer at the start
    #[arg(long, env = "CLICKSTREAM_CONNECT_TIMEOUT", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub connect_timeout: Duration,
}

impl KafkaArgs {
    /// The configuration of the adapter, for the first topic.
    pub fn config(&self) -> KafkaConfig {
        self.config_of(self.topic())
    }

    /// The configuration of the adapter, for one of the topics.
    pub fn config_of(&self, topic: &str) -> KafkaConfig {
        KafkaConfig { brokers: self.brokers.clone(), topic: topic.to_owned(), settings: self.settings.in_order() }
    }

    /// The topic; the first one of several.
    pub fn topic(&self) -> &str {
        &self.topics[0]
    }

    /// All topics of a command that takes [several].
    pub fn topics(&self) -> &[String] {
        &self.topics
    }
}

/// Has a command take several topics, separated by commas, or with the flag repeated.
pub fn several(topic: Arg) -> Arg {
    topic
        .action(ArgAction::Append)
        .value_delimiter(',')
        .value_name("TOPIC,…")
        .help("Kafka's topics: one, or several that go into one table, separated by commas; may be repeated")
}
