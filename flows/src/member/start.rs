//! The start offset of a partition: the committed one, unless the topic no longer has it or it is of another topic.

use super::{Notes, Origin};
use crate::OffsetRange;

/// Kafka's answers about one partition.
#[derive(Clone, Debug)]
pub struct Found {
    /// The committed offset; none where the group has committed nothing.
    pub committed: Option<i64>,
    /// Which topic that is of, by its metadata.
    pub origin: Origin,
    /// The first offset that the partition holds.
    pub low: i64,
    /// The offset behind its last message.
    pub high: i64,
    /// How far the partition went when this member last looked; 0 where it never did.
    pub seen: i64,
    /// The committed offset when this member found that the topic was gone: Kafka deletes offsets with the topic.
    pub gone_at: Option<i64>,
    /// A group that has committed nothing begins at the end.
    pub from_end: bool,
    /// The partition may have a new leader that does not know yet how far the old one had come.
    pub may_catch_up: bool,
}

/// The start offset, and the known facts about earlier offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The first offset to read.
    pub offset: i64,
    /// The group's notes about the partition.
    pub notes: Notes,
    /// Messages that are gone.
    pub loss: Option<Loss>,
}

/// The committed offset lies above the partition's end, for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition}: committed offset {committed} is above its end {high}")]
pub struct AboveEnd {
    /// The partition.
    pub partition: i32,
    /// The committed offset.
    pub committed: i64,
    /// The offset behind the last message.
    pub high: i64,
}

/// Where to go on in a partition.
///
/// # Errors
/// [`AboveEnd`] where that may pass: to be asked again.
pub fn start_offset(partition: i32, found: Found) -> Result<Start, AboveEnd> {
    let Found { committed, origin, low, high, seen, gone_at, from_end, may_catch_up } = found;
    let is_translated = matches!(origin, Origin::OtherCluster(_));
    let is_made_again = origin == Origin::MadeAgain;
    let mut notes = origin.notes();
    let at = |offset| (offset, None);
    let (offset, loss) = match (committed, gone_at) {
        (Some(mark), _) if is_made_again => (low, Some(Loss::made_again(partition, mark, seen, low))),
        (Some(mark), _) if (low..=high).contains(&mark) => at(mark),
        // Only markers of transactions were deleted.
        (Some(mark), _) if mark < low && notes.read >= Some(low) => at(low),
        (Some(committed), _) if committed > high && may_catch_up => {
            return Err(AboveEnd { partition, committed, high });
        }
        (Some(mark), _) => (low, Some(Loss::out_of_range(partition, notes.read_up_to(mark), low, high))),
        (None, Some(mark)) => (low, Some(Loss::made_again(partition, mark, seen, low))),
        (None, None) => at(if from_end { high } else { low }),
    };
    // Where it was out of range, this cluster's messages are read from the beginning.
    if is_translated && committed == Some(offset) {
        notes.from = committed;
    }
    notes.from = notes.from.filter(|from| *from <= offset);
    Ok(Start { offset, notes, loss })
}

/// Messages of a partition that the topic no longer has, and that the group has not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The partition.
    pub partition: i32,
    /// Why they are gone.
    pub cause: Cause,
    /// Offsets that no consumer can read any more; empty if their number is unknown.
    pub offsets: OffsetRange,
    /// The committed offset.
    pub from: i64,
    /// The offset at which the member resumes.
    pub to: i64,
}

/// Why messages are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Retention, or deleted records.
    Expired,
    /// The topic was deleted, and created again.
    MadeAgain,
    /// The topic ends before offsets that were read.
    CutBack,
}

impl Loss {
    /// Retention has passed the offset `next`, where this member would go on: the partition begins at `low`.
    pub const fn expired(partition: i32, next: i64, low: i64) -> Self {
        Self { partition, cause: Cause::Expired, offsets: OffsetRange::new(next, low), from: next, to: low }
    }

    /// The committed offset `mark` is not within what the partition holds.
    pub const fn out_of_range(partition: i32, mark: i64, low: i64, high: i64) -> Self {
        if mark < low {
            return Self::expired(partition, mark, low);
        }
        // Rows are stored at these offsets, so new messages at the same offsets count as stored.
        Self { partition, cause: Cause::CutBack, offsets: OffsetRange::new(high, mark), from: mark, to: low }
    }

    /// The offsets up to `mark` are of a deleted topic, which ended at `seen` when this member last looked.
    pub fn made_again(partition: i32, mark: i64, seen: i64, low: i64) -> Self {
        let offsets = OffsetRange::new(mark, seen.max(mark));
        Self { partition, cause: Cause::MadeAgain, offsets, from: mark, to: low }
    }

    /// The partition and the offsets that retention has deleted, if this is such a loss.
    pub fn expired_offsets(&self) -> Option<(i32, OffsetRange)> {
        (self.cause == Cause::Expired).then_some((self.partition, self.offsets))
    }
}
