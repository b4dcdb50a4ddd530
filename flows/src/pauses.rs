//! Pauses of this process itself: it was stopped, or its machine was asleep. Services could not be heard meanwhile, so their silence
//! and the time limits of a drain do not count that time.

use std::time::{Duration, Instant};

/// A process that looks every second or more often has paused if it did not look for longer than this.
pub const PAUSED: Duration = Duration::from_secs(5);

/// Finds pauses, if it is told every second that time has passed.
#[derive(Debug, Default)]
pub struct Pauses {
    looked: Option<Instant>,
}

impl Pauses {
    /// Looks; returns the length of a pause since the last look.
    pub fn look(&mut self, now: Instant) -> Option<Duration> {
        let before = self.looked.replace(now)?;
        Some(now.saturating_duration_since(before)).filter(|pause| *pause > PAUSED)
    }

    /// The last look.
    pub const fn looked(&self) -> Option<Instant> {
        self.looked
    }
}
