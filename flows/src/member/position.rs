//! How far a member is in one partition.

use super::Notes;
use crate::{OffsetRange, OffsetRanges};

/// A partition of this member's.
#[derive(Clone, Debug, Default)]
pub struct Position {
    /// None until the first lookup of its start offset.
    progress: Option<Progress>,
    /// Where to go on has to be looked up before the next record is delivered.
    needs_lookup: bool,
    /// Offsets that are stored already, among those that are not delivered.
    stored: OffsetRanges,
    pub(super) notes: Notes,
}

/// Four offsets of a partition. Each is the first one that is *not*: `committed ≤ pending ≤ settled ≤ delivered`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The group has confirmed it, or the lease began there.
    pub committed: i64,
    /// A commit that names it is on its way, or its answer was lost.
    pub pending: i64,
    /// All before it is stored, or needs no row.
    pub settled: i64,
    /// All before it was handed to the pipeline.
    pub delivered: i64,
}

/// The reaction to a fetched record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Deliver it. The range begins where the record before it ended.
    New(OffsetRange),
    /// Its row is stored: only its range has to pass.
    AlreadyStored(OffsetRange),
    /// Nothing: it is of a partition that is not this member's.
    NotOurs,
    /// Deliver nothing: offsets went back, so start offsets have to be looked up again.
    OutOfSync,
}

impl Position {
    /// A partition that was just assigned.
    pub(super) fn assigned() -> Self {
        Self { needs_lookup: true, ..Self::default() }
    }

    /// How far it is; none before its first lookup.
    pub const fn progress(&self) -> Option<Progress> {
        self.progress
    }

    /// The next offset to deliver; none where that has to be looked up.
    pub fn next(&self) -> Option<i64> {
        self.progress.filter(|_| !self.needs_lookup).map(|progress| progress.delivered)
    }

    /// Where to go on has to be looked up: it is not known what of the delivered records is stored.
    pub(super) fn look_up_again(&mut self) {
        self.needs_lookup = true;
    }

    /// Takes the result of a lookup: everything before `first` is accounted for, and later offsets as in `stored`.
    /// Offsets that this member has settled stay settled.
    pub(super) fn start(&mut self, first: i64, stored: OffsetRanges) {
        let at = Progress { committed: first, pending: first, settled: first, delivered: first };
        let before = self.progress.unwrap_or(at);
        let settled = before.settled.max(first);
        self.progress = Some(Progress {
            committed: before.committed.max(first),
            pending: before.pending.max(first),
            settled,
            delivered: settled,
        });
        (self.stored, self.needs_lookup) = (stored, false);
    }

    /// Forgets all offsets: the topic is another one, or was truncated.
    pub(super) fn reset(&mut self) {
        self.progress = None;
    }

    /// A record at `offset` has come.
    pub(super) fn arrive(&mut self, offset: i64) -> Arrival {
        let Some(progress) = self.progress.as_mut().filter(|_| !self.needs_lookup) else { return Arrival::NotOurs };
        if offset < progress.delivered {
            return Arrival::OutOfSync;
        }
        let range = OffsetRange::new(progress.delivered, offset + 1);
        progress.delivered = range.next;
        if self.stored.contains(offset) { Arrival::AlreadyStored(range) } else { Arrival::New(range) }
    }

    /// Everything before `offset` is stored.
    pub(super) fn settle(&mut self, offset: i64) {
        if let Some(progress) = &mut self.progress {
            progress.settled = progress.settled.max(offset);
            progress.delivered = progress.delivered.max(offset);
        }
    }

    /// A commit of all that is settled is on its way.
    pub(super) fn commit(&mut self) -> Option<i64> {
        let progress = self.progress.as_mut()?;
        progress.pending = progress.settled;
        Some(progress.pending)
    }

    /// The group has confirmed a commit of this offset. A late answer, for a topic that was deleted or cut back since, confirms nothing
    /// of this one: one commit is sent at a time, so until then nothing is pending beyond the lease's start.
    pub(super) fn confirm(&mut self, offset: i64) {
        if let Some(progress) = &mut self.progress {
            progress.committed = progress.committed.max(offset.min(progress.pending));
        }
    }

    /// Whether something is settled that is not committed.
    pub fn is_commit_pending(&self) -> bool {
        self.progress.is_some_and(|progress| progress.committed < progress.settled)
    }

    /// The one rule of this table.
    pub(super) fn holds(&self) -> bool {
        self.progress.is_none_or(|Progress { committed, pending, settled, delivered }| {
            committed <= pending && pending <= settled && settled <= delivered
        })
    }
}
