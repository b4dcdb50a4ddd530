//! The Kafka adapter: configuration, the group member that delivers, the committer, and the topic that is produced into.

pub mod admin;
mod callbacks;
mod committer;
mod identity;
pub mod member;
mod native;
mod opening;
mod pulse;
pub mod topic;

pub use committer::Committer;
pub use identity::Identity;
pub use native::topic_id;
pub use pulse::Pulse;

use crate::cli::KafkaArgs;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

/// librdkafka's settings for a client; `defaults` are ours, `--kafka` overrides them.
pub fn config(args: &KafkaArgs, defaults: &[(&str, &str)]) -> ClientConfig {
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
    config
}

/// One line of librdkafka's own log.
fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    use RDKafkaLogLevel::*;
    match level {
        Emerg | Alert | Critical | Error => tracing::warn!(target: "librdkafka", "{facility}: {text}"),
        Warning | Notice | Info => tracing::info!(target: "librdkafka", "{facility}: {text}"),
        Debug => tracing::debug!(target: "librdkafka", "{facility}: {text}"),
    }
}
