//! An ingesting process: the real state machine, leases and pipeline, between doubles of Kafka and ClickHouse.
//!
//! It does what the adapters' threads do: it tells the state machine what has happened, and does what that says.

use super::coordinator::Coordinator;
use super::{FakeClickHouse, FakeOwnership, FakeSink, Lease, ms};
use flows::{
    Action, Arrival, Backoff, BatchConfig, Claim, CommitFailed, Ended, IngestError, Input, Ledger, Member, Metrics,
    NextCommit, OffsetRange, Offsets, OpenError, Outcome, Payload, Position, Record, SettleError, Start, StartOffsets,
    ingest, open_lease,
};
use futures::{StreamExt, stream};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// How long a pipeline may drain.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a client's id is looked at.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How long the ledger waits for a commit.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The shared world of all processes.
pub struct Shop {
    /// The records of the topic, each with the pause before it.
    pub topic: Vec<(Duration, Record)>,
    pub clickhouse: Arc<FakeClickHouse>,
    pub coordinator: Arc<Coordinator>,
    pub batching: BatchConfig,
    pub metrics: Arc<Metrics>,
    pub seed: u64,
}

/// A process. Dropping it is a crash: only its sent requests continue.
pub struct Process {
    inner: Arc<Inner>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

struct Inner {
    shop: Arc<Shop>,
    sink: Arc<FakeSink>,
    /// How often the topic can be proved to be the same one.
    proofs: u64,
    assignment: Mutex<Assignment>,
    progressed: Notify,
    /// Kafka can be reached.
    is_connected: AtomicBool,
}

struct Assignment {
    member: Member,
    /// The client's id in its group.
    id: Option<String>,
    actions: VecDeque<Action>,
    lookup: Option<AbortOnDropHandle<()>>,
    pipeline: Option<AbortOnDropHandle<()>>,
    records: Option<mpsc::UnboundedSender<Record>>,
    closed: CancellationToken,
    /// The messages that the topic will bring, and the time of the first one.
    coming: VecDeque<(Duration, Record)>,
    due: Instant,
}

impl Process {
    /// A process that has joined the group.
    pub fn start(shop: &Arc<Shop>, proofs: u64) -> Self {
        let assignment = Assignment {
            member: Member::new(DRAIN_TIMEOUT),
            id: Some(shop.coordinator.join()),
            actions: VecDeque::new(),
            lookup: None,
            pipeline: None,
            records: None,
            closed: CancellationToken::new(),
            coming: VecDeque::new(),
            due: Instant::now(),
        };
        let inner = Arc::new(Inner {
            shop: shop.clone(),
            sink: Arc::new(shop.clickhouse.sink("group")),
            proofs,
            assignment: Mutex::new(assignment),
            progressed: Notify::new(),
            is_connected: AtomicBool::new(true),
        });
        let polls = tokio::spawn(inner.clone().poll_loop());
        let commits = tokio::spawn(inner.clone().commit_loop());
        Self { inner, _tasks: [AbortOnDropHandle::new(polls), AbortOnDropHandle::new(commits)] }
    }

    pub fn id(&self) -> Option<String> {
        self.inner.lock().id.clone()
    }

    pub fn holds(&self) -> Vec<i32> {
        self.inner.lock().member.positions().keys().copied().collect()
    }

    pub fn has_left(&self) -> bool {
        self.inner.lock().member.has_left()
    }

    pub fn assign(&self, partitions: Vec<i32>) {
        let id = self.id();
        self.inner.handle(Input::Assigned { partitions, id });
    }

    /// Returns when the partitions may go.
    pub async fn revoke(&self, partitions: Vec<i32>, is_lost: bool) {
        self.inner.handle(Input::Revoked { partitions: partitions.clone(), is_lost });
        self.inner.until(|member| !member.is_releasing()).await;
        self.inner.sink.tokens.forget(&partitions);
    }

    /// Drains, and leaves the group.
    pub async fn shut_down(&self) {
        self.inner.handle(Input::Shutdown);
        self.inner.until(Member::has_left).await;
        self.id().iter().for_each(|id| self.inner.shop.coordinator.remove(id));
    }

    /// The process learns that it is not a member any more, for good.
    pub async fn abandon(&self) {
        self.inner.handle(Input::Abandon);
        self.inner.until(Member::has_left).await;
    }

    /// Kafka cannot be reached any more, or can be reached again.
    pub fn connect(&self, is_connected: bool) {
        self.inner.is_connected.store(is_connected, SeqCst);
    }

