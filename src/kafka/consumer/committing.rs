//! The thread that commits, because a commit can take as long as a coordinator is away.

use super::shared::Shared;
use super::{Callbacks, Client};
use crate::failpoints::{self, Injected, Step};
use crate::kafka::native::{self, member_id};
use crate::kafka::topic_identity::cluster;
use crate::log_throttle::LogThrottle;
use crate::stuck::{At, Stuck};
use flows::{Commit, CommitFailed, Input, Offsets, Ours, Outcome, Position};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tracing::Span;

/// The time that a pipeline waits for a commit before it continues without it: the commit stays pending.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The errors of a client that is not a member any more: from the coordinator, and from librdkafka once it knows that
/// another client has its name. (A wrong generation is only out of date.)
const EVICTED: [RDKafkaErrorCode; 3] =
    [RDKafkaErrorCode::UnknownMemberId, RDKafkaErrorCode::FencedInstanceId, RDKafkaErrorCode::Fatal];

/// Sends what the state machine has to commit.
struct Committer {
    topic: String,
    shared: Arc<Shared>,
    stuck: Arc<Stuck>,
    complaints: LogThrottle,
}

/// Starts the thread. It ends when the member has left, or the client is gone.
pub fn start(client: &Arc<Client>, topic: &str, shared: &Arc<Shared>, stuck: &Arc<Stuck>) -> std::io::Result<()> {
    let committer = Committer {
        topic: topic.to_owned(),
        shared: shared.clone(),
        stuck: stuck.clone(),
        complaints: LogThrottle::default(),
    };
    let (client, span) = (Arc::downgrade(client), Span::current());
    let run = move || span.in_scope(|| committer.run(&client));
    std::thread::Builder::new().name("committer".into()).spawn(run).map(drop)
}

impl Committer {
    fn run(&self, client: &Weak<Client>) {
        while let Some(commit) = self.shared.next_commit() {
            let Some(client) = client.upgrade() else { break };
            self.stuck.is(At::Commit, "waiting for the group's coordinator");
            let sent = self.send(&client, &commit);
            let outcome = match &sent {
                Ok(()) => Outcome::Taken,
                Err(KafkaError::ConsumerCommit(code)) if EVICTED.contains(code) => Outcome::Evicted,
                Err(_) => Outcome::Failed,
            };
            match sent {
                Ok(()) => self.stuck.is_over(At::Commit),
                Err(error) => self.explain(client.context(), &error),
            }
            drop(client);
            self.shared.handle(Input::Committed(commit, outcome));
            if !self.shared.lock().member.is_commit_pending() {
                // For example, all partitions were revoked meanwhile.
                self.stuck.forget(At::Commit);
            }
        }
        self.stuck.forget(At::Commit);
    }

    fn explain(&self, callbacks: &Callbacks, error: &KafkaError) {
        let reasons = callbacks.reasons();
        error.rdkafka_error_code().into_iter().for_each(|code| reasons.note_answer(code));
        let reason = reasons.explain("READ", &self.topic, error);
        if self.complaints.now() {
            tracing::info!("offsets not committed yet, trying again: {reason}");
        }
        self.stuck.is(At::Commit, reason.to_string());
    }

    fn send(&self, client: &Client, commit: &Commit) -> KafkaResult<()> {
        if commit.is_pending {
            failpoints::reach_blocking(Step::BeforeCommit).map_err(unavailable)?;
        }
        // librdkafka commits under the id that it has by then: also as a client that was evicted, has joined again, and has not been
        // told that its partitions are gone.
        let native = client.client().native_client();
        let is_member = || member_id(native).as_ref() == Some(&commit.member);
        if !is_member() {
            return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownMemberId));
        }
        native::commit(native, &offsets(&self.topic, cluster(native, Duration::ZERO), commit))?;
        client.context().reasons().allowed();
        if commit.is_pending {
            failpoints::reach_blocking(Step::AfterCommit).map_err(unavailable)?;
        }
        Ok(())
    }
}

const fn unavailable(_: Injected) -> KafkaError {
    KafkaError::ConsumerCommit(RDKafkaErrorCode::CoordinatorNotAvailable)
}

/// A commit in librdkafka's form, with both ids and the notes as metadata.
fn offsets(topic: &str, cluster: Option<String>, commit: &Commit) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(commit.offsets.len());
    for (partition, offset, notes) in &commit.offsets {
        let mut place = list.add_partition(topic, *partition);
        place.set_offset(Offset::Offset(*offset)).expect("an offset of a real message is valid");
        let mut notes = notes.clone();
        notes.read = notes.read.filter(|read| read > offset);
        place.set_metadata(Ours { cluster: cluster.clone(), topic: commit.source.clone(), notes }.to_string());
    }
    list
}

/// Where the ledger of one lease commits.
pub struct GroupOffsets {
    shared: Arc<Shared>,
    lease: u64,
    /// The last commit was not confirmed in time: later ones are not waited for until one is, because the pipeline has a latency target.
    is_late: AtomicBool,
}

impl GroupOffsets {
    pub fn new(shared: Arc<Shared>, lease: u64) -> Self {
        Self { shared, lease, is_late: AtomicBool::default() }
    }

    fn is_pending(&self, offsets: &[(i32, i64)]) -> bool {
        let assignment = self.shared.lock();
        let positions = assignment.member.positions();
        offsets.iter().any(|(partition, _)| positions.get(partition).is_some_and(Position::is_commit_pending))
    }
}

impl Offsets for GroupOffsets {
    async fn commit(&self, offsets: &[(i32, i64)]) -> Result<(), CommitFailed> {
        self.shared.handle(Input::Settled(self.lease, offsets.to_vec()));
        let confirmed = async {
            loop {
                let progress = self.shared.progress();
                if !self.is_pending(offsets) {
                    return;
                }
                progress.await;
            }
        };
        let patience = if self.is_late.load(Relaxed) { Duration::ZERO } else { COMMIT_TIMEOUT };
        let in_time = tokio::time::timeout(patience, confirmed).await;
        self.is_late.store(in_time.is_err(), Relaxed);
        in_time.map_err(|_| CommitFailed("the group has not confirmed it yet".into()))
    }
}
