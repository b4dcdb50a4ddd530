//! A member of the consumer group, as a state machine without IO: what has happened goes in, what to do comes out.
//!
//! It decides when a lease is opened and ended, which records are delivered, what is committed, and when a partition may go. The thread
//! that polls Kafka, the one that commits and the pipeline only tell it what has happened, and do what it says.
//!
//! ```text
//!         assigned              the id is still ours          start offsets
//!  Idle ────────────▶ (AskId) ──────────────────▶ LookingUp ───────────────▶ Consuming
//!   ▲                    └─ after a fence: Confirming ─▲                         │ revoked, assigned, out of sync, shutdown
//!   │                                                                            ▼
//!   └───────────── Committing ◀──────────────────────────────────────────── Draining
//! ```
//!
//! Protocols without IO: the style is that of quinn-proto and rustls; see <https://sans-io.readthedocs.io>.

mod commit;
mod inputs;
mod metadata;
mod position;
mod start;
mod topic_identity;

pub use commit::{Commit, NextCommit};
pub use inputs::{Action, Ended, Input, Outcome, StartOffsets};
pub use metadata::{LostMessages, Metadata, Notes, Ours, UNMARKED_LIFETIME, cluster_id};
pub use position::{Arrival, Position, Progress};
pub use start::{AboveEnd, Cause, Found, Loss, Start, start_offset};
pub use topic_identity::{Origin, TopicIdentity};

use crate::Pauses;
use commit::Commits;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a pipeline that was told to stop may take to notice.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last commits may hold up a rebalance. Where they fail, the next owner finds the rows stored.
const REVOKE_COMMIT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the last commits may hold up a shutdown.
const SHUTDOWN_COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may have another id than its partitions were assigned to before it joins again: librdkafka takes them back at the
/// next poll, but not where a rebalance was under way.
const STALE_TIMEOUT: Duration = Duration::from_millis(400);
/// While a time limit runs, the member wants to be told that time has passed this often: a longer gap is a pause of this process.
const TICK: Duration = Duration::from_secs(1);

/// The member's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No lease: no partitions, or it is not certain that they are this member's.
    Idle,
    /// The member was fenced. It may open another lease only after the coordinator has taken a commit that was sent
    /// after this many.
    Confirming { sent: u64 },
    /// Start offsets are being looked up.
    LookingUp { lookup: u64 },
    /// The lease is open.
    Consuming { lease: u64 },
    /// The stream of records has ended; its pipeline stores and commits its records.
    Draining { lease: u64, until: Option<Instant>, is_cancelled: bool },
    /// The lease has ended; the last commits are on their way, before partitions go.
    Committing { until: Instant },
    /// The member has left the group.
    Left,
}

/// How this member ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    InOrder,
    AtOnce,
}

/// A member of the consumer group.
#[derive(Debug)]
pub struct Member {
    state: State,
    positions: BTreeMap<i32, Position>,
    /// The id to which the group has assigned them.
    id: Option<String>,
    /// Since when the client has had another id than that.
    stale_since: Option<Instant>,
    /// The group has said what this member owns, and has taken nothing back since.
    is_assigned: bool,
    /// The id of the topic of the last lease; empty before the first.
    source: String,
    /// An insert was refused under this member's token, and it has not opened a lease since.
    was_fenced: bool,
    /// Partitions that go when the last commits are through.
    releasing: Vec<i32>,
    /// Those partitions were lost: their new owner does not wait.
    is_lost: bool,
    leaving: Option<Leaving>,
    /// The source has ended: when the lease has drained, the work is done.
    is_finishing: bool,
    commits: Commits,
    lookups: u64,
    leases: u64,
    drain_timeout: Duration,
    pauses: Pauses,
}

impl Member {
    /// A client that has not joined yet. `drain_timeout` is the time for a pipeline to store its records.
    pub fn new(drain_timeout: Duration) -> Self {
        Self {
            state: State::Idle,
            positions: BTreeMap::new(),
            id: None,
            stale_since: None,
            is_assigned: false,
            source: String::new(),
            was_fenced: false,
            releasing: Vec::new(),
            is_lost: false,
            leaving: None,
            is_finishing: false,
            commits: Commits::default(),
            lookups: 0,
            leases: 0,
            drain_timeout,
            pauses: Pauses::default(),
        }
    }

