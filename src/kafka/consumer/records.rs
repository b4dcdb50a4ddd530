//! The records of a lease on their way from the consumer to the pipeline.

use flows::Record;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Fetches on their way to the pipeline: enough to coalesce 50,000 rows, few enough to bound the memory (8 MB).
const CHANNEL_CAPACITY: usize = 64;

/// The consumer's end: where records go in.
pub struct RecordSender {
    /// None once the stream has ended.
    records: Option<mpsc::Sender<Vec<Record>>>,
    closed: CancellationToken,
    timed_out: Arc<AtomicBool>,
}

/// Where records of a lease come out; it ends with the lease.
pub type Records = ReceiverStream<Vec<Record>>;

/// A stream of records that ends with its sender, and the sign that its drain timed out.
pub fn channel(closed: CancellationToken) -> (RecordSender, Records, Arc<AtomicBool>) {
    let (sender, records) = mpsc::channel(CHANNEL_CAPACITY);
    let timed_out = Arc::new(AtomicBool::new(false));
    let sender = RecordSender { records: Some(sender), closed, timed_out: timed_out.clone() };
    (sender, ReceiverStream::new(records), timed_out)
}

impl RecordSender {
    /// Room for one fetch; none while the pipeline is busy, and once the stream has ended.
    pub fn room(&self) -> Option<mpsc::Permit<'_, Vec<Record>>> {
        self.records.as_ref()?.try_reserve().ok()
    }

    /// Ends the stream: its pipeline drains.
    pub fn end(&mut self) {
        self.records = None;
    }

    /// Stops the pipeline. Running inserts may still be stored.
    pub fn cancel(&self, timed_out: bool) {
        if timed_out {
            tracing::warn!(
                "the drain timed out (--drain-timeout): the last batches were not stored; the next lease looks up what is"
            );
            self.timed_out.store(true, SeqCst);
        }
        self.closed.cancel();
    }
}

/// Nothing is sent under a lease that is over.
impl Drop for RecordSender {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}
