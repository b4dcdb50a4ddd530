//! The ingesting pipeline with a sink of one's own: the events of a topic, appended to a file, each exactly once.
//!
//!     cargo run --example embed -- localhost:9092 clicks events.jsonl
//!
//! The file belongs to this topic and to one process. Each line starts with its position, so the file itself answers which
//! offsets are stored, and a start after a crash neither loses nor doubles a line.

use anyhow::{Context, Result};
use clickstream::Shutdown;
use clickstream::kafka::{Consumer, ConsumerConfig, KafkaConfig, Lease};
use flows::{
    Answer, BatchConfig, ErrorKind, Failure, LeaseTable, Metrics, Newest, OffsetRange, OffsetRanges, ReadBack, Record,
    Sink, Store, Table, Tokens,
};
use futures::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[tokio::main]
async fn main() -> Result<()> {
    let [brokers, topic, path] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().ok().context("BROKERS TOPIC FILE")?;
    let kafka = KafkaConfig { brokers, topic, ..KafkaConfig::default() };
    let config = ConsumerConfig::new(&kafka, "embed", Arc::new(Lines::open(&path)?))?;
    let (metrics, shutdown) = (Arc::new(Metrics::default()), Shutdown::on_signals()?);
    let mut consumer = Consumer::join(&config, &metrics, &shutdown)?;
    consumer.leases().try_for_each(|lease| ingest(lease, &metrics)).await?;
    consumer.left().await
}

/// The pipeline, for as long as these partitions belong to this process.
async fn ingest(lease: Lease<Lines>, metrics: &Arc<Metrics>) -> Result<()> {
    let (records, lease) = lease.split();
    let (ownership, ledger) = (lease.ownership(), lease.ledger(metrics));
    let flow = flows::ingest(records, BatchConfig::default(), lease.sink(), ownership.clone(), metrics.clone(), ledger);
    let outcome = tokio::select! {
        outcome = flow => Some(outcome),
        () = ownership.lost() => None,
    };
    lease.end(outcome)?;
    Ok(())
}

/// A file of lines, `PARTITION OFFSET RECORD`.
#[derive(Clone)]
struct Lines(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    tokens: Arc<Tokens>,
    read_back: ReadBack,
}

struct State {
    file: File,
    stored: BTreeMap<i32, BTreeSet<i64>>,
    leases: BTreeMap<i32, Newest>,
}

impl Lines {
    fn open(path: &str) -> Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let text = std::fs::read_to_string(path)?;
        // A crash may have cut the last line: its record is stored again.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64)?;
        let mut stored: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
        for line in text[..whole].lines() {
            let mut words = line.splitn(3, ' ');
            let (partition, offset) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            stored.entry(partition.parse()?).or_default().insert(offset.parse()?);
        }
        let state = Mutex::new(State { file, stored, leases: BTreeMap::new() });
        Ok(Self(Arc::new(Shared { state, tokens: Arc::default(), read_back: ReadBack::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stored_in(&self, ranges: impl IntoIterator<Item = (i32, OffsetRange)>) -> BTreeMap<i32, OffsetRanges> {
        let state = self.state();
        let within = |(partition, range): (i32, OffsetRange)| {
            let offsets = state.stored.get(&partition)?.range(range.first..range.next);
            Some((partition, OffsetRanges::new(offsets.map(|&at| OffsetRange::new(at, at + 1)).collect())))
        };
        ranges.into_iter().filter_map(within).collect()
    }
}

impl Sink for Lines {
    type InsertId = ();

    fn name(&self, _: &[(i32, OffsetRange)]) {}

    async fn insert(&self, _: &(), _: Table, rows: &[&Record]) -> Result<Answer, Failure> {
        let mut state = self.state();
        let first = rows
            .first()
            .is_some_and(|row| state.stored.get(&row.partition).is_some_and(|all| all.contains(&row.offset())));
        if first {
            return Ok(Answer::AlreadyStored);
        }
        let lines: String =
            rows.iter().map(|row| format!("{} {} {:?}\n", row.partition, row.offset(), row.payload)).collect();
        // A file that cannot be written stops the pipeline: nothing of this batch is committed.
        let written = state.file.write_all(lines.as_bytes()).and_then(|()| state.file.sync_data());
        written.map_err(|error| Failure { kind: ErrorKind::Permanent, ended: true, message: error.to_string() })?;
        for row in rows {
            state.stored.entry(row.partition).or_default().insert(row.offset());
        }
        Ok(Answer::Written(rows.len() as u64))
    }

    async fn stored(&self, ranges: &[(i32, OffsetRange)]) -> Result<BTreeMap<i32, OffsetRanges>, Failure> {
        Ok(self.stored_in(ranges.iter().copied()))
    }

    fn read_back(&self) -> &ReadBack {
        &self.0.read_back
    }
}

/// One process alone writes the file, so the leases need no place outside of it.
impl LeaseTable for Lines {
    async fn newest(&self, partitions: &[i32]) -> Result<BTreeMap<i32, Newest>, Failure> {
        let state = self.state();
        Ok(partitions.iter().filter_map(|at| Some((*at, state.leases.get(at)?.clone()))).collect())
    }

    async fn write(&self, token: Uuid, epochs: &[(i32, u64)]) -> Result<(), Failure> {
        let lease = |epoch| Newest { epoch, token, group: "embed".to_owned() };
        self.state().leases.extend(epochs.iter().map(|&(partition, epoch)| (partition, lease(epoch))));
        Ok(())
    }

    async fn quiesce(&self, _: &[i32]) -> Result<(), Failure> {
        Ok(())
    }
}

impl Store for Lines {
    type Sink = Self;

    fn sink(&self, _: &str, _: CancellationToken) -> Self {
        self.clone()
    }

    fn tokens(&self) -> &Arc<Tokens> {
        &self.0.tokens
    }

    async fn check(&self) -> Result<(), Failure> {
        Ok(())
    }

    async fn stored_from(&self, _: &str, positions: &[(i32, i64)]) -> Result<BTreeMap<i32, OffsetRanges>, Failure> {
        Ok(self.stored_in(positions.iter().map(|&(partition, first)| (partition, OffsetRange::new(first, i64::MAX)))))
    }
}
