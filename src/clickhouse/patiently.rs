//! Repeating a question while its failure may pass.

use anyhow::{Result, anyhow};
use flows::{Backoff, ErrorKind, Failure};
use std::time::{Duration, Instant};

/// The longest time of failing attempts at one question to ClickHouse.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Repeats a question until there is an answer, while its failure may pass.
///
/// # Errors
/// A failure that does not pass, or not within a minute.
pub async fn patiently<A>(question: impl AsyncFn() -> Result<A, Failure>) -> Result<A> {
    let (mut backoff, deadline) = (Backoff::default(), Instant::now() + RETRY_TIMEOUT);
    loop {
        match question().await {
            Err(failure) if failure.kind != ErrorKind::Permanent && Instant::now() < deadline => {
                tracing::info!("asking ClickHouse again: {failure}");
                backoff.wait().await;
            }
            answer => return answer.map_err(|failure| anyhow!("ClickHouse: {failure}")),
        }
    }
}
