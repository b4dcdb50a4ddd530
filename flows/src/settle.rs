//! From a batch to durable rows: its events, and the rejects among them.

use crate::culprits::Culprits;
use crate::settling::{RefusedRow, SettleError, Settling};
use crate::{Batch, Metrics, Ownership, Payload, Record, Sink, Table, now};
use std::time::Duration;
use tokio::time::Instant;

/// A batch whose every row is stored, once. The only thing that [`Ledger::commit`](crate::Ledger::commit) takes.
///
/// It cannot be forged,
/// ```compile_fail
/// fn forge(batch: flows::Batch) -> flows::Durable {
///     flows::Durable { batch, began: 0, queryable: 0, stored: 0 }
/// }
/// ```
/// a batch does not stand in for it,
/// ```compile_fail
/// async fn hasty<O: flows::Offsets>(ledger: flows::Ledger<O>, batch: flows::Batch) {
///     ledger.commit(batch).await;
/// }
/// ```
/// and it is spent by the commit:
/// ```compile_fail
/// async fn twice<O: flows::Offsets>(ledger: flows::Ledger<O>, durable: flows::Durable) {
///     let ledger = ledger.commit(durable).await.unwrap();
///     ledger.commit(durable).await;
/// }
/// ```
/// Once is what it is for:
/// ```
/// async fn once<O: flows::Offsets>(ledger: flows::Ledger<O>, durable: flows::Durable) {
///     let _ = ledger.commit(durable).await;
/// }
/// ```
#[derive(Debug)]
#[must_use = "its offsets are committed by the ledger; dropping it commits nothing"]
pub struct Durable {
    batch: Batch,
    /// When its first insert began, its events could be queried, and its last row was stored: nanoseconds since the Unix epoch.
    began: i64,
    queryable: i64,
    stored: i64,
}

impl Durable {
    /// The settled batch.
    pub const fn batch(&self) -> &Batch {
        &self.batch
    }

    /// When its first insert began: nanoseconds since the Unix epoch.
    pub const fn began(&self) -> i64 {
        self.began
    }

    /// When its events were stored, and could be queried: nanoseconds since the Unix epoch.
    pub const fn queryable(&self) -> i64 {
        self.queryable
    }

    /// When its last row was stored, those of rejects too: nanoseconds since the Unix epoch.
    pub const fn stored(&self) -> i64 {
        self.stored
    }
}

/// Stores every row of `batch` exactly once, and returns when that is certain.
///
/// An insert is atomic, but its answer can be lost. Then it is sent again as it was, under the same name: it runs still, or refuses
/// itself because it is stored, or is stored now. Transient failures are tried again without end. Where the rows themselves are
/// refused, halving finds the culprits: they go to [`Table::Rejected`], every two seconds, all others in. Rows that were sent
/// before, in another insert, are sent only under a newer lease, and after the question which of them are stored.
///
/// # Errors
/// See [`SettleError`].
pub async fn settle<W: Sink, T: Ownership>(
    batch: Batch,
    sink: &W,
    ownership: &T,
    metrics: &Metrics,
) -> Result<Durable, SettleError> {
    let began = now();
    let _settling = Metrics::during(&metrics.in_flight);
    let (mut events, mut rejects, mut skipped) = (Vec::new(), Vec::new(), 0);
    for record in batch.records() {
        match record.payload {
            Payload::Event(_) | Payload::Row(_) => events.push(record),
            Payload::Rejected(_) => rejects.push(record),
            Payload::AlreadyStored => skipped += record.range.len(),
        }
    }
    let total = (events.len() + rejects.len()) as u64;
    let settling = Settling::of(&batch, sink, ownership, metrics);
    let mut culprits = Culprits::among(Table::Events, events);
    let (mut saved, mut rejected) = (Instant::now(), 0);
    while culprits.step(&settling).await? {
        // A restart resumes after stored rejects; finding all culprits of a batch can take minutes.
        if saved.elapsed() >= SAVE_EVERY {
            rejected += reject(&settling, culprits.take(), vec![]).await?;
            saved = Instant::now();
        }
    }
    let queryable = now();
    rejected += reject(&settling, culprits.take(), rejects).await?;

    Metrics::count(&metrics.events, total - rejected);
    Metrics::count(&metrics.skipped, skipped);
    Metrics::count(&metrics.batches, 1);
    Ok(Durable { began, queryable, stored: now(), batch })
}

/// How often the rejects of refused rows are stored while others are looked for.
const SAVE_EVERY: Duration = Duration::from_secs(2);
/// Stores the rejects of refused rows together with those that came as rejects; returns how many they are.
async fn reject<W: Sink, T: Ownership>(
    at: &Settling<'_, W, T>,
    refused: Vec<RefusedRow>,
    came: Vec<&Record>,
) -> Result<u64, SettleError> {
    let missing = refused.iter().filter(|row| !row.is_stored).map(|row| &row.reject);
    let rows: Vec<_> = came.iter().copied().chain(missing).collect();
    let mut storing = if rows.len() == came.len() {
        Culprits::among(Table::Rejected, rows)
    } else {
        Culprits::among_sent(Table::Rejected, rows, at.sent_now())
    };
    while storing.step(at).await? {}
    let all = came.into_iter().chain(refused.iter().map(|row| &row.reject));
    at.count_rejects(all.clone());
    Ok(all.count() as u64)
}
