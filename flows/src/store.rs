//! The store of all topics' rows, and the rights to write them.

use crate::{Failure, LeaseTable, OffsetRanges, Sink, Tokens};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Gives a [`Sink`] for the rows of each topic. Implemented over ClickHouse.
pub trait Store: Send + Sync + 'static {
    /// Where the rows of one topic are stored under one lease.
    type Sink: Sink + LeaseTable;

    /// The sink for rows of the topic with this name and the id `source`. It sends nothing more once `closed` is cancelled.
    fn sink(&self, topic: &str, source: &str, closed: CancellationToken) -> Self::Sink;

    /// The tokens of this process, which its sinks' inserts carry.
    fn tokens(&self) -> &Arc<Tokens>;

    /// Checks that rows can be stored exactly once, with these tables, settings and rights of this user.
    ///
    /// # Errors
    /// The first unsuitable one; or a failure, which may pass.
    fn check(&self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Which offsets of a topic are stored, rejected or erased, from the given offset of each partition on.
    ///
    /// # Errors
    /// A failure, which may pass.
    fn stored_from(
        &self,
        source: &str,
        positions: &[(i32, i64)],
    ) -> impl Future<Output = Result<BTreeMap<i32, OffsetRanges>, Failure>> + Send;
}
