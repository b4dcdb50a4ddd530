//! How old the messages are that wait: those that a topic holds and that are not stored yet.
//!
//! The end of a partition is seen again and again. A message came between the moment at which the end was last seen before it and
//! the moment at which it was first seen behind it; messages in between count as evenly spread.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// With more sightings than this, every second one is forgotten: a year of waiting needs no more memory than an hour.
const SIGHTINGS: usize = 256;

/// Messages that wait, and came evenly spread between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The number of messages.
    pub count: u64,
    /// The moment at which the first one came.
    pub first: Instant,
    /// The moment at which the last one came.
    pub last: Instant,
}

/// All messages that wait. Their age grows by itself.
#[derive(Clone, Debug, Default)]
pub struct Waiting(pub Vec<Run>);

impl Waiting {
    /// The age of the oldest one; zero if none waits.
    pub fn oldest(&self, now: Instant) -> Duration {
        let ages = self.0.iter().map(|run| now.saturating_duration_since(run.first));
        ages.max().unwrap_or_default()
    }
}

/// Events that a producer sends, due on a fixed grid.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// When the first one was due.
    pub since: Instant,
    /// How many are due in a second.
    pub rate: f64,
    /// How many are due in all.
    pub count: Option<u64>,
}

impl Due {
    /// The events that are due and not done, of which so many are done.
    pub fn waiting(&self, done: u64, now: Instant) -> Waiting {
        let due = (now.saturating_duration_since(self.since).as_secs_f64() * self.rate) as u64;
        let count = due.min(self.count.unwrap_or(u64::MAX)).saturating_sub(done);
        let first = self.since + Duration::from_secs_f64(done as f64 / self.rate);
        let last = first + Duration::from_secs_f64(count as f64 / self.rate);
        Waiting((count > 0).then_some(Run { count, first, last }).into_iter().collect())
    }
}

/// When the messages of a partition came, as far as it was seen.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    /// The first offset behind the partition's last message, and when that was seen. Oldest first; the last two have the same end
    /// while nothing comes.
    seen: VecDeque<(i64, Instant)>,
}

impl Arrivals {
    /// Notes that the partition ended at `end` when a broker was `asked`, and is stored up to `stored`; returns the messages in
    /// between. An end that is not asked for again is no news: what comes next may have come since then. `newest` is when the newest
    /// stored event happened: a message that was there before the first sighting came after that, and without it, counts as old as
    /// the first sighting.
    pub fn see(&mut self, stored: i64, end: i64, asked: Instant, newest: Option<Instant>) -> Vec<Run> {
        if self.seen.back().is_some_and(|&(before, _)| end < before) {
            // Another topic, or a truncated one.
            self.seen.clear();
        }
        self.note(end, asked);
        while self.seen.get(1).is_some_and(|&(end, _)| end <= stored) {
            self.seen.pop_front();
        }
        let Some(&(first_end, first_seen)) = self.seen.front() else { return Vec::new() };
        let unseen = Run {
            count: u64::try_from(first_end - stored).unwrap_or(0),
            first: newest.unwrap_or(first_seen).min(first_seen),
            last: first_seen,
        };
        let between = self.seen.iter().zip(self.seen.iter().skip(1));
        let seen = between.map(|(&(from, first), &(to, last))| {
            let waiting = u64::try_from(to - from.max(stored)).unwrap_or(0);
            let all = u64::try_from(to - from).unwrap_or(0).max(1);
            let since = last.duration_since(first).mul_f64(waiting as f64 / all as f64);
            Run { count: waiting, first: last.checked_sub(since).unwrap_or(first), last }
        });
        std::iter::once(unseen).chain(seen).filter(|run| run.count > 0).collect()
    }

