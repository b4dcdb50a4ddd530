//! Doubles for the four doors of `flows`, and a rig that puts `ingest` between them.

// Each test target uses its own part of this.
#![allow(dead_code, unused_imports)]

mod depot;
mod group;
mod records;
mod server;
mod wire;

pub use depot::{Depot, Sink};
pub use group::{Commits, Group, Held, Lease};
pub use records::{BAD, ODD, bad, event, events, odd, passed, reject, timeline};
pub use server::{Fate, Lie, Sent};
pub use wire::Wire;

use flows::{Batch, Delivery, Durable, IngestError, Ledger, Meter, Policy, SettleError, ingest, settle};
use futures::{Stream, StreamExt};
use std::sync::Arc;
use std::time::Duration;

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A policy that makes an insert of each chunk, so that a test can tell its inserts apart.
pub fn apart(rows: usize, in_flight: usize) -> Policy {
    Policy { coalesce: 1, ..Policy::new(rows, ms(5_000), in_flight) }
}

/// `ingest` with a double behind every door.
pub struct Rig {
    pub depot: Arc<Depot>,
    pub sink: Arc<Sink>,
    pub lease: Arc<Lease>,
    pub group: Arc<Group>,
    pub meter: Arc<Meter>,
}

impl Rig {
    /// With partitions 0 to 3, all of them at offset 0.
    pub fn new(depot: Depot) -> Self {
        let depot = Arc::new(depot);
        let group = Arc::new(Group::new(depot.clone(), 4));
        let sink = Arc::new(depot.sink_with_lease(0..8));
        Self { depot, sink, lease: Arc::default(), group, meter: Arc::default() }
    }

    pub fn ledger(&self) -> Ledger<Commits> {
        Ledger::open(self.group.committed(), self.group.member(), self.meter.clone())
    }

    /// The pipeline, from what the group has committed on. At each commit the group checks it against what came by.
    pub fn ingest<S: Stream<Item = Delivery> + Send + 'static>(
        &self,
        source: S,
        policy: Policy,
    ) -> impl Future<Output = Result<Ledger<Commits>, IngestError>> + Send + use<S> {
        let group = self.group.clone();
        let source = source.inspect(move |delivery| group.saw(delivery));
        let ledger = self.ledger();
        ingest(source, policy, self.sink.clone(), Arc::new(self.held()), self.meter.clone(), ledger)
    }

    pub fn held(&self) -> Held {
        Held { lease: self.lease.clone(), sink: self.sink.clone() }
    }

    /// The pipeline over deliveries that are all there from the start, with an insert for each chunk.
    pub async fn all(
        &self,
        deliveries: Vec<Delivery>,
        rows: usize,
        in_flight: usize,
    ) -> Result<Ledger<Commits>, IngestError> {
        self.ingest(futures::stream::iter(deliveries), apart(rows, in_flight)).await
    }

    pub async fn settle(&self, deliveries: Vec<Delivery>) -> Result<Durable, SettleError> {
        deliveries.iter().for_each(|delivery| self.group.saw(delivery));
        // Each partition goes on where its first delivery begins.
        let mut ends = deliveries.iter().rev().map(|delivery| (delivery.partition, delivery.span.first)).collect();
        settle(Batch::gather(vec![deliveries], &mut ends)?, &*self.sink, &self.held(), &self.meter).await
    }
}
