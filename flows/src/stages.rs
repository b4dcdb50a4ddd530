//! The one stage that futures' `StreamExt` lacks, as a method of its own, so that only one `StreamExt` is ever in scope.

use crate::Record;
use futures::{Stream, StreamExt, stream};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// In this time the first records of all partitions come, once a stream has begun.
const OPENING: Duration = Duration::from_millis(500);

/// Batching by number, size or time.
pub(crate) trait ChunksTimeout: Stream<Item = Record> + Sized {
    /// Chunks of `rows` records, or of as many as hold `bytes` together, or of those that arrived within `linger` of a
    /// chunk's first one.
    ///
    /// The end of the stream yields a partial chunk and does not lose it: that makes ending the source a drain. The
    /// timer starts with the first record of a chunk, so an idle stream yields nothing, and no record waits longer than
    /// `linger`.
    ///
    /// A record also waits no longer than the stream has run. Records that are there when it begins, after a crash or a
    /// rebalance, have already waited for an unknown time.
    fn chunks_timeout(self, rows: usize, bytes: usize, linger: Duration) -> impl Stream<Item = Vec<Record>> {
        let began = Instant::now();
        stream::unfold(Box::pin(self.fuse()), move |mut records| async move {
            let first = records.next().await?;
            let linger = linger.min(began.elapsed().max(OPENING));
            let mut weight = first.weight();
            // The capacity for a usual chunk; a larger one grows.
            let mut chunk = Vec::with_capacity(rows.min(1_024));
            chunk.push(first);
            let mut due = std::pin::pin!(sleep(linger));
            while chunk.len() < rows && weight < bytes {
                tokio::select! {
                    biased; // the timer ends a chunk only when nothing is waiting
                    next = records.next() => match next {
                        Some(record) => {
                            weight += record.weight();
                            chunk.push(record);
                        }
                        None => break,
                    },
                    () = &mut due => break,
                }
            }
            Some((chunk, records))
        })
    }
}

impl<S: Stream<Item = Record>> ChunksTimeout for S {}
