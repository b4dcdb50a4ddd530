//! A lease: what this member owns until the next rebalance or stop, with an end for each of its two threads.

use super::load::{Load, Relief};
use super::{Committer, Identity};
use crate::clickhouse::ClickHouseSink;
use flows::{Failure, LeaseLost, OffsetRanges, Ownership, Record, renew_lease};
use futures::channel::mpsc;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self as thread_mpsc, TryRecvError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Vectors on the way to the pipeline: enough to coalesce 50,000 rows, little enough to bound the memory (8 MB).
const HAULS: usize = 64;
/// How often an idle lease makes sure that its topic is still there.
const LOOK_AT_TOPIC: Duration = Duration::from_secs(2);
/// How often what is waited for is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Where this member stands in a partition.
#[derive(Debug)]
pub enum Place {
    /// Nobody has asked yet what is committed and what is stored.
    Unknown,
    /// The next offset to deliver, and what of the offsets from there on is stored already.
    At(i64, OffsetRanges),
}

/// What this member owns.
#[derive(Default)]
pub struct Hold {
    pub places: BTreeMap<i32, Place>,
    /// This member's id when it was given them.
    pub member: Option<String>,
    /// The assignment has changed: the lease, if there is one, is not the right one any more.
    pub changed: bool,
    /// The group has said what is this member's, and has taken nothing back since.
    pub is_assigned: bool,
    /// An insert was refused because another owner has opened a lease: the group has to confirm that this member is one, before it
    /// opens the next.
    pub was_fenced: bool,
    pub lease: Option<Source>,
}

/// The near end of a lease: where records go in.
pub struct Source {
    records: mpsc::Sender<Vec<Record>>,
    /// What did not fit; while it is here, nothing more is taken. This is the backpressure.
    stuck: Option<Vec<Record>>,
    /// Nothing more comes: its stream has ended, and its pipeline drains while the member goes on polling.
    is_finished: bool,
    load: Arc<Load>,
    ended: thread_mpsc::Receiver<Ended>,
    lost: CancellationToken,
    given_up: Arc<AtomicBool>,
}

/// How a lease's pipeline has ended.
#[derive(Debug)]
pub enum Ended {
    /// All that was delivered is stored, up to these marks.
    Drained(Vec<(i32, i64)>),
    /// Another owner has opened a lease, or the topic is another one.
    Fenced,
    /// Otherwise: what of it is stored has to be asked.
    Stopped,
}

/// The far end of a lease, for the pipeline.
pub struct Lease {
    /// What is delivered; it ends with the lease.
    pub records: mpsc::Receiver<Vec<Record>>,
    /// For each partition the first offset that is not accounted for.
    pub starts: Vec<(i32, i64)>,
    /// Where its rows belong.
    pub sink: Arc<ClickHouseSink>,
    /// The right to write them.
    pub ownership: Arc<LeaseOwnership>,
    /// The drain took longer than it may.
    pub given_up: Arc<AtomicBool>,
    load: Arc<Load>,
    ended: thread_mpsc::Sender<Ended>,
}

impl Lease {
    /// Both ends of a new lease.
    pub fn open(starts: Vec<(i32, i64)>, sink: Arc<ClickHouseSink>, identity: Identity) -> (Source, Self) {
        let (records, receiver) = mpsc::channel(HAULS);
        let (end, ended) = thread_mpsc::channel();
        let (lost, given_up) = (sink.closed(), Arc::new(AtomicBool::new(false)));
        let load = Arc::new(Load::default());
        let ownership = Arc::new(LeaseOwnership { sink: sink.clone(), identity, lost: lost.clone() });
        let lease = Self {
            records: receiver,
            starts,
            sink,
            ownership,
            given_up: given_up.clone(),
            load: load.clone(),
            ended: end,
        };
        (Source { records, stuck: None, is_finished: false, load, ended, lost, given_up }, lease)
    }

    /// Where its ledger commits.
    pub fn offsets(&self, committer: &Arc<Committer>) -> Relief {
        Relief { committer: committer.clone(), load: self.load.clone() }
    }

    /// Tells the member how it ended.
    pub fn end(self, ended: Ended) {
        // A member that does not wait for it any more has taken it for abandoned.
        let _ = self.ended.send(ended);
    }
}

/// The right to write rows of a lease's partitions.
pub struct LeaseOwnership {
    sink: Arc<ClickHouseSink>,
    identity: Identity,
    lost: CancellationToken,
}

impl LeaseOwnership {
    /// Resolves when the lease is lost: the group has given it away, or the topic is not the same any more.
    pub async fn lost(&self) {
        while tokio::time::timeout(LOOK_AT_TOPIC, self.lost.cancelled()).await.is_err() {
            if !self.identity.still_holds().await {
                return tracing::warn!("the topic was deleted; looking for one of the same name");
            }
        }
    }
}

