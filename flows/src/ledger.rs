//! The ledger: one position for each partition, which only durable batches move forward.

use crate::{Durable, Metrics, OutOfOrder, Stage, now};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The place where offsets are committed: the consumer group, or a double in tests.
pub trait Offsets: Send {
    /// Commits, for each partition, the offset at which to resume. Returns when the group has confirmed that.
    ///
    /// # Errors
    /// [`CommitFailed`] when it is not confirmed yet. Nothing is lost by that: an implementation keeps trying, and a
    /// later commit covers an earlier one.
    fn commit(&self, marks: &[(i32, i64)]) -> impl Future<Output = Result<(), CommitFailed>> + Send;
}

impl<O: Offsets + Sync> Offsets for Arc<O> {
    fn commit(&self, marks: &[(i32, i64)]) -> impl Future<Output = Result<(), CommitFailed>> + Send {
        (**self).commit(marks)
    }
}

/// A commit that is not confirmed (yet).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offsets not committed yet: {0}")]
pub struct CommitFailed(pub String);

/// Commits in order, and records latency. Nothing else can commit.
#[derive(Debug)]
pub struct Ledger<O> {
    marks: BTreeMap<i32, i64>,
    offsets: O,
    metrics: Arc<Metrics>,
}

impl<O: Offsets> Ledger<O> {
    /// A ledger for the partitions in `starts`, each with the first offset that is not accounted for.
    pub fn open(starts: impl IntoIterator<Item = (i32, i64)>, offsets: O, metrics: Arc<Metrics>) -> Self {
        Self { marks: starts.into_iter().collect(), offsets, metrics }
    }

    /// Moves the positions over `durable` and commits them.
    ///
    /// # Errors
    /// [`OutOfOrder`] when a range does not begin at its partition's position, or the partition is not on the ledger;
    /// nothing is committed then.
    pub async fn commit(mut self, durable: Durable) -> Result<Self, OutOfOrder> {
        let ranges = durable.batch().ranges();
        for &(partition, range) in ranges {
            range.chained_to(partition, &self.marks)?;
        }
        let marks: Vec<_> = ranges.iter().map(|&(partition, range)| (partition, range.next)).collect();
        self.marks.extend(marks.iter().copied());
        let confirmed = self.offsets.commit(&marks).await;
        Metrics::count(if confirmed.is_ok() { &self.metrics.commits } else { &self.metrics.commits_owed }, 1);
        self.record(&durable);
        Ok(self)
    }

    /// The position of each partition: the first offset that is not accounted for.
    pub fn marks(&self) -> impl Iterator<Item = (i32, i64)> {
        self.marks.iter().map(|(&partition, &mark)| (partition, mark))
    }

    fn record(&self, durable: &Durable) {
        let committed = now();
        let (mut events, mut newest) = (0, 0);
        let (mut backlog, mut latencies) = (self.metrics.backlog(), self.metrics.latencies());
        for record in durable.batch().records() {
            if let Some(happened_ms) = record.event_ms() {
                // Saturates outside the years 1678 to 2261, which nanoseconds in 64 bits do not reach.
                let due = happened_ms.saturating_mul(1_000_000);
                let waited = backlog.holds(record.partition, due, record.received);
                latencies.record(Stage::Transit, record.received.saturating_sub(due));
                latencies.record(Stage::Batch, durable.began() - record.received);
                latencies.record(Stage::EndToEnd, durable.queryable().saturating_sub(due));
                if waited {
                    latencies.record(Stage::Backlog, durable.queryable().saturating_sub(due));
                }
                newest = newest.max(happened_ms);
                events += 1;
            }
        }
        latencies.record_all(Stage::Insert, durable.queryable() - durable.began(), events);
        latencies.record_all(Stage::Commit, committed - durable.stored(), events);
        self.metrics.newest_ms.fetch_max(u64::try_from(newest).unwrap_or(0), Relaxed);
    }
}
