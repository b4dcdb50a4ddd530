//! An audit that heals: it puts back what ClickHouse lost below the committed offsets, beside ingesters.

use super::{FakeOwnership, Lease, Shop};
use flows::{Batch, Claim, LeaseTable, OffsetRange, OffsetRanges, Payload, Record, open_lease, settle};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// Heals once, as far as it comes; whether nothing is missing. A real one would say why it stopped, and be run again.
pub async fn heal(shop: &Shop, partitions: &[i32]) -> bool {
    let Shop { clickhouse, coordinator, topic, metrics, .. } = shop;
    let marks = coordinator.committed();
    // The leases of ingesters first: one that is opened later is noticed, and one whose offsets were set back before is seen here.
    let Ok(ingesting) = clickhouse.sink("group").newest(partitions).await else { return false };
    if coordinator.committed().iter().any(|(partition, now)| *now < marks[partition]) {
        return false;
    }
    // None at all is a lease like another: the first one that is opened is noticed.
    let token = |at: &i32| ingesting.get(at).map_or(Uuid::nil(), |lease| lease.token);
    let besides = partitions.iter().map(|at| (*at, token(at))).collect();
    let sink = Arc::new(clickhouse.healer(besides));
    if open_lease(&*sink, &sink.tokens, &Claim::Any, partitions).await.is_err() {
        return false;
    }
    let ranges: Vec<_> =
        partitions.iter().map(|partition| (*partition, OffsetRange::new(0, marks[partition]))).collect();
    let Ok(stored) = clickhouse.stored(&ranges).await else { return false };
    let ownership = FakeOwnership { lease: Arc::new(Lease::default()), sink: sink.clone() };
    for &partition in partitions.iter().rev() {
        let records = topic.iter().map(|(_, record)| record).filter(|record| record.partition == partition);
        let records = missing(records, marks[&partition], &stored[&partition]);
        let mut ends = BTreeMap::from([(partition, 0)]);
        for chunk in records.chunks(shop.batching.rows) {
            let batch = Batch::gather(vec![chunk.to_vec()], &mut ends).expect("they chain");
            if settle(batch, &*sink, &ownership, metrics).await.is_err() {
                return false;
            }
        }
    }
    true
}

/// The records below a committed offset, of which those that are stored only pass; nothing where none is missing.
fn missing<'r>(topic: impl Iterator<Item = &'r Record>, committed: i64, stored: &OffsetRanges) -> Vec<Record> {
    let below = topic.filter(|record| record.offset() < committed).cloned();
    let records: Vec<_> = below
        .map(|record| match stored.contains(record.offset()) {
            true => Record { payload: Payload::AlreadyStored, ..record },
            false => record,
        })
        .collect();
    if records.iter().all(|record| matches!(record.payload, Payload::AlreadyStored)) { Vec::new() } else { records }
}
