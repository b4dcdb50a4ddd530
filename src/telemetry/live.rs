//! The figures of a running ingester, of the last minute and with what waits: one source for the status line, the demo's view and
//! `/metrics`.

use super::rejections::share;
use crate::latency::{EndToEnd, Window, table};
use flows::Metrics;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A running ingester's metrics, and what they are judged by.
#[derive(Clone)]
pub struct Live {
    pub metrics: Arc<Metrics>,
    pub window: Arc<Window>,
    /// The latency target, `--batch-timeout`.
    pub promise: Duration,
}

impl Live {
    /// The end-to-end latency of events that were stored in the last minute, or wait.
    pub fn end_to_end(&self) -> EndToEnd {
        let waiting = self.metrics.waiting().clone();
        self.window.end_to_end(&self.metrics.latencies(), &waiting, Instant::now())
    }

    /// The age of the oldest message that waits.
    pub fn oldest(&self) -> Duration {
        self.metrics.waiting().oldest(Instant::now())
    }

    /// The percentiles in words, and the verdict; without events, the reason why there are none.
    pub fn latency(&self) -> (String, Option<Verdict>) {
        let all = self.end_to_end();
        if all.is_empty() {
            let rows = Metrics::read(&self.metrics.events) + self.metrics.rejects.total();
            return (if rows == 0 { "no rows yet" } else { "no events in the last minute" }.into(), None);
        }
        let words = format!(
            "p50 {} p99 {} max {}",
            table::time(all.at(50.0)),
            table::time(all.at(99.0)),
            table::time(all.max())
        );
        (words, Some(Verdict::of(self.promise, &all)))
    }
}

/// Whether the promise was kept in the last minute.
pub struct Verdict {
    promise: Duration,
    late: u64,
    of: u64,
}

impl Verdict {
    fn of(promise: Duration, all: &EndToEnd) -> Self {
        Self { promise, late: all.above(promise), of: all.len() }
    }

    /// Whether each event kept it.
    pub const fn is_kept(&self) -> bool {
        self.late == 0
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let promise = table::short(self.promise.as_nanos().try_into().unwrap_or(u64::MAX));
        match self.late {
            0 => write!(f, "promise of {promise} kept"),
            late => write!(f, "promise of {promise} broken for {}", share(late, self.of)),
        }
    }
}
