//! The promise: an event can be queried less than this long after its timestamp.

use super::table::short;
use crate::numbers::grouped;
use hdrhistogram::Histogram;
use std::time::Duration;

/// The promise where none was configured: the default of `--batch-timeout`, in nanoseconds.
pub const PROMISE_NS: u64 = 5_000_000_000;

/// A promise in nanoseconds.
pub fn nanos(promise: Duration) -> u64 {
    u64::try_from(promise.as_nanos()).unwrap_or(u64::MAX)
}

/// How a promise was kept for the events that came while the ingester was caught up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    pub below_ns: u64,
    /// Events that took less.
    pub kept: u64,
    /// Events that are judged.
    pub of: u64,
    /// Events that are not judged: the backlog of a start.
    pub backlog: u64,
}

impl Judged {
    /// Judges a promise by the events that are no backlog; none if there is no event at all.
    pub fn new(current: &Histogram<u64>, backlog: u64, below_ns: u64) -> Option<Self> {
        let kept = if current.is_empty() { 0 } else { current.count_between(0, below_ns.saturating_sub(1)) };
        let judged = Self { below_ns, kept, of: current.len(), backlog };
        (judged.of + backlog > 0).then_some(judged)
    }

    /// Whether it was kept for each event.
    pub const fn is_kept(&self) -> bool {
        self.kept == self.of
    }

    /// The share of events for which it was kept, in percent; none if no event is judged.
    pub fn percent(&self) -> Option<f64> {
        (self.of > 0).then(|| self.kept as f64 / self.of as f64 * 100.0)
    }

    /// The share in digits, never rounded up to a promise that was not kept, nor down to one that was never kept.
    fn share(&self) -> Option<String> {
        let percent = self.percent()?;
        Some(match (self.is_kept(), self.kept) {
            (true, _) => "100 %".into(),
            (false, 0) => "0 %".into(),
            (false, _) => format!("{:.2} %", percent.clamp(0.01, 99.99)),
        })
    }

    /// In a line.
    pub fn line(&self) -> String {
        let below = short(self.below_ns);
        match (self.share(), self.backlog) {
            (Some(share), 0) => format!("e2e below {below}: {share} of {}", grouped(self.of)),
            (Some(share), backlog) => format!(
                "e2e below {below}: {share} of {} events that came while caught up; {} were older (backlog)",
                grouped(self.of),
                grouped(backlog)
            ),
            (None, backlog) => format!(
                "e2e below {below}: not judged, as no event came while caught up; {} were older (backlog)",
                grouped(backlog)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_above_the_promise_is_never_rounded_away() {
        let mut e2e = Histogram::new(3).unwrap();
        e2e.record_n(1_000_000, 1_000_000).unwrap();
        let line = |e2e: &_, below| Judged::new(e2e, 0, below).unwrap().line();
        assert_eq!(line(&e2e, PROMISE_NS), "e2e below 5 s: 100 % of 1,000,000");
        e2e.record(5_100_000_000).unwrap();
        assert_eq!(line(&e2e, PROMISE_NS), "e2e below 5 s: 99.99 % of 1,000,001");
        assert_eq!(line(&e2e, 300_000_000), "e2e below 300 ms: 99.99 % of 1,000,001");
        assert_eq!(line(&e2e, 1_000), "e2e below 1 µs: 0 % of 1,000,001");
    }

    #[test]
    fn a_backlog_is_counted_and_not_judged() {
        let mut e2e = Histogram::new(3).unwrap();
        e2e.record_n(1_000_000, 12_000).unwrap();
        assert_eq!(
            Judged::new(&e2e, 10_000_000, PROMISE_NS).unwrap().line(),
            "e2e below 5 s: 100 % of 12,000 events that came while caught up; 10,000,000 were older (backlog)"
        );
        let none_came = Judged::new(&Histogram::new(3).unwrap(), 7, PROMISE_NS).unwrap();
        assert_eq!(
            none_came.line(),
            "e2e below 5 s: not judged, as no event came while caught up; 7 were older (backlog)"
        );
        assert_eq!(none_came.percent(), None);
        assert_eq!(Judged::new(&Histogram::new(3).unwrap(), 0, PROMISE_NS), None);
    }
}
