//! Waiting for services at the start.

use crate::clickhouse::ClickHouse;
use crate::kafka::admin::{self, Found};
use anyhow::{Result, bail};
use flows::{Backoff, Class};
use rdkafka::consumer::BaseConsumer;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Waits until Kafka answers; returns what it says of the topic.
///
/// # Errors
/// When `patience` is over.
pub async fn kafka(client: &Arc<BaseConsumer>, brokers: &str, topic: &str, patience: Duration) -> Result<Found> {
    let deadline = Instant::now() + patience;
    let mut said = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        let (client, name) = (client.clone(), topic.to_owned());
        let found =
            tokio::task::spawn_blocking(move || admin::find(&client, &name, left.min(Duration::from_secs(2)))).await?;
        match found {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= deadline => {
                bail!(
                    "Kafka does not answer at {brokers} ({error}): is it running? see --brokers and --connect-timeout"
                )
            }
            Err(_) if !said => {
                tracing::info!("waiting for Kafka at {brokers}");
                said = true;
            }
            Err(_) => {}
        }
    }
}

/// Waits until ClickHouse answers and lets us in.
///
/// # Errors
/// When `patience` is over, or at once when it refuses us.
pub async fn clickhouse(clickhouse: &ClickHouse, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    let (mut backoff, mut said) = (Backoff::default(), false);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let failure = match tokio::time::timeout(left.max(Duration::from_millis(100)), clickhouse.greet()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) if failure.class == Class::Permanent => {
                bail!("ClickHouse at {} refuses: {failure}", clickhouse.address())
            }
            Ok(Err(failure)) => failure.message,
            Err(_) => "no answer".into(),
        };
        if Instant::now() >= deadline {
            bail!(
                "ClickHouse does not answer at {} ({failure}): is it running? see --clickhouse-url and --connect-timeout",
                clickhouse.address()
            );
        }
        if !said {
            tracing::info!("waiting for ClickHouse at {}", clickhouse.address());
            said = true;
        }
        backoff.wait().await;
    }
}
