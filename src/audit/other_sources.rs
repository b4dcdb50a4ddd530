//! Events of the topic that are stored under another source, too: each of them has two rows, and no position shows
//! that.
//!
//! This happens if a topic was read under two ids: mirrored to another cluster whose offsets lagged, or read from the
//! beginning. A sample finds it. Two topics in the shop's table share no events, and a message that the topic holds twice has
//! one source. Two topics in a table of the user's own may hold equal messages, each of which is a row of its own.

use super::{Auditor, Findings};
use crate::clickhouse::patiently;
use crate::kafka::admin;
use crate::numbers::grouped;
use crate::printable::name;
use anyhow::Result;
use flows::OffsetRange;
use std::collections::BTreeMap;
use tokio::task::block_in_place;

/// The oldest events of a partition that are looked at, and as many of the newest: where one reader followed on another, what
/// both have read lies at one of the two ends.
const ENDS: i64 = 1_000;
/// The number of short ranges between these: if both topics were read all along, each range shows it.
const BETWEEN: i64 = 10;
const SHORT: i64 = 100;

/// For each other source, how many events of the sample stand under it, too.
pub type OtherSources = BTreeMap<String, u64>;

impl Auditor {
    /// Looks for a sample of the events that were compared under other sources.
    ///
    /// # Errors
    /// When ClickHouse cannot be asked.
    pub async fn other_sources(&self, found: &[Findings]) -> Result<OtherSources> {
        let Self { clickhouse, source, .. } = self;
        let compared = |findings: &Findings| (findings.partition, OffsetRange::new(findings.low, findings.mark));
        let compared: Vec<_> = found.iter().map(compared).filter(|(_, range)| !range.is_empty()).collect();
        let mut others = OtherSources::new();
        for (partition, range) in patiently(async || clickhouse.extents(source, &compared).await).await? {
            let ranges: Vec<_> = sample(range).into_iter().map(|range| (partition, range)).collect();
            for (other, events) in patiently(async || clickhouse.other_sources(source, &ranges).await).await? {
                *others.entry(other).or_default() += events;
            }
        }
        if clickhouse.has_own_table() && !others.is_empty() {
            let ids = others.keys().map(String::as_str).collect();
            for (id, topic) in block_in_place(|| admin::topics_with(&self.client, &ids))? {
                let events = others.remove(&id).unwrap_or_default();
                tracing::info!(
                    "of a sample, {} rows are equal to rows of topic {topic} ({id}): that is a topic of its own, so this is not a fault",
                    grouped(events)
                );
            }
        }
        Ok(others)
    }
}

/// The sampled ranges of a partition's offsets.
fn sample(range: OffsetRange) -> Vec<OffsetRange> {
    let between = OffsetRange::new(range.first + ENDS, range.next - ENDS);
    let step = (between.next - between.first) / BETWEEN;
    if step <= SHORT {
        return vec![range];
    }
    let short = |nth| OffsetRange::new(between.first + nth * step, between.first + nth * step + SHORT);
    let ends = [OffsetRange::new(range.first, between.first), OffsetRange::new(between.next, range.next)];
    ends.into_iter().chain((0..BETWEEN).map(short)).collect()
}

/// A line for each other source.
pub fn lines(others: &OtherSources) -> impl Iterator<Item = String> {
    others.iter().map(|(other, events)| {
        format!("of a sample, {} events are stored under another _source, too: {}", grouped(*events), name(other))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_bounded_lies_within_and_holds_both_ends() {
        for len in [1, 999, 2_000, 3_000, 3_009, 3_010, 3_011, 5_000, 1_000_000, i64::MAX - 7] {
            let range = OffsetRange::new(7, 7 + len);
            let ranges = sample(range);
            assert!(
                ranges.iter().all(|part| range.first <= part.first && part.next <= range.next),
                "{len}: {ranges:?}"
            );
            assert!(ranges.iter().map(OffsetRange::len).sum::<u64>() <= 3_010, "{len}: {ranges:?}");
            for offset in [range.first, range.next - 1, range.first + (len - 1).min(999)] {
                assert!(ranges.iter().any(|part| part.first <= offset && offset < part.next), "{len}: {offset}");
            }
            let mut sorted = ranges.clone();
            sorted.sort_by_key(|part| part.first);
            assert!(sorted.windows(2).all(|pair| pair[0].next <= pair[1].first), "{len}: nothing is looked at twice");
        }
    }
}
