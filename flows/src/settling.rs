//! Stores rows of one batch: tries until it is certain, and resolves every doubt by reading.

use crate::refusal::{self, Known};
use crate::room::Room;
use crate::{
    Answer, Backoff, Batch, ErrorKind, Failure, LeaseLost, Metrics, OffsetRanges, OutOfOrder, Ownership, Proof, Record,
    Sink, Table,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// The records did not chain.
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
}
/// The means to store the rows of one batch.
pub(crate) struct Settling<'a, W, T> {
    batch: &'a Batch,
    sink: &'a W,
    ownership: &'a T,
    metrics: &'a Metrics,
    /// Its records are of the lease's topic.
    is_proved: AtomicBool,
    renewal: Mutex<Renewal>,
}

/// The newest lease that was opened while a batch is settled.
#[derive(Default)]
struct Renewal {
    /// How many there were, this one included.
    nth: u64,
    /// The offsets of the batch that were stored when it was opened. Rows that were sent before that and are not in
    /// here will never be stored.
    stored: BTreeMap<i32, OffsetRanges>,
}

/// Whether rows were sent before, in an insert of another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Never,
    /// Under which of the batch's leases they were sent last. A copy of that insert may come as long as the lease is the newest.
    Under(u64),
}

/// The outcome for rows that were inserted together.
pub(crate) enum Outcome<'d> {
    /// All are stored.
    Stored,
    /// Some are not.
    Refused(Refusal<'d>),
}

/// Rows that are not stored: the sink refuses at least one of them, or all together.
pub(crate) struct Refusal<'d> {
    pub rows: Vec<&'d Record>,
    /// When they were sent last.
    pub sent: Sent,
    pub failure: Failure,
    /// Each refusal had the same error.
    pub is_steady: bool,
    /// How many inserts had gone in, from any batch, before it was first tried.
    pub accepted: u64,
}

/// A row that was refused, alone.
pub(crate) struct RefusedRow {
    pub reject: Record,
    /// Its reject is stored already.
    pub is_stored: bool,
}

impl<'a, W: Sink, T: Ownership> Settling<'a, W, T> {
    pub fn of(batch: &'a Batch, sink: &'a W, ownership: &'a T, metrics: &'a Metrics) -> Self {
        Self { batch, sink, ownership, metrics, is_proved: AtomicBool::new(false), renewal: Mutex::default() }
    }

