//! Events of the topic that stand under another source, too: each of them is there twice, and no position tells.
//!
//! That happens where a topic was read under two ids: mirrored to another cluster whose offsets lagged, or from the beginning.
//! A sample shows it. Two topics in one table share no events; a message that is in the topic twice has one source.

use super::{Auditor, Findings, patiently};
use crate::table::grouped;
use anyhow::Result;
use flows::Span;
use std::collections::BTreeMap;

/// The oldest events of a partition that are looked at, and as many of the newest: where one reader followed on another, what
/// both have read lies at one of the two ends.
const ENDS: i64 = 1_000;
/// And between these, so many short spans: where both have read all along, each of them shows it.
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
        let compared = |findings: &Findings| (findings.partition, Span::new(findings.low, findings.mark));
        let compared: Vec<_> = found.iter().map(compared).filter(|(_, span)| !span.is_empty()).collect();
        let mut others = OtherSources::new();
        for (partition, span) in patiently(async || clickhouse.extents(source, &compared).await).await? {
            let spans: Vec<_> = sample(span).into_iter().map(|span| (partition, span)).collect();
            for (other, events) in patiently(async || clickhouse.other_sources(source, &spans).await).await? {
                *others.entry(other).or_default() += events;
            }
        }
        Ok(others)
    }
}

/// What is looked at of a partition's offsets.
fn sample(span: Span) -> Vec<Span> {
    let between = Span::new(span.first + ENDS, span.next - ENDS);
    let step = (between.next - between.first) / BETWEEN;
    if step <= SHORT {
        return vec![span];
    }
    let short = |nth| Span::new(between.first + nth * step, between.first + nth * step + SHORT);
    let ends = [Span::new(span.first, between.first), Span::new(between.next, span.next)];
    ends.into_iter().chain((0..BETWEEN).map(short)).collect()
}

/// A line for each other source.
pub fn lines(others: &OtherSources) -> impl Iterator<Item = String> {
    others.iter().map(|(other, events)| {
        format!("of a sample, {} events stand under another _source, too: {other}", grouped(*events))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_bounded_lies_within_and_holds_both_ends() {
        for len in [1, 999, 2_000, 3_000, 3_009, 3_010, 3_011, 5_000, 1_000_000, i64::MAX - 7] {
            let span = Span::new(7, 7 + len);
            let spans = sample(span);
            assert!(spans.iter().all(|part| span.first <= part.first && part.next <= span.next), "{len}: {spans:?}");
            assert!(spans.iter().map(Span::len).sum::<u64>() <= 3_010, "{len}: {spans:?}");
            for offset in [span.first, span.next - 1, span.first + (len - 1).min(999)] {
                assert!(spans.iter().any(|part| part.first <= offset && offset < part.next), "{len}: {offset}");
            }
            let mut sorted = spans.clone();
            sorted.sort_by_key(|part| part.first);
            assert!(sorted.windows(2).all(|pair| pair[0].next <= pair[1].first), "{len}: nothing is looked at twice");
        }
    }
}
