//! The doors through which [`settle`](crate::settle()) reaches the outside, and the kinds of what can go wrong there.

use crate::{Decode, OffsetRange, OffsetRanges, Proof, Record, Shop};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The place where rows are stored: ClickHouse, or a double in tests.
pub trait Sink: Send + Sync + 'static {
    /// The name of one insert, unique for all time. The same insert may be sent under it again, and is stored once.
    type InsertId: Send + Sync;

    /// A new name for an insert that touches these partitions.
    fn name(&self, ranges: &[(i32, OffsetRange)]) -> Self::InsertId;

    /// Writes all of `rows` into `table`, or none. One attempt: its caller decides on another.
    ///
    /// The insert refuses itself where its lease is not the newest one ([`Tokens`](crate::Tokens)), and where its first row is stored.
    fn insert(
        &self,
        id: &Self::InsertId,
        table: Table,
        rows: &[&Record],
    ) -> impl Future<Output = Result<Answer, Failure>> + Send;

    /// Which offsets of these ranges are stored, in `events` or in `rejected`: for each partition that has any.
    fn stored(
        &self,
        ranges: &[(i32, OffsetRange)],
    ) -> impl Future<Output = Result<BTreeMap<i32, OffsetRanges>, Failure>> + Send;

    /// The decoder of messages whose rows it stores: by default, of events of the shop.
    fn decoder(&self) -> Arc<dyn Decode> {
        Arc::new(Shop)
    }

    /// For which tables the answers were compared with what can be read, since the lease began.
    fn read_back(&self) -> &ReadBack;
}

/// The outcome of an attempt that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The number of written rows, by the answer, in this table and in the targets of its views; 0 if the answer has
    /// none. The caller does not believe a number below that of the sent rows, and asks which offsets are stored.
    Written(u64),
    /// The insert has refused itself because its first row is stored: by an attempt before, whose answer was lost.
    AlreadyStored,
    /// An attempt before, of the same name, still runs.
    Running,
    /// The insert has refused itself under a token that its own process has replaced meanwhile.
    Superseded,
    /// The insert has refused itself, because another owner has opened a lease.
    Fenced,
}

/// For each table, whether [`Sink::stored`] found rows of an insert that was answered with success.
///
/// Every answer to *which offsets are stored?* relies on reading written rows back. A row policy, a setting that
/// filters, or a second server behind the address breaks that without an error. So the first insert of each lease is
/// read back.
#[derive(Debug, Default)]
pub struct ReadBack([AtomicBool; 2]);

impl ReadBack {
    /// Whether it was tried for this table.
    pub fn is_done(&self, table: Table) -> bool {
        self.0[table as usize].load(Relaxed)
    }

    /// Notes that the rows were read back and found.
    pub fn succeeded(&self, table: Table) {
        self.0[table as usize].store(true, Relaxed);
    }
}

/// The right to write rows of some partitions.
pub trait Ownership: Send + Sync + 'static {
    /// Whether the lease has ended, as far as this process knows: then nothing more is sent.
    fn is_lost(&self) -> bool;

    /// Checks that what was received until now is of the topic that the lease was opened for: rows of a topic that was deleted and
    /// created again are not rows of this one.
    ///
    /// # Errors
    /// [`LeaseLost`] if it is another topic: write nothing more.
    fn prove(&self) -> impl Future<Output = Result<Proof, LeaseLost>> + Send;

    /// Opens a new lease of these partitions. After that, every earlier insert is either stored or never will be.
    ///
    /// # Errors
    /// [`LeaseLost`] if another process owns them now; a failure, which may pass.
    fn renew(&self, partitions: &[i32]) -> impl Future<Output = Result<Result<(), LeaseLost>, Failure>> + Send;
}

/// Somebody else owns the partitions, or the topic is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another member has opened a lease of these partitions")]
pub struct LeaseLost;

/// The table that a record's row belongs to.
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
    /// The consequence for the next attempt.
    pub kind: ErrorKind,
    /// Whether the attempt has provably ended: it was answered, or never sent. Otherwise it may still take effect.
    pub ended: bool,
    /// The event and its place.
    pub message: String,
}

/// The kind of a failure, which decides the reaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The failure will pass (network, overload, read only, disk full): try again, without end.
    Transient,
    /// The rows are the problem: find out which.
    Data,
    /// The failure will not pass by itself (wrong password, missing table, wrong schema): stop.
    Permanent,
    /// The rows are too many for the server's memory, or for a proxy: try again, and then with fewer at a time.
    TooLarge,
    /// The server refused the insert with an error that is in no list of ours, and is well otherwise. If it refuses the same
    /// rows again and takes others, the rows are the problem.
    Unexplained,
}

impl ErrorKind {
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
