//! A look at a set-up before it is trusted: all that `ingest` needs, one line each.
//!
//! It asks the questions that `ingest` asks at its start, in the same words, and some more. It joins no group, opens no lease, and writes
//! nothing. A check that fails hides no other one, except those that build on it: these say so.

mod kafka;
mod leases;
mod messages;
mod report;
mod tables;

pub use report::Report;

use crate::clickhouse::ClickHouseConfig;
use crate::kafka::KafkaConfig;
use std::time::Duration;

/// The set-up that is checked: what `ingest` would be started with.
#[derive(Clone, Debug)]
pub struct CheckConfig {
    /// The topic.
    pub kafka: KafkaConfig,
    /// The consumer group.
    pub group: String,
    /// The tables.
    pub clickhouse: ClickHouseConfig,
    /// The column of the user's own table with the event's time.
    pub time: Option<String>,
    /// How many of the newest messages are decoded.
    pub sample: u64,
    /// How long to wait for a service that does not answer.
    pub connect_timeout: Duration,
}

/// Checks everything.
pub async fn run(config: &CheckConfig) -> Report {
    // A service that is away takes the whole time to wait. The other one is checked meanwhile.
    let ((mut report, topic), (others, store)) = tokio::join!(kafka::checks(config), tables::checks(config));
    report.findings.extend(others.findings);
    let tables::Store { leases, decoder } = &store;
    report.check_with("leases", topic.with(leases), async |both| leases::check(config, both).await).await;
    let sample =
        report.check_with("messages", topic.with(decoder), async |both| messages::decode(config, both).await).await;
    report.check_with("timestamps", sample.found(), async |sample| messages::times(sample)).await;
    report
}
