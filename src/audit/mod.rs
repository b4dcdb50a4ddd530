//! The proof, offset by offset, that the tables hold what the topic held; and putting back what they lost.

mod findings;
mod heal;
mod tally;

pub use findings::Findings;
pub use heal::Healer;
pub use tally::Tally;

use crate::clickhouse::{ClickHouse, WINDOW};
use crate::kafka::admin;
use crate::kafka::ranges::Ranges;
use anyhow::{Result, anyhow};
use flows::{Backoff, Class, Failure, Islands, Span};
use rdkafka::consumer::BaseConsumer;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

/// How long ClickHouse may fail to answer one question.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who asks both sides.
pub struct Auditor {
    pub clickhouse: Arc<ClickHouse>,
    pub client: Arc<BaseConsumer>,
    pub ranges: Ranges,
    pub topic: String,
    /// `_source` of the topic's rows.
    pub source: String,
}

/// What was found in one window of a partition.
struct Seen {
    stored: u64,
    missing: Vec<Span>,
    doubled: Vec<Span>,
}

impl Auditor {
    /// Compares one partition with its rows: `[low, high)` is what the topic holds, below `mark` all of it must be stored.
    ///
    /// # Errors
    /// When one of the two cannot be asked.
    pub async fn inspect(&mut self, partition: i32, low: i64, mark: i64, high: i64) -> Result<Findings> {
        let mut findings = Findings::new(partition, low, mark, high);
        for window in Span::new(low, mark).windows(WINDOW) {
            let seen = self.look(partition, window).await?;
            findings.stored += seen.stored;
            findings.empty += window.len() - seen.stored - total(&seen.missing);
            findings.missing.extend(&seen.missing);
            findings.duplicates.extend(&seen.doubled);
        }
        // What is stored and not committed yet is no fault, unless it is there twice.
        for window in Span::new(mark.max(low), high).windows(WINDOW) {
            findings.duplicates.extend(&self.doubled(partition, window).await?);
        }
        findings.beyond.extend(&self.beyond(partition, high).await?);
        Ok(findings)
    }

    /// The ranges that are committed and not stored, window by window, for whoever puts them back.
    pub async fn missing(&mut self, partition: i32, window: Span) -> Result<Vec<Span>> {
        Ok(self.look(partition, window).await?.missing)
    }

    async fn look(&mut self, partition: i32, window: Span) -> Result<Seen> {
        let Self { clickhouse, source, .. } = self;
        let (rows, stored) = patiently(async || clickhouse.census(source, partition, window).await).await?;
        let doubled = if rows > stored {
            let found = patiently(async || clickhouse.doubled(source, partition, window).await).await?;
            found.spans().to_vec()
        } else {
            Vec::new()
        };
        let missing = if stored < window.len() {
            let found = self.stored(partition, window).await?;
            // What Kafka has no record for either is no gap.
            block_in_place(|| self.with_records(partition, &found.gaps(window)))?
        } else {
            Vec::new()
        };
        Ok(Seen { stored, missing, doubled })
    }

    async fn doubled(&self, partition: i32, window: Span) -> Result<Vec<Span>> {
        let Self { clickhouse, source, .. } = self;
        let (rows, stored) = patiently(async || clickhouse.census(source, partition, window).await).await?;
        if rows == stored {
            return Ok(Vec::new());
        }
        Ok(patiently(async || clickhouse.doubled(source, partition, window).await).await?.spans().to_vec())
    }

    async fn stored(&self, partition: i32, span: Span) -> Result<Islands> {
        let Self { clickhouse, source, .. } = self;
        let mut found = patiently(async || clickhouse.stored(source, &[(partition, span)]).await).await?;
        Ok(found.remove(&partition).unwrap_or_default())
    }

    /// Which offsets of these ranges hold a record that a consumer is given.
    fn with_records(&mut self, partition: i32, ranges: &[Span]) -> Result<Vec<Span>> {
        let mut found: Vec<Span> = Vec::new();
        for range in ranges {
            self.ranges.read(partition, *range, |record| {
                match found.last_mut() {
                    Some(last) if last.next == record.offset => last.next += 1,
                    _ => found.push(Span::new(record.offset, record.offset + 1)),
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(found)
    }

    /// Which offsets are stored beyond the topic's end. The end is asked for once more, since the topic goes on growing.
    async fn beyond(&self, partition: i32, high: i64) -> Result<Vec<Span>> {
        let behind = Span::new(high, i64::MAX);
        let found = self.stored(partition, behind).await?;
        if found.spans().is_empty() {
            return Ok(Vec::new());
        }
        let ends = block_in_place(|| admin::watermarks(&self.client, &self.topic, &[partition]))?;
        let end = ends.get(&partition).map_or(high, |(_, high)| *high);
        let beyond = found.spans().iter().map(|span| Span::new(span.first.max(end), span.next));
        Ok(beyond.filter(|span| !span.is_empty()).collect())
    }

    /// Which offsets before the topic's beginning are not stored, behind the first one that is.
    pub async fn expired(&self, partition: i32, low: i64) -> Result<Tally> {
        let Self { clickhouse, source, .. } = self;
        let mut expired = Tally::default();
        let first = patiently(async || clickhouse.first_below(source, partition, low).await).await?;
        for window in first.into_iter().flat_map(|first| Span::new(first, low).windows(WINDOW)) {
            let (_, stored) = patiently(async || clickhouse.census(source, partition, window).await).await?;
            if stored < window.len() {
                let found = self.stored(partition, window).await?;
                expired.extend(&found.gaps(window));
            }
        }
        Ok(expired)
    }
}

/// Asks until there is an answer, while a failure may pass.
async fn patiently<A>(question: impl AsyncFn() -> Result<A, Failure>) -> Result<A> {
    let (mut backoff, deadline) = (Backoff::default(), Instant::now() + PATIENCE);
    loop {
        match question().await {
            Err(failure) if failure.class != Class::Permanent && Instant::now() < deadline => {
                tracing::info!("asking ClickHouse again: {failure}");
                backoff.wait().await;
            }
            answer => return answer.map_err(|failure| anyhow!("ClickHouse: {failure}")),
        }
    }
}

fn total(spans: &[Span]) -> u64 {
    spans.iter().map(Span::len).sum()
}
