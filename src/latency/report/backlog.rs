//! The backlog of a start, told from the events that came while the ingester was caught up.

use super::run::{Measured, Slice, Throughput};
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The name of the stage that is `e2e` without `backlog`.
pub const CURRENT: &str = "current";

/// The intervals in which a backlog was drained.
#[derive(Debug)]
pub struct Drained {
    pub throughput: Throughput,
    /// When they began.
    starts: BTreeSet<i64>,
}

impl Drained {
    /// The intervals that have events of a backlog, and all that was ingested in them.
    pub fn of(e2e: &Measured, backlog: &Measured) -> Self {
        let starts: BTreeSet<_> = backlog.slices.iter().map(Slice::stamp).collect();
        let events = e2e.slices.iter().filter(|slice| starts.contains(&slice.stamp())).map(|slice| slice.events).sum();
        Self { throughput: Throughput { events, seconds: covered(&backlog.slices) }, starts }
    }

    /// The mean of a stage in these intervals, in nanoseconds; none without events.
    pub fn mean(&self, stage: &Measured) -> Option<f64> {
        let slices = stage.slices.iter().filter(|slice| self.starts.contains(&slice.stamp()));
        let (events, sum) = slices.fold((0, 0.0), |(events, sum), slice| (events + slice.events, sum + slice.sum));
        (events > 0).then(|| sum / events as f64)
    }
}

/// The time in seconds that is in at least one of these intervals.
fn covered(slices: &[Slice]) -> f64 {
    let mut ends: Vec<_> = slices.iter().map(|slice| (slice.start, slice.start + slice.length)).collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut seconds, mut until) = (0.0, f64::MIN);
    for (start, end) in ends {
        seconds += (end - start.max(until)).max(0.0);
        until = until.max(end);
    }
    seconds
}

/// The events of a stage that are not in another one. A damaged line of the log may have taken events from the first one only:
/// then none are left, and never less.
pub fn without(all: &Measured, others: &Measured) -> Measured {
    let mut histogram = Histogram::new_from(&all.histogram);
    for step in all.histogram.iter_recorded() {
        let value = step.value_iterated_to();
        let events = step.count_at_value().saturating_sub(others.histogram.count_at(value));
        // A value that is recorded zero times would still be the longest one.
        if events > 0 {
            histogram.saturating_record_n(value, events);
        }
    }
    let mut taken = BTreeMap::<_, VecDeque<_>>::new();
    others.slices.iter().for_each(|slice| taken.entry(slice.stamp()).or_default().push_back(slice));
    let mut rest = |slice: &Slice| match taken.get_mut(&slice.stamp()).and_then(VecDeque::pop_front) {
        Some(other) => slice.without(other),
        None => slice.clone(),
    };
    Measured {
        name: CURRENT.into(),
        samples: histogram.len(),
        histogram,
        outside: all.outside.without(others.outside),
        slices: all.slices.iter().map(&mut rest).filter(|slice| slice.events > 0).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::run::Run;
    use super::super::stack::tests::run_of;
    use flows::Stage;

    const MS: i64 = 1_000_000;

    /// A start with a backlog of 4,000 events, drained in two seconds, and ten events a second afterwards, up to a minute.
    fn restarted() -> Run {
        let (whole, backlog) = (Stage::EndToEnd, Stage::Backlog);
        let mut recorded = vec![(2, whole, 60_000, 1_000), (3, whole, 60_000, 3_000), (3, whole, 20, 10)];
        recorded.extend([(2, backlog, 60_000, 1_000), (3, backlog, 60_000, 3_000)]);
        recorded.extend((4..60).map(|second| (second, whole, 20, 10)));
        recorded.extend([(2, Stage::Insert, 90, 1_000), (3, Stage::Insert, 130, 3_010), (4, Stage::Insert, 5, 560)]);
        run_of(&recorded)
    }

    #[test]
    fn the_rate_of_a_backlog_is_that_of_its_own_intervals() {
        let run = restarted();
        assert!(run.is_backlog());
        assert_eq!(run.drain().to_string(), "4,010 events in 2.0 s, 2,005 events/s");
        assert_eq!(run.throughput().to_string(), "4,570 events in 58.0 s, 79 events/s");
        let insert = run.mean(Stage::Insert).unwrap() / MS as f64;
        assert!((insert - (90.0 * 1_000.0 + 130.0 * 3_010.0) / 4_010.0).abs() < 0.1, "{insert}");
    }

    #[test]
    fn the_promise_is_judged_by_the_events_that_are_no_backlog() {
        let mut run = restarted();
        let judged = run.judged(100_000_000).unwrap();
        assert_eq!((judged.kept, judged.of, judged.backlog), (570, 570, 4_000));
        let current = run.stage("current").unwrap();
        assert_eq!((current.histogram.len(), current.slices.len()), (570, 57));
        assert!(current.histogram.max() < 21 * MS as u64);
        assert_eq!(current.slices[0].bands.iter().map(|&(_, events)| events).sum::<u64>(), 10);
        assert!((current.slices[0].sum / (200.0 * MS as f64) - 1.0).abs() < 0.01);
        run.keep(&["insert".into()]).unwrap();
        assert_eq!(run.judged(100_000_000), Some(judged), "also where the report leaves it out");
    }

    #[test]
    fn a_damaged_line_never_makes_events_negative() {
        let run = run_of(&[(0, Stage::EndToEnd, 20, 10), (0, Stage::Backlog, 20, 30), (1, Stage::Backlog, 9, 1)]);
        assert_eq!((run.judged(1).unwrap().of, run.backlog), (0, 31));
        assert!(run.stage("current").is_none());
    }
}