    /// Counts rejects that are stored.
    pub fn count_rejects<'d>(&self, rejects: impl Iterator<Item = &'d Record>) {
        self.metrics.rejects.count(rejects);
    }

    /// How many inserts into `events` have gone in, from any batch.
    pub fn accepted(&self) -> u64 {
        Metrics::read(&self.metrics.accepted)
    }

    /// How many rows fit into one insert.
    pub const fn room(&self) -> &Room {
        &self.metrics.room
    }

    /// Tries once to store a reject; whether it is stored.
    pub async fn try_reject(&self, reject: &Record) -> Result<bool, SettleError> {
        let mut rows = vec![reject];
        self.free(&mut rows, self.sent_now()).await?;
        if !rows.is_empty() {
            let id = self.sink.name(self.batch.ranges());
            self.certain(&id, Table::Rejected, &mut rows, &mut Backoff::default()).await?;
        }
        Metrics::count(&self.metrics.went_in, u64::from(rows.is_empty()));
        Ok(rows.is_empty())
    }

    /// Stores `rows`, all of them, however many attempts it takes; or returns those that the sink refuses.
    ///
    /// `sent` says when some of them were sent before, in another insert.
    pub async fn insert<'d>(
        &self,
        table: Table,
        mut rows: Vec<&'d Record>,
        mut sent: Sent,
        known: &Known,
    ) -> Result<Outcome<'d>, SettleError> {
        let (mut backoff, mut refusals, accepted) = (Backoff::default(), 0, self.accepted());
        let (mut errors, is_part, mut id) = (Known::default(), sent != Sent::Never, None);
        while !rows.is_empty() {
            let Some(id_now) = &id else {
                self.free(&mut rows, sent).await?;
                id = Some(self.sink.name(self.batch.ranges()));
                continue;
            };
            let all = rows.len();
            sent = self.sent_now();
            let Some(failure) = self.certain(id_now, table, &mut rows, &mut backoff).await? else {
                // The remaining rows need another insert.
                id = None;
                if rows.is_empty() {
                    self.metrics.room.sufficed(all);
                }
                continue;
            };
            // A row of `rejected` is only bytes: if that is refused, the table is not the one of the schema.
            if failure.kind == ErrorKind::Data && table == Table::Rejected {
                return Err(SettleError::Permanent(failure));
            }
            let is_known = known.is(&failure);
            if !is_known {
                Metrics::count(&self.metrics.retries, 1);
                backoff.wait().await;
            }
            refusals += u32::from(failure.kind != ErrorKind::Transient);
            errors.learn(&failure);
            let limit = refusal::limit(table, failure.kind, rows.len(), is_part, is_known);
            if limit.is_some_and(|limit| refusals >= limit) {
                return Ok(Outcome::Refused(Refusal { rows, sent, failure, is_steady: errors.is_one(), accepted }));
            }
        }
        Metrics::count(&self.metrics.went_in, 1);
        if table == Table::Events {
            Metrics::count(&self.metrics.accepted, 1);
        }
        Ok(Outcome::Stored)
    }

    /// Sends one insert under its name until its outcome is certain. Returns none when it has ended, and `rows` keeps
    /// rows that are not stored; or the failure with which it was refused.
    async fn certain(
        &self,
        id: &W::InsertId,
        table: Table,
        rows: &mut Vec<&Record>,
        backoff: &mut Backoff,
    ) -> Result<Option<Failure>, SettleError> {
        loop {
            self.prove().await?;
            Metrics::count(&self.metrics.inserts, 1);
            match self.sink.insert(id, table, rows).await {
                Ok(Answer::Written(all)) if all >= rows.len() as u64 && self.sink.read_back().is_done(table) => {
                    rows.clear();
                    return Ok(None);
                }
                Ok(Answer::Written(written)) => return self.read_back(table, written, rows).await.map(|()| None),
                // Its first row at least.
                Ok(Answer::AlreadyStored) => return self.read_back(table, 1, rows).await.map(|()| None),
                Ok(Answer::Fenced) => return Err(LeaseLost.into()),
                Ok(Answer::Running | Answer::Superseded) => {}
                Err(failure) => {
                    self.fail(&failure)?;
                    if failure.ended {
                        return Ok(Some(failure));
                    }
                }
            }
            Metrics::count(&self.metrics.retries, 1);
            backoff.wait().await;
        }
    }

    /// Makes sure that the batch may be sent at all. All its records came before this, so one certain answer stays
    /// true, and later attempts need none.
    async fn prove(&self) -> Result<(), SettleError> {
        if self.ownership.is_lost() {
            return Err(LeaseLost.into());
        }
        if !self.is_proved.load(SeqCst) {
            self.is_proved.store(self.ownership.prove().await? == Proof::Certain, SeqCst);
        }
        Ok(())
    }

    /// When rows were sent that are sent now.
    pub fn sent_now(&self) -> Sent {
        Sent::Under(self.renewal().nth)
    }

    /// Whether rows may be sent in another insert than before under the lease of now: no copy of an insert with one of them is under
    /// way. That of an older lease is refused, whenever it comes.
    pub fn are_free(&self, sent: Sent) -> bool {
        sent != self.sent_now()
    }

    /// Before rows are sent in another insert: ends earlier ones, and keeps only rows that are not stored.
    async fn free(&self, rows: &mut Vec<&Record>, sent: Sent) -> Result<(), SettleError> {
        if sent == Sent::Never {
            return Ok(());
        }
        if !self.are_free(sent) {
            let partitions: Vec<_> = self.batch.ranges().iter().map(|(partition, _)| *partition).collect();
            self.ask(|| self.ownership.renew(&partitions)).await??;
            let stored = self.ask(|| self.sink.stored(self.batch.ranges())).await?;
            let mut renewal = self.renewal();
            *renewal = Renewal { nth: renewal.nth + 1, stored };
        }
        keep_missing(rows, &self.renewal().stored);
        Ok(())
    }

    fn renewal(&self) -> MutexGuard<'_, Renewal> {
        // Each change is one step.
        self.renewal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps only rows that are not stored, although an answer said that they were written.
    ///
    /// An answer that names fewer rows than were sent is a doubt like any other. The first answer under a lease is
    /// compared with the readable rows: rows that are written and hidden would be sent again after each doubt, and
    /// doubled.
    async fn read_back(&self, table: Table, written: u64, rows: &mut Vec<&Record>) -> Result<(), SettleError> {
        let sent = rows.len();
        keep_missing(rows, &self.ask(|| self.sink.stored(self.batch.ranges())).await?);
        let seen = (sent - rows.len()) as u64;
        let expected = written.min(sent as u64);
        if seen < expected {
            let message = format!(
                "ClickHouse has confirmed {expected} rows of `{table}` and shows {seen} of them to this user: look for a row \
                 policy, a setting that filters, or several servers behind the address; the offsets are not committed"
            );
            return Err(SettleError::Permanent(Failure { kind: ErrorKind::Permanent, ended: true, message }));
        }
        self.sink.read_back().succeeded(table);
        Ok(())
    }

    /// Counts a failure.
    fn fail(&self, failure: &Failure) -> Result<(), SettleError> {
        self.metrics.note_failure(failure);
        if failure.kind == ErrorKind::Permanent { Err(SettleError::Permanent(failure.clone())) } else { Ok(()) }
    }

    /// Repeats the question until there is an answer.
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
            Metrics::count(&self.metrics.retries, 1);
            backoff.wait().await;
        }
    }
}

/// Keeps only rows that are not stored.
fn keep_missing(rows: &mut Vec<&Record>, stored: &BTreeMap<i32, OffsetRanges>) {
    rows.retain(|row| stored.get(&row.partition).is_none_or(|stored_ranges| !stored_ranges.contains(row.offset())));
}
