//! Which rows the sink refuses: groups of rows are halved until each culprit stands alone.

use crate::refusal::Known;
use crate::settling::{Outcome, Refusal, RefusedRow, Sent, Settling};
use crate::{ErrorKind, Failure, Ownership, Payload, Reason, Record, Reject, SettleError, Sink, Table};

/// How many groups are looked through for one that can be sent under the lease of now. More would need fewer leases, and find the
/// first culprits later.
const AHEAD: usize = 32;

/// Rows that are stored step by step, and those of them that are refused.
///
/// A copy of an insert may still be on its way, so a part of what it held is sent only under a newer lease. Groups do not overlap:
/// one lease serves all that were refused under older ones. So groups that can go at once are sent first.
///
/// When the first half of a refused group goes in, the culprit is known to be in the second, which is halved without trying
/// it whole. A row is a culprit only if it was itself refused, alone. One bad row among a thousand takes at most 22
/// inserts where the error says that the row is bad, and 30 where that has to be found out ([`refusal`](crate::refusal)).
pub(crate) struct Culprits<'d> {
    table: Table,
    /// The next one last.
    groups: Vec<Pending<'d>>,
    /// Each was refused alone, once, with an error that was a row's fault before.
    suspects: Vec<Refusal<'d>>,
    known: Known,
    found: Vec<RefusedRow>,
}

/// Rows that are inserted together, or halved.
struct Pending<'d> {
    rows: Vec<&'d Record>,
    /// When some of them were last sent.
    sent: Sent,
    group: Group,
}

/// The state of rows that are inserted together.
enum Group {
    /// The whole batch, not tried yet.
    Whole,
    /// A part of a group that was refused, not tried yet.
    Part,
    /// The other part of a group that was refused for this reason, and whose first half went in: the culprit is in this one.
    HoldsCulprit(Failure),
    /// The group was refused itself, and has more than one row.
    Refused(Failure),
}

impl<'d> Culprits<'d> {
    /// Nothing is known of any row.
    pub fn among(table: Table, rows: Vec<&'d Record>) -> Self {
        Self::begin(table, Pending { rows, sent: Sent::Never, group: Group::Whole })
    }

    /// Some of them were sent before, in another insert.
    pub fn among_sent(table: Table, rows: Vec<&'d Record>, sent: Sent) -> Self {
        Self::begin(table, Pending { rows, sent, group: Group::Part })
    }

    fn begin(table: Table, all: Pending<'d>) -> Self {
        let groups = if all.rows.is_empty() { Vec::new() } else { vec![all] };
        Self { table, groups, suspects: Vec::new(), known: Known::default(), found: Vec::new() }
    }

    /// The culprits that were found since this was last called.
    pub fn take(&mut self) -> Vec<RefusedRow> {
        std::mem::take(&mut self.found)
    }

