//! Where the time goes: the parts of an event's way that add up to the whole.
//!
//! `transit` is split into `slip`, `ack` and the rest, where the producer's log is there and says so; `batch` and `insert` follow, and
//! the sum is `e2e`. `commit` comes after the event can be queried, so it stands beside the sum.

use super::timeline::Columns;
use super::{Measured, Run};
use flows::Stage;

/// The labels of the parts of transit, where a producer's log tells them.
const PARTS: [&str; 3] = ["transit: slip", "transit: ack", "transit: rest"];

/// The parts that add up.
pub struct Stack<'r> {
    /// The label, and the stage whose colour it has.
    pub parts: Vec<(&'r str, &'r str)>,
    /// The mean of each part over the run, in nanoseconds.
    pub means: Vec<f64>,
    /// The mean of each part in each column; none for a column without an event.
    pub columns: Vec<Option<Vec<f64>>>,
}

/// Number and sum of the latencies of a stage.
type Sum = (u64, f64);

impl<'r> Stack<'r> {
    /// The parts of a run, and of each column of it.
    pub fn of(run: &'r Run, columns: &Columns) -> Self {
        let stage = |stage: Stage| run.stage(stage.as_str());
        let [slip, ack, transit, batch, insert] =
            [Stage::Slip, Stage::Ack, Stage::Transit, Stage::Batch, Stage::Insert].map(stage);
        let mut split = vec![slip, ack].into_iter().flatten().collect::<Vec<_>>();
        if transit.is_some() && split.len() < 2 {
            split.clear();
        }
        let rest: Vec<_> = [batch, insert].into_iter().flatten().collect();
        let mut order: Vec<&Measured> = split.iter().copied().chain(transit).chain(rest).collect();
        if order.is_empty() {
            order.push(run.headline());
        }
        let splits = transit.is_some() && !split.is_empty();
        let label = |(nth, stage): (usize, &&'r Measured)| -> (&'r str, &'r str) {
            (PARTS.get(nth).copied().filter(|_| splits).unwrap_or(&stage.name), &stage.name)
        };
        let parts = order.iter().enumerate().map(label).collect();
        let parted = |sums: Vec<Sum>| parted(sums, splits);
        let means = parted(order.iter().map(|stage| sum(stage)).collect()).unwrap_or_default();
        let each: Vec<_> = order.iter().map(|stage| columns.sums(stage)).collect();
        let column = |nth: usize| parted(each.iter().map(|sums| sums[nth]).collect());
        Self { parts, means, columns: (0..columns.number).map(column).collect() }
    }

    /// The sum of the parts: the mean of the whole way.
    pub fn total(&self) -> f64 {
        self.means.iter().sum()
    }
}

fn sum(stage: &Measured) -> Sum {
    let events = stage.histogram.len();
    (events, stage.histogram.mean() * events as f64)
}

