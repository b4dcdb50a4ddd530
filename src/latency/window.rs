//! Latencies of the last minute. Percentiles since the start would soon hide a present slowness, and show a past one without end.

use super::percentile;
use flows::{Latencies, Stage, Waiting};
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time for which a latency counts.
pub const MINUTE: Duration = Duration::from_secs(60);
/// Messages that wait are counted in steps of this length, and in this many steps of a run at most.
const STEP: Duration = Duration::from_millis(100);
const STEPS: u64 = 200;

/// The latencies of the last minute, and of all time.
#[derive(Default)]
pub struct Window(Mutex<Parts>);

#[derive(Default)]
struct Parts {
    recent: Latencies,
    total: Latencies,
    /// The parts of `recent`, each with the moment at which it was added.
    added: VecDeque<(Instant, Part)>,
}

/// Recorded values: the stage, the nanoseconds, and the number of events.
type Part = Vec<(Stage, u64, u64)>;

impl Window {
    /// Adds the latencies since the last call.
    pub fn add(&self, taken: &Latencies, now: Instant) {
        let mut parts = self.parts(now);
        let values = |stage| {
            let recorded = taken.of(stage).iter_recorded();
            recorded.map(move |step| (stage, step.value_iterated_to(), step.count_at_value()))
        };
        let part: Part = Stage::ALL.into_iter().filter(|stage| !taken.of(*stage).is_empty()).flat_map(values).collect();
        if !part.is_empty() {
            parts.recent.add(taken);
            parts.total.add(taken);
            parts.added.push_back((now, part));
        }
    }

    /// Reads the latencies of the last minute, and of all time.
    pub fn read<T>(&self, now: Instant, read: impl FnOnce(&Latencies, &Latencies) -> T) -> T {
        let parts = self.parts(now);
        read(&parts.recent, &parts.total)
    }

    /// The latencies of all time.
    pub fn total(&self) -> Latencies {
        self.parts(Instant::now()).total.clone()
    }

    /// The latencies of a stage in the last minute, also those that are not added yet. A message that waits counts as well: its
    /// latency is at least its age.
    pub fn recent(&self, stage: Stage, not_added: &Latencies, waiting: &Waiting, now: Instant) -> Recent {
        let mut all = self.read(now, |recent, _| recent.of(stage).clone());
        all.add(not_added.of(stage)).expect("the same bounds everywhere");
        for run in &waiting.0 {
            let (oldest, newest) = (now.saturating_duration_since(run.first), now.saturating_duration_since(run.last));
            let spread = oldest.saturating_sub(newest);
            let steps = (spread.as_millis() / STEP.as_millis() + 1).min(STEPS.into()) as u64;
            for step in 0..steps {
                let count = run.count * (step + 1) / steps - run.count * step / steps;
                let age = oldest - spread.mul_f64((step as f64 + 0.5) / steps as f64);
                all.saturating_record_n(nanos(age).max(all.low()), count);
            }
        }
        let oldest = nanos(waiting.oldest(now));
        Recent { all, oldest }
    }

    fn parts(&self, now: Instant) -> MutexGuard<'_, Parts> {
        // Histograms hold no invariant that a panicking thread could have broken.
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.forget(now);
        parts
    }
}

impl Parts {
    fn forget(&mut self, now: Instant) {
        let mut old = None;
        let is_old = |added: &Instant| now.saturating_duration_since(*added) > MINUTE;
        while self.added.front().is_some_and(|(added, _)| is_old(added)) {
            let (Some((_, part)), old) = (self.added.pop_front(), old.get_or_insert_with(Latencies::default)) else {
                break;
            };
            for (stage, value, count) in part {
                old.record_all(stage, value.try_into().unwrap_or(i64::MAX), count);
            }
        }
        if let Some(old) = old {
            self.recent.subtract(&old);
        }
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// Latencies of events that are done and of messages that wait, in nanoseconds.
pub struct Recent {
    all: Histogram<u64>,
    oldest: u64,
}

impl Recent {
    /// Whether no event was done in the last minute, and none waits.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The number of events.
    pub fn len(&self) -> u64 {
        self.all.len()
    }

    /// A percentile.
    pub fn at(&self, percent: f64) -> u64 {
        percentile::at(&self.all, percent)
    }

    /// The longest latency.
    pub fn max(&self) -> u64 {
        self.all.max().max(self.oldest)
    }

    /// The number of events that took longer than this.
    pub fn above(&self, promise: Duration) -> u64 {
        self.len() - self.all.count_between(0, nanos(promise))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flows::Run;

    fn after(began: Instant, seconds: u64) -> Instant {
        began + Duration::from_secs(seconds)
    }

    fn events(seconds: i64, count: u64) -> Latencies {
        let mut latencies = Latencies::default();
        latencies.record_all(Stage::EndToEnd, seconds * 1_000_000_000, count);
        latencies
    }

    fn seconds(nanos: u64) -> u64 {
        (nanos as f64 / 1e9).round() as u64
    }

    #[test]
    fn a_latency_counts_for_a_minute_and_in_the_total_without_end() {
        let (window, began) = (Window::default(), Instant::now());
        window.add(&events(30, 1), began);
        window.add(&events(1, 9), after(began, 20));
        let max = |second| {
            seconds(
                window.recent(Stage::EndToEnd, &Latencies::default(), &Waiting::default(), after(began, second)).max(),
            )
        };
        assert_eq!((max(20), max(60), max(61), max(81)), (30, 30, 1, 0));
        assert!(
            window.recent(Stage::EndToEnd, &Latencies::default(), &Waiting::default(), after(began, 81)).is_empty()
        );
        assert_eq!(window.total().of(Stage::EndToEnd).len(), 10);
        window.add(&events(2, 5), after(began, 100));
        assert_eq!(
            window.read(after(began, 100), |recent, total| {
                (recent.of(Stage::EndToEnd).len(), total.of(Stage::EndToEnd).len())
            }),
            (5, 15)
        );
    }

    #[test]
    fn what_waits_counts_as_old_as_it_is_now_and_breaks_the_promise_while_it_waits() {
        let (window, began) = (Window::default(), Instant::now());
        window.add(&events(1, 1_000), began);
        // A sink that is frozen: 100 messages come each second, and none is stored.
        let waiting = |second| Waiting(vec![Run { count: 100 * second, first: began, last: after(began, second) }]);
        let at = |second| window.recent(Stage::EndToEnd, &Latencies::default(), &waiting(second), after(began, second));
        assert_eq!((at(2).len(), seconds(at(2).max()), at(2).above(Duration::from_secs(5))), (1_200, 2, 0));
        let half_minute = at(30);
        assert_eq!(half_minute.len(), 4_000);
        assert_eq!((seconds(half_minute.max()), seconds(half_minute.at(99.0))), (30, 30));
        assert_eq!(seconds(half_minute.at(50.0)), 10, "a quarter took 1 s, the others are spread up to 30 s");
        assert_eq!(half_minute.max(), 30_000_000_000, "the oldest one is exactly as old as it is");
        let late = half_minute.above(Duration::from_secs(5));
        assert!((2_450..=2_550).contains(&late), "{late}");
        // Of a minute ago nothing is left: all that is known waits.
        assert_eq!(seconds(at(90).at(50.0)), 45);
    }
}
