//! A store that one process alone writes: a file, an embedded database, an index.
//!
//! No other process can hold a lease there, and no insert outlives its caller. So the promises need only the positions of the
//! rows that are there at the start ([`SingleWriter::new`]).

use crate::{
    Answer, ErrorKind, Failure, LeaseTable, Newest, OffsetRange, OffsetRanges, ReadBack, Record, Sink, Store, Table,
    Tokens,
};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Appends rows durably.
pub trait Append: Send + 'static {
    /// The reason why rows were not appended.
    type Error: Display;

    /// Appends all of `rows` with their partitions and offsets, and returns when they are durable. It may block for as long as
    /// that takes.
    ///
    /// # Errors
    /// When that is not certain. The pipeline stops then, and commits nothing of these rows. Those that were appended nevertheless
    /// are found at the next start.
    fn append(&mut self, table: Table, rows: &[&Record]) -> Result<(), Self::Error>;
}

/// A [`Store`] over something that appends, for one topic and one process.
pub struct SingleWriter<A>(Arc<Inner<A>>);

struct Inner<A> {
    state: Mutex<State<A>>,
    tokens: Arc<Tokens>,
    read_back: ReadBack,
    group: String,
}

struct State<A> {
    rows: A,
    stored: BTreeMap<i32, OffsetRanges>,
    leases: BTreeMap<i32, Newest>,
}

/// Its [`Sink`] under one lease.
pub struct SingleWriterSink<A> {
    writer: Arc<Inner<A>>,
    closed: CancellationToken,
}

impl<A: Append> SingleWriter<A> {
    /// For a member of the consumer group `group`. `stored` are the offsets of the rows that are there already, by partition.
    pub fn new(group: &str, rows: A, stored: impl IntoIterator<Item = (i32, i64)>) -> Self {
        let mut state = State { rows, stored: BTreeMap::new(), leases: BTreeMap::new() };
        state.note(stored);
        let group = group.to_owned();
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            tokens: Arc::default(),
            read_back: ReadBack::default(),
            group,
        }))
    }
}

impl<A> State<A> {
    fn note(&mut self, offsets: impl IntoIterator<Item = (i32, i64)>) {
        let mut added: BTreeMap<i32, Vec<OffsetRange>> = BTreeMap::new();
        for (partition, offset) in offsets {
            added.entry(partition).or_default().push(OffsetRange::new(offset, offset + 1));
        }
        for (partition, mut ranges) in added {
            let stored = self.stored.entry(partition).or_default();
            ranges.extend(stored.ranges());
            *stored = OffsetRanges::new(ranges);
        }
    }
}

impl<A> Inner<A> {
    /// The state. No insert is under way while the guard lives.
    fn state(&self) -> MutexGuard<'_, State<A>> {
        // After a panic in `append`, its rows count as not stored, and the pipeline stops.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stored(&self, ranges: impl IntoIterator<Item = (i32, OffsetRange)>) -> BTreeMap<i32, OffsetRanges> {
        let state = self.state();
        let mut found: BTreeMap<i32, Vec<OffsetRange>> = BTreeMap::new();
        for (partition, whole) in ranges {
            let Some(stored) = state.stored.get(&partition) else { continue };
            let missing = OffsetRanges::new(stored.gaps(whole));
            found.entry(partition).or_default().extend(missing.gaps(whole));
        }
        found.retain(|_, ranges| !ranges.is_empty());
        found.into_iter().map(|(partition, ranges)| (partition, OffsetRanges::new(ranges))).collect()
    }
}

impl<A: Append> Sink for SingleWriterSink<A> {
    type InsertId = ();

    fn name(&self, _: &[(i32, OffsetRange)]) {}

    async fn insert(&self, _: &(), table: Table, rows: &[&Record]) -> Result<Answer, Failure> {
        let mut state = self.writer.state();
        if self.closed.is_cancelled() {
            return Err(Failure { kind: ErrorKind::Transient, ended: true, message: "the lease has ended".into() });
        }
        let is_stored = |row: &&Record| state.stored.get(&row.partition).is_some_and(|all| all.contains(row.offset()));
        if rows.first().is_some_and(is_stored) {
            return Ok(Answer::AlreadyStored);
        }
        state.rows.append(table, rows).map_err(|error| Failure {
            kind: ErrorKind::Permanent,
            ended: true,
            message: format!("rows cannot be appended: {error}"),
        })?;
        state.note(rows.iter().map(|row| (row.partition, row.offset())));
        Ok(Answer::Written(rows.len() as u64))
    }

