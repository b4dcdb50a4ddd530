//! The backlog of a start: events that waited before this process could read them.

use crate::now;
use std::collections::BTreeMap;

/// Events have milliseconds.
const NANOS_PER_MILLI: i64 = 1_000_000;
/// The mark of a partition that has caught up: no event is due before it.
const CAUGHT_UP: i64 = i64::MIN;

/// Tells the events that waited for this process from those that came while it was at work.
///
/// An event is backlog if it was due before the process started. So is an event that was due while the process was still reading
/// such events of its partition, for it waited behind them. When an event of the partition was due after the last of them had been
/// received, the partition has caught up, and stays so: a later wait is not a backlog, but a slowness of the pipeline.
#[derive(Debug)]
pub struct Backlog {
    started: i64,
    /// Events of the partition that were due before this are backlog.
    until: BTreeMap<i32, i64>,
}

impl Default for Backlog {
    fn default() -> Self {
        Self::before(now())
    }
}

impl Backlog {
    /// The backlog of a process that started at this time: nanoseconds since the Unix epoch.
    pub const fn before(started: i64) -> Self {
        // An event that is due in the millisecond of the start is not older than the start.
        Self { started: started / NANOS_PER_MILLI * NANOS_PER_MILLI, until: BTreeMap::new() }
    }

    /// Whether an event was a part of it. Events of a partition have to come in the order of the topic.
    pub fn holds(&mut self, partition: i32, due: i64, received: i64) -> bool {
        let until = self.until.entry(partition).or_insert(self.started);
        if due >= *until {
            *until = CAUGHT_UP;
            // An event can be older than the start, and have been sent after it.
            return due < self.started;
        }
        if due < self.started {
            *until = received.max(*until);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const START: i64 = 1_000 * SECOND;

    /// Whether each event, due and received at these seconds after the start, is backlog.
    fn held(events: &[(i64, i64)]) -> Vec<bool> {
        let mut backlog = Backlog::before(START);
        let held = |&(due, received)| backlog.holds(0, START + due * SECOND, START + received * SECOND);
        events.iter().map(held).collect()
    }

    #[test]
    fn events_that_were_due_before_the_start_or_waited_behind_such_events_are_backlog() {
        let events = [(-60, 1), (-1, 20), (5, 21), (19, 21), (20, 21), (21, 22)];
        assert_eq!(held(&events), [true, true, true, true, false, false]);
    }

    #[test]
    fn a_stall_is_never_excused_as_a_backlog() {
        assert_eq!(held(&[(0, 10), (5, 10), (9, 10)]), [false; 3], "from the start on, without a backlog");
        let events = [(-3, 1), (2, 2), (3, 13), (8, 13), (13, 13)];
        assert_eq!(held(&events), [true, false, false, false, false], "after a backlog");
        let events = [(-3, 1), (2, 2), (-60, 13), (8, 13)];
        assert_eq!(held(&events), [true, false, true, false], "an old event within it excuses no other");
        assert_eq!(held(&[(-3, 1), (2, 12), (11, 12)]), [true, false, false], "right behind a backlog");
    }

    #[test]
    fn each_partition_catches_up_by_itself() {
        let mut backlog = Backlog::before(START);
        assert!(backlog.holds(0, START - SECOND, START + 30 * SECOND));
        assert!(!backlog.holds(1, START + SECOND, START + 30 * SECOND));
        assert!(backlog.holds(0, START + SECOND, START + 30 * SECOND));
    }

    #[test]
    fn an_event_of_the_starts_own_millisecond_is_not_older_than_the_start() {
        let mut backlog = Backlog::before(START + 999_999);
        assert!(!backlog.holds(0, START, START + SECOND));
    }
}
