//! Deleting a topic and groups that were made for a purpose of our own.

use super::Reasons;
use anyhow::{Context, Result, anyhow};
use flows::Backoff;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::error::RDKafkaErrorCode;
use std::time::{Duration, Instant};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A member that was killed stays in its group for a session.
const MEMBERS_GONE: Duration = Duration::from_secs(15);

fn client(config: &ClientConfig) -> Result<(AdminClient<Reasons>, AdminOptions)> {
    let admin = config.create_with_context(Reasons::of_asker(config, "DELETE"));
    let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT)).request_timeout(Some(REQUEST_TIMEOUT));
    Ok((admin.context("cannot set up the Kafka client")?, options))
}

/// Deletes a topic.
///
/// # Errors
/// When Kafka does not delete it.
pub async fn topic(config: &ClientConfig, topic: &str) -> Result<()> {
    let (admin, options) = client(config)?;
    let deleted =
        admin.delete_topics(&[topic], &options).await.with_context(|| format!("cannot delete topic {topic}"))?;
    match deleted.into_iter().next() {
        Some(Err((_, code))) if code != RDKafkaErrorCode::UnknownTopicOrPartition => {
            Err(anyhow!("cannot delete topic {topic}: {code}"))
        }
        _ => Ok(()),
    }
}

/// Deletes a consumer group, as soon as it has no members.
///
/// # Errors
/// When Kafka does not delete it.
pub async fn group(config: &ClientConfig, group: &str) -> Result<()> {
    let (admin, options) = client(config)?;
    let (deadline, mut backoff) = (Instant::now() + MEMBERS_GONE, Backoff::default());
    loop {
        let deleted = admin.delete_groups(&[group], &options).await;
        let deleted = deleted.with_context(|| format!("cannot delete group {group}"))?;
        match deleted.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::NonEmptyGroup))) if Instant::now() < deadline => backoff.wait().await,
            Some(Err((_, code))) if code != RDKafkaErrorCode::GroupIdNotFound => {
                return Err(anyhow!("cannot delete group {group}: {code}"));
            }
            _ => return Ok(()),
        }
    }
}
