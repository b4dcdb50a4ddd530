//! The newest messages of a topic, of all partitions about equally many.

use super::ranges::{Ranges, RawRecord};
use anyhow::Result;
use flows::OffsetRange;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Reads up to `most` messages of a topic with these ends, and hands each record with its partition to `each`.
///
/// # Errors
/// When Kafka does not answer, or with anything but records.
pub fn read(
    ranges: &mut Ranges,
    ends: &BTreeMap<i32, (i64, i64)>,
    most: u64,
    mut each: impl FnMut(i32, RawRecord<'_>),
) -> Result<()> {
    for (partition, most) in shares(ends, most) {
        let (low, high) = ends[&partition];
        let (mut end, mut left, mut window) = (high, most, most);
        // Offsets may have no message, after compaction or of transactions: then earlier ones are read, too.
        while left > 0 && end > low {
            let first = end.saturating_sub_unsigned(window).max(low);
            ranges.read(partition, OffsetRange::new(first, end), |record| {
                each(partition, record);
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            (end, window) = (first, window.saturating_mul(2));
        }
    }
    Ok(())
}

/// How many messages of each partition: what a short one does not have, the longer ones may have more.
fn shares(ends: &BTreeMap<i32, (i64, i64)>, most: u64) -> BTreeMap<i32, u64> {
    let mut lengths: Vec<_> = ends
        .iter()
        .map(|(&partition, (low, high))| (high.saturating_sub(*low).max(0).unsigned_abs(), partition))
        .collect();
    lengths.sort_unstable();
    let (mut left, mut partitions) = (most, lengths.len() as u64);
    let mut shares = BTreeMap::new();
    for (length, partition) in lengths {
        let share = length.min(left / partitions);
        shares.insert(partition, share);
        (left, partitions) = (left - share, partitions - 1);
    }
    shares
}

#[cfg(test)]
mod tests {

    #[test]
    fn partitions_have_equal_shares_and_a_long_one_what_short_ones_lack() {
        let shares = |ends: &[(i64, i64)], most| {
            let ends = ends.iter().enumerate().map(|(partition, ends)| (partition as i32, *ends)).collect();
            super::shares(&ends, most).into_values().collect::<Vec<_>>()
        };
        assert_eq!(shares(&[(0, 100), (50, 60), (0, 100)], 100), [45, 10, 45]);
        assert_eq!(shares(&[(0, 5), (0, 0)], 100), [5, 0]);
        assert_eq!(shares(&[(0, 9); 4], 2).iter().sum::<u64>(), 2);
        assert_eq!(shares(&[], 2), [0; 0]);
    }
}
