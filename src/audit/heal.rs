//! Putting back what ClickHouse lost after it was committed: read again from the topic, decoded and settled as `ingest` does.

use super::findings::Healed;
use crate::clickhouse::Shelf;
use crate::kafka::Turn;
use crate::kafka::ranges::Ranges;
use anyhow::{Context, Result, anyhow};
use flows::{Batch, Content, Delivery, Event, Meter, Span, now, settle};
use std::collections::BTreeMap;
use std::mem;
use std::ops::ControlFlow;
use tokio::task::block_in_place;

/// Rows of an insert, and the bytes that their messages may hold together: bounds the memory.
const ROWS: usize = 50_000;
const BYTES: usize = 16 * 1024 * 1024;

/// Who puts back.
pub struct Healer {
    pub shelf: Shelf,
    pub turn: Turn,
    pub meter: Meter,
}

/// Deliveries of one partition that chain: the ones to put back, and between them what is stored.
struct Pile {
    partition: i32,
    first: i64,
    next: i64,
    bytes: usize,
    deliveries: Vec<Delivery>,
}

impl Healer {
    /// Puts back the records of these ranges, which ascend.
    ///
    /// # Errors
    /// When Kafka does not give them any more, somebody else has the turn, or ClickHouse refuses for good. What was put back
    /// until then stays.
    pub async fn heal(&mut self, ranges: &mut Ranges, partition: i32, missing: &[Span]) -> Result<Healed> {
        let before = self.healed();
        let mut pile = Pile::begin(partition, missing.first().map_or(0, |range| range.first));
        for range in missing {
            let mut rest = *range;
            while !rest.is_empty() {
                pile.pass_stored(rest.first);
                rest.first = block_in_place(|| {
                    ranges.read(partition, rest, |record| {
                        pile.push(record.offset, Event::decode(record.key, record.payload));
                        if pile.is_high() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    })
                })?;
                if pile.is_high() {
                    self.settle(&mut pile).await?;
                }
            }
        }
        self.settle(&mut pile).await?;
        let after = self.healed();
        Ok(Healed { events: after.events - before.events, rejects: after.rejects - before.rejects })
    }

    async fn settle(&self, pile: &mut Pile) -> Result<()> {
        let next = Pile::begin(pile.partition, pile.next);
        let Pile { partition, first, deliveries, .. } = mem::replace(pile, next);
        if deliveries.is_empty() {
            return Ok(());
        }
        let batch = Batch::gather(vec![deliveries], &mut BTreeMap::from([(partition, first)]))?;
        let durable = settle(batch, &self.shelf, &self.turn, &self.meter).await;
        // Its offsets were committed long ago: there is no ledger here to take it.
        durable.map(drop).map_err(|error| anyhow!(error)).context("stopped, the rest is not put back")
    }

    fn healed(&self) -> Healed {
        Healed { events: Meter::read(&self.meter.events), rejects: self.meter.rejects.total() }
    }
}

impl Pile {
    fn begin(partition: i32, first: i64) -> Self {
        Self { partition, first, next: first, bytes: 0, deliveries: Vec::new() }
    }

    fn is_high(&self) -> bool {
        self.deliveries.len() >= ROWS || self.bytes >= BYTES
    }

    /// What lies before `offset` is stored, or holds no record.
    fn pass_stored(&mut self, offset: i64) {
        if offset > self.next {
            self.push(offset - 1, Content::Stored);
        }
    }

    fn push(&mut self, offset: i64, content: Content) {
        let span = Span::new(self.next, offset + 1);
        let delivery = Delivery { partition: self.partition, span, received: now(), content };
        self.bytes += delivery.weight();
        self.next = span.next;
        self.deliveries.push(delivery);
    }
}
