//! Whether ClickHouse answers, since when it does not, and that it is back: what every page says about it.

use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// When no query was sent for this time, nobody knows whether ClickHouse was away meanwhile.
const FORGET_MS: i64 = 5_000;
/// Starts of ClickHouse that are further apart are two. It tells its age in whole seconds, and answers late at times.
const SAME_START_MS: i64 = 3_000;

/// The state of ClickHouse that the page shows beside the answers. Clones share it. Times are milliseconds since the Unix epoch.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<Known>>);

#[derive(Clone, Default, Serialize)]
pub struct Known {
    /// The time of the first query that was not answered, in an unbroken series.
    pub since: Option<i64>,
    pub note: Option<String>,
    /// The end of the last such series.
    back: Option<Back>,
    /// The last start of ClickHouse, if the one before is known.
    restarted: Option<i64>,
    /// The insert of the newest row, to the second.
    pub newest: Option<i64>,
    #[serde(skip)]
    started: Option<i64>,
    #[serde(skip)]
    asked: i64,
    #[serde(skip)]
    answered: i64,
}

#[derive(Clone, Serialize)]
struct Back {
    at: i64,
    away_ms: i64,
}

pub fn now_ms() -> i64 {
    flows::now() / 1_000_000
}

impl Health {
    /// Notes that ClickHouse is away, with a text about it; without a text, that it is back.
    pub fn note(&self, text: Option<&str>) {
        let now = now_ms();
        match text {
            Some(_) => self.failed(now, now),
            None => self.answered(now, None),
        }
        self.lock().note = text.map(str::to_owned);
    }

    /// The note.
    pub fn noted(&self) -> Option<String> {
        self.lock().note.clone()
    }

    /// A copy of the present state.
    pub fn known(&self) -> Known {
        self.lock().clone()
    }

    /// A query that was sent at `asked` has not been answered.
    pub fn failed(&self, asked: i64, now: i64) {
        let mut known = self.lock();
        // A later query has been answered: this one was slow.
        if asked >= known.answered {
            known.forget(now);
            known.since.get_or_insert(asked);
            known.asked = now;
        }
    }

    /// ClickHouse has answered, and perhaps said for how many seconds it runs.
    pub fn answered(&self, now: i64, uptime_s: Option<i64>) {
        let mut known = self.lock();
        known.forget(now);
        if let Some(since) = known.since.take() {
            known.back = Some(Back { at: now, away_ms: now - since });
        }
        if let Some(started) = uptime_s.map(|seconds| now - seconds * 1_000) {
            match known.started {
                Some(before) if (started - before).abs() <= SAME_START_MS => {}
                before => (known.started, known.restarted) = (Some(started), before.map(|_| started)),
            }
        }
        (known.asked, known.answered) = (now, now);
    }

    /// The newest row is from this time; there may be none.
    pub fn newest(&self, newest: Option<i64>) {
        self.lock().newest = newest;
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn forget(&mut self, now: i64) {
        if self.note.is_none() && now - self.asked > FORGET_MS {
            self.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(health: &Health) -> Option<i64> {
        health.known().since
    }

    #[test]
    fn away_begins_with_the_first_unanswered_query_and_ends_with_an_answer() {
        let health = Health::default();
        health.answered(1_000, None);
        health.failed(2_000, 3_000);
        health.failed(3_000, 4_000);
        assert_eq!(since(&health), Some(2_000));
        health.answered(5_000, None);
        assert_eq!(since(&health), None);
        let back = health.known().back.unwrap();
        assert_eq!((back.at, back.away_ms), (5_000, 3_000));
        health.failed(6_000, 7_000);
        assert_eq!(since(&health), Some(6_000), "an earlier outage does not count");
    }

    #[test]
    fn a_failure_is_forgotten_while_nobody_asks() {
        let health = Health::default();
        health.failed(1_000, 2_000);
        health.failed(100_000, 101_000);
        assert_eq!(since(&health), Some(100_000));
        health.answered(200_000, None);
        assert!(health.known().back.is_none(), "nobody knows whether it was away all that time");
    }

    #[test]
    fn a_slow_query_is_not_an_outage_while_others_are_answered() {
        let health = Health::default();
        health.answered(9_000, None);
        health.failed(1_000, 11_000);
        assert_eq!(since(&health), None);
    }

    #[test]
    fn a_restart_is_known_by_a_new_start_also_if_nobody_saw_it_away() {
        let health = Health::default();
        let restarted = |now, uptime| {
            health.answered(now, Some(uptime));
            health.known().restarted
        };
        assert_eq!(restarted(100_000, 50), None);
        assert_eq!(restarted(101_900, 51), None);
        assert_eq!(restarted(110_000, 2), Some(108_000));
        assert_eq!(restarted(111_000, 3), Some(108_000));
    }

    #[test]
    fn a_note_marks_clickhouse_as_away_until_it_is_withdrawn() {
        let health = Health::default();
        health.note(Some("ClickHouse ended, and is being restarted"));
        assert!(since(&health).is_some() && health.noted().is_some());
        health.note(None);
        assert_eq!((since(&health), health.noted()), (None, None));
    }
}
