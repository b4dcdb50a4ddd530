//! Positions in a partition: half-open ranges of offsets, and sorted stored ranges of them.

use std::collections::BTreeMap;
use std::fmt;

/// The offsets `[first, next)` of one partition.
///
/// Half open, so that ranges chain without arithmetic (`a.next == b.first`) and `next` is the very number that Kafka
/// wants committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OffsetRange {
    /// The first offset inside.
    pub first: i64,
    /// The first offset behind the end.
    pub next: i64,
}

impl OffsetRange {
    /// A range from `first` up to, not including, `next`.
    pub const fn new(first: i64, next: i64) -> Self {
        Self { first, next }
    }

    /// Whether `offset` lies inside.
    pub const fn contains(&self, offset: i64) -> bool {
        self.first <= offset && offset < self.next
    }

    /// The number of offsets inside; 0 when it is empty.
    pub const fn len(&self) -> u64 {
        if self.next > self.first { (self.next - self.first) as u64 } else { 0 }
    }

    /// Whether no offset is inside.
    pub const fn is_empty(&self) -> bool {
        self.next <= self.first
    }

    /// This range in pieces of `width` offsets, the last one shorter.
    ///
    /// # Panics
    /// When `width` is 0.
    pub fn windows(self, width: usize) -> impl Iterator<Item = OffsetRange> {
        (self.first..self.next).step_by(width).map(move |first| {
            let next = first.saturating_add(i64::try_from(width).unwrap_or(i64::MAX));
            OffsetRange::new(first, next.min(self.next))
        })
    }

    /// This range, grown to the end of `later`.
    ///
    /// # Errors
    /// [`OutOfOrder`] unless `later` begins exactly where this range ends. A jump ahead would skip offsets that nobody
    /// accounted for, and a step back would count some twice.
    pub fn chain(self, partition: i32, later: OffsetRange) -> Result<OffsetRange, OutOfOrder> {
        if later.first == self.next && !later.is_empty() {
            Ok(OffsetRange::new(self.first, later.next))
        } else {
            Err(OutOfOrder { partition, expected: Some(self.next), found: later })
        }
    }

    /// This range, if it begins where `ends` says that the partition's last one ended.
    ///
    /// # Errors
    /// [`OutOfOrder`] otherwise, and when there is no such partition.
    pub fn chained_to(self, partition: i32, ends: &BTreeMap<i32, i64>) -> Result<OffsetRange, OutOfOrder> {
        match ends.get(&partition) {
            Some(&end) => OffsetRange::new(end, end).chain(partition, self),
            None => Err(OutOfOrder { partition, expected: None, found: self }),
        }
    }
}

impl fmt::Debug for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.first, self.next)
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.first, self.next - 1)
    }
}

/// A range that does not begin where the one before it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition}: found offsets {found:?}, expected them to begin at {expected:?}")]
pub struct OutOfOrder {
    /// The partition.
    pub partition: i32,
    /// The offset at which the range had to begin; none if this pipeline does not own the partition.
    pub expected: Option<i64>,
    /// The range that came.
    pub found: OffsetRange,
}

/// Disjoint ranges of one partition, in ascending order: what the sink answers to *which offsets are stored?*
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetRanges(Vec<OffsetRange>);

impl OffsetRanges {
    /// OffsetRanges out of ranges in any order; touching and overlapping ones are joined, empty ones left out.
    pub fn new(mut ranges: Vec<OffsetRange>) -> Self {
        ranges.retain(|range| !range.is_empty());
        ranges.sort_by_key(|range| range.first);
        ranges.dedup_by(|later, earlier| {
            let touches = later.first <= earlier.next;
            if touches {
                earlier.next = earlier.next.max(later.next);
            }
            touches
        });
        Self(ranges)
    }

    /// Whether `offset` lies on one of them.
    pub fn contains(&self, offset: i64) -> bool {
        let behind = self.0.partition_point(|range| range.next <= offset);
        self.0.get(behind).is_some_and(|range| range.contains(offset))
    }

    /// The parts of `whole` that none of these ranges covers.
    pub fn gaps(&self, whole: OffsetRange) -> Vec<OffsetRange> {
        let mut from = whole.first;
        let mut gaps = Vec::new();
        for range in &self.0 {
            gaps.push(OffsetRange::new(from, range.first.min(whole.next)));
            from = from.max(range.next);
        }
        gaps.push(OffsetRange::new(from, whole.next));
        gaps.retain(|gap| !gap.is_empty());
        gaps
    }

    /// The stored ranges, ascending.
    pub fn ranges(&self) -> &[OffsetRange] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_range_chains_only_to_its_neighbour() {
        let range = OffsetRange::new(3, 5);
        assert_eq!(range.chain(0, OffsetRange::new(5, 9)), Ok(OffsetRange::new(3, 9)));
        assert!(range.chain(0, OffsetRange::new(6, 9)).is_err(), "a jump ahead passes over offset 5");
        assert!(range.chain(0, OffsetRange::new(4, 9)).is_err(), "a step back counts offset 4 twice");
        assert!(range.chain(0, OffsetRange::new(5, 5)).is_err(), "a range without an offset");
    }

    proptest! {
        #[test]
        fn windows_chain_from_end_to_end(first in -50i64..50, len in 0i64..100, width in 1usize..40) {
            let range = OffsetRange::new(first, first + len);
            let mut end = first;
            for window in range.windows(width) {
                prop_assert!(window.first == end && !window.is_empty() && window.len() <= width as u64);
                end = window.next;
            }
            prop_assert_eq!(end, range.next);
        }

        #[test]
        fn ranges_and_gaps_part_the_whole(ranges in prop::collection::vec((0i64..60, 0i64..12), 0..12)) {
            let ranges: Vec<_> = ranges.iter().map(|&(first, len)| OffsetRange::new(first, first + len)).collect();
            let stored_ranges = OffsetRanges::new(ranges.clone());
            let whole = OffsetRange::new(5, 50);
            let gaps = OffsetRanges::new(stored_ranges.gaps(whole));
            for offset in 0..80 {
                let stored = ranges.iter().any(|range| range.contains(offset));
                prop_assert_eq!(stored_ranges.contains(offset), stored);
                prop_assert_eq!(gaps.contains(offset), whole.contains(offset) && !stored);
            }
        }
    }
}
