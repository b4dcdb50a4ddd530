//! From a batch to durable rows: tries until it is certain, and resolves every doubt by reading.

use crate::refusal;
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
/// An insert is atomic, but its answer can be lost, or say less than it seems to. So after any failure, and after an answer that
/// names fewer rows than were sent, nothing is sent again before the insert has provably ended and the warehouse has said
/// which offsets it holds; then exactly the rest is sent. Transient failures are tried again without end. Where the rows
/// themselves are refused, halving finds the culprits: they go to [`Table::Rejected`], all others in.
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
    let settling = Settling { batch: &batch, warehouse, tenure, meter, accepted_before: Meter::read(&meter.accepted) };
    let refused = settling.store(Table::Events, events).await?;
    let queryable = now();
    rejects.extend(refused.iter().filter(|row| !row.is_stored).map(|row| &row.reject));
    let rejected = rejects.len() + refused.iter().filter(|row| row.is_stored).count();
    settling.store(Table::Rejected, rejects).await?;

    Meter::count(&meter.events, total - rejected as u64);
    if rejected > 0 {
        meter.rejects.count(batch.deliveries().chain(refused.iter().map(|row| &row.reject)));
    }
    Meter::count(&meter.skipped, skipped);
    Meter::count(&meter.batches, 1);
    Ok(Durable { began, queryable, stored: now(), batch })
}

struct Settling<'a, W, T> {
    batch: &'a Batch,
    warehouse: &'a W,
    tenure: &'a T,
    meter: &'a Meter,
    /// How many inserts had gone in, from any batch, when this one began.
    accepted_before: u64,
}

/// What is known of rows that are inserted together.
enum Group {
    /// The whole batch, not tried yet.
    Whole,
    /// A part of a group that was refused, not tried yet.
    Part,
    /// The other part of a group that was refused for this reason, and whose first half went in: the culprit is in this one.
    HoldsCulprit(Failure),
    /// It was refused itself.
    Refused(Failure),
}

/// What became of a group of rows.
enum Outcome<'d> {
    /// All are stored.
    Stored,
    /// These are not: the warehouse refuses at least one of them, or all together.
    Refused(Vec<&'d Delivery>, Failure),
}

/// A row that was refused, alone.
struct RefusedRow {
    reject: Delivery,
    /// Its reject is stored already.
    is_stored: bool,
}

