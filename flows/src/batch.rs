//! A batch: the deliveries of one insert, and the spans that they cover.

use crate::{Delivery, OutOfOrder, Span};
use std::collections::BTreeMap;

/// Deliveries that are settled together, and for each partition among them the one span they cover.
#[derive(Debug)]
pub struct Batch {
    chunks: Vec<Vec<Delivery>>,
    spans: Vec<(i32, Span)>,
}

impl Batch {
    /// Gathers chunks into a batch. `ends` says for each partition where the batch before it ended, and moves along.
    ///
    /// # Errors
    /// [`OutOfOrder`] where the spans of a partition do not chain, among each other or to the batch before, and where a
    /// partition has no end: it is not ours. This is found here, before anything is sent, because rows that are sent twice
    /// are stored twice.
    pub fn gather(chunks: Vec<Vec<Delivery>>, ends: &mut BTreeMap<i32, i64>) -> Result<Self, OutOfOrder> {
        let mut spans: Vec<(i32, Span)> = Vec::new();
        for delivery in chunks.iter().flatten() {
            // A handful of partitions: a scan beats a map.
            match spans.iter_mut().find(|(partition, _)| *partition == delivery.partition) {
                Some((partition, span)) => *span = span.chain(*partition, delivery.span)?,
                None => spans.push((delivery.partition, delivery.span.chained_to(delivery.partition, ends)?)),
            }
        }
        ends.extend(spans.iter().map(|&(partition, span)| (partition, span.next)));
        Ok(Self { chunks, spans })
    }

    /// The deliveries, in the order of the stream.
    pub fn deliveries(&self) -> impl Iterator<Item = &Delivery> {
        self.chunks.iter().flatten()
    }

    /// The span of each partition in it, in the order of their first delivery.
    pub fn spans(&self) -> &[(i32, Span)] {
        &self.spans
    }
}
