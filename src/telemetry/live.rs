//! The figures of a running pipeline, of the last minute and with what waits: one source for the status line, the demo's view and
//! `/metrics`.

use super::rejections::share;
use crate::latency::{Recent, Window, table};
use flows::{Metrics, Stage, Waiting};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A running pipeline's metrics, and what they are judged by.
#[derive(Clone)]
pub struct Live {
    pub metrics: Arc<Metrics>,
    pub window: Arc<Window>,
    /// The latency target of an ingester, `--batch-timeout`.
    pub promise: Duration,
}

impl Live {
    /// The latency in a stage of the last minute, and of messages that wait.
    pub fn recent(&self, stage: Stage) -> Recent {
        let waiting = self.waiting();
        self.window.recent(stage, &self.metrics.latencies(), &waiting, Instant::now())
    }

    /// The messages that wait: to be stored, or to be acknowledged.
    pub fn waiting(&self) -> Waiting {
        match *self.metrics.due() {
            Some(due) => due.waiting(Metrics::read(&self.metrics.events), Instant::now()),
            None => self.metrics.waiting().clone(),
        }
    }

    /// The age of the oldest message that waits.
    pub fn oldest(&self) -> Duration {
        self.waiting().oldest(Instant::now())
    }

    /// The percentiles in words, then the longest latency and the verdict; without events, the reason why there are none.
    pub fn latency(&self) -> (String, Option<(String, Verdict)>) {
        let all = self.recent(Stage::EndToEnd);
        if all.is_empty() {
            let rows = Metrics::read(&self.metrics.events) + self.metrics.rejects.total();
            return (if rows == 0 { "no rows yet" } else { "no events in the last minute" }.into(), None);
        }
        let time = |percent| table::time(all.at(percent));
        let rest = (format!("max {}", table::time(all.max())), Verdict::of(self.promise, &all));
        (format!("p50 {} p99 {}", time(50.0), time(99.0)), Some(rest))
    }
}

/// Whether the promise was kept in the last minute.
pub struct Verdict {
    promise: Duration,
    late: u64,
    of: u64,
}

impl Verdict {
    fn of(promise: Duration, all: &Recent) -> Self {
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