    /// Takes in what has happened at `now`, and returns what to do, in order.
    pub fn handle(&mut self, input: Input, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(pause) = self.pauses.look(now) {
            self.paused(pause);
        }
        match input {
            Input::Assigned { partitions, id } => self.assigned(partitions, id, now, &mut actions),
            Input::Revoked { partitions, is_lost } => self.revoked(&partitions, is_lost, now, &mut actions),
            Input::Id(id) => self.has_id(id, now, &mut actions),
            Input::StartOffsets(lookup, found) => self.found(lookup, found, &mut actions),
            Input::RaceLost(lookup) => {
                if self.state == (State::LookingUp { lookup }) {
                    self.was_fenced = true;
                    self.state = State::Idle;
                    self.begin(&mut actions);
                }
            }
            Input::SeekFailed => {
                if let State::Consuming { .. } = self.state {
                    actions.push(Action::EndLease);
                    self.state = State::Idle;
                    self.begin(&mut actions);
                }
            }
            Input::OutOfSync => {
                self.positions.values_mut().for_each(Position::look_up_again);
                self.reopen(now, &mut actions);
            }
            Input::ReachedEnd => {
                if let State::Consuming { lease } = self.state {
                    self.is_finishing = true;
                    self.state = State::Draining { lease, until: None, is_cancelled: false };
                    actions.push(Action::EndStream);
                }
            }
            Input::Settled(lease, offsets) => {
                if self.lease() == Some(lease) {
                    for (partition, offset) in offsets {
                        self.positions.entry(partition).and_modify(|position| position.settle(offset));
                    }
                }
            }
            Input::Ended(lease, ended) => {
                if self.lease() == Some(lease) {
                    self.ended(ended, now, &mut actions);
                }
            }
            Input::Committed(commit, outcome) => {
                self.committed(&commit, outcome, now);
                if let State::Confirming { sent } = self.state
                    && self.is_confirmed_since(sent)
                {
                    self.look_up(&mut actions);
                }
            }
            Input::ReadUpTo(partition, offset) => {
                if let Some(position) = self.positions.get_mut(&partition) {
                    let before = position.notes.read.replace(offset);
                    let is_ahead = position.progress().is_none_or(|progress| offset > progress.committed);
                    self.commits.wanted |= before != Some(offset) && is_ahead;
                }
            }
            Input::Gap(partition) => {
                if let Some(position) = self.positions.get_mut(&partition) {
                    self.commits.wanted |= !std::mem::replace(&mut position.notes.has_gaps, true);
                }
            }
            Input::Deleted(partition, offsets) => {
                if let Some(position) = self.positions.get_mut(&partition) {
                    position.notes.note_lost(offsets);
                    self.commits.wanted = true;
                }
            }
            Input::Shutdown => self.leave(Leaving::InOrder, now, &mut actions),
            Input::Abandon => self.leave(Leaving::AtOnce, now, &mut actions),
            Input::Tick => {}
        }
        self.time_out(now, &mut actions);
        debug_assert!(self.positions.values().all(Position::holds), "{:?}", self.positions);
        actions
    }

    /// A record of a partition was fetched at this offset. Only while a lease is open, and never while a record is out of sync.
    pub fn arrive(&mut self, partition: i32, offset: i64) -> Arrival {
        match (self.state, self.positions.get_mut(&partition)) {
            (State::Consuming { .. }, Some(position)) => position.arrive(offset),
            _ => Arrival::NotOurs,
        }
    }

    /// When to tell it next that time has passed.
    pub fn deadline(&self) -> Option<Instant> {
        let until = match self.state {
            State::Draining { until, .. } => until,
            State::Committing { until } => Some(until),
            _ => None,
        };
        let tick = self.pauses.looked().map(|looked| looked + TICK);
        until.map(|until| tick.map_or(until, |tick| tick.min(until)))
    }

    /// Whether partitions that were revoked are not ready to go: their pipeline drains, or their last commits are on the way.
    pub const fn is_releasing(&self) -> bool {
        !self.releasing.is_empty()
    }

    /// Whether records may be delivered: the number of the lease.
    pub const fn consuming(&self) -> Option<u64> {
        match self.state {
            State::Consuming { lease } => Some(lease),
            _ => None,
        }
    }

    /// Whether the member has left the group.
    pub fn has_left(&self) -> bool {
        self.state == State::Left
    }

    /// Whether the group has said what this member owns, and nothing is changing.
    pub const fn is_assigned(&self) -> bool {
        self.is_assigned
    }

    /// How far this member is in each partition that it holds.
    pub const fn positions(&self) -> &BTreeMap<i32, Position> {
        &self.positions
    }

    /// The confirmed offset of a partition.
    pub fn confirmed(&self, partition: i32) -> Option<i64> {
        self.positions.get(&partition).and_then(Position::progress).map(|progress| progress.committed)
    }

    /// The id of the topic of the last lease; none before the first.
    pub fn source(&self) -> Option<&str> {
        Some(self.source.as_str()).filter(|source| !source.is_empty())
    }

    /// The lease that is open or draining.
    const fn lease(&self) -> Option<u64> {
        match self.state {
            State::Consuming { lease } | State::Draining { lease, .. } => Some(lease),
            _ => None,
        }
    }

