//! The proof, offset by offset, that the tables hold what the topic held; and putting back what they lost.

mod expired;
mod findings;
mod heal;
pub mod other_sources;
mod tally;

pub use expired::{Expired, Wanted};
pub use findings::Findings;
pub use heal::{Healer, Interrupted, Marks};
pub use other_sources::OtherSources;
pub use tally::Tally;

use crate::clickhouse::{Census, ClickHouse, Expiry, WINDOW, patiently};
use crate::kafka::admin::{self, Client};
use crate::kafka::ranges::Ranges;
use anyhow::{Result, anyhow};
use flows::{OffsetRange, OffsetRanges};
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::task::block_in_place;

/// The clients of both sides of the comparison.
pub struct Auditor {
    pub clickhouse: Arc<ClickHouse>,
    pub client: Arc<Client>,
    pub ranges: Ranges,
    pub topic: String,
    /// `_source` of the topic's rows.
    pub source: String,
    /// Rows that the tables' TTLs have deleted.
    pub expiry: Expiry,
}

/// The findings in one window of a partition.
struct Seen {
    stored: u64,
    /// Offsets that are neither stored nor erased and hold no record.
    empty: u64,
    erased: u64,
    missing: Vec<OffsetRange>,
    expired_by_ttl: Vec<OffsetRange>,
    doubled: Vec<OffsetRange>,
    returned: Vec<OffsetRange>,
}

/// Offsets of records that are neither stored nor erased.
#[derive(Default)]
struct Unstored {
    missing: Vec<OffsetRange>,
    expired_by_ttl: Vec<OffsetRange>,
}

impl Auditor {
    /// Compares one partition with its rows: `[low, high)` is what the topic holds, below `mark` all of it must be stored.
    ///
    /// # Errors
    /// When one of the two cannot be asked.
    pub async fn inspect(&mut self, partition: i32, low: i64, mark: i64, high: i64) -> Result<Findings> {
        let mut findings = Findings::new(partition, low, mark, high);
        for window in OffsetRange::new(low, mark).windows(WINDOW) {
            let seen = self.look(partition, window).await?;
            findings.stored += seen.stored;
            findings.empty += seen.empty;
            findings.erased += seen.erased;
            findings.missing.extend(&seen.missing);
            findings.expired_by_ttl.extend(&seen.expired_by_ttl);
            findings.duplicates.extend(&seen.doubled);
            findings.returned.extend(&seen.returned);
        }
        // A row that is stored and not committed yet is not a fault, unless it is stored twice.
        for window in OffsetRange::new(mark.max(low), high).windows(WINDOW) {
            findings.duplicates.extend(&self.doubled(partition, window).await?);
        }
        findings.beyond.extend(&self.beyond(partition, high).await?);
        Ok(findings)
    }

    /// Whether the topic is another one by now, which has the same name: then nothing that is found of it counts. Without an answer it
    /// is taken for the same.
    pub fn is_another_topic(&self) -> bool {
        block_in_place(|| admin::source(&self.client, &self.topic)).is_ok_and(|source| source != self.source)
    }

    /// The error for a topic that is another one by now.
    pub fn another_topic(&self) -> anyhow::Error {
        let Self { topic, source, .. } = self;
        anyhow!(
            "topic {topic} was deleted and made again while this was at work: what the one with the id {source} held is gone, so nothing more \
             of it can be compared or put back; run this again for the new one"
        )
    }

    /// The ranges that are committed and not stored, window by window, for the healer.
    pub async fn missing(&mut self, partition: i32, window: OffsetRange) -> Result<Vec<OffsetRange>> {
        Ok(self.look(partition, window).await?.missing)
    }

