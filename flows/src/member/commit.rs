//! The commits of a member: one at a time, each of all that is settled, and again until the group has taken it.

use super::{Member, Notes, Outcome};
use std::time::{Duration, Instant};

/// How soon after a failed commit the next is sent.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// One commit: for each partition that is held, the offset at which to go on.
///
/// It names all partitions, also those where nothing is new. Else it could take back an offset whose commit was taken while the answer
/// was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The id of the member whose partitions these are.
    pub member: String,
    /// The id of the topic.
    pub source: String,
    /// The offset of each partition, and its notes.
    pub offsets: Vec<(i32, i64, Notes)>,
    /// Some of it is not confirmed yet; otherwise it is sent for its notes, or to ask whether this client is still a member.
    pub is_pending: bool,
    /// Somebody asked for it, whether or not anything is pending.
    was_wanted: bool,
    number: u64,
}

/// The next work of the committing thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextCommit {
    /// Send this commit, and report its outcome.
    Now(Box<Commit>),
    /// To ask again then, or as soon as something has changed.
    At(Instant),
    /// To ask again as soon as something has changed.
    Nothing,
}

/// Where the commits are.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// There is to be a commit, whether anything is pending or not.
    pub wanted: bool,
    /// How many were sent, and the last one that was taken.
    pub sent: u64,
    taken: u64,
    in_flight: bool,
    /// After a failure: when to send the next.
    retry_at: Option<Instant>,
    /// The coordinator has last said that this client is not a member.
    is_evicted: bool,
}

impl Commits {
    pub fn want(&mut self) {
        self.wanted = true;
        self.retry_at = None;
    }

    pub const fn begin_lease(&mut self) {
        self.is_evicted = false;
    }
}

impl Member {
    /// The next commit, if it is time for one. It is in flight until [`Input::Committed`](super::Input::Committed) says how it ended.
    pub fn next_commit(&mut self, now: Instant) -> NextCommit {
        let is_pending = self.is_commit_pending();
        if self.commits.in_flight || self.has_left() || !(is_pending || self.commits.wanted) || !self.can_commit() {
            return NextCommit::Nothing;
        }
        if let Some(at) = self.commits.retry_at.filter(|at| *at > now) {
            return NextCommit::At(at);
        }
        let Some(member) = self.id.clone() else { return NextCommit::Nothing };
        let offsets = self.positions.iter_mut();
        let offsets = offsets.filter_map(|(&at, position)| Some((at, position.commit()?, position.notes.clone())));
        let offsets = offsets.collect();
        self.commits.sent += 1;
        self.commits.in_flight = true;
        NextCommit::Now(Box::new(Commit {
            member,
            source: self.source.clone(),
            offsets,
            is_pending,
            was_wanted: std::mem::take(&mut self.commits.wanted),
            number: self.commits.sent,
        }))
    }

    /// How a commit has ended.
    pub(super) fn committed(&mut self, commit: &Commit, outcome: Outcome, now: Instant) {
        self.commits.in_flight = false;
        if outcome == Outcome::Taken {
            (self.commits.taken, self.commits.retry_at, self.commits.is_evicted) = (commit.number, None, false);
            for &(partition, offset, _) in &commit.offsets {
                self.positions.entry(partition).and_modify(|position| position.confirm(offset));
            }
        } else {
            self.commits.is_evicted |= outcome == Outcome::Evicted;
            self.commits.wanted |= commit.was_wanted;
            self.commits.retry_at = Some(now + RETRY_INTERVAL);
        }
    }

    /// Whether the group has taken a commit that was sent after this many.
    pub(super) const fn is_confirmed_since(&self, sent: u64) -> bool {
        self.commits.taken > sent
    }

    /// Whether anything is settled that is not committed.
    pub fn is_commit_pending(&self) -> bool {
        self.positions.values().any(super::Position::is_commit_pending)
    }

    /// Whether there is an offset to commit at all.
    pub(super) fn can_commit(&self) -> bool {
        self.positions.values().any(|position| position.progress().is_some())
    }

    /// Whether there is nothing to wait for: all offsets are committed, no commit can succeed any more, or the partitions of the one in
    /// flight are gone.
    pub(super) fn is_committed(&self) -> bool {
        self.commits.is_evicted || !self.can_commit() || (!self.commits.in_flight && !self.is_commit_pending())
    }
}
