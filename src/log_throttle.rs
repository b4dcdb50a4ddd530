//! Saying the same thing only now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What lasts is said again after this time.
const AGAIN: Duration = Duration::from_secs(10);

/// Lets one of many alike messages through: the first, and one every ten seconds, or as often as is said.
#[derive(Debug)]
pub struct LogThrottle {
    again: Duration,
    last: Mutex<Option<Instant>>,
}

impl Default for LogThrottle {
    fn default() -> Self {
        Self::every(AGAIN)
    }
}

impl LogThrottle {
    /// What lasts is said again after this time.
    pub fn every(again: Duration) -> Self {
        Self { again, last: Mutex::default() }
    }

    /// Whether it is time to say it.
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