    async fn stored(&self, ranges: &[(i32, OffsetRange)]) -> Result<BTreeMap<i32, OffsetRanges>, Failure> {
        Ok(self.writer.stored(ranges.iter().copied()))
    }

    fn read_back(&self) -> &ReadBack {
        &self.writer.read_back
    }
}

impl<A: Append> LeaseTable for SingleWriterSink<A> {
    async fn newest(&self, partitions: &[i32]) -> Result<BTreeMap<i32, Newest>, Failure> {
        let state = self.writer.state();
        Ok(partitions.iter().filter_map(|at| Some((*at, state.leases.get(at)?.clone()))).collect())
    }

    async fn write(&self, token: Uuid, epochs: &[(i32, u64)]) -> Result<(), Failure> {
        let lease = |epoch| Newest { epoch, token, group: self.writer.group.clone() };
        self.writer.state().leases.extend(epochs.iter().map(|&(partition, epoch)| (partition, lease(epoch))));
        Ok(())
    }

    async fn quiesce(&self, _: &[i32]) -> Result<(), Failure> {
        drop(self.writer.state());
        Ok(())
    }
}

impl<A: Append> Store for SingleWriter<A> {
    type Sink = SingleWriterSink<A>;

    fn sink(&self, _: &str, _: &str, closed: CancellationToken) -> Self::Sink {
        SingleWriterSink { writer: self.0.clone(), closed }
    }

    fn tokens(&self) -> &Arc<Tokens> {
        &self.0.tokens
    }

    async fn check(&self) -> Result<(), Failure> {
        Ok(())
    }

    async fn stored_from(&self, _: &str, positions: &[(i32, i64)]) -> Result<BTreeMap<i32, OffsetRanges>, Failure> {
        Ok(self.0.stored(positions.iter().map(|&(partition, first)| (partition, OffsetRange::new(first, i64::MAX)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Claim, Payload, open_lease};

    /// Offsets in memory; it refuses offset 9.
    #[derive(Default)]
    struct Memory(Vec<i64>);

    impl Append for Memory {
        type Error = &'static str;

        fn append(&mut self, _: Table, rows: &[&Record]) -> Result<(), &'static str> {
            if rows.iter().any(|row| row.offset() == 9) {
                return Err("disk full");
            }
            self.0.extend(rows.iter().map(|row| row.offset()));
            Ok(())
        }
    }

    fn record(offset: i64) -> Record {
        Record::new(0, OffsetRange::new(offset, offset + 1), 0, Payload::AlreadyStored)
    }

    async fn insert(sink: &SingleWriterSink<Memory>, offsets: &[i64]) -> Result<Answer, Failure> {
        let rows: Vec<_> = offsets.iter().map(|&offset| record(offset)).collect();
        sink.insert(&(), Table::Events, &rows.iter().collect::<Vec<_>>()).await
    }

    #[tokio::test]
    async fn rows_are_appended_once_and_found_again() {
        let store = SingleWriter::new("group", Memory::default(), [(0, 3), (0, 4)]);
        let closed = CancellationToken::new();
        let sink = store.sink("topic", "id", closed.clone());
        let claim = Claim::Group { group: "group".into(), take_over: None };
        open_lease(&sink, store.tokens(), &claim, &[0]).await.unwrap();
        assert_eq!(insert(&sink, &[4]).await, Ok(Answer::AlreadyStored), "it was there at the start");
        assert_eq!(insert(&sink, &[5, 6]).await, Ok(Answer::Written(2)));
        assert_eq!(insert(&sink, &[5, 6]).await, Ok(Answer::AlreadyStored));
        assert_eq!(insert(&sink, &[8, 9]).await.unwrap_err().kind, ErrorKind::Permanent);
        let stored = store.stored_from("topic", &[(0, 4), (1, 0)]).await.unwrap();
        assert_eq!(stored, BTreeMap::from([(0, OffsetRanges::new(vec![OffsetRange::new(4, 7)]))]));
        closed.cancel();
        assert!(insert(&sink, &[10]).await.is_err(), "the lease has ended");
        assert_eq!(store.0.state().rows.0, [5, 6]);
    }
}
