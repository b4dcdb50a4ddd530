//! The events that a member is told of, and the tasks that it gives to the threads around it.

use super::{Commit, Loss, Start};
use crate::{OffsetRange, OffsetRanges};

/// An event that the member is told of.
#[derive(Debug)]
pub enum Input {
    /// The group has given this member partitions, beside those that it has.
    Assigned {
        /// The new ones.
        partitions: Vec<i32>,
        /// The id of the client in its group.
        id: Option<String>,
    },
    /// The group takes partitions back. They may go when [`Member::is_releasing`](super::Member::is_releasing) is false.
    Revoked {
        /// Which.
        partitions: Vec<i32>,
        /// Other members may own them already: nothing more is stored or committed.
        is_lost: bool,
    },
    /// The id that the client has now; none where it is in no group. To be told now and then, and after [`Action::AskId`].
    Id(Option<String>),
    /// The result of the lookup with this number.
    StartOffsets(u64, StartOffsets),
    /// The lookup with this number has found that another owner opened a lease meanwhile.
    RaceLost(u64),
    /// The consumer could not be moved to the start offsets.
    SeekFailed,
    /// A fetched record did not come where it was expected, or an error came instead.
    OutOfSync,
    /// All that there was to read is delivered: the lease may end when it is stored, however long that takes.
    ReachedEnd,
    /// The pipeline of the lease with this number has stored everything of these partitions before these offsets.
    Settled(u64, Vec<(i32, i64)>),
    /// The pipeline of the lease with this number has ended.
    Ended(u64, Ended),
    /// A commit has ended.
    Committed(Box<Commit>, Outcome),
    /// From the committed offset of a partition up to this one, no message stands in the topic.
    ReadUpTo(i32, i64),
    /// Offsets of a partition held no message, and none was deleted there.
    Gap(i32),
    /// Messages of a partition were deleted before they were read.
    Deleted(i32, OffsetRange),
    /// This process ends: store and commit the received records, then leave the group.
    Shutdown,
    /// This client is not a member any more, or something failed permanently: end at once. Nothing can be committed.
    Abandon,
    /// Time has passed: see [`Member::deadline`](super::Member::deadline).
    Tick,
}

/// How a lease's pipeline has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All that was delivered is stored, up to these offsets.
    Drained(Vec<(i32, i64)>),
    /// An insert was refused: another owner has opened a lease.
    Fenced,
    /// Otherwise: what of it is stored has to be asked.
    Stopped,
}

/// How a commit has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The group has it.
    Taken,
    /// The group is not known to have taken it: try again.
    Failed,
    /// The coordinator says that this client is not the member that it was.
    Evicted,
}

/// The result of a lookup.
#[derive(Clone, Debug, Default)]
pub struct StartOffsets {
    /// The id of the topic: what rows carry as `_source`.
    pub source: String,
    /// For each partition that was asked for.
    pub starts: Vec<(i32, Start, OffsetRanges)>,
}

/// A task for the threads around the member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell which id the client has now.
    AskId,
    /// Look up where to go on in these partitions, and open a lease of them.
    LookUp {
        /// The number of the lookup.
        lookup: u64,
        /// Partitions that are new, or whose stored offsets are unknown.
        partitions: Vec<i32>,
    },
    /// Stop the lookup that is under way.
    StopLookup,
    /// Seek to these offsets, and begin to deliver to a new pipeline.
    Consume {
        /// The number of the lease.
        lease: u64,
        /// The first offset of each partition.
        starts: Vec<(i32, i64)>,
        /// Messages that were found to be gone; to be told to the user.
        losses: Vec<Loss>,
    },
    /// End the stream of records: the pipeline stores and commits its records, and ends.
    EndStream,
    /// Stop the pipeline: its unstored offsets are looked up later.
    Cancel {
        /// The pipeline did not drain within its time.
        timed_out: bool,
    },
    /// The lease is over: nothing may be sent under it.
    EndLease,
    /// The client has to join its group again, as a new member.
    Rejoin,
    /// All that there was to read is stored and committed, or about to be.
    Done,
    /// These partitions may go; with the offset of each that the group has confirmed.
    Release(Vec<(i32, Option<i64>)>),
}
