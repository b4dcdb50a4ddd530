//! Ranges of offsets, counted: however many there are, the memory stays bounded.

use flows::OffsetRange;
use serde::Serialize;

/// Ranges that are kept to be shown; the rest is only counted.
const KEPT: usize = 1_000;

/// Ranges that came in ascending order.
#[derive(Default, Serialize)]
pub struct Tally {
    /// Offsets in all of them.
    pub offsets: u64,
    /// Ranges; neighbours count as one.
    pub ranges: u64,
    /// The first of them: first and last offset, both inside.
    #[serde(serialize_with = "inclusive")]
    pub first: Vec<OffsetRange>,
    /// Where the last one ended.
    #[serde(skip)]
    end: i64,
}

impl Tally {
    /// Adds a range that lies behind all others.
    pub fn add(&mut self, range: OffsetRange) {
        self.offsets += range.len();
        if self.ranges > 0 && range.first == self.end {
            if self.ranges == self.first.len() as u64
                && let Some(last) = self.first.last_mut()
            {
                last.next = range.next;
            }
        } else {
            self.ranges += 1;
            if self.first.len() < KEPT {
                self.first.push(range);
            }
        }
        self.end = range.next;
    }

    /// Adds several.
    pub fn extend(&mut self, ranges: &[OffsetRange]) {
        ranges.iter().for_each(|range| self.add(*range));
    }
}

fn inclusive<S: serde::Serializer>(ranges: &[OffsetRange], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(ranges.iter().map(|range| (range.first, range.next - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flows::OffsetRanges;

    #[test]
    fn neighbours_are_one_range_and_nothing_is_counted_twice() {
        let mut tally = Tally::default();
        let ranges: Vec<_> =
            [(0, 3), (3, 5), (7, 8), (8, 9), (20, 30)].map(|(first, next)| OffsetRange::new(first, next)).into();
        tally.extend(&ranges);
        assert_eq!((tally.offsets, tally.ranges), (17, 3));
        assert_eq!(tally.first, OffsetRanges::new(ranges).ranges());
        assert_eq!(serde_json::to_value(&tally).unwrap()["first"], serde_json::json!([[0, 4], [7, 8], [20, 29]]));
    }

    #[test]
    fn a_million_ranges_take_the_memory_of_a_thousand() {
        let mut tally = Tally::default();
        (0..1_000_000).for_each(|nth| tally.add(OffsetRange::new(nth * 2, nth * 2 + 1)));
        tally.add(OffsetRange::new(1_999_999, 2_000_005));
        assert_eq!((tally.offsets, tally.ranges, tally.first.len()), (1_000_006, 1_000_000, KEPT));
        assert_eq!(
            tally.first[KEPT - 1],
            OffsetRange::new(1_998, 1_999),
            "the last one that is kept is not grown by others"
        );
    }
}