impl Ownership for LeaseOwnership {
    async fn prove(&self) -> Result<(), LeaseLost> {
        if !self.lost.is_cancelled() && self.identity.still_holds().await { Ok(()) } else { Err(LeaseLost) }
    }

    async fn renew(&self, partitions: &[i32]) -> Result<Result<(), LeaseLost>, Failure> {
        if self.lost.is_cancelled() {
            return Ok(Err(LeaseLost));
        }
        renew_lease(&*self.sink, self.sink.tokens(), partitions).await
    }
}

impl Source {
    /// Hands a haul over, as soon as there is room.
    pub fn send(&mut self, haul: Vec<Record>) {
        if !haul.is_empty() {
            self.load.add(&haul);
            self.stuck = Some(haul);
            self.flush();
        }
    }

    /// Whether the pipeline has ended by itself.
    pub fn is_closed(&self) -> bool {
        self.records.is_closed() && !self.is_finished
    }

    /// Whether it takes records: its pipeline is at work, and what was handed over before had room.
    pub fn has_room(&mut self) -> bool {
        !self.records.is_closed() && self.flush() && !self.load.is_full()
    }

    /// Ends the stream, once all has had room, without waiting for the pipeline; how that ended, when it has.
    fn finish(&mut self) -> Option<Ended> {
        if !self.is_finished && self.flush() {
            self.is_finished = true;
            self.records.close_channel();
        }
        match self.ended.try_recv() {
            Ok(Ended::Drained(_)) if !self.is_finished => Some(Ended::Stopped),
            Ok(ended) => Some(ended),
            Err(TryRecvError::Disconnected) => Some(Ended::Stopped),
            Err(TryRecvError::Empty) => None,
        }
    }

    /// Hands over what is stuck; false while there is no room.
    pub fn flush(&mut self) -> bool {
        match self.stuck.take().map(|haul| self.records.try_send(haul)) {
            Some(Err(full)) if full.is_full() => {
                self.stuck = Some(full.into_inner());
                false
            }
            // A pipeline that is gone takes nothing; its end is noticed elsewhere.
            _ => true,
        }
    }
}

impl Hold {
    /// For each partition whose place is known, the next offset to deliver.
    pub fn starts(&self) -> Vec<(i32, i64)> {
        let known = self.places.iter().filter_map(|(&partition, place)| match place {
            Place::At(next, _) => Some((partition, *next)),
            Place::Unknown => None,
        });
        known.collect()
    }

    /// Ends the lease, if there is one: its stream ends, its pipeline drains. What is not drained after `patience` is let go
    /// of, and asked about before it is delivered again.
    pub fn end_lease(&mut self, patience: Duration) {
        let Some(mut source) = self.lease.take() else { return };
        let deadline = Instant::now() + patience;
        if patience.is_zero() {
            source.lost.cancel();
        }
        while !source.flush() && Instant::now() < deadline && !source.records.is_closed() {
            std::thread::park_timeout(LOOK_AGAIN);
        }
        let is_whole = source.stuck.is_none();
        source.records.close_channel();
        let in_time = source.ended.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        let ended = in_time.unwrap_or_else(|_| {
            if !patience.is_zero() {
                tracing::warn!("not drained within {patience:?}: letting go of what is not stored yet");
                source.given_up.store(true, SeqCst);
            }
            source.lost.cancel();
            // The pipeline only has to notice; it is not waited for by anybody else.
            source.ended.recv_timeout(Duration::from_secs(5)).unwrap_or(Ended::Stopped)
        });
        // A task that was let go of may still be at work for a moment: from here on it sends nothing more.
        source.lost.cancel();
        self.resume_from(if is_whole { ended } else { Ended::Stopped });
    }

    /// Ends the lease as its pipeline drains, for as long as that takes: true when everything that was delivered is stored. A member
    /// that calls this again and again goes on polling meanwhile, so its group can take partitions back.
    pub fn finish_lease(&mut self) -> bool {
        let Some(source) = &mut self.lease else { return self.places.is_empty() };
        let Some(ended) = source.finish() else { return false };
        source.lost.cancel();
        self.lease = None;
        self.resume_from(ended);
        // What did not end in order is asked about, and delivered again.
        self.changed = self.places.values().any(|place| matches!(place, Place::Unknown));
        !self.changed
    }

    /// Every place is where the ledger says it is; without a ledger, or where they differ, it has to be asked for.
    fn resume_from(&mut self, ended: Ended) {
        self.was_fenced |= matches!(ended, Ended::Fenced);
        let marks = if let Ended::Drained(marks) = ended { marks } else { Vec::new() };
        for (partition, place) in &mut self.places {
            let mark = marks.iter().find(|(at, _)| at == partition);
            match (&place, mark) {
                (Place::At(next, _), Some((_, mark))) if mark == next => {}
                _ => *place = Place::Unknown,
            }
        }
    }
}