    fn note(&mut self, end: i64, asked: Instant) {
        let last = self.seen.back().copied();
        let idle = self.seen.len() > 1 && self.seen.iter().rev().take(2).all(|&(before, _)| before == end);
        if idle {
            self.seen.pop_back();
        }
        self.seen.push_back((end, last.map_or(asked, |(_, last)| last.max(asked))));
        if self.seen.len() > SIGHTINGS {
            let last = self.seen.len() - 1;
            let mut nth = 0..;
            self.seen.retain(|_| nth.next().is_some_and(|nth| nth % 2 == 0 || nth == last));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(began: Instant, ms: u64) -> Instant {
        began + Duration::from_millis(ms)
    }

    #[test]
    fn a_message_is_as_old_as_the_first_sighting_of_an_end_behind_it() {
        let (mut arrivals, began) = (Arrivals::default(), Instant::now());
        assert_eq!(arrivals.see(0, 0, began, None), []);
        // Nothing comes for an hour: what comes then is not an hour old.
        assert_eq!(arrivals.see(0, 0, at(began, 3_600_000), None), []);
        let runs = arrivals.see(0, 100, at(began, 3_601_000), None);
        assert_eq!(runs, [Run { count: 100, first: at(began, 3_600_000), last: at(began, 3_601_000) }]);
        let runs = arrivals.see(50, 200, at(began, 3_602_000), None);
        let half = Run { count: 50, first: at(began, 3_600_500), last: at(began, 3_601_000) };
        assert_eq!(runs, [half, Run { count: 100, first: at(began, 3_601_000), last: at(began, 3_602_000) }]);
        assert_eq!(Waiting(runs).oldest(at(began, 3_610_000)), Duration::from_millis(9_500));
        assert_eq!(arrivals.see(200, 200, at(began, 3_603_000), None), []);
    }

    #[test]
    fn a_message_may_be_as_old_as_the_last_answer_before_it() {
        let (mut arrivals, began) = (Arrivals::default(), Instant::now());
        arrivals.see(100, 100, began, None);
        // Kafka is away for a minute: each look repeats what it has said before.
        for _ in 0..60 {
            assert_eq!(arrivals.see(100, 100, at(began, 1_000), None), []);
        }
        let runs = arrivals.see(100, 700, at(began, 61_000), None);
        assert_eq!(runs, [Run { count: 600, first: at(began, 1_000), last: at(began, 61_000) }]);
        // A later answer of a broker that was asked before.
        let runs = arrivals.see(700, 800, at(began, 60_000), None);
        assert_eq!(runs, [Run { count: 100, first: at(began, 61_000), last: at(began, 61_000) }]);
    }

    #[test]
    fn a_backlog_of_before_the_first_sighting_came_after_the_newest_stored_event() {
        let (mut arrivals, began) = (Arrivals::default(), Instant::now());
        let now = at(began, 60_000);
        assert_eq!(arrivals.see(0, 1_000, now, None), [Run { count: 1_000, first: now, last: now }]);
        let later = at(began, 61_000);
        assert_eq!(arrivals.see(400, 1_000, later, Some(began)), [Run { count: 600, first: began, last: now }]);
        // A clock that is ahead.
        assert_eq!(
            arrivals.see(400, 1_000, later, Some(at(later, 5_000))),
            [Run { count: 600, first: now, last: now }]
        );
        // The topic is another one.
        assert_eq!(arrivals.see(0, 10, later, None), [Run { count: 10, first: later, last: later }]);
    }

    #[test]
    fn an_event_that_is_due_waits_until_it_is_done() {
        let began = Instant::now();
        let due = Due { since: began, rate: 100.0, count: Some(1_000) };
        assert_eq!(due.waiting(500, at(began, 5_000)).0, []);
        let waiting = due.waiting(500, at(began, 8_000));
        assert_eq!(waiting.0, [Run { count: 300, first: at(began, 5_000), last: at(began, 8_000) }]);
        assert_eq!(waiting.oldest(at(began, 8_000)), Duration::from_secs(3));
        assert_eq!(due.waiting(500, at(began, 60_000)).0[0].count, 500, "no more are due");
    }

    #[test]
    fn a_long_wait_takes_bounded_memory_and_stays_as_old_as_it_is() {
        let (mut arrivals, began) = (Arrivals::default(), Instant::now());
        arrivals.see(0, 0, began, None);
        for second in 1..=10_000 {
            let runs = arrivals.see(0, 100 * second, at(began, 1_000 * second as u64), None);
            assert_eq!(runs.iter().map(|run| run.count).sum::<u64>(), 100 * second as u64);
            assert_eq!(runs[0].first, began);
        }
        assert!(arrivals.seen.len() <= SIGHTINGS + 1);
    }
}
