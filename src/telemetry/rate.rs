//! How many rows a second: rows land in batches, so a rate is that from one batch to a later one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The shortest time over which a rate is taken, which is that of a log line.
const SHORTEST: Duration = Duration::from_secs(10);
/// The time that a batch may be late before the rate falls.
const LATE: Duration = Duration::from_secs(1);

/// The rate of a number that grows in steps.
pub struct RateMeter {
    /// The time between two steps of a steady flow.
    step: Duration,
    /// The number, and when it was first seen. Oldest first.
    seen: VecDeque<(Instant, u64)>,
}

impl RateMeter {
    /// A meter for a number that is 0 now, and of which a steady flow makes a step within `step`.
    pub fn new(step: Duration, now: Instant) -> Self {
        Self { step, seen: VecDeque::from([(now, 0)]) }
    }

    /// The rate a second, now that the number is `total`.
    pub fn read(&mut self, total: u64, now: Instant) -> f64 {
        if self.seen.back().is_none_or(|&(_, last)| last != total) {
            self.seen.push_back((now, total));
        }
        let window = SHORTEST.max(self.step * 2);
        let age = |at: Instant| now.saturating_duration_since(at);
        while self.seen.get(1).is_some_and(|&(at, _)| age(at) >= window) {
            self.seen.pop_front();
        }
        let (Some(&(from, first)), Some(&(to, total))) = (self.seen.front(), self.seen.back()) else { return 0.0 };
        let has_stood_still = age(from) > window + self.step + LATE;
        let time = match age(to) > self.step + LATE {
            _ if has_stood_still => window,
            true => age(from),
            false => to.saturating_duration_since(from),
        };
        let time = time.as_secs_f64();
        if time > 0.0 { (total - first) as f64 / time } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_in_batches_has_its_rate_at_each_look_until_it_stands_still() {
        let (began, timeout) = (Instant::now(), Duration::from_secs(5));
        let mut meter = RateMeter::new(timeout, began);
        let mut rate = |second: u64, rows| meter.read(rows, began + Duration::from_secs(second)).round() as u64;
        let rows = |second: u64| second * 10 / 45 * 450;
        for second in 1..=100 {
            let rate = rate(second, rows(second));
            assert!(second < 15 || (85..=115).contains(&rate), "{rate} rows/s at {second} s");
        }
        // The sink is frozen.
        assert!(rate(104, rows(100)) > 50);
        assert!(rate(110, rows(100)) < 60);
        assert_eq!(rate(116, rows(100)), 0);
        // Rows after an hour are not spread over it.
        assert_eq!(rate(3_700, rows(100) + 500), 50);
    }
}
