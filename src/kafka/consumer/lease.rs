//! A lease: what this member owns until the next rebalance or the shutdown, with an end for the consumer and one for the pipeline.

use super::committing::GroupOffsets;
use super::records::{RecordSender, Records, channel};
use super::shared::Shared;
use crate::kafka::Identity;
use flows::{
    BatchConfig, Ended, Failure, IngestError, Input, LeaseLost, LeaseTable, Ledger, Metrics, Offsets, Ownership, Proof,
    Record, SettleError, SharedProof, Sink, Tokens, renew_lease,
};
use futures::{Stream, StreamExt, stream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often an idle lease makes sure that its topic is still there.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The pipeline's end of a lease.
pub struct Lease<K> {
    number: u64,
    shared: Arc<Shared>,
    starts: Vec<(i32, i64)>,
    sink: Arc<K>,
    ownership: Arc<LeaseOwnership<K>>,
    records: Option<Records>,
    timed_out: Arc<AtomicBool>,
    is_over: bool,
}

/// The parts of a lease when it is opened.
pub struct Opened<K> {
    pub sink: Arc<K>,
    pub identity: Identity,
    pub tokens: Arc<Tokens>,
    /// Once this is cancelled, nothing is sent under the lease.
    pub closed: CancellationToken,
}

impl<K: Sink + LeaseTable> Lease<K> {
    /// The pipeline's end and the thread's end of the lease with this number.
    pub fn open(number: u64, starts: Vec<(i32, i64)>, opened: Opened<K>, shared: &Arc<Shared>) -> (RecordSender, Self) {
        let Opened { sink, identity, tokens, closed } = opened;
        let (sender, records, timed_out) = channel(closed.clone());
        let ownership = LeaseOwnership { sink: sink.clone(), tokens, identity, closed, proof: SharedProof::default() };
        let lease = Self {
            number,
            shared: shared.clone(),
            starts,
            sink,
            ownership: Arc::new(ownership),
            records: Some(records),
            timed_out,
            is_over: false,
        };
        (sender, lease)
    }

    /// The pipeline, for as long as the lease lasts; false if its drain took too long.
    ///
    /// # Errors
    /// The reason why the pipeline has stopped, unless another owner stopped it. Nothing of the batches under way is committed.
    pub async fn ingest(self, batching: BatchConfig, metrics: &Arc<Metrics>) -> Result<bool, IngestError> {
        let (records, lease) = self.split();
        let (ownership, ledger) = (lease.ownership(), lease.ledger(metrics));
        let flow = flows::ingest(records, batching, lease.sink(), ownership.clone(), metrics.clone(), ledger);
        // Dropping the flow drops the batches under way; nothing of them is committed.
        let outcome = tokio::select! {
            outcome = flow => Some(outcome),
            () = ownership.lost() => None,
        };
        lease.end(outcome)
    }

    /// The stream of records, and the lease without it.
    fn split(mut self) -> (impl Stream<Item = Record> + use<K>, Self) {
        let records = self.records.take();
        (stream::iter(records).flat_map(|records| records.flat_map(stream::iter)), self)
    }

    /// A ledger that commits to the group, and begins where the lease does.
    fn ledger(&self, metrics: &Arc<Metrics>) -> Ledger<impl Offsets + use<K>> {
        let offsets = GroupOffsets::new(self.shared.clone(), self.number);
        Ledger::open(self.starts.iter().copied(), offsets, metrics.clone())
    }

    /// Where its rows belong.
    fn sink(&self) -> Arc<K> {
        self.sink.clone()
    }

    /// The right to write them.
    fn ownership(&self) -> Arc<LeaseOwnership<K>> {
        self.ownership.clone()
    }

    /// Tells the member how its pipeline has ended, and whether that was in order. `outcome` is none if the lease was
    /// lost.
    ///
    /// # Errors
    /// The reason why the pipeline has stopped, unless another owner stopped it.
    fn end<O: Offsets>(mut self, outcome: Option<Result<Ledger<O>, IngestError>>) -> Result<bool, IngestError> {
        let (ended, in_order) = match outcome {
            Some(Ok(ledger)) => (Ended::Drained(ledger.marks().collect()), Ok(true)),
            Some(Err(IngestError::Settle(SettleError::Lost(_)))) => (Ended::Fenced, Ok(!self.timed_out.load(SeqCst))),
            None => (Ended::Stopped, Ok(!self.timed_out.load(SeqCst))),
            Some(Err(error)) => (Ended::Stopped, Err(error)),
        };
        self.is_over = true;
        self.shared.handle(Input::Ended(self.number, ended));
        in_order
    }
}

/// A pipeline that is dropped has ended, too.
impl<K> Drop for Lease<K> {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.handle(Input::Ended(self.number, Ended::Stopped));
        }
    }
}

/// The right to write rows of a lease's partitions.
pub struct LeaseOwnership<K> {
    sink: Arc<K>,
    tokens: Arc<Tokens>,
    identity: Identity,
    closed: CancellationToken,
    proof: SharedProof<Result<Proof, LeaseLost>>,
}

impl<K> LeaseOwnership<K> {
    /// Resolves when the lease is lost: the group has reassigned its partitions, or the topic is another one.
    pub async fn lost(&self) {
        while tokio::time::timeout(TOPIC_CHECK_INTERVAL, self.closed.cancelled()).await.is_err() {
            if self.identity.prove().await.is_err() {
                return tracing::warn!("the topic was deleted; looking for one of the same name");
            }
        }
    }
}

impl<K: Sink + LeaseTable> Ownership for LeaseOwnership<K> {
    fn is_lost(&self) -> bool {
        self.closed.is_cancelled()
    }

    async fn prove(&self) -> Result<Proof, LeaseLost> {
        self.proof.ask(|| self.identity.prove()).await
    }

    async fn renew(&self, partitions: &[i32]) -> Result<Result<(), LeaseLost>, Failure> {
        if self.closed.is_cancelled() {
            return Ok(Err(LeaseLost));
        }
        renew_lease(&*self.sink, &self.tokens, partitions).await
    }
}