    /// The member was removed from its group; the client joins again, as another member.
    pub fn is_removed(&self) {
        let id = self.id();
        id.iter().for_each(|id| self.inner.shop.coordinator.remove(id));
        self.inner.lock().id = Some(self.inner.shop.coordinator.join());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut assignment = self.inner.lock();
        (assignment.lookup, assignment.pipeline, assignment.records) = (None, None, None);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Assignment> {
        self.assignment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, input: Input) {
        let mut assignment = self.lock();
        for action in assignment.member.handle(input, Instant::now().into_std()) {
            match action {
                Action::StopLookup => assignment.lookup = None,
                Action::EndStream => assignment.records = None,
                Action::Cancel { .. } => assignment.closed.cancel(),
                Action::EndLease => {
                    assignment.records = None;
                    assignment.closed.cancel();
                }
                Action::Release(_) => {}
                other => assignment.actions.push_back(other),
            }
        }
        drop(assignment);
        self.progressed.notify_waiters();
    }

    async fn until(&self, is_so: impl Fn(&Member) -> bool) {
        loop {
            let progress = self.progressed.notified();
            if is_so(&self.lock().member) {
                return;
            }
            progress.await;
        }
    }

    /// As the thread that polls.
    async fn poll_loop(self: Arc<Self>) {
        let mut check = Instant::now() + CHECK_INTERVAL;
        loop {
            let progress = self.progressed.notified();
            let now = Instant::now();
            if self.lock().member.deadline().is_some_and(|at| at <= now.into_std()) {
                self.handle(Input::Tick);
            }
            if now >= check {
                check = now + CHECK_INTERVAL;
                let id = self.lock().id.clone();
                if self.is_connected.load(SeqCst) {
                    self.handle(Input::Id(id));
                }
            }
            self.fetch(now);
            let action = self.lock().actions.pop_front();
            if let Some(action) = action {
                self.act(action);
                continue;
            }
            let next = {
                let assignment = self.lock();
                if assignment.member.has_left() {
                    return;
                }
                let deadline = assignment.member.deadline().map(Instant::from_std);
                let due = (assignment.records.is_some() && !assignment.coming.is_empty()).then_some(assignment.due);
                [deadline, due].into_iter().flatten().fold(check, Instant::min)
            };
            let _ = tokio::time::timeout_at(next, progress).await;
        }
    }

    /// Delivers what has come by now.
    fn fetch(&self, now: Instant) {
        let mut assignment = self.lock();
        let Assignment { member, records: Some(records), coming, due, .. } = &mut *assignment else { return };
        while *due <= now
            && let Some((_, record)) = coming.pop_front()
        {
            let (partition, offset) = (record.partition, record.offset());
            *due += coming.front().map_or(Duration::ZERO, |(pause, _)| *pause);
            let record = match member.arrive(partition, offset) {
                Arrival::New(range) => Record { range, ..record },
                Arrival::AlreadyStored(range) => Record { range, payload: Payload::AlreadyStored, ..record },
                Arrival::NotOurs => continue,
                Arrival::OutOfSync => panic!("the topic brings its records in order"),
            };
            self.shop.coordinator.delivered(partition, offset);
            // A pipeline that is gone takes nothing.
            let _ = records.send(record);
        }
    }

    fn act(self: &Arc<Self>, action: Action) {
        match action {
            Action::AskId => {
                let id = self.lock().id.clone();
                self.handle(Input::Id(id));
            }
            Action::LookUp { lookup, partitions, .. } => {
                let task = tokio::spawn(self.clone().look_up(lookup, partitions));
                self.lock().lookup = Some(AbortOnDropHandle::new(task));
            }
            Action::Consume { lease, starts, .. } => self.consume(lease, &starts),
            Action::Rejoin => self.handle(Input::Abandon),
            other => unreachable!("{other:?}"),
        }
    }

    async fn look_up(self: Arc<Self>, lookup: u64, partitions: Vec<i32>) {
        let Shop { coordinator, clickhouse, .. } = &*self.shop;
        let claim = Claim::Group { group: "group".into(), take_over: None };
        // The committed offset is read first, as a member does: it may move on before the question which offsets are
        // stored.
        let committed = coordinator.committed();
        let mut backoff = Backoff::default();
        loop {
            match open_lease(&*self.sink, &self.sink.tokens, &claim, &partitions).await {
                Ok(()) => break,
                Err(OpenError::RaceLost(_)) => {
                    backoff.wait().await;
                    return self.handle(Input::RaceLost(lookup));
                }
                Err(_) => backoff.wait().await,
            }
        }
        let ranges: Vec<_> = partitions.iter().map(|at| (*at, OffsetRange::new(committed[at], i64::MAX))).collect();
        let mut stored = loop {
            match clickhouse.stored(&ranges).await {
                Ok(stored) => break stored,
                Err(_) => backoff.wait().await,
            }
        };
        let start = |at: &i32| {
            (*at, Start { offset: committed[at], ..Start::default() }, stored.remove(at).unwrap_or_default())
        };
        let starts = partitions.iter().map(start).collect();
        self.handle(Input::StartOffsets(lookup, StartOffsets { source: "topic".into(), starts }));
    }

    fn consume(self: &Arc<Self>, lease: u64, starts: &[(i32, i64)]) {
        let Shop { topic, batching, metrics, seed, .. } = &*self.shop;
        let (sender, records) = mpsc::unbounded_channel();
        let closed = CancellationToken::new();
        let is_left = |(_, record): &&(Duration, Record)| {
            starts.iter().any(|(partition, first)| record.partition == *partition && record.offset() >= *first)
        };
        let coming: VecDeque<_> = topic.iter().filter(is_left).cloned().collect();
        let held = FakeOwnership {
            lease: Arc::new(Lease::lasting(self.proofs).with_random_faults(seed.wrapping_add(lease))),
            sink: self.sink.clone(),
        };
        let offsets = GroupOffsets { process: self.clone(), lease };
        let ledger = Ledger::open(starts.iter().copied(), offsets, metrics.clone());
        let records =
            stream::unfold(records, |mut records| async { records.recv().await.map(|record| (record, records)) });
        let flow = ingest(records.boxed(), *batching, self.sink.clone(), Arc::new(held), metrics.clone(), ledger);
        let (process, is_closed) = (self.clone(), closed.clone());
        let pipeline = tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = flow => Some(outcome),
                () = is_closed.cancelled() => None,
            };
            let (ended, is_permanent) = match outcome {
                Some(Ok(ledger)) => (Ended::Drained(ledger.marks().collect()), false),
                Some(Err(IngestError::Settle(SettleError::Lost(_)))) => (Ended::Fenced, false),
                Some(Err(error @ (IngestError::Crashed(_) | IngestError::OutOfOrder(_)))) => panic!("{error}"),
                Some(Err(_)) => (Ended::Stopped, true),
                None => (Ended::Stopped, false),
            };
            process.handle(Input::Ended(lease, ended));
            if is_permanent {
                process.handle(Input::Shutdown);
            }
        });
        let mut assignment = self.lock();
        assignment.due = Instant::now() + coming.front().map_or(Duration::ZERO, |(pause, _)| *pause);
        assignment.coming = coming;
        (assignment.records, assignment.closed) = (Some(sender), closed);
        assignment.pipeline = Some(AbortOnDropHandle::new(pipeline));
    }

    /// As the thread that commits.
    async fn commit_loop(self: Arc<Self>) {
        loop {
            let progress = self.progressed.notified();
            let next = self.lock().member.next_commit(Instant::now().into_std());
            match next {
                NextCommit::Now(commit) => {
                    let outcome = if self.lock().id.as_ref() == Some(&commit.member) {
                        self.shop.coordinator.commit(&commit, self.is_connected.load(SeqCst)).await
                    } else {
                        sleep(ms(1)).await;
                        Outcome::Evicted
                    };
                    self.handle(Input::Committed(commit, outcome));
                }
                NextCommit::At(at) => drop(tokio::time::timeout_at(Instant::from_std(at), progress).await),
                NextCommit::Nothing if self.lock().member.has_left() => return,
                NextCommit::Nothing => progress.await,
            }
        }
    }
}

struct GroupOffsets {
    process: Arc<Inner>,
    lease: u64,
}

impl Offsets for GroupOffsets {
    async fn commit(&self, offsets: &[(i32, i64)]) -> Result<(), CommitFailed> {
        self.process.handle(Input::Settled(self.lease, offsets.to_vec()));
        let is_committed = |member: &Member| {
            let is_pending = |(at, _): &(i32, i64)| member.positions().get(at).is_some_and(Position::is_commit_pending);
            !offsets.iter().any(is_pending)
        };
        let in_time = timeout(COMMIT_TIMEOUT, self.process.until(is_committed)).await;
        in_time.map_err(|_| CommitFailed("not yet".into()))
    }
}
