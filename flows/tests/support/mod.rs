//! Doubles for the four doors of `flows`, and a pipeline that puts `ingest` between them.

// Each test target uses its own part of this.
#![allow(dead_code, unused_imports)]

mod clickhouse;
mod coordinator;
mod group;
mod healer;
mod process;
mod records;
mod server;
mod wire;

pub use clickhouse::{FakeClickHouse, FakeSink};
pub use coordinator::Coordinator;
pub use group::{Commits, FakeOwnership, Group, Lease};
pub use healer::heal;
pub use process::{Process, Shop};
pub use records::{BAD, ODD, bad, event, events, odd, passed, reject, timeline};
pub use server::{Fate, Lie, Sent};
pub use wire::Wire;

use flows::{Batch, BatchConfig, Durable, IngestError, Ledger, Metrics, Record, SettleError, ingest, settle};
use futures::{Stream, StreamExt};
use std::sync::Arc;
use std::time::Duration;

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A batching that makes an insert of each chunk, so that a test can tell its inserts apart.
pub fn apart(rows: usize, in_flight: usize) -> BatchConfig {
    BatchConfig { coalesce: 1, ..BatchConfig::new(rows, ms(5_000), in_flight) }
}

/// `ingest` with a double behind every trait.
pub struct TestPipeline {
    pub clickhouse: Arc<FakeClickHouse>,
    pub sink: Arc<FakeSink>,
    pub lease: Arc<Lease>,
    pub group: Arc<Group>,
    pub metrics: Arc<Metrics>,
}

impl TestPipeline {
    /// With partitions 0 to 3, all of them at offset 0.
    pub fn new(clickhouse: FakeClickHouse) -> Self {
        let clickhouse = Arc::new(clickhouse);
        let group = Arc::new(Group::new(clickhouse.clone(), 4));
        let sink = Arc::new(clickhouse.sink_with_lease(0..8));
        Self { clickhouse, sink, lease: Arc::default(), group, metrics: Arc::default() }
    }

    pub fn ledger(&self) -> Ledger<Commits> {
        Ledger::open(self.group.committed(), self.group.member(), self.metrics.clone())
    }

    /// The pipeline, from what the group has committed on. At each commit the group checks it against what came by.
    pub fn ingest<S: Stream<Item = Record> + Send + 'static>(
        &self,
        source: S,
        batching: BatchConfig,
    ) -> impl Future<Output = Result<Ledger<Commits>, IngestError>> + Send + use<S> {
        let group = self.group.clone();
        let source = source.inspect(move |record| group.saw(record));
        let ledger = self.ledger();
        ingest(source, batching, self.sink.clone(), Arc::new(self.held()), self.metrics.clone(), ledger)
    }

    pub fn held(&self) -> FakeOwnership {
        FakeOwnership { lease: self.lease.clone(), sink: self.sink.clone() }
    }

    /// The pipeline over records that are all there from the start, with an insert for each chunk.
    pub async fn all(
        &self,
        records: Vec<Record>,
        rows: usize,
        in_flight: usize,
    ) -> Result<Ledger<Commits>, IngestError> {
        self.ingest(futures::stream::iter(records), apart(rows, in_flight)).await
    }

    pub async fn settle(&self, records: Vec<Record>) -> Result<Durable, SettleError> {
        records.iter().for_each(|record| self.group.saw(record));
        // Each partition starts at its first record.
        let mut ends = records.iter().rev().map(|record| (record.partition, record.range.first)).collect();
        settle(Batch::gather(vec![records], &mut ends)?, &*self.sink, &self.held(), &self.metrics).await
    }
}
