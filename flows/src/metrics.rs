//! The counts of a running pipeline, for the status line, the closing report, and Prometheus.

use crate::room::Room;
use crate::topics::Topics;
use crate::{Backlog, Due, ErrorKind, Failure, Latencies, Rejects, Waiting};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Counters since the start, and the latencies since they were last taken.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Rows stored in `events`.
    pub events: AtomicU64,
    /// Rows stored in `rejected`.
    pub rejects: Rejects,
    /// Offsets passed over because their rows were stored already.
    pub skipped: AtomicU64,
    /// Fields of messages that no column took.
    pub unknown_fields: AtomicU64,
    /// Batches settled.
    pub batches: AtomicU64,
    /// Inserts sent, the failed ones included.
    pub inserts: AtomicU64,
    /// Inserts into `events` that went in.
    pub accepted: AtomicU64,
    /// Inserts into either table that went in.
    pub went_in: AtomicU64,
    /// How many rows go into one insert, where the sink has no room for more.
    pub room: Room,
    /// Inserts and questions that failed and were tried again.
    pub retries: AtomicU64,
    /// Commits that Kafka confirmed.
    pub commits: AtomicU64,
    /// Commits that failed or were late; the next one covers them.
    pub commits_owed: AtomicU64,
    /// Payload bytes handed to Kafka, or received from it.
    pub bytes: AtomicU64,
    /// Failed attempts by what they mean for the next one, in the order of [`ErrorKind::ALL`].
    pub failures: [AtomicU64; ErrorKind::ALL.len()],
    /// When an attempt of that kind last failed: milliseconds since the Unix epoch, 0 for never.
    pub failed_ms: [AtomicU64; ErrorKind::ALL.len()],
    /// Batches that are being settled now.
    pub in_flight: AtomicU64,
    /// Messages that the topic no longer had when their turn came: retention had deleted them.
    pub expired: AtomicU64,
    /// Messages that were lost with a topic that was created again or truncated, as far as their number is known.
    pub reset: AtomicU64,
    /// How often a partition was found to be another one than before, or cut back.
    pub resets: AtomicU64,
    /// Attempts to open a lease that failed.
    pub lease_failures: AtomicU64,
    /// Messages that wait in the assigned partitions, as last seen.
    pub lag: AtomicU64,
    /// The timestamp of the newest event whose offset is accounted for: milliseconds since the Unix epoch, 0 before the first.
    pub newest_ms: AtomicU64,
    /// Rebalances in which the group assigned partitions to this member.
    pub rebalances: AtomicU64,
    /// Assigned partitions.
    pub partitions: AtomicU64,
    /// Those of them without an open lease: nothing of them is read.
    pub unleased: AtomicU64,
    /// Payload bytes in the client library's queues: messages that are read ahead, or not sent yet.
    pub queue_bytes: AtomicU64,
    latencies: Mutex<Latencies>,
    waiting: Mutex<Waiting>,
    due: Mutex<Option<Due>>,
    backlog: Mutex<Backlog>,
    /// Conditions of the run that became known since the last call of `learned`.
    learned: Mutex<Vec<(String, String)>>,
    /// The topics that these metrics are the sum of.
    pub(crate) topics: Topics,
    /// The newest failure, and when it was.
    failure: Mutex<Option<(Instant, String)>>,
}

impl Metrics {
    /// The latencies, to record into or to take from.
    pub fn latencies(&self) -> MutexGuard<'_, Latencies> {
        // Histograms hold no invariant that a panicking recorder could have broken.
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The messages that wait, to read or to replace.
    pub fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // One value that is replaced in one step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The schedule of a producer, to read or to replace; none where that has no rate.
    pub fn due(&self) -> MutexGuard<'_, Option<Due>> {
        // One value that is replaced in one step.
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backlog of the start, to tell its events from others.
    pub fn backlog(&self) -> MutexGuard<'_, Backlog> {
        // A panic between two of its fields would only misjudge the age of a few events.
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a condition of the run, such as the version of a service: its name and value.
    pub fn learn(&self, name: &str, value: String) {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), value));
    }

    /// The conditions of the run that were noted since the last call.
    pub fn learned(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.learned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds to one of the counters.
    pub fn count(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Relaxed);
    }

    /// Counts a failed attempt, and keeps its message.
    pub fn note_failure(&self, failure: &Failure) {
        let kind = failure.kind as usize;
        Self::count(&self.failures[kind], 1);
        self.failed_ms[kind].store(u64::try_from(crate::now() / 1_000_000).unwrap_or(0), Relaxed);
        *self.failure() = Some((Instant::now(), failure.message.clone()));
    }

    /// The message of the newest failure, if it came after this moment.
    pub fn failure_since(&self, moment: Instant) -> Option<String> {
        self.failure().as_ref().filter(|(at, _)| *at > moment).map(|(_, message)| message.clone())
    }

    fn failure(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        // One value that is replaced in one step.
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one to `gauge` until the returned value is dropped.
    pub fn during(gauge: &AtomicU64) -> impl Drop + '_ {
        struct During<'g>(&'g AtomicU64);
        impl Drop for During<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Relaxed);
            }
        }
        gauge.fetch_add(1, Relaxed);
        During(gauge)
    }

    /// Reads one of the counters.
    pub fn read(counter: &AtomicU64) -> u64 {
        counter.load(Relaxed)
    }
}
