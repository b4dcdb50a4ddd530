//! The Kafka adapter: configuration, the group member that delivers, the committer, and the topic that is produced into.

pub(crate) mod admin;
mod broker_recovery;
mod config;
pub(crate) mod consume_only;
pub(crate) mod consumer;
mod hanging;
mod identity;
mod loss;
pub(crate) mod native;
pub(crate) mod newest;
pub(crate) mod ranges;
mod reason;
mod reasons;
pub(crate) mod refused;
pub(crate) mod removal;
mod statistics;
pub(crate) mod topic;
mod topic_identity;
pub(crate) mod version;

pub use config::{KafkaConfig, Setting, Settings};
pub use consumer::{Consumer, ConsumerConfig, Evicted, Lease};
pub(crate) use identity::Identity;
pub use identity::Naming;
pub(crate) use native::topic_id;
pub(crate) use reason::Reason;
pub(crate) use reasons::Reasons;

use anyhow::{Result, bail};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

/// The interval at which a client asks for its topic's partitions: one small request. Messages of a new partition are
/// queryable within the latency target only if the partition is found well within that.
const NEW_PARTITIONS_MS: &str = "1000";

const STATISTICS: &str = "statistics.interval.ms";

/// librdkafka's settings for a client; `defaults` are ours, the user's override them.
///
/// # Errors
/// When there is no such setting or it does not take that value, without saying the value: it may be a password. When it names a
/// file that cannot be read, and when it is refused.
pub(crate) fn client_config(kafka: &KafkaConfig, defaults: &[(&str, &str)]) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka.brokers)
        .set("client.id", "clickstream")
        .set("allow.auto.create.topics", "false")
        .set("socket.keepalive.enable", "true")
        .set("topic.metadata.refresh.interval.ms", NEW_PARTITIONS_MS)
        .set("reconnect.backoff.max.ms", "2000") // back within seconds after an outage
        .set_log_level(RDKafkaLogLevel::Info); // tells of connections that a broker closes: `Reasons`
    for (key, value) in defaults {
        config.set(*key, *value);
    }
    if kafka.settings.iter().any(|setting| setting.key == "debug") {
        config.set_log_level(RDKafkaLogLevel::Debug);
    }
    refused::check(&kafka.settings, refused::EVERYWHERE)?;
    for setting in kafka.settings.iter() {
        config.set(&setting.key, &setting.value);
    }
    refused::check_files(&kafka.settings, &config)?;
    // Brokers that hang, and a client that has lost them all, are known by its statistics.
    if kafka.settings.iter().any(|setting| setting.key == STATISTICS) && config.get(STATISTICS) == Some("0") {
        bail!("{}: must be 1 or more: what Kafka does is seen by it", kafka.settings.name(STATISTICS));
    }
    match config.create_native_config() {
        Ok(_) => Ok(config),
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, key, _)) => {
            bail!("{}: librdkafka has no such setting", kafka.settings.name(&key))
        }
        Err(KafkaError::ClientConfig(_, _, key, _)) => {
            bail!("{}: librdkafka does not take this value for it", kafka.settings.name(&key))
        }
        Err(_) => bail!("librdkafka does not take the --kafka settings"),
    }
}
