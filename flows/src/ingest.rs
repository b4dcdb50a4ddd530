//! From records to committed offsets.

use crate::stages::ChunksTimeout;
use crate::{Batch, BatchConfig, Ledger, Metrics, Offsets, OutOfOrder, Ownership, Record, SettleError, Sink, settle};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use std::sync::Arc;
use tokio_util::task::AbortOnDropHandle;

/// Takes `records` to the sink and their offsets to the ledger, until the stream ends or something stops it.
///
/// Ending the source *is* the drain: the last chunk is flushed, the inserts under way finish, the ledger commits, and the
/// ledger comes back. A rebalance and a shutdown both do just that. Dropping the future is the opposite: inserts are let go
/// of, and nothing more is committed.
///
/// # Errors
/// See [`IngestError`]. All offsets committed until then are those of stored rows.
pub async fn ingest<W: Sink, T: Ownership, O: Offsets>(
    records: impl Stream<Item = Record>,
    batching: BatchConfig,
    sink: Arc<W>,
    ownership: Arc<T>,
    metrics: Arc<Metrics>,
    ledger: Ledger<O>,
) -> Result<Ledger<O>, IngestError> {
    let mut ends = ledger.marks().collect();
    records
        .chunks_timeout(batching.rows, batching.bytes, batching.linger()) // 1,000 rows, 1 MB, or the deadline of the first one
        .ready_chunks(batching.coalesce) //             chunks already due leave as one insert: ClickHouse is the slower one
        .map(move |chunks| Batch::gather(chunks, &mut ends)) // what does not chain is never sent
        .map(|batch| {
            let (sink, ownership, metrics) = (sink.clone(), ownership.clone(), metrics.clone());
            spawn(async move { settle(batch?, &*sink, &*ownership, &metrics).await })
        }) //                                         → Durable: retries and doubt are resolved in there
        .buffered(batching.in_flight) //                several inserts at once, their results in order
        .try_fold(ledger, |ledger, durable| ledger.commit(durable).map(|kept| kept.map_err(IngestError::from)))
        .await //                                     commits in order, and is the only one who can
}

/// A task of its own, begun at once, so that an insert makes progress also while the fold awaits a commit; it ends with its
/// handle.
fn spawn<D: Send + 'static>(
    work: impl Future<Output = Result<D, SettleError>> + Send + 'static,
) -> impl Future<Output = Result<D, IngestError>> {
    let task = AbortOnDropHandle::new(tokio::spawn(work));
    async move {
        match task.await {
            Ok(settled) => Ok(settled?),
            Err(crash) => Err(IngestError::Crashed(crash.to_string())),
        }
    }
}

/// The reason why an ingest ended before its source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// A batch could not be settled.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// A durable batch does not chain to the ledger's position: a bug of ours, or a topic that went back.
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
    /// A settling task panicked.
    #[error("a settling task crashed: {0}")]
    Crashed(String),
}
