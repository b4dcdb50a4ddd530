//! The committer: brings watermarks to the group, the newest of each partition, for as long as it takes.

use super::loss::Loss;
use super::marks::{Commit, Marks};
use super::member::Consumer;
use super::native::{self, member_id};
use super::{Notes, Ours, Reason, TopicIdentity};
use crate::failpoints::{self, Injected, Step};
use crate::log_throttle::LogThrottle;
use crate::stuck::{At, Stuck};
use flows::{CommitFailed, Offsets};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a pipeline waits for a commit before it goes on without: the commit stays owed.
const PATIENCE: Duration = Duration::from_secs(1);

/// How soon after a failure the same is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// What is said to whoever is no member any more: by the coordinator, and by librdkafka once it was told that others have our name.
/// (A wrong generation is only behind the times.)
const PUT_OUT: [RDKafkaErrorCode; 3] =
    [RDKafkaErrorCode::UnknownMemberId, RDKafkaErrorCode::FencedInstanceId, RDKafkaErrorCode::Fatal];

/// Commits on a thread of its own, because a commit can take as long as a coordinator is away. Several marks of a partition
/// become one commit of the newest; a mark never moves back.
pub struct Committer {
    topic: String,
    stuck: Arc<Stuck>,
    /// The coordinator has last said that this member is none.
    denied: AtomicBool,
    desk: Mutex<Desk>,
    work: Condvar,
    done: Notify,
    complaints: LogThrottle,
}

struct Desk {
    marks: Marks,
    /// Whose they are: the member's id.
    member: Option<String>,
    /// When to commit what is owed.
    commit_at: Instant,
    /// There is to be a commit, whether anything is owed or not.
    asks: bool,
    /// How many commits have begun, and which of them the group has taken last.
    begun: u64,
    taken: u64,
    /// A commit is under way.
    busy: bool,
    last_error: Option<String>,
    /// The last commit was not confirmed in time.
    late: bool,
    closed: bool,
}

