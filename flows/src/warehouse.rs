//! The doors through which [`settle`](crate::settle()) reaches the outside, and the classes of what can go wrong there.

use crate::{Delivery, Islands, Span};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Where rows come to rest. Implemented over ClickHouse; by a double in tests.
pub trait Warehouse: Send + Sync + 'static {
    /// The name of one insert, unique for all time.
    type InsertId: Send + Sync;

    /// A new name for an insert that touches these partitions. From now on the insert has a few seconds to begin: one
    /// that comes later is refused, so that what a frozen process or a stalled server holds back does no harm.
    fn name(&self, spans: &[(i32, Span)]) -> Self::InsertId;

    /// Writes all of `rows` into `table`, or none. One attempt: its caller decides on another.
    ///
    /// Returns how many rows the answer says were written, in this table and in those that views feed from it; 0 where it
    /// does not say. Fewer than were sent are not believed: the caller asks what is stored.
    fn insert(
        &self,
        id: &Self::InsertId,
        table: Table,
        rows: &[&Delivery],
    ) -> impl Future<Output = Result<u64, Failure>> + Send;

    /// Returns when the insert `id` has ended, one way or the other: its effect, if it had one, is there to be seen and
    /// no later one can come.
    fn quiesce(&self, id: &Self::InsertId) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Which offsets of these spans are stored, in `events` or in `rejected`: for each partition that has any.
    fn stored(&self, spans: &[(i32, Span)]) -> impl Future<Output = Result<BTreeMap<i32, Islands>, Failure>> + Send;

    /// For which tables the answers were compared with what can be read, since the lease began.
    fn read_back(&self) -> &ReadBack;
}

/// For each table, whether rows of an insert that was answered with success were found by [`Warehouse::stored`].
///
/// Every answer to *what is stored?* rests on reading back what was written. A row policy, a setting that filters, or a second
/// server behind the address makes that untrue without an error, so it is tried with the first insert of each lease.
#[derive(Debug, Default)]
pub struct ReadBack([AtomicBool; 2]);

impl ReadBack {
    /// Whether it was tried for this table.
    pub fn is_done(&self, table: Table) -> bool {
        self.0[table as usize].load(Relaxed)
    }

    /// It was tried, and the rows were there.
    pub fn succeeded(&self, table: Table) {
        self.0[table as usize].store(true, Relaxed);
    }
}

/// The right to write rows of the partitions at hand.
pub trait Tenure: Send + Sync + 'static {
    /// Returns at once as long as there is no reason for doubt. A process that was frozen for long may have been given up
    /// by its group: then this waits until the group has confirmed it.
    ///
    /// # Errors
    /// [`LeaseLost`] when somebody else owns the partitions now: write nothing more.
    fn prove(&self) -> impl Future<Output = Result<(), LeaseLost>> + Send;
}

/// The partitions were given to somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the group has given these partitions to another member")]
pub struct LeaseLost;

/// The table that a delivery's row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Good events.
    Events,
    /// Messages that are not events, and rows that were refused.
    Rejected,
}

impl Table {
    /// The table's name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Rejected => "rejected",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What that means for the next attempt.
    pub class: Class,
    /// Whether the attempt has provably ended: it was answered, or never sent. Otherwise it may still take effect.
    pub ended: bool,
    /// What happened and where.
    pub message: String,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It will pass (network, overload, read only, disk full): try again, without end.
    Transient,
    /// The rows are the problem: find out which.
    Data,
    /// It will not pass by itself (wrong password, missing table, wrong schema): stop.
    Permanent,
    /// The rows are too many for the server's memory, or for a proxy: try again, and then with fewer at a time.
    TooLarge,
    /// The server refused the insert with an error that is in no list of ours, and is well otherwise. If it refuses the same
    /// rows again and takes others, the rows are the problem.
    Unexplained,
}

impl Class {
    /// All of them, in the order of their values.
    pub const ALL: [Self; 5] = [Self::Transient, Self::Data, Self::Permanent, Self::TooLarge, Self::Unexplained];

    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Data => "data",
            Self::Permanent => "permanent",
            Self::TooLarge => "too_large",
            Self::Unexplained => "unexplained",
        }
    }
}
