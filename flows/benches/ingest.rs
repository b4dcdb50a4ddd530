//! The pipeline alone: batching, settling and committing, with a sink and a group that answer at once.

use divan::Bencher;
use divan::counter::ItemsCount;
use flows::{
    Answer, BatchConfig, CommitFailed, Failure, Faults, LeaseLost, Ledger, Metrics, OffsetRange, OffsetRanges, Offsets,
    Ownership, Payload, Proof, ReadBack, Record, Shoppers, Sink, Table, ingest, now,
};
use futures::stream;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Records of one run, and the partitions that they are spread over.
const RECORDS: i64 = 100_000;
const PARTITIONS: i32 = 3;

fn main() {
    divan::main();
}

/// One run for each number of rows in a chunk. Chunks that are due leave as one insert of up to 50,000 rows.
#[divan::bench(args = [100, 1_000, 10_000], sample_count = 20)]
fn ingest_records(bencher: Bencher, rows: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let batching = BatchConfig::new(rows, Duration::from_secs(5), 4);
    let records = records();
    bencher.counter(ItemsCount::new(RECORDS as usize)).with_inputs(|| records.clone()).bench_local_values(|records| {
        let (sink, metrics) = (Arc::new(Memory::default()), Arc::new(Metrics::default()));
        let ledger = Ledger::open((0..PARTITIONS).map(|partition| (partition, 0)), Group, metrics.clone());
        let stored = ingest(stream::iter(records), batching, sink, Arc::new(Owner), metrics, ledger);
        runtime.block_on(stored).expect("a sink that takes all rows")
    });
}

fn records() -> Vec<Record> {
    let mut shoppers = Shoppers::new(1, 500, Faults::default());
    let record = |nth| {
        let (partition, offset) = ((nth % i64::from(PARTITIONS)) as i32, nth / i64::from(PARTITIONS));
        let (range, payload) = (
            OffsetRange::new(offset, offset + 1),
            Payload::Event(shoppers.next(now()).event.expect("an event of the shop")),
        );
        Record::new(partition, range, now(), payload)
    };
    (0..RECORDS).map(record).collect()
}

/// Takes all rows, and keeps none.
#[derive(Default)]
struct Memory(ReadBack);

impl Sink for Memory {
    type InsertId = ();

    fn name(&self, _: &[(i32, OffsetRange)]) {}

    async fn insert(&self, _: &(), _: Table, rows: &[&Record]) -> Result<Answer, Failure> {
        Ok(Answer::Written(rows.len() as u64))
    }

    async fn stored(&self, ranges: &[(i32, OffsetRange)]) -> Result<BTreeMap<i32, OffsetRanges>, Failure> {
        Ok(ranges.iter().map(|&(partition, range)| (partition, OffsetRanges::new(vec![range]))).collect())
    }

    fn read_back(&self) -> &ReadBack {
        &self.0
    }
}

/// Owns all partitions.
struct Owner;

impl Ownership for Owner {
    fn is_lost(&self) -> bool {
        false
    }

    async fn prove(&self) -> Result<Proof, LeaseLost> {
        Ok(Proof::Certain)
    }

    async fn renew(&self, _: &[i32]) -> Result<Result<(), LeaseLost>, Failure> {
        Ok(Ok(()))
    }
}

/// Confirms each commit at once.
struct Group;

impl Offsets for Group {
    async fn commit(&self, _: &[(i32, i64)]) -> Result<(), CommitFailed> {
        Ok(())
    }
}