impl Committer {
    /// Starts the thread. It ends when the committer or the consumer is gone.
    pub fn start(consumer: &Arc<Consumer>, topic: &str, stuck: Arc<Stuck>) -> Arc<Self> {
        let committer = Arc::new(Self {
            topic: topic.to_owned(),
            stuck,
            denied: AtomicBool::default(),
            desk: Mutex::new(Desk {
                marks: Marks::default(),
                member: None,
                commit_at: Instant::now(),
                asks: false,
                begun: 0,
                taken: 0,
                busy: false,
                last_error: None,
                late: false,
                closed: false,
            }),
            work: Condvar::new(),
            done: Notify::new(),
            complaints: LogThrottle::default(),
        });
        let (mine, consumer) = (committer.clone(), Arc::downgrade(consumer));
        std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || mine.run(&consumer))
            .expect("a thread can be started at start-up");
        committer
    }

    /// A lease begins of the member with this id: everything before these marks is stored. From now on, marks are those of the topic
    /// with the id `source`; where messages of it are lost now, older ones mean nothing. What was lost before goes on being said.
    pub fn begin(
        &self,
        member: Option<String>,
        source: &str,
        starts: &[(i32, i64)],
        notes: Vec<(i32, Notes)>,
        losses: &[Loss],
    ) {
        let mut desk = self.desk();
        desk.member = member;
        desk.marks.begin(source, starts, !losses.is_empty());
        notes.into_iter().for_each(|(partition, notes)| desk.marks.inherit(partition, notes));
        losses.iter().filter_map(Loss::expired_offsets).for_each(|(at, offsets)| desk.marks.note_loss(at, offsets));
        // Also where nothing is new: a group that begins at the end of its topic shall find that end again.
        (desk.asks, desk.commit_at) = (true, Instant::now());
        drop(desk);
        self.denied.store(false, Relaxed);
        self.work.notify_all();
    }

    /// All that is delivered of a partition is committed, and no message stands between that and this offset.
    pub fn note_read(&self, partition: i32, offset: i64) {
        let is_news = self.desk().marks.note_read(partition, offset);
        self.commit_notes(is_news);
    }

    /// The id of the topic whose offsets these are; none before the first lease.
    pub fn source(&self) -> Option<String> {
        self.desk().marks.source().map(str::to_owned)
    }

    /// Offsets of a partition held no message, and none was deleted there.
    pub fn note_gap(&self, partition: i32) {
        let is_news = self.desk().marks.note_gap(partition);
        self.commit_notes(is_news);
    }

    /// Messages were deleted before they were read.
    pub fn note_loss(&self, loss: &Loss) {
        if let Some((partition, offsets)) = loss.expired_offsets() {
            self.desk().marks.note_loss(partition, offsets);
            self.commit_notes(true);
        }
    }

    /// What is noted goes along with a commit, also where there is nothing else to commit.
    fn commit_notes(&self, is_news: bool) {
        if is_news {
            self.desk().asks = true;
            self.work.notify_all();
        }
    }

    /// Forgets what is owed for partitions that are not ours any more.
    pub fn forget(&self, partitions: &[i32]) {
        let mut desk = self.desk();
        desk.marks.forget(partitions);
        if desk.marks.commit().is_none() {
            self.stuck.is_over(At::Commit);
        }
        drop(desk);
        self.done.notify_waiters();
    }

    /// Whether the last lease was of a topic with another id.
    pub fn was_of_another(&self, source: &str) -> bool {
        self.desk().marks.source().is_some_and(|before| before != source)
    }

    /// What is confirmed for a partition.
    pub fn confirmed(&self, partition: i32) -> Option<i64> {
        self.desk().marks.confirmed(partition)
    }

    /// Waits until the coordinator has taken a commit that was sent after this was called: it still knows this member. Where nothing
    /// is held there is nothing to ask with.
    pub async fn confirmed_as_member(&self) {
        let before = {
            let mut desk = self.desk();
            (desk.asks, desk.commit_at) = (true, Instant::now());
            desk.begun
        };
        self.work.notify_all();
        loop {
            let done = self.done.notified();
            {
                let desk = self.desk();
                if desk.taken > before || desk.marks.commit().is_none() {
                    return;
                }
            }
            done.await;
        }
    }

    /// Waits until nothing is owed and nothing under way; false if `patience` ends first, or nothing can come of it.
    pub fn settle_up(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let is_settled = |desk: MutexGuard<'_, Desk>| desk.marks.is_settled() && !desk.busy;
        while !is_settled(self.desk()) {
            if Instant::now() >= deadline || self.denied.load(Relaxed) || self.desk().closed {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        true
    }

    /// Ends the thread after the commit under way.
    pub fn close(&self) {
        self.desk().closed = true;
        self.stuck.is_over(At::Commit);
        self.work.notify_all();
    }

    fn run(&self, consumer: &Weak<Consumer>) {
        while let Some((commit, asks)) = self.next() {
            let Some(consumer) = consumer.upgrade() else { return };
            // It waits for the coordinator for as long as that is away.
            self.stuck.is(At::Commit, "waiting for the group's coordinator");
            let outcome = if commit.is_owed { self.pay(&consumer, &commit) } else { self.bring(&consumer, &commit) };
            let outcome = outcome.map_err(|error| self.note(&consumer, &error));
            drop(consumer);
            let mut desk = self.desk();
            desk.busy = false;
            match outcome {
                Ok(()) => {
                    self.stuck.is_over(At::Commit);
                    desk.last_error = None;
                    desk.late = false;
                    desk.marks.confirm(&commit);
                    desk.commit_at = Instant::now();
                    desk.taken = desk.begun;
                }
                Err(reason) => {
                    desk.asks |= asks;
                    match desk.marks.commit() {
                        Some(_) => self.stuck.is(At::Commit, reason.to_string()),
                        // All partitions have gone meanwhile.
                        None => self.stuck.is_over(At::Commit),
                    }
                    if self.complaints.now() {
                        tracing::info!("offsets not committed yet, trying again: {reason}");
                    }
                    desk.last_error = Some(reason.to_string());
                    desk.commit_at = Instant::now() + TRY_AGAIN;
                }
            }
            drop(desk);
            self.done.notify_waiters();
        }
    }

    /// Waits until it is time, and returns what to commit, and whether somebody asks for it. None once closed.
    fn next(&self) -> Option<(Commit, bool)> {
        let mut desk = self.desk();
        while !desk.closed {
            let asks = desk.asks;
            let Some(commit) = desk.marks.commit().filter(|commit| commit.is_owed || asks) else {
                desk = self.work.wait(desk).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let wait = desk.commit_at.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                (desk.busy, desk.asks) = (true, false);
                desk.begun += 1;
                return Some((commit, asks));
            }
            desk = self.work.wait_timeout(desk, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }

    fn note(&self, consumer: &Consumer, error: &KafkaError) -> Reason {
        let reasons = consumer.context().reasons();
        error.rdkafka_error_code().into_iter().for_each(|code| reasons.note_answer(code));
        reasons.explain("READ", &self.topic, error)
    }

    fn pay(&self, consumer: &Consumer, commit: &Commit) -> KafkaResult<()> {
        failpoints::reach_blocking(Step::BeforeCommit).map_err(unavailable)?;
        self.bring(consumer, commit)?;
        failpoints::reach_blocking(Step::AfterCommit).map_err(unavailable)
    }

    fn bring(&self, consumer: &Consumer, commit: &Commit) -> KafkaResult<()> {
        // librdkafka commits as whoever it is by then: also as one that was put out, has joined again, and has not been told that
        // its partitions are gone.
        let member = self.desk().member.clone();
        let is_still_it = || member.is_some() && member_id(consumer.client().native_client()) == member;
        let taken = if is_still_it() {
            let client = consumer.client().native_client();
            let cluster = TopicIdentity::cluster(client, Duration::ZERO);
            native::commit(client, &list(&self.topic, cluster, commit))
        } else {
            Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownMemberId))
        };
        if taken.is_ok() {
            consumer.context().reasons().allowed();
        }
        match &taken {
            Ok(()) => self.denied.store(!is_still_it(), Relaxed),
            Err(KafkaError::ConsumerCommit(code)) if PUT_OUT.contains(code) => self.denied.store(true, Relaxed),
            Err(_) => {}
        }
        taken
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Nothing in here panics between two steps that belong together.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ledger's way to the committer.
impl Offsets for Committer {
    async fn commit(&self, marks: &[(i32, i64)]) -> Result<(), CommitFailed> {
        {
            let mut desk = self.desk();
            for &(partition, mark) in marks {
                desk.marks.owe(partition, mark);
            }
            // After a failure the time for the next try is set already.
            if desk.last_error.is_none() {
                desk.commit_at = Instant::now();
            }
        }
        self.work.notify_all();
        let confirmed = async {
            loop {
                let done = self.done.notified();
                if !marks.iter().any(|(partition, _)| self.desk().marks.owes(*partition)) {
                    return;
                }
                done.await;
            }
        };
        // Once one was late, the next ones are not waited for until one has come through: the pipeline has a promise to keep.
        let patience = if self.desk().late { Duration::ZERO } else { PATIENCE };
        let in_time = tokio::time::timeout(patience, confirmed).await;
        let mut desk = self.desk();
        desk.late = in_time.is_err();
        in_time.map_err(|_| CommitFailed(desk.last_error.clone().unwrap_or_else(|| "no answer yet".into())))
    }
}

const fn unavailable(_: Injected) -> KafkaError {
    KafkaError::ConsumerCommit(RDKafkaErrorCode::CoordinatorNotAvailable)
}

/// A list of offsets as librdkafka takes it, with both ids and what is noted as metadata.
fn list(topic: &str, cluster: Option<String>, commit: &Commit) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(commit.marks.len());
    for (&partition, &mark) in &commit.marks {
        let mut place = list.add_partition(topic, partition);
        place.set_offset(Offset::Offset(mark)).expect("an offset of a real message is valid");
        let mut notes = commit.notes.get(&partition).cloned().unwrap_or_default();
        notes.read = notes.read.filter(|read| *read > mark);
        place.set_metadata(Ours { cluster: cluster.clone(), topic: commit.source.clone(), notes }.to_string());
    }
    list
}
