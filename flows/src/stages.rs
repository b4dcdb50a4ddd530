//! The one stage that futures' `StreamExt` lacks, as a method of its own, so that only one `StreamExt` is ever in scope.

use futures::Stream;
use std::time::Duration;

/// Batching by number or time.
pub(crate) trait ChunksTimeout: Stream + Sized {
    /// Chunks of `rows` items, or of what has come within `linger` of a chunk's first item.
    ///
    /// A chunk that the end of the stream cuts short is yielded, not lost: that makes ending the source a drain. The timer
    /// starts with the first item of a chunk, so an idle stream yields nothing, and nothing waits longer than `linger`.
    fn chunks_timeout(self, rows: usize, linger: Duration) -> impl Stream<Item = Vec<Self::Item>> {
        tokio_stream::StreamExt::chunks_timeout(self, rows, linger)
    }
}

impl<S: Stream> ChunksTimeout for S {}
