//! A haul: records taken out of librdkafka's queue together, on their way to become records.

use super::lease::Place;
use super::loss::Loss;
use super::native::RawRecord;
use flows::{Event, OffsetRange, Payload, Record, now};
use std::collections::{BTreeMap, BTreeSet};

/// Records taken at a time; they travel to the pipeline in one vector.
pub const HAUL: usize = 1_000;

/// One haul: what was taken at once, on its way to become records.
pub struct Haul<'a> {
    pub records: Vec<Record>,
    /// Payload bytes of it.
    pub bytes: u64,
    received: i64,
    places: &'a mut BTreeMap<i32, Place>,
    /// An error came, or offsets went back: ask again where to go on.
    pub astray: bool,
    /// What was deleted before it was read.
    pub losses: Vec<Loss>,
    /// Partitions with offsets that held no message.
    pub gaps: BTreeSet<i32>,
}

impl<'a> Haul<'a> {
    /// An empty one, received now, into these places.
    pub fn begin(places: &'a mut BTreeMap<i32, Place>) -> Self {
        Self {
            records: Vec::with_capacity(HAUL),
            bytes: 0,
            received: now(),
            places,
            astray: false,
            losses: Vec::new(),
            gaps: BTreeSet::new(),
        }
    }

    /// Turns a record into a record and moves its partition's place along.
    pub fn stow(&mut self, record: &RawRecord<'_>, deleted: impl FnOnce(OffsetRange) -> Option<OffsetRange>) {
        let partition = record.partition;
        if let Some(error) = record.error {
            // librdkafka counts an error that it delivers as a message that was consumed: its position is not to be trusted.
            tracing::info!("Kafka, partition {partition}: {error}");
            self.astray = true;
            return;
        }
        // What is still under way of a partition that went, or after a step back, is not ours to deliver.
        let Some(Place::At(next, stored)) = self.places.get_mut(&partition) else { return };
        if record.offset < *next || self.astray {
            self.astray = true;
            return;
        }
        if record.offset > *next {
            let passed = OffsetRange::new(*next, record.offset);
            tracing::debug!("partition {partition}: no record at offsets {passed}");
            let deleted = deleted(passed);
            if deleted != Some(passed) {
                self.gaps.insert(partition);
            }
            self.losses.extend(deleted.map(|deleted| Loss::expired(partition, deleted.first, deleted.next)));
        }
        self.bytes += record.payload.map_or(0, |payload| payload.len() as u64);
        let range = OffsetRange::new(*next, record.offset + 1);
        *next = range.next;
        let payload = if stored.contains(record.offset) {
            match self.records.last_mut() {
                Some(Record { partition: at, range: before, payload: Payload::AlreadyStored, .. })
                    if *at == partition =>
                {
                    before.next = range.next;
                    return;
                }
                _ => Payload::AlreadyStored,
            }
        } else {
            Event::decode(record.key, record.payload)
        };
        self.records.push(Record { partition, range, received: self.received, payload });
    }
}
