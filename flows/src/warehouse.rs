//! The doors through which [`settle`](crate::settle()) reaches the outside, and the classes of what can go wrong there.

use crate::{Delivery, Islands, Span};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;

/// Where rows come to rest. Implemented over ClickHouse; by a double in tests.
pub trait Warehouse: Send + Sync + 'static {
    /// A new name for an insert that touches these partitions. From now on the insert has a few seconds to begin: one
    /// that comes later is refused, so that what a frozen process or a stalled server holds back does no harm.
    fn name(&self, spans: &[(i32, Span)]) -> InsertId;

    /// Writes all of `rows` into `table`, or none. One attempt: whoever calls it decides on another.
    fn insert(
        &self,
        id: &InsertId,
        table: Table,
        rows: &[&Delivery],
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Returns when the insert `id` has ended, one way or the other: its effect, if it had one, is there to be seen and
    /// no later one can come.
    fn quiesce(&self, id: &InsertId) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Which offsets of these spans are stored, in `events` or in `rejected`: for each partition that has any.
    fn stored(&self, spans: &[(i32, Span)]) -> impl Future<Output = Result<BTreeMap<i32, Islands>, Failure>> + Send;
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

/// The name of one insert, unique for all time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InsertId(pub String);

impl fmt::Display for InsertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The table that a delivery's row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Good events.
    Events,
    /// Messages that are no events, and rows that were refused.
    Rejected,
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
    /// It will pass (network, overload, memory, read only, disk full): try again, for ever.
    Transient,
    /// The rows are the problem: find out which.
    Data,
    /// It will not pass by itself (wrong password, missing table, wrong schema): stop.
    Permanent,
}
