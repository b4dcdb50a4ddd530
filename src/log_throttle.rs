//! Saying the same thing only now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time between two lines of a lasting problem.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// Lets the first of many similar messages through, and then one a minute, or at another interval.
#[derive(Debug)]
pub struct LogThrottle {
    again: Duration,
    last: Mutex<Option<Instant>>,
}

impl Default for LogThrottle {
    fn default() -> Self {
        Self::every(REPEAT_INTERVAL)
    }
}

impl LogThrottle {
    /// A throttle with this time between two lines.
    pub fn every(again: Duration) -> Self {
        Self { again, last: Mutex::default() }
    }

    /// Whether the next line is due.
    pub fn now(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() > self.again);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_the_next_is_not() {
        let log_throttle = LogThrottle::default();
        assert!(log_throttle.now());
        assert!(!log_throttle.now());
    }
}
