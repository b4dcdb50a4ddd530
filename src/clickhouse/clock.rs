//! The ClickHouse server's clock, by which inserts expire.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An answer that took longer says little about the server's clock: only that it shows at least that.
const PROMPT: Duration = Duration::from_secs(1);

/// What the server's clock shows, going by its last prompt answer and the time that has passed since: mostly up to [`PROMPT`] less,
/// but never more, so that what expires by it does not live too long. Time is counted by a clock that nobody sets, and that stands
/// still while the machine sleeps: then, too, this one falls behind, and does not run ahead.
#[derive(Debug, Default)]
pub struct Clock {
    read: Mutex<Option<Moment>>,
}

/// A point in time, by two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    at: Instant,
    server_ms: i64,
}

impl Clock {
    /// Milliseconds since the Unix epoch. Before the server has answered for the first time, this machine's own.
    pub fn now_ms(&self) -> i64 {
        self.now().server_ms
    }

    /// Now.
    pub fn now(&self) -> Moment {
        let at = Instant::now();
        let server_ms = match *self.read() {
            Some(read) => read.server_ms + millis(at.saturating_duration_since(read.at)),
            None => flows::now() / 1_000_000,
        };
        Moment { at, server_ms }
    }

    /// How much time has passed since a moment, by whichever clock says more.
    pub fn since(&self, moment: Moment) -> Duration {
        let now = self.now();
        let by_server = u64::try_from(now.server_ms - moment.server_ms).unwrap_or(0);
        now.at.saturating_duration_since(moment.at).max(Duration::from_millis(by_server))
    }

    /// Takes it from an answer to a question that was asked at `asked`.
    pub fn set(&self, server_ms: i64, asked: Instant) {
        let at = Instant::now();
        let mut read = self.read();
        let is_behind =
            read.is_none_or(|read| read.server_ms + millis(at.saturating_duration_since(read.at)) < server_ms);
        if at - asked <= PROMPT || is_behind {
            *read = Some(Moment { at, server_ms });
        }
    }

    fn read(&self) -> MutexGuard<'_, Option<Moment>> {
        // One value that is replaced in one step.
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_by_prompt_answers_and_by_late_ones_only_where_it_is_behind() {
        let clock = Clock::default();
        let long_ago = Instant::now().checked_sub(PROMPT * 3).unwrap();
        clock.set(1_000_000, long_ago);
        assert!((1_000_000..1_060_000).contains(&clock.now_ms()), "better than none");
        clock.set(5_000_000, Instant::now());
        clock.set(4_000_000, long_ago);
        assert!((5_000_000..5_060_000).contains(&clock.now_ms()));
        clock.set(9_000_000, long_ago);
        assert!((9_000_000..9_060_000).contains(&clock.now_ms()));
        clock.set(3_000_000, Instant::now());
        assert!((3_000_000..3_060_000).contains(&clock.now_ms()), "it was set back");
    }

    #[test]
    fn a_machine_that_has_slept_learns_how_long_from_the_server() {
        let clock = Clock::default();
        clock.set(1_000_000, Instant::now());
        let before = clock.now();
        clock.set(2_000_000, Instant::now());
        assert!(clock.since(before) >= Duration::from_secs(1_000));
        clock.set(1_000, Instant::now());
        assert!(clock.since(before) < Duration::from_secs(60), "a clock that is set back takes no time away");
    }
}