/// The mean of each part; none if no event went the whole way. With `splits`, the first three are slip, ack and transit. An event can be
/// received before its producer has seen the acknowledgement: only the part of `ack` before that is a part of transit.
fn parted(sums: Vec<Sum>, splits: bool) -> Option<Vec<f64>> {
    let way = if splits { &sums[2..] } else { &sums[..] };
    if way.iter().all(|(events, _)| *events == 0) {
        return None;
    }
    let mut means: Vec<_> =
        sums.iter().map(|&(events, sum)| if events == 0 { 0.0 } else { sum / events as f64 }).collect();
    if splits {
        let transit = means[2];
        means[0] = means[0].min(transit);
        means[1] = means[1].min(transit - means[0]);
        means[2] = transit - means[0] - means[1];
    }
    Some(means)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::latency::log::Interval;
    use flows::Latencies;

    const MS: i64 = 1_000_000;

    /// A run with these latencies in its seconds: the second, the stage, milliseconds, events.
    pub fn run_of(recorded: &[(u64, Stage, i64, u64)]) -> Run {
        let mut run = Run { range: (f64::MAX, 0.0), ..Run::default() };
        for &(second, stage, millis, events) in recorded {
            let mut latencies = Latencies::default();
            latencies.record_all(stage, millis * MS, events);
            let (histogram, outside) = (latencies.of(stage).clone(), latencies.outside(stage));
            let (stage, start) = (stage.as_str(), second as f64);
            run.add(&Interval { stage, start, length: 1.0, histogram, outside, samples: events }).unwrap();
        }
        run.set_backlog_apart();
        run
    }

    /// An ingester's latencies: the second, then transit, batch, insert and commit in milliseconds, and events.
    fn ingested(seconds: &[(u64, [i64; 4], u64)]) -> Vec<(u64, Stage, i64, u64)> {
        let stages = [Stage::Transit, Stage::Batch, Stage::Insert, Stage::Commit];
        let each = seconds.iter().flat_map(|&(second, took, events)| {
            let parts = stages.into_iter().zip(took).map(move |(stage, took)| (second, stage, took, events));
            parts.chain([(second, Stage::EndToEnd, took[..3].iter().sum(), events)])
        });
        each.collect()
    }

    #[track_caller]
    fn adds_up(run: &Run, labels: &[&str]) {
        let columns = Columns::of(run);
        let stack = Stack::of(run, &columns);
        assert_eq!(stack.parts.iter().map(|(label, _)| *label).collect::<Vec<_>>(), labels);
        let close =
            |is: f64, wanted: f64, what: &str| assert!((is / wanted - 1.0).abs() < 0.002, "{what}: {is} {wanted}");
        let mean = |(events, sum): Sum| sum / events as f64;
        close(stack.total(), mean(sum(run.whole())), "the run");
        for (nth, (column, &whole)) in stack.columns.iter().zip(&columns.sums(run.whole())).enumerate() {
            match column {
                Some(parts) => close(parts.iter().sum(), mean(whole), &format!("column {nth}")),
                None => assert_eq!(whole.0, 0),
            }
        }
    }

    #[test]
    fn the_stacked_means_add_up_to_the_mean_of_the_whole_way() {
        let seconds = [(0, [100, 20, 5, 3], 1_000), (1, [900, 40, 9, 7], 10), (3, [80, 20, 5, 200], 1_000)];
        let ingester = ingested(&seconds);
        adds_up(&run_of(&ingester), &["transit", "batch", "insert"]);
        let mut both = ingester.clone();
        for second in 0..4 {
            // In the last second, slip and ack exceed transit.
            both.push((second, Stage::Slip, if second == 3 { 70 } else { 40 }, 1_000));
            both.push((second, Stage::Ack, 30, 1_000));
        }
        adds_up(&run_of(&both), &["transit: slip", "transit: ack", "transit: rest", "batch", "insert"]);
    }

    #[test]
    fn transit_is_split_by_what_is_known_of_it_and_its_parts_never_exceed_it() {
        let parts = |slip, ack, transit| parted(vec![(1, slip), (1, ack), (2, 2.0 * transit), (1, 5.0)], true).unwrap();
        assert_eq!(parts(1.0, 2.0, 10.0), [1.0, 2.0, 7.0, 5.0]);
        assert_eq!(parts(8.0, 4.0, 10.0), [8.0, 2.0, 0.0, 5.0]);
        assert_eq!(parts(12.0, 4.0, 10.0), [10.0, 0.0, 0.0, 5.0]);
    }

    #[test]
    fn a_producer_alone_has_slip_and_ack() {
        let run = run_of(&[(0, Stage::Slip, 2, 10), (0, Stage::Ack, 8, 10)]);
        let stack = Stack::of(&run, &Columns::of(&run));
        assert_eq!(stack.parts, [("slip", "slip"), ("ack", "ack")]);
        assert!((stack.total() / (10.0 * MS as f64) - 1.0).abs() < 0.002);
    }
}
