//! One question for all batches that need its answer: whether received records are of the lease's topic.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use tokio::sync::Mutex;

/// The certainty about a batch's topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The topic was still the lease's when it was asked about. All records that were received before are of it.
    Certain,
    /// No broker has said that it is another topic, or that it is not.
    Unanswered,
}

/// Questions that are shared: of several batches that wait for one, a single question serves all.
///
/// A batch needs an answer to a question that was *sent* after its newest record came. One that is under way when a batch asks may
/// be older than that record, so its answer does not count for this batch.
#[derive(Debug)]
pub struct SharedProof<A> {
    /// How many questions were sent.
    sent: AtomicU64,
    /// The number of the newest one that was answered, and its answer.
    answered: Mutex<(u64, Option<A>)>,
}

impl<A> Default for SharedProof<A> {
    fn default() -> Self {
        Self { sent: AtomicU64::new(0), answered: Mutex::new((0, None)) }
    }
}

impl<A: Copy + Send> SharedProof<A> {
    /// The answer to a question that is sent after this call began.
    pub async fn ask<F: Future<Output = A> + Send>(&self, question: impl FnOnce() -> F + Send) -> A {
        let sent_before = self.sent.load(SeqCst);
        let mut answered = self.answered.lock().await;
        if let (nth, Some(answer)) = *answered
            && nth > sent_before
        {
            return answer;
        }
        let nth = self.sent.fetch_add(1, SeqCst) + 1;
        let answer = question().await;
        *answered = (nth, Some(answer));
        answer
    }
}
