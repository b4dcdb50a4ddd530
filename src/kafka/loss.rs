//! Messages that the topic no longer has, though the group has not read them: said once, when that is certain, and counted.

use flows::{Metrics, OffsetRange};

/// What is gone of one partition.
#[derive(Debug, PartialEq, Eq)]
pub struct Loss {
    partition: i32,
    cause: Cause,
    /// Offsets that no reader is given any more; none where it is not known how many there were.
    offsets: OffsetRange,
    /// The committed offset, and where it goes on.
    from: i64,
    to: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Retention, or somebody who deleted records.
    Expired,
    /// The topic was deleted, and made again.
    MadeAgain,
    /// The topic ends before what was read of it.
    CutBack,
}

impl Loss {
    /// Retention has passed the offset `next`, where this member would go on: the partition begins at `low`.
    pub fn expired(partition: i32, next: i64, low: i64) -> Self {
        Self { partition, cause: Cause::Expired, offsets: OffsetRange::new(next, low), from: next, to: low }
    }

    /// The committed offset `mark` is not within what the partition holds.
    pub fn out_of_range(partition: i32, mark: i64, low: i64, high: i64) -> Self {
        if mark < low {
            return Self::expired(partition, mark, low);
        }
        // Rows are stored at these offsets: other messages that come to stand there are taken for them.
        Self { partition, cause: Cause::CutBack, offsets: OffsetRange::new(high, mark), from: mark, to: low }
    }

    /// What was read up to `mark` is of a topic that was deleted; it went up to `seen` when this member last looked.
    pub fn made_again(partition: i32, mark: i64, seen: i64, low: i64) -> Self {
        Self {
            partition,
            cause: Cause::MadeAgain,
            offsets: OffsetRange::new(mark, seen.max(mark)),
            from: mark,
            to: low,
        }
    }

    /// Whether it is about this partition.
    pub fn is_of(&self, partition: i32) -> bool {
        self.partition == partition
    }

    /// The partition and the offsets that retention has deleted, if that is what it is.
    pub fn expired_offsets(&self) -> Option<(i32, OffsetRange)> {
        (self.cause == Cause::Expired).then_some((self.partition, self.offsets))
    }

    /// Says it, and counts it. To be called once, when it goes on behind the loss.
    pub fn report(&self, metrics: &Metrics) {
        let Self { partition, cause, offsets, from, to } = self;
        let lost = offsets.len();
        let counter = match cause {
            Cause::Expired => {
                tracing::error!(
                    "partition {partition}: {lost} messages were deleted from the topic before they were read, \
                     {offsets}: they are lost; going on at {to}. Let retention last longer than the longest outage"
                );
                &metrics.expired
            }
            Cause::CutBack => {
                tracing::error!(
                    "partition {partition}: the topic ends {lost} offsets before the committed one, {from}: it was made \
                     again, or cut back. Messages that come to stand at {offsets} are taken for those that are stored there; \
                     going on at {to}"
                );
                &metrics.reset
            }
            Cause::MadeAgain => {
                let unread = match lost {
                    0 => String::new(),
                    lost => format!("; at least {lost} messages of the old one were not read, and are lost"),
                };
                tracing::warn!(
                    "partition {partition}: the topic was deleted, and made again under the same name{unread}; going on at \
                     offset {to} of the new one"
                );
                &metrics.reset
            }
        };
        Metrics::count(counter, lost);
        if *cause != Cause::Expired {
            Metrics::count(&metrics.resets, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_by_what_became_of_them() {
        let metrics = Metrics::default();
        for (loss, offsets) in [
            (Loss::out_of_range(0, 100, 150, 200), OffsetRange::new(100, 150)),
            (Loss::out_of_range(0, 300, 0, 200), OffsetRange::new(200, 300)),
            (Loss::made_again(0, 100, 130, 0), OffsetRange::new(100, 130)),
            (Loss::made_again(0, 100, 0, 0), OffsetRange::new(100, 100)),
        ] {
            assert_eq!(loss.offsets, offsets);
            loss.report(&metrics);
        }
        let counted = [&metrics.expired, &metrics.reset, &metrics.resets].map(Metrics::read);
        assert_eq!(counted, [50, 130, 3]);
    }
}
