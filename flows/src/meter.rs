//! What a running pipeline counts: for the status line, the closing report, and whoever scrapes it.

use crate::Latencies;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counters since the start, and the latencies since somebody last took them.
#[derive(Debug, Default)]
pub struct Meter {
    /// Rows stored in `events`.
    pub events: AtomicU64,
    /// Rows stored in `rejected`.
    pub rejects: AtomicU64,
    /// Offsets passed over because their rows were stored already.
    pub skipped: AtomicU64,
    /// Batches settled.
    pub batches: AtomicU64,
    /// Inserts sent, the failed ones included.
    pub inserts: AtomicU64,
    /// Inserts and questions that failed and were tried again.
    pub retries: AtomicU64,
    /// Commits that Kafka confirmed.
    pub commits: AtomicU64,
    /// Commits that failed or were late; the next one covers them.
    pub commits_owed: AtomicU64,
    /// Messages that wait in the partitions at hand, as last seen.
    pub lag: AtomicU64,
    latencies: Mutex<Latencies>,
}

impl Meter {
    /// The latencies, to record into or to take from.
    pub fn latencies(&self) -> MutexGuard<'_, Latencies> {
        // Histograms hold no invariant that a panicking recorder could have broken.
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to one of the counters.
    pub fn count(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Relaxed);
    }

    /// Reads one of the counters.
    pub fn read(counter: &AtomicU64) -> u64 {
        counter.load(Relaxed)
    }
}
