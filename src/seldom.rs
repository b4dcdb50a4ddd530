//! Saying the same thing only now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What lasts is said again after this time.
const AGAIN: Duration = Duration::from_secs(10);

/// Lets one of many alike messages through: the first, and one every ten seconds.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether it is time to say it.
    pub fn now(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() > AGAIN);
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
        let seldom = Seldom::default();
        assert!(seldom.now());
        assert!(!seldom.now());
    }
}