    /// Tries the next rows; false when each is stored, or found to be a culprit.
    pub async fn step<W: Sink, T: Ownership>(&mut self, at: &Settling<'_, W, T>) -> Result<bool, SettleError> {
        let has_more_gone_in = |suspect: &Refusal<'_>| suspect.accepted < at.accepted();
        let is_due = |suspect: &Refusal<'_>| has_more_gone_in(suspect) && at.are_free(suspect.sent);
        if let Some(nth) = self.suspects.iter().position(is_due) {
            let suspect = self.suspects.swap_remove(nth);
            self.try_suspect(at, suspect).await?;
        } else if let Some(pending) = self.next_group(at) {
            self.try_group(at, pending).await?;
        } else if let Some(nth) = self.suspects.iter().position(has_more_gone_in) {
            let suspect = self.suspects.swap_remove(nth);
            self.try_suspect(at, suspect).await?;
        } else if let Some(suspect) = self.suspects.pop() {
            // The server takes nothing else: it may be its fault after all.
            let again = at.insert(self.table, suspect.rows, suspect.sent, &Known::default()).await?;
            if let Outcome::Refused(again) = again {
                self.condemn(at, again).await?;
            }
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// The next group: one that needs no new lease, if there is one. But the culprit of an error that is in no list is looked for straight
    /// on: each refusal costs a pause until one is found, and each that is found has to be followed by other rows that go in.
    fn next_group<W: Sink, T: Ownership>(&mut self, at: &Settling<'_, W, T>) -> Option<Pending<'d>> {
        let is_unlisted = |group: &Group| matches!(group, Group::Refused(why) if why.kind == ErrorKind::Unexplained);
        if self.groups.last().is_some_and(|last| is_unlisted(&last.group)) {
            return self.groups.pop();
        }
        let ahead = self.groups.len().saturating_sub(AHEAD);
        let free = self.groups[ahead..].iter().rposition(|pending| at.are_free(pending.sent));
        match free {
            Some(nth) => Some(self.groups.remove(ahead + nth)),
            None => self.groups.pop(),
        }
    }

    async fn try_group<W: Sink, T: Ownership>(
        &mut self,
        at: &Settling<'_, W, T>,
        Pending { mut rows, sent, group }: Pending<'d>,
    ) -> Result<(), SettleError> {
        let is_part = !matches!(group, Group::Whole);
        if let (Some(fit), Group::Whole | Group::Part) = (at.room().rows(), &group)
            && rows.len() > fit
        {
            let rest = rows.split_off(fit);
            self.groups.push(Pending { rows: rest, sent, group: if is_part { Group::Part } else { Group::Whole } });
        }
        let (mut rows, failure) = match group {
            Group::Refused(failure) => (rows, failure),
            Group::HoldsCulprit(failure) if rows.len() > 1 => (rows, failure),
            _ => match at.insert(self.table, rows, sent, &self.known).await? {
                Outcome::Refused(refusal) if refusal.rows.len() > 1 => {
                    self.groups.push(Pending::refused(refusal));
                    return Ok(());
                }
                outcome => return self.judge(at, outcome).await,
            },
        };
        let second = rows.split_off(rows.len() / 2);
        if failure.kind == ErrorKind::TooLarge {
            at.room().exceeded(rows.len() + second.len());
            self.groups.extend([second, rows].map(|rows| Pending { rows, sent, group: Group::Part }));
            return Ok(());
        }
        match at.insert(self.table, rows, sent, &self.known).await? {
            Outcome::Stored => {
                self.groups.push(Pending { rows: second, sent, group: Group::HoldsCulprit(failure) });
            }
            Outcome::Refused(refusal) => {
                self.groups.push(Pending { rows: second, sent, group: Group::Part });
                if refusal.rows.len() == 1 {
                    // At once: after a recovery of the server, its earlier refusals prove nothing.
                    return self.judge(at, Outcome::Refused(refusal)).await;
                }
                self.groups.push(Pending::refused(refusal));
            }
        }
        Ok(())
    }

    /// Decides about a row that was tried alone. A row that was refused once, with an error that was the fault of
    /// another row, is tried again when others have been stored.
    async fn judge<W: Sink, T: Ownership>(
        &mut self,
        at: &Settling<'_, W, T>,
        outcome: Outcome<'d>,
    ) -> Result<(), SettleError> {
        match outcome {
            Outcome::Stored => Ok(()),
            Outcome::Refused(refusal) if self.known.is_learned(&refusal.failure) => {
                self.suspects.push(refusal);
                Ok(())
            }
            Outcome::Refused(refusal) => self.condemn(at, refusal).await,
        }
    }

    /// Tries a suspect once more, now that other rows have gone in since it was refused.
    async fn try_suspect<W: Sink, T: Ownership>(
        &mut self,
        at: &Settling<'_, W, T>,
        suspect: Refusal<'d>,
    ) -> Result<(), SettleError> {
        match at.insert(self.table, suspect.rows, suspect.sent, &self.known).await? {
            Outcome::Stored => Ok(()),
            Outcome::Refused(again) => self.condemn(at, Refusal { accepted: suspect.accepted, ..again }).await,
        }
    }

    /// Decides about a row that was refused alone: it is rejected, or stored in the end.
    ///
    /// An unlisted error may be the server's fault and not the row's. So the row is rejected only if the server has
    /// taken other rows since this one was first refused, or else takes the reject of this one.
    async fn condemn<W: Sink, T: Ownership>(
        &mut self,
        at: &Settling<'_, W, T>,
        mut refusal: Refusal<'d>,
    ) -> Result<(), SettleError> {
        loop {
            let reject = refuse(refusal.rows[0], &refusal.failure);
            let is_proved = refusal.failure.kind == ErrorKind::Data || at.accepted() > refusal.accepted;
            if is_proved || at.try_reject(&reject).await? {
                // Where the errors have changed, some were the server's.
                if refusal.is_steady {
                    self.known.learn(&refusal.failure);
                }
                self.found.push(RefusedRow { reject, is_stored: !is_proved });
                return Ok(());
            }
            // Its reject may be under way, too.
            match at.insert(self.table, refusal.rows, at.sent_now(), &Known::default()).await? {
                Outcome::Stored => return Ok(()),
                Outcome::Refused(again) => refusal = again,
            }
        }
    }
}

impl<'d> Pending<'d> {
    fn refused(Refusal { rows, sent, failure, .. }: Refusal<'d>) -> Self {
        Self { rows, sent, group: Group::Refused(failure) }
    }
}

/// The reject of an event whose row the sink refuses. The payload of an event of the shop is the event as JSON: the same fields and
/// values, without ignored fields, headers and Kafka's timestamp.
fn refuse(row: &Record, failure: &Failure) -> Record {
    let detail = failure.message.clone();
    let reject = |key, payload: &[u8]| Reject::new(Some(key), Some(payload), Reason::Refused, None, detail);
    let reject = match &row.payload {
        Payload::Event(event) => reject(event.user.as_bytes(), &event.to_json()),
        Payload::Row(row) => {
            Reject { timestamp_ms: row.timestamp_ms, headers: row.headers(), ..reject(row.key(), row.payload()) }
        }
        Payload::Rejected(_) | Payload::AlreadyStored => unreachable!("only rows of events are refused one by one"),
    };
    Record::new(row.partition, row.range, row.received, Payload::Rejected(Box::new(reject)))
}
