//! The state machine between the threads that feed it: the one that polls, the one that commits, and the pipeline's tasks.

use super::records::RecordSender;
use crate::shutdown::Shutdown;
use flows::{Action, Commit, Input, Member, NextCommit};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

/// A [`Member`], its open lease, and the actions for the polling thread.
pub struct Shared {
    assignment: Mutex<Assignment>,
    changed: Condvar,
    progressed: Notify,
    shutdown: Shutdown,
}

/// The state behind the lock. The lock is never held across a `poll`, a request, or any other wait.
pub struct Assignment {
    pub member: Member,
    /// The end of the open lease at which records go in.
    pub records: Option<RecordSender>,
    /// The lookup that is under way. Dropping it stops it.
    lookup: Option<AbortOnDropHandle<()>>,
    actions: VecDeque<Action>,
    released: Vec<(i32, Option<i64>)>,
}

impl Shared {
    pub fn new(drain_timeout: Duration, shutdown: Shutdown) -> Arc<Self> {
        let assignment = Assignment {
            member: Member::new(drain_timeout),
            records: None,
            lookup: None,
            actions: VecDeque::new(),
            released: Vec::new(),
        };
        let (assignment, changed, progressed) = (Mutex::new(assignment), Condvar::new(), Notify::new());
        Arc::new(Self { assignment, changed, progressed, shutdown })
    }

    pub fn lock(&self) -> MutexGuard<'_, Assignment> {
        // A panic in the state machine is a bug. After that its offsets are not trusted, but it may still end in order.
        self.assignment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the state machine what has happened, and does what can be done on any thread.
    pub fn handle(&self, input: Input) {
        let mut assignment = self.lock();
        for action in assignment.member.handle(input, Instant::now()) {
            match action {
                Action::StopLookup => assignment.lookup = None,
                Action::EndStream => assignment.records.iter_mut().for_each(RecordSender::end),
                Action::Cancel { timed_out } => assignment.records.iter().for_each(|records| records.cancel(timed_out)),
                Action::EndLease => assignment.records = None,
                Action::Release(partitions) => assignment.released = partitions,
                other => assignment.actions.push_back(other),
            }
        }
        drop(assignment);
        self.changed.notify_all();
        self.progressed.notify_waiters();
    }

    /// The next action of the polling thread.
    pub fn next_action(&self) -> Option<Action> {
        self.lock().actions.pop_front()
    }

    pub fn looks_up(&self, lookup: AbortOnDropHandle<()>) {
        self.lock().lookup = Some(lookup);
    }

    /// Resolves at the next event of the state machine. Call this before checking the awaited condition.
    pub fn progress(&self) -> impl Future<Output = ()> {
        self.progressed.notified()
    }

    /// Waits until revoked partitions may go; returns the confirmed offset of each.
    pub fn released(&self) -> Vec<(i32, Option<i64>)> {
        let mut assignment = self.lock();
        while assignment.member.is_releasing() {
            assignment = self.wait(assignment);
        }
        std::mem::take(&mut assignment.released)
    }

    /// Waits until the member has left the group.
    pub fn left(&self) {
        let mut assignment = self.lock();
        while !assignment.member.has_left() {
            assignment = self.wait(assignment);
        }
    }

    /// Waits until something changes, or the state machine has waited long enough. The thread that polls waits here for a drain, and sees
    /// a request to stop nowhere else.
    fn wait<'s>(&'s self, assignment: MutexGuard<'s, Assignment>) -> MutexGuard<'s, Assignment> {
        let now = Instant::now();
        let patience =
            assignment.member.deadline().map_or(Duration::from_secs(1), |at| at.saturating_duration_since(now));
        let waited = self.changed.wait_timeout(assignment, patience);
        let (mut assignment, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if self.shutdown.is_requested() {
            drop(assignment);
            self.handle(Input::Shutdown);
            assignment = self.lock();
        }
        if assignment.member.deadline().is_some_and(|at| at <= Instant::now()) {
            drop(assignment);
            self.handle(Input::Tick);
            return self.lock();
        }
        assignment
    }

    /// Waits for the next commit; none once the member has left.
    pub fn next_commit(&self) -> Option<Box<Commit>> {
        let mut assignment = self.lock();
        loop {
            let now = Instant::now();
            let unlocked = match assignment.member.next_commit(now) {
                NextCommit::Now(commit) => return Some(commit),
                _ if assignment.member.has_left() => return None,
                NextCommit::At(at) => {
                    let waited = self.changed.wait_timeout(assignment, at.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                NextCommit::Nothing => self.changed.wait(assignment).unwrap_or_else(PoisonError::into_inner),
            };
            assignment = unlocked;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flows::{OffsetRanges, Start, StartOffsets};

    #[test]
    fn a_stop_is_noticed_while_the_thread_that_polls_waits_for_a_drain() {
        let shutdown = Shutdown::default();
        let shared = Shared::new(Duration::from_secs(3_600), shutdown.clone());
        let id = Some("member".to_owned());
        shared.handle(Input::Assigned { partitions: vec![0], id: id.clone() });
        shared.handle(Input::Id(id));
        let starts = vec![(0, Start::default(), OffsetRanges::default())];
        shared.handle(Input::StartOffsets(1, StartOffsets { source: "topic".into(), starts }));
        shared.handle(Input::Revoked { partitions: vec![0], is_lost: false });
        let is_leaving = || format!("{:?}", shared.lock().member).contains("leaving: Some");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| shared.released());
            shutdown.request();
            let deadline = Instant::now() + Duration::from_secs(20);
            while !is_leaving() && Instant::now() < deadline {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            let noticed = is_leaving();
            shared.handle(Input::Ended(1, flows::Ended::Stopped));
            waits.join().expect("it does not panic");
            assert!(noticed && shared.lock().member.has_left());
        });
    }
}