    async fn look(&mut self, partition: i32, window: OffsetRange) -> Result<Seen> {
        let Self { clickhouse, source, .. } = self;
        let census = patiently(async || clickhouse.census(source, partition, window).await).await?;
        let Census { stored, erased, .. } = census;
        let doubled = self.doubled_of(census, partition, window).await?;
        let returned = self.returned(census, partition, window).await?;
        let gaps = if stored < window.len() { self.stored(partition, window).await?.gaps(window) } else { Vec::new() };
        // Rows may have expired since this began, and not be there for that.
        if !gaps.is_empty() {
            self.expiry = self.expiry_now().await?;
        }
        // An offset for which Kafka has no record either is not a gap.
        let Unstored { missing, expired_by_ttl } = block_in_place(|| self.unstored(partition, &gaps))?;
        let empty = total(&gaps) - total(&missing) - total(&expired_by_ttl);
        Ok(Seen { stored, empty, erased, missing, expired_by_ttl, doubled, returned })
    }

    /// Ranges whose rows have expired by now.
    async fn expiry_now(&self) -> Result<Expiry> {
        let (expiry, _) = patiently(async || self.clickhouse.expiry().await).await?;
        Ok(expiry)
    }

    async fn doubled(&self, partition: i32, window: OffsetRange) -> Result<Vec<OffsetRange>> {
        let Self { clickhouse, source, .. } = self;
        let census = patiently(async || clickhouse.census(source, partition, window).await).await?;
        self.doubled_of(census, partition, window).await
    }

    async fn doubled_of(&self, census: Census, partition: i32, window: OffsetRange) -> Result<Vec<OffsetRange>> {
        if census.rows == census.stored {
            return Ok(Vec::new());
        }
        let Self { clickhouse, source, .. } = self;
        Ok(patiently(async || clickhouse.doubled(source, partition, window).await).await?.ranges().to_vec())
    }

    async fn returned(&self, census: Census, partition: i32, window: OffsetRange) -> Result<Vec<OffsetRange>> {
        if census.erased == 0 {
            return Ok(Vec::new());
        }
        let Self { clickhouse, source, .. } = self;
        let both = patiently(async || clickhouse.erased_and_stored(source, partition, window).await).await?;
        Ok(both.ranges().to_vec())
    }

    async fn stored(&self, partition: i32, range: OffsetRange) -> Result<OffsetRanges> {
        let Self { clickhouse, source, .. } = self;
        let mut found = patiently(async || clickhouse.stored(source, &[(partition, range)]).await).await?;
        Ok(found.remove(&partition).unwrap_or_default())
    }

    /// Which offsets of these ranges hold a record that a consumer is given, and whose row should be there.
    fn unstored(&mut self, partition: i32, ranges: &[OffsetRange]) -> Result<Unstored> {
        let Self { ranges: topic, expiry, clickhouse, .. } = self;
        let decoder = clickhouse.decoder();
        let mut found = Unstored::default();
        for range in ranges {
            topic.read(partition, *range, |record| {
                let is_over = expiry.is_over(record.timestamp_ms, || record.decode(&*decoder));
                let kind = if is_over { &mut found.expired_by_ttl } else { &mut found.missing };
                match kind.last_mut() {
                    Some(last) if last.next == record.offset => last.next += 1,
                    _ => kind.push(OffsetRange::new(record.offset, record.offset + 1)),
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(found)
    }

    /// The stored offsets beyond the topic's end. The end is asked for once more, since the topic grows meanwhile.
    async fn beyond(&self, partition: i32, high: i64) -> Result<Vec<OffsetRange>> {
        let behind = OffsetRange::new(high, i64::MAX);
        let found = self.stored(partition, behind).await?;
        if found.ranges().is_empty() {
            return Ok(Vec::new());
        }
        let ends = block_in_place(|| admin::watermarks(&self.client, &self.topic, &[partition]))?;
        let end = ends.get(&partition).map_or(high, |(_, high)| *high);
        let beyond = found.ranges().iter().map(|range| OffsetRange::new(range.first.max(end), range.next));
        Ok(beyond.filter(|range| !range.is_empty()).collect())
    }
}

fn total(ranges: &[OffsetRange]) -> u64 {
    ranges.iter().map(OffsetRange::len).sum()
}
