//! The Kafka adapter: configuration, the group member that delivers, the committer, and the topic that is produced into.

pub mod admin;
mod callbacks;
mod committer;
mod haul;
mod identity;
mod lag;
pub mod lease;
mod lifeline;
mod load;
mod loss;
mod marks;
pub mod member;
mod metadata;
pub mod native;
mod opening;
mod proof;
mod queue;
pub mod ranges;
pub mod replay;
pub mod topic;
mod turn;

pub use committer::Committer;
pub use identity::{Identity, Naming};
pub use metadata::{Lost, Metadata, Notes};
pub use native::topic_id;
pub use proof::Proof;
pub use turn::Turn;

use crate::cli::KafkaArgs;
use crate::seldom::Seldom;
use anyhow::{Result, bail};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

/// librdkafka's settings for a client; `defaults` are ours, `--kafka` overrides them.
///
/// # Errors
/// When there is no such setting or it does not take that value, without saying the value: it may be a password.
pub fn config(args: &KafkaArgs, defaults: &[(&str, &str)]) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &args.brokers)
        .set("client.id", "clickstream")
        .set("allow.auto.create.topics", "false")
        .set("socket.keepalive.enable", "true")
        .set("topic.metadata.refresh.interval.ms", "30000")
        .set("reconnect.backoff.max.ms", "2000") // back within seconds after an outage
        .set_log_level(RDKafkaLogLevel::Warning);
    for (key, value) in defaults {
        config.set(*key, *value);
    }
    for setting in &args.kafka {
        config.set(&setting.key, &setting.value);
    }
    match config.create_native_config() {
        Ok(_) => Ok(config),
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, key, _)) => {
            bail!("--kafka {key}=…: librdkafka has no such setting")
        }
        Err(KafkaError::ClientConfig(_, _, key, _)) => {
            bail!("--kafka {key}=…: librdkafka does not take this value for it")
        }
        Err(_) => bail!("librdkafka does not take the --kafka settings"),
    }
}

/// One line of librdkafka's own log. What matters of it comes as an error too, so this is for looking into things.
fn log(facility: &str, text: &str) {
    tracing::debug!(target: "librdkafka", "{facility}: {text}");
}

/// What librdkafka reports of its connections: in series, while a broker is away.
fn complain(complaints: &Seldom, reason: &str) {
    if complaints.now() {
        tracing::warn!("Kafka: {reason}; trying again");
    }
}