impl<W: Warehouse, T: Tenure> Settling<'_, W, T> {
    /// Stores all rows but those that the warehouse refuses, which it returns as rejects.
    ///
    /// When the first half of a refused group goes in, the culprit is known to be in the second, which is halved without trying
    /// it whole. A row is a culprit only if it was itself refused, alone. One bad row among a thousand takes at most 22
    /// inserts where the error says that the row is bad, and 30 where that has to be found out ([`refusal`]).
    async fn store(&self, table: Table, rows: Vec<&Delivery>) -> Result<Vec<RefusedRow>, SettleError> {
        let mut refused = Vec::new();
        // The next one last.
        let mut groups = vec![(rows, Group::Whole)];
        while let Some((mut rows, group)) = groups.pop() {
            let is_part = !matches!(group, Group::Whole);
            if let (Some(fit), Group::Whole | Group::Part) = (self.meter.room.rows(), &group)
                && rows.len() > fit
            {
                let rest = rows.split_off(fit);
                groups.push((rest, if is_part { Group::Part } else { Group::Whole }));
            }
            let (mut rows, failure) = match group {
                Group::Refused(failure) => (rows, failure),
                Group::HoldsCulprit(failure) if rows.len() > 1 => (rows, failure),
                _ => match self.insert(table, rows, is_part).await? {
                    Outcome::Stored => continue,
                    Outcome::Refused(rows, failure) => (rows, failure),
                },
            };
            if let [row] = rows[..] {
                refused.extend(self.condemn(row, failure).await?);
                continue;
            }
            let second = rows.split_off(rows.len() / 2);
            if failure.class == Class::TooLarge {
                self.meter.room.exceeded(rows.len() + second.len());
                groups.extend([(second, Group::Part), (rows, Group::Part)]);
                continue;
            }
            match self.insert(table, rows, true).await? {
                Outcome::Stored => groups.push((second, Group::HoldsCulprit(failure))),
                Outcome::Refused(first, own) => groups.extend([(second, Group::Part), (first, Group::Refused(own))]),
            }
        }
        Ok(refused)
    }

    /// What becomes of a row that was refused alone: it is rejected, or stored in the end.
    ///
    /// An error that nobody knows may be the server's fault and not the row's. So the row is rejected only if the server
    /// has taken other rows since this batch began, or else takes the reject of this one.
    async fn condemn(&self, row: &Delivery, mut failure: Failure) -> Result<Option<RefusedRow>, SettleError> {
        loop {
            let reject = refuse(row, &failure);
            let is_proved = failure.class == Class::Data || Meter::read(&self.meter.accepted) > self.accepted_before;
            if is_proved || self.try_reject(&reject).await? {
                return Ok(Some(RefusedRow { reject, is_stored: !is_proved }));
            }
            match self.insert(Table::Events, vec![row], true).await? {
                Outcome::Stored => return Ok(None),
                Outcome::Refused(_, again) => failure = again,
            }
        }
    }

    /// Tries once to store a reject; whether it is stored.
    async fn try_reject(&self, reject: &Delivery) -> Result<bool, SettleError> {
        let mut rows = vec![reject];
        let id = self.warehouse.name(self.batch.spans());
        self.tenure.prove().await?;
        Meter::count(&self.meter.inserts, 1);
        if let Err(failure) = self.warehouse.insert(&id, Table::Rejected, &rows).await {
            self.fail(&failure)?;
            self.quiesce(&id, &failure).await?;
        }
        self.keep_missing(&mut rows).await?;
        Ok(rows.is_empty())
    }

    /// Stores `rows`, all of them, however many attempts it takes; or returns those that the warehouse refuses.
    async fn insert<'d>(
        &self,
        table: Table,
        mut rows: Vec<&'d Delivery>,
        is_part: bool,
    ) -> Result<Outcome<'d>, SettleError> {
        let (mut backoff, mut refusals) = (Backoff::default(), 0);
        while !rows.is_empty() {
            // Named first: a name is good for a short time only, so a process that freezes anywhere behind this line wakes
            // up with an insert that nobody accepts.
            let id = self.warehouse.name(self.batch.spans());
            self.tenure.prove().await?;
            Meter::count(&self.meter.inserts, 1);
            let failure = match self.warehouse.insert(&id, table, &rows).await {
                Ok(written) if written >= rows.len() as u64 && self.warehouse.read_back().is_done(table) => {
                    self.meter.room.sufficed(rows.len());
                    break;
                }
                Ok(written) => {
                    self.read_back(table, written, &mut rows).await?;
                    if !rows.is_empty() {
                        Meter::count(&self.meter.retries, 1);
                        backoff.wait().await;
                    }
                    continue;
                }
                Err(failure) => failure,
            };
            self.fail(&failure)?;
            // A row of `rejected` is only bytes: if that is refused, the table is not the one of the schema.
            if failure.class == Class::Data && table == Table::Rejected {
                return Err(SettleError::Permanent(failure));
            }
            if failure.class != Class::Data {
                Meter::count(&self.meter.retries, 1);
                backoff.wait().await;
            }
            self.quiesce(&id, &failure).await?;
            self.keep_missing(&mut rows).await?;
            refusals += u32::from(failure.class != Class::Transient);
            let limit = refusal::limit(table, failure.class, rows.len(), is_part);
            if !rows.is_empty() && limit.is_some_and(|limit| refusals >= limit) {
                return Ok(Outcome::Refused(rows, failure));
            }
        }
        if table == Table::Events {
            Meter::count(&self.meter.accepted, 1);
        }
        Ok(Outcome::Stored)
    }

    /// Keeps of `rows` what is not there, though an answer said that they are written.
    ///
    /// An answer that names fewer rows than were sent is a doubt like any other. The first answer under a lease is compared
    /// with what can be read: rows that are written and not shown would be sent again after each doubt, and doubled.
    async fn read_back(&self, table: Table, written: u64, rows: &mut Vec<&Delivery>) -> Result<(), SettleError> {
        let sent = rows.len();
        self.keep_missing(rows).await?;
        let seen = (sent - rows.len()) as u64;
        let expected = written.min(sent as u64);
        if seen < expected {
            let message = format!(
                "ClickHouse has confirmed {expected} rows of `{table}` and shows {seen} of them to this user: look for a row \
                 policy, a setting that filters, or several servers behind the address; the offsets are not committed"
            );
            return Err(SettleError::Permanent(Failure { class: Class::Permanent, ended: true, message }));
        }
        self.warehouse.read_back().succeeded(table);
        Ok(())
    }

    /// Counts a failure.
    fn fail(&self, failure: &Failure) -> Result<(), SettleError> {
        self.meter.count_failure(failure.class);
        if failure.class == Class::Permanent { Err(SettleError::Permanent(failure.clone())) } else { Ok(()) }
    }

    /// Waits for the end of an insert that has failed, where its answer does not say that it has ended.
    async fn quiesce(&self, id: &W::InsertId, failure: &Failure) -> Result<(), SettleError> {
        if !failure.ended {
            self.ask(|| self.warehouse.quiesce(id)).await?;
        }
        Ok(())
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
                Err(failure) => self.fail(&failure)?,
            }
            Meter::count(&self.meter.retries, 1);
            backoff.wait().await;
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
        field: None,
        detail: failure.message.clone(),
    };
    Delivery { content: Content::Reject(Box::new(reject)), ..*row }
}
