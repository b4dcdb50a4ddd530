//! The committer: brings watermarks to the group, the newest of each partition, for as long as it takes; and where there is
//! nothing new, the same once more, to prove that the group still takes them from us.

use super::Proof;
use super::member::Consumer;
use crate::failpoints::{self, Injected, Step};
use crate::seldom::Seldom;
use flows::{CommitFailed, Offsets};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a pipeline waits for a commit before it goes on without: the commit stays owed.
const PATIENCE: Duration = Duration::from_secs(1);

/// How soon after a failure the same is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// Commits on a thread of its own, because a commit can take as long as a coordinator is away. Several marks of a partition
/// become one commit of the newest; a mark never moves back.
pub struct Committer {
    topic: String,
    proof: Arc<Proof>,
    desk: Mutex<Desk>,
    work: Condvar,
    done: Notify,
    complaints: Seldom,
}

struct Desk {
    /// Marks that are not confirmed yet. The group may have them all the same, where only its answer was lost.
    owed: BTreeMap<i32, i64>,
    /// For each partition that is held, the mark that was confirmed last, or where its lease began.
    held: BTreeMap<i32, i64>,
    /// When to commit what is owed, or to prove that we are a member.
    commit_at: Instant,
    /// A commit is under way.
    busy: bool,
    /// The topic's id: it goes along with every commit, so that nobody takes an offset of a topic that was deleted for one
    /// of its namesake.
    source: String,
    last_error: Option<String>,
    /// The last commit was not confirmed in time.
    late: bool,
    closed: bool,
}

impl Committer {
    /// Starts the thread. It ends when the committer or the consumer is gone.
    pub fn start(consumer: &Arc<Consumer>, topic: &str, proof: Arc<Proof>) -> Arc<Self> {
        let committer = Arc::new(Self {
            topic: topic.to_owned(),
            proof,
            desk: Mutex::new(Desk {
                owed: BTreeMap::new(),
                held: BTreeMap::new(),
                commit_at: Instant::now(),
                busy: false,
                source: String::new(),
                last_error: None,
                late: false,
                closed: false,
            }),
            work: Condvar::new(),
            done: Notify::new(),
            complaints: Seldom::default(),
        });
        let (mine, consumer) = (committer.clone(), Arc::downgrade(consumer));
        std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || mine.run(&consumer))
            .expect("a thread can be started at start-up");
        committer
    }

    /// A lease begins: everything before these marks is stored. From now on, marks are those of the topic with this id.
    pub fn begin(&self, source: &str, starts: &[(i32, i64)]) {
        let mut desk = self.desk();
        source.clone_into(&mut desk.source);
        desk.held = starts.iter().copied().collect();
        desk.commit_at = Instant::now();
        drop(desk);
        self.work.notify_all();
    }

    /// Forgets what is owed for partitions that are not ours any more: their new owner finds the rows and commits them.
    pub fn forget(&self, partitions: &[i32]) {
        let mut desk = self.desk();
        for partition in partitions {
            desk.owed.remove(partition);
            desk.held.remove(partition);
        }
        drop(desk);
        self.done.notify_waiters();
    }

    /// What is confirmed for a partition.
    pub fn confirmed(&self, partition: i32) -> Option<i64> {
        self.desk().held.get(&partition).copied()
    }

    /// Waits until nothing is owed and nothing under way; false if `patience` ends first.
    pub fn settle_up(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let is_settled = |desk: MutexGuard<'_, Desk>| desk.owed.is_empty() && !desk.busy;
        while !is_settled(self.desk()) {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        true
    }

    /// Ends the thread after the commit under way.
    pub fn close(&self) {
        self.desk().closed = true;
        self.work.notify_all();
    }

    fn run(&self, consumer: &Weak<Consumer>) {
        while let Some((marks, are_owed)) = self.next() {
            let Some(consumer) = consumer.upgrade() else { return };
            let asked = Instant::now();
            let outcome = if are_owed { self.pay(&consumer, &marks) } else { self.bring(&consumer, &marks) };
            drop(consumer);
            let mut desk = self.desk();
            desk.busy = false;
            match outcome {
                Ok(()) => {
                    desk.last_error = None;
                    desk.late = false;
                    // What moved on, or was forgotten, in the meantime stays as it is.
                    desk.owed.retain(|partition, mark| marks.get(partition) != Some(mark));
                    for (partition, mark) in marks {
                        desk.held.entry(partition).and_modify(|held| *held = mark.max(*held));
                    }
                    // Half of the time that a proof is good for is left for the next one.
                    let next = if desk.owed.is_empty() { self.proof.good_for() / 2 } else { Duration::ZERO };
                    desk.commit_at = asked + next;
                }
                Err(error) => {
                    if self.complaints.now() {
                        tracing::info!("offsets not committed yet, trying again: {error}");
                    }
                    desk.last_error = Some(error.to_string());
                    desk.commit_at = Instant::now() + TRY_AGAIN;
                }
            }
            drop(desk);
            self.done.notify_waiters();
        }
    }

    /// Waits until it is time, and returns the newest mark of each partition, and whether any is owed. None once closed.
    fn next(&self) -> Option<(BTreeMap<i32, i64>, bool)> {
        let mut desk = self.desk();
        while !desk.closed {
            let now = Instant::now();
            let idle = desk.owed.is_empty() && desk.held.is_empty();
            if !idle && desk.commit_at <= now {
                desk.busy = true;
                // Also what only proves our membership holds what is owed: else it would take back a mark whose answer was lost.
                let mut marks = desk.held.clone();
                marks.extend(&desk.owed);
                return Some((marks, !desk.owed.is_empty()));
            }
            desk = if idle {
                self.work.wait(desk).unwrap_or_else(PoisonError::into_inner)
            } else {
                let wait = desk.commit_at - now;
                self.work.wait_timeout(desk, wait).unwrap_or_else(PoisonError::into_inner).0
            };
        }
        None
    }

    fn pay(&self, consumer: &Consumer, marks: &BTreeMap<i32, i64>) -> KafkaResult<()> {
        failpoints::reach_blocking(Step::BeforeCommit).map_err(unavailable)?;
        self.bring(consumer, marks)?;
        failpoints::reach_blocking(Step::AfterCommit).map_err(unavailable)
    }

    fn bring(&self, consumer: &Consumer, marks: &BTreeMap<i32, i64>) -> KafkaResult<()> {
        let source = self.desk().source.clone();
        let asked = Instant::now();
        consumer.commit(&list(&self.topic, &source, marks), CommitMode::Sync)?;
        self.proof.given(asked);
        Ok(())
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Two maps that are each updated in one step: a panic elsewhere leaves them whole.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ledger's way to the committer.
impl Offsets for Committer {
    async fn commit(&self, marks: &[(i32, i64)]) -> Result<(), CommitFailed> {
        {
            let mut desk = self.desk();
            for &(partition, mark) in marks {
                let owed = desk.owed.entry(partition).or_insert(mark);
                *owed = mark.max(*owed);
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
                if marks.iter().all(|(partition, _)| !self.desk().owed.contains_key(partition)) {
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

/// A list of offsets as librdkafka takes it, with the topic's id as metadata.
fn list(topic: &str, source: &str, marks: &BTreeMap<i32, i64>) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(marks.len());
    for (&partition, &mark) in marks {
        let mut place = list.add_partition(topic, partition);
        place.set_offset(Offset::Offset(mark)).expect("an offset of a real message is valid");
        place.set_metadata(source);
    }
    list
}