    fn assigned(&mut self, partitions: Vec<i32>, id: Option<String>, now: Instant, actions: &mut Vec<Action>) {
        if self.positions.is_empty() {
            self.id = id;
        }
        self.is_assigned = true;
        // A cooperative rebalance that gives nothing new ends no lease.
        if !partitions.is_empty() {
            self.positions.extend(partitions.into_iter().map(|partition| (partition, Position::assigned())));
            self.reopen(now, actions);
        }
    }

    fn revoked(&mut self, partitions: &[i32], is_lost: bool, now: Instant, actions: &mut Vec<Action>) {
        if self.has_left() {
            return self.positions.retain(|partition, _| !partitions.contains(partition));
        }
        self.releasing.extend(partitions.iter().filter(|partition| self.positions.contains_key(partition)));
        if self.releasing.is_empty() {
            return;
        }
        (self.is_assigned, self.is_lost) = (false, is_lost);
        self.end_lease(if is_lost { Duration::ZERO } else { self.drain_timeout }, now, actions);
    }

    /// This process was stopped, or asleep: no time limit counts that.
    fn paused(&mut self, pause: Duration) {
        match &mut self.state {
            State::Draining { until: Some(until), .. } | State::Committing { until } => *until += pause,
            _ => {}
        }
        self.stale_since = self.stale_since.map(|since| since + pause);
    }

    fn leave(&mut self, leaving: Leaving, now: Instant, actions: &mut Vec<Action>) {
        if self.has_left() || self.leaving == Some(leaving) || self.leaving == Some(Leaving::AtOnce) {
            return;
        }
        self.leaving = Some(leaving);
        // The time of a drain that a rebalance has begun counts from the request to stop.
        if let State::Draining { until, is_cancelled: false, .. } = &mut self.state {
            *until = None;
        }
        self.end_lease(if leaving == Leaving::AtOnce { Duration::ZERO } else { self.drain_timeout }, now, actions);
    }

    /// The lease does not match the partitions, or there is none: opens a matching one, once the last one has drained.
    fn reopen(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match self.state {
            State::Consuming { lease } => {
                self.state = State::Draining { lease, until: Some(now + self.drain_timeout), is_cancelled: false };
                actions.push(Action::EndStream);
            }
            State::Confirming { .. } | State::LookingUp { .. } => {
                actions.push(Action::StopLookup);
                self.state = State::Idle;
                self.begin(actions);
            }
            State::Idle => self.begin(actions),
            // A lookup of new partitions does not wait for the end of the old lease.
            State::Draining { lease, until: None, is_cancelled } => {
                self.is_finishing = false;
                self.state = State::Draining { lease, until: Some(now + self.drain_timeout), is_cancelled };
            }
            State::Draining { .. } | State::Committing { .. } | State::Left => {}
        }
    }

    /// Partitions go, or the whole member: the pipeline has `patience` to drain.
    fn end_lease(&mut self, patience: Duration, now: Instant, actions: &mut Vec<Action>) {
        match self.state {
            State::Consuming { lease } => {
                actions.push(Action::EndStream);
                self.state = State::Draining { lease, until: Some(now + patience), is_cancelled: false };
            }
            State::Draining { lease, until, is_cancelled: false } => {
                let until = until.map_or(now + patience, |until| until.min(now + patience));
                self.state = State::Draining { lease, until: Some(until), is_cancelled: false };
            }
            State::Confirming { .. } | State::LookingUp { .. } => {
                actions.push(Action::StopLookup);
                self.commit_last(now, actions);
            }
            State::Idle => self.commit_last(now, actions),
            State::Committing { .. } => self.commit_last(now, actions),
            State::Draining { .. } | State::Left => {}
        }
        if patience.is_zero()
            && let State::Draining { lease, is_cancelled: false, .. } = self.state
        {
            self.cancel(lease, false, now, actions);
        }
    }

    fn cancel(&mut self, lease: u64, timed_out: bool, now: Instant, actions: &mut Vec<Action>) {
        self.state = State::Draining { lease, until: Some(now + NOTICE_TIMEOUT), is_cancelled: true };
        actions.push(Action::Cancel { timed_out });
    }

    /// The pipeline has ended: offsets that were delivered and are not stored have to be looked up.
    fn ended(&mut self, ended: Ended, now: Instant, actions: &mut Vec<Action>) {
        let is_whole = matches!(self.state, State::Draining { .. });
        self.was_fenced |= ended == Ended::Fenced;
        let drained = if let Ended::Drained(offsets) = ended { offsets } else { Vec::new() };
        for (partition, position) in &mut self.positions {
            let end = drained.iter().find(|(at, _)| at == partition).map(|(_, end)| *end);
            if !is_whole || position.next().is_none() || position.next() != end {
                position.look_up_again();
            }
        }
        actions.push(Action::EndLease);
        self.commit_last(now, actions);
    }

