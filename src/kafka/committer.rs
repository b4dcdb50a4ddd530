//! The committer: brings watermarks to the group, the newest first of all, for as long as it takes.

use super::member::Consumer;
use crate::failpoints::{self, Injected, Step};
use flows::{Backoff, CommitFailed, Offsets};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a pipeline waits for a commit before it goes on without: the commit stays owed.
const PATIENCE: Duration = Duration::from_secs(1);

/// Commits on a thread of its own, because a commit can take as long as a coordinator is away. Several marks of a partition
/// become one commit of the newest; a mark never moves back.
pub struct Committer {
    topic: String,
    desk: Mutex<Desk>,
    work: Condvar,
    done: Notify,
}

#[derive(Default)]
struct Desk {
    /// Marks that are not confirmed yet.
    owed: BTreeMap<i32, i64>,
    /// Marks that are.
    confirmed: BTreeMap<i32, i64>,
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
    pub fn start(consumer: &Arc<Consumer>, topic: &str) -> Arc<Self> {
        let committer = Arc::new(Self {
            topic: topic.to_owned(),
            desk: Mutex::default(),
            work: Condvar::new(),
            done: Notify::new(),
        });
        let (mine, consumer) = (committer.clone(), Arc::downgrade(consumer));
        std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || mine.run(&consumer))
            .expect("a thread can be started at start-up");
        committer
    }

    /// From now on, marks are those of the topic with this id.
    pub fn set_source(&self, source: &str) {
        source.clone_into(&mut self.desk().source);
    }

    /// Forgets what is owed for partitions that are not ours any more: their new owner finds the rows and commits them.
    pub fn forget(&self, partitions: &[i32]) {
        let mut desk = self.desk();
        for partition in partitions {
            desk.owed.remove(partition);
            desk.confirmed.remove(partition);
        }
        drop(desk);
        self.done.notify_waiters();
    }

    /// What is confirmed for a partition.
    pub fn confirmed(&self, partition: i32) -> Option<i64> {
        self.desk().confirmed.get(&partition).copied()
    }

    /// Commits these marks once more, to learn whether the group still takes them from us.
    pub fn try_commit(&self, consumer: &Consumer, marks: &BTreeMap<i32, i64>) -> KafkaResult<()> {
        let source = self.desk().source.clone();
        consumer.commit(&list(&self.topic, &source, marks), CommitMode::Sync)
    }

    /// Waits until nothing is owed; false if `patience` ends first.
    pub fn settle_up(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !self.desk().owed.is_empty() {
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
        let mut backoff = Backoff::default();
        loop {
            let marks = {
                let mut desk = self.desk();
                while desk.owed.is_empty() && !desk.closed {
                    desk = self.work.wait(desk).unwrap_or_else(PoisonError::into_inner);
                }
                if desk.closed {
                    return;
                }
                desk.owed.clone()
            };
            let Some(consumer) = consumer.upgrade() else { return };
            let outcome = failpoints::reach_blocking(Step::BeforeCommit)
                .map_err(unavailable)
                .and_then(|()| self.try_commit(&consumer, &marks))
                .and_then(|()| failpoints::reach_blocking(Step::AfterCommit).map_err(unavailable));
            drop(consumer);
            let mut desk = self.desk();
            match outcome {
                Ok(()) => {
                    backoff = Backoff::default();
                    desk.last_error = None;
                    desk.late = false;
                    // What moved on, or was forgotten, in the meantime stays as it is.
                    desk.owed.retain(|partition, mark| marks.get(partition) != Some(mark));
                    desk.confirmed.extend(marks);
                }
                Err(error) => {
                    tracing::info!("offsets not committed yet, trying again: {error}");
                    desk.last_error = Some(error.to_string());
                    let (kept, _) =
                        self.work.wait_timeout(desk, backoff.step()).unwrap_or_else(PoisonError::into_inner);
                    drop(kept);
                }
            }
            self.done.notify_waiters();
        }
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
