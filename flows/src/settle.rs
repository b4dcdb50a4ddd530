//! From a batch to durable rows: tries until it is certain, and resolves every doubt by reading.

use crate::{
    Backoff, Batch, Class, Content, Delivery, Failure, LeaseLost, Meter, OutOfOrder, Reason, Reject, Table, Tenure,
    Warehouse, now,
};

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
    /// What was settled.
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

/// Why a batch was not settled. In each case nothing of it may be committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError {
    /// A failure that will not pass by itself.
    #[error(transparent)]
    Permanent(Failure),
    /// Somebody else owns the partitions now.
    #[error(transparent)]
    Lost(#[from] LeaseLost),
    /// The deliveries did not chain.
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
}

/// Stores every row of `batch` exactly once, and returns when that is certain.
///
/// An insert is atomic, but its answer can be lost. So after any failure nothing is sent again before the insert has
/// provably ended and the warehouse has said which offsets it holds; then exactly the rest is sent. Transient failures are
/// tried again for ever. Where the rows themselves are refused, halving finds the culprits: they go to
/// [`Table::Rejected`], all others in.
///
/// # Errors
/// See [`SettleError`].
pub async fn settle<W: Warehouse, T: Tenure>(
    batch: Batch,
    warehouse: &W,
    tenure: &T,
    meter: &Meter,
) -> Result<Durable, SettleError> {
    let began = now();
    let _settling = Meter::during(&meter.in_flight);
    let (mut events, mut rejects, mut skipped) = (Vec::new(), Vec::new(), 0);
    for delivery in batch.deliveries() {
        match delivery.content {
            Content::Event(_) => events.push(delivery),
            Content::Reject(_) => rejects.push(delivery),
            Content::Stored => skipped += delivery.span.len(),
        }
    }
    let total = (events.len() + rejects.len()) as u64;
    let settling = Settling { batch: &batch, warehouse, tenure, meter };
    let refused = settling.events(events).await?;
    let queryable = now();
    rejects.extend(&refused);
    let rejected = rejects.len() as u64;
    // A row of `rejected` is only bytes: if that is refused, the table is not the one of the schema.
    if let Outcome::Refused(_, failure) = settling.insert(Table::Rejected, rejects).await? {
        return Err(SettleError::Permanent(failure));
    }

    Meter::count(&meter.events, total - rejected);
    Meter::count(&meter.rejects, rejected);
    Meter::count(&meter.skipped, skipped);
    Meter::count(&meter.batches, 1);
    Ok(Durable { began, queryable, stored: now(), batch })
}

struct Settling<'a, W, T> {
    batch: &'a Batch,
    warehouse: &'a W,
    tenure: &'a T,
    meter: &'a Meter,
}

/// What became of a group of rows.
enum Outcome<'d> {
    /// All are stored.
    Stored,
    /// These are not, because at least one of them is not to the warehouse's liking.
    Refused(Vec<&'d Delivery>, Failure),
}

impl<W: Warehouse, T: Tenure> Settling<'_, W, T> {
    /// Stores all events but those that the warehouse refuses, which it returns as rejects.
    ///
    /// When the first half of a refused group goes in, the culprit is known to be in the second, which is halved without
    /// trying it whole: one bad row among a thousand takes about fifteen inserts, 21 at most.
    async fn events(&self, rows: Vec<&Delivery>) -> Result<Vec<Delivery>, SettleError> {
        let mut refused = Vec::new();
        // Groups still to store, the next one last; with a failure where one is known to hold a culprit.
        let mut groups = vec![(rows, None)];
        while let Some((rows, known)) = groups.pop() {
            let (mut rows, failure) = match known {
                Some(failure) => (rows, failure),
                None => match self.insert(Table::Events, rows).await? {
                    Outcome::Stored => continue,
                    Outcome::Refused(rows, failure) => (rows, failure),
                },
            };
            if let [row] = rows[..] {
                refused.push(refuse(row, &failure));
                continue;
            }
            let second = rows.split_off(rows.len() / 2);
            match self.insert(Table::Events, rows).await? {
                Outcome::Stored => groups.push((second, Some(failure))),
                Outcome::Refused(first, failure) => groups.extend([(second, None), (first, Some(failure))]),
            }
        }
        Ok(refused)
    }

    /// Stores `rows`, all of them, however many attempts it takes.
    async fn insert<'d>(&self, table: Table, mut rows: Vec<&'d Delivery>) -> Result<Outcome<'d>, SettleError> {
        let mut backoff = Backoff::default();
        while !rows.is_empty() {
            // Named first: a name is good for a short time only, so a process that freezes anywhere behind this line wakes
            // up with an insert that nobody accepts.
            let id = self.warehouse.name(self.batch.spans());
            self.tenure.prove().await?;
            Meter::count(&self.meter.inserts, 1);
            let Err(failure) = self.warehouse.insert(&id, table, &rows).await else {
                break;
            };
            self.meter.count_failure(failure.class);
            if failure.class == Class::Permanent {
                return Err(SettleError::Permanent(failure));
            }
            if failure.class == Class::Transient {
                Meter::count(&self.meter.retries, 1);
                backoff.wait().await;
            }
            if !failure.ended {
                self.ask(|| self.warehouse.quiesce(&id)).await?;
            }
            self.keep_missing(&mut rows).await?;
            if failure.class == Class::Data && !rows.is_empty() {
                return Ok(Outcome::Refused(rows, failure));
            }
        }
        Ok(Outcome::Stored)
    }

    /// Keeps of `rows` what is not stored.
    async fn keep_missing(&self, rows: &mut Vec<&Delivery>) -> Result<(), SettleError> {
        let stored = self.ask(|| self.warehouse.stored(self.batch.spans())).await?;
        rows.retain(|row| stored.get(&row.partition).is_none_or(|islands| !islands.contains(row.offset())));
        Ok(())
    }

    /// Asks until there is an answer.
    async fn ask<A, F>(&self, question: impl Fn() -> F) -> Result<A, SettleError>
    where
        F: Future<Output = Result<A, Failure>>,
    {
        let mut backoff = Backoff::default();
        loop {
            match question().await {
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.class == Class::Permanent => {
                    self.meter.count_failure(failure.class);
                    return Err(SettleError::Permanent(failure));
                }
                Err(failure) => {
                    self.meter.count_failure(failure.class);
                    Meter::count(&self.meter.retries, 1);
                    backoff.wait().await;
                }
            }
        }
    }
}

/// The reject that an event becomes when the warehouse refuses its row. Its payload is the event as JSON again: the same
/// fields and values, without what was ignored when it was read.
fn refuse(row: &Delivery, failure: &Failure) -> Delivery {
    let event = row.event().expect("only rows of `events` are refused one by one");
    let reject = Reject {
        key: event.user.as_bytes().to_vec(),
        payload: event.to_json(),
        reason: Reason::Refused,
        detail: failure.message.clone(),
    };
    Delivery { content: Content::Reject(Box::new(reject)), ..*row }
}