    /// If partitions are revoked, or the member leaves, the last commits come first. Otherwise the member continues.
    fn commit_last(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let patience = match self.leaving {
            Some(Leaving::AtOnce) => Duration::ZERO,
            Some(Leaving::InOrder) => SHUTDOWN_COMMIT_TIMEOUT,
            None if self.is_lost => Duration::ZERO,
            None => REVOKE_COMMIT_TIMEOUT,
        };
        if self.leaving.is_some() || self.is_releasing() {
            self.state = State::Committing { until: now + patience };
            return;
        }
        self.state = State::Idle;
        let is_whole = self.positions.values().all(|position| position.next().is_some());
        if std::mem::take(&mut self.is_finishing) && is_whole {
            actions.push(Action::Done);
        } else {
            self.begin(actions);
        }
    }

    /// Whether it has to wait no longer.
    fn time_out(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match self.state {
            State::Draining { lease, until: Some(until), is_cancelled: false } if now >= until => {
                self.cancel(lease, true, now, actions);
            }
            State::Draining { until: Some(until), is_cancelled: true, .. } if now >= until => {
                self.ended(Ended::Stopped, now, actions);
                self.time_out(now, actions);
            }
            State::Committing { until } if now >= until || self.is_committed() => self.released(actions),
            _ => {}
        }
    }

    fn released(&mut self, actions: &mut Vec<Action>) {
        let gone = std::mem::take(&mut self.releasing);
        actions.push(Action::Release(gone.iter().map(|&partition| (partition, self.confirmed(partition))).collect()));
        self.positions.retain(|partition, _| !gone.contains(partition));
        self.is_lost = false;
        if self.leaving.is_some() {
            self.state = State::Left;
        } else {
            self.state = State::Idle;
            self.begin(actions);
        }
    }

    fn begin(&self, actions: &mut Vec<Action>) {
        if !self.positions.is_empty() {
            actions.push(Action::AskId);
        }
    }

    fn has_id(&mut self, id: Option<String>, now: Instant, actions: &mut Vec<Action>) {
        if self.positions.is_empty() || (self.id.is_some() && id == self.id) {
            self.stale_since = None;
        } else if now.duration_since(*self.stale_since.get_or_insert(now)) >= STALE_TIMEOUT {
            actions.push(Action::Rejoin);
        }
        // Others may own the partitions: nothing to look up until that is settled.
        if self.state == State::Idle && self.stale_since.is_none() && !self.positions.is_empty() {
            if self.was_fenced && self.can_commit() {
                self.state = State::Confirming { sent: self.commits.sent };
                self.commits.want();
            } else {
                self.look_up(actions);
            }
        }
    }

    fn look_up(&mut self, actions: &mut Vec<Action>) {
        self.lookups += 1;
        self.state = State::LookingUp { lookup: self.lookups };
        let unknown = self.positions.iter().filter(|(_, position)| position.next().is_none());
        let partitions = unknown.map(|(&partition, _)| partition).collect();
        actions.push(Action::LookUp { lookup: self.lookups, partitions });
    }

    fn found(&mut self, lookup: u64, found: StartOffsets, actions: &mut Vec<Action>) {
        if self.state != (State::LookingUp { lookup }) {
            return;
        }
        let StartOffsets { source, starts } = found;
        let is_another = !self.source.is_empty() && self.source != source;
        if is_another {
            self.positions.values_mut().for_each(|position| *position = Position::assigned());
            if !self.positions.keys().all(|at| starts.iter().any(|(found, ..)| found == at)) {
                // The positions of the previous topic do not count as looked up.
                self.state = State::Idle;
                return self.begin(actions);
            }
        }
        self.source = source;
        let mut losses = Vec::new();
        for (partition, Start { offset, notes, loss }, stored) in starts {
            let Some(position) = self.positions.get_mut(&partition) else { continue };
            // A group whose topic is deleted forgets its offsets; this member does not.
            let loss = loss.or(is_another.then(|| Loss::made_again(partition, 0, 0, offset)));
            if loss.is_some() {
                position.reset();
            }
            position.start(offset, stored);
            position.notes = notes;
            let deleted = loss.as_ref().and_then(Loss::expired_offsets);
            deleted.into_iter().for_each(|(_, offsets)| position.notes.note_lost(offsets));
            losses.extend(loss);
        }
        self.positions.values_mut().for_each(|position| position.notes.read = None);
        // Also where nothing is new: a group that begins at the end of its topic shall find that end again.
        self.commits.want();
        self.commits.begin_lease();
        self.was_fenced = false;
        self.leases += 1;
        self.state = State::Consuming { lease: self.leases };
        let starts = self.positions.iter().filter_map(|(&at, position)| Some((at, position.next()?))).collect();
        actions.push(Action::Consume { lease: self.leases, starts, losses });
    }
}
