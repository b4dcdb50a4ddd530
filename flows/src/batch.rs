//! A batch: the records of one insert, and the ranges that they cover.

use crate::{OffsetRange, OutOfOrder, Record};
use std::collections::BTreeMap;

/// Records that are settled together, and for each partition among them the one range they cover.
#[derive(Debug)]
pub struct Batch {
    chunks: Vec<Vec<Record>>,
    ranges: Vec<(i32, OffsetRange)>,
}

impl Batch {
    /// Gathers chunks into a batch. `ends` has the end of the previous batch for each partition, and is updated.
    ///
    /// # Errors
    /// [`OutOfOrder`] if the ranges of a partition do not chain, among each other or to the previous batch, or if this
    /// pipeline does not own a partition. This is checked before anything is sent, because rows that are sent twice are
    /// stored twice.
    pub fn gather(chunks: Vec<Vec<Record>>, ends: &mut BTreeMap<i32, i64>) -> Result<Self, OutOfOrder> {
        let mut ranges: Vec<(i32, OffsetRange)> = Vec::new();
        for record in chunks.iter().flatten() {
            // A handful of partitions: a scan beats a map.
            match ranges.iter_mut().find(|(partition, _)| *partition == record.partition) {
                Some((partition, range)) => *range = range.chain(*partition, record.range)?,
                None => ranges.push((record.partition, record.range.chained_to(record.partition, ends)?)),
            }
        }
        ends.extend(ranges.iter().map(|&(partition, range)| (partition, range.next)));
        Ok(Self { chunks, ranges })
    }

    /// The records, in the order of the stream.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.chunks.iter().flatten()
    }

    /// The range of each partition in it, in the order of their first record.
    pub fn ranges(&self) -> &[(i32, OffsetRange)] {
        &self.ranges
    }
}
