//! Conclusions from the numbers: the batch timer dominates, or one stage is the bottleneck.

use super::{Measured, Run};
use crate::latency::percentile;
use crate::latency::table::time;
use crate::numbers::grouped;
use flows::Stage;
use hdrhistogram::Histogram;

/// The least number of events for conclusions about their shape.
const ENOUGH: u64 = 200;
/// How far from an even spread a percentile may lie, as a share of the whole.
const EVEN: f64 = 0.08;
/// The share of the whole way that the wait for a batch takes where the timer rules.
const MOST_OF_IT: f64 = 0.6;
/// Events that wait longer than this in Kafka are a backlog, in nanoseconds: reading takes milliseconds.
const BACKLOG_NS: f64 = 1e9;
/// Where inserts limit, batches queue for one: their wait is a good part of an insert. Else they hardly wait at all.
const QUEUED: f64 = 0.1;

/// One line each.
pub fn remarks(run: &Run) -> Vec<String> {
    let out_of_range = crate::latency::table::outside(&run.rows());
    timer(run).or_else(|| limit(run)).or_else(|| producer(run)).into_iter().chain(out_of_range).collect()
}

fn stage(run: &Run, stage: Stage) -> Option<&Measured> {
    run.stage(stage.as_str()).filter(|stage| stage.histogram.len() >= ENOUGH)
}

/// At a low rate, batches leave by time. Then the wait is as likely to be short as long, and that is no slowness.
fn timer(run: &Run) -> Option<String> {
    let (batch, e2e) = (&stage(run, Stage::Batch)?.histogram, &stage(run, Stage::EndToEnd)?.histogram);
    // Medians, because a few events with old timestamps make the mean of the whole way meaningless.
    let half = |histogram| percentile::at(histogram, 50.0) as f64;
    let rules = is_even(batch) && half(batch) > MOST_OF_IT * half(e2e);
    rules.then(|| {
        format!(
            "batch is spread evenly up to {}: that is the batch timer (--batch-timeout) at a low rate, not slowness",
            time(percentile::at(batch, 99.9))
        )
    })
}

fn is_even(histogram: &Histogram<u64>) -> bool {
    let top = percentile::at(histogram, 98.0) as f64 / 0.98;
    [10.0, 25.0, 50.0, 75.0, 90.0].iter().all(|&percent| {
        let value = percentile::at(histogram, percent) as f64;
        (value / top - percent / 100.0).abs() < EVEN
    })
}

/// With a backlog, all stages are as fast as they can be, and one of them holds up the others.
fn limit(run: &Run) -> Option<String> {
    let mean = |of| stage(run, of).and_then(|_| run.mean(of));
    let (transit, batch, insert, commit) =
        (mean(Stage::Transit)?, mean(Stage::Batch)?, mean(Stage::Insert)?, mean(Stage::Commit)?);
    let all = transit + batch + insert + commit;
    let shown = |nanos: f64| time(nanos as u64);
    let half_wait = percentile::at(&stage(run, Stage::Transit)?.histogram, 50.0) as f64;
    if half_wait < BACKLOG_NS && !run.is_backlog() {
        let (name, most) = [("transit", transit), ("batch", batch), ("insert", insert), ("commit", commit)]
            .into_iter()
            .max_by(|a, b| a.1.total_cmp(&b.1))?;
        return Some(format!(
            "{name} takes most of the time: {:.0} % of it, {} on average",
            most / all * 100.0,
            shown(most)
        ));
    }
    let drain = run.drain();
    let limit = if commit > batch + insert {
        format!("the bottleneck is commit: {} on average", shown(commit))
    } else if batch > QUEUED * insert {
        format!(
            "the bottleneck is insert: it takes {}, and batches wait {} for their turn",
            shown(insert),
            shown(batch)
        )
    } else {
        format!(
            "the bottleneck is transit: messages are inserted soon after they are read (after {}), so reading takes most of the time",
            shown(batch)
        )
    };
    Some(format!(
        "a backlog, ingested at {} events/s ({} events in {:.1} s): {limit}; means: batch {}, insert {}, commit {}; events were read {} \
         after their time, on average",
        drain.rate_shown(),
        grouped(drain.events),
        drain.seconds,
        shown(batch),
        shown(insert),
        shown(commit),
        shown(transit)
    ))
}

fn producer(run: &Run) -> Option<String> {
    let (slip, ack) = (stage(run, Stage::Slip)?.histogram.mean(), stage(run, Stage::Ack)?.histogram.mean());
    let shown = |nanos: f64| time(nanos as u64);
    Some(if slip > ack {
        format!(
            "slip takes most of the time: events are sent {} late on average, so the schedule is not kept",
            shown(slip)
        )
    } else {
        format!("ack takes most of the time: {} on average; the schedule is kept to {}", shown(ack), shown(slip))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flows::OutOfRange;

    const MS: u64 = 1_000_000;

    /// A run of a hundred seconds with these latencies of its stages, each for a thousand events.
    fn run(stages: &[(Stage, &dyn Fn(u64) -> u64)]) -> Run {
        let measured = stages.iter().map(|(stage, took)| {
            let mut histogram = Histogram::new(3).unwrap();
            (0..1_000).for_each(|nth| histogram.record(took(nth)).unwrap());
            Measured {
                name: stage.as_str().into(),
                histogram,
                outside: OutOfRange::default(),
                samples: 1_000,
                slices: Vec::new(),
            }
        });
        Run { range: (0.0, 100.0), stages: measured.collect(), ..Run::default() }
    }

    /// `ingest` with constant latencies of its stages, in milliseconds.
    fn ingest(transit: u64, batch: u64, insert: u64, commit: u64) -> Run {
        run(&[
            (Stage::Transit, &move |_| transit * MS),
            (Stage::Batch, &move |_| batch * MS),
            (Stage::Insert, &move |_| insert * MS),
            (Stage::Commit, &move |_| commit * MS),
            (Stage::EndToEnd, &move |_| (transit + batch + insert) * MS),
        ])
    }

    #[track_caller]
    fn says(run: &Run, expected: &str) {
        let said = remarks(run);
        assert!(said.iter().any(|line| line.contains(expected)), "{expected:?} is not in {said:?}");
    }

    #[test]
    fn an_even_spread_is_the_batch_timer() {
        let timer = run(&[
            (Stage::Batch, &|nth| nth * 9 / 2 * MS),
            (Stage::EndToEnd, &|nth| (nth * 9 / 2 + 30) * MS),
            (Stage::Transit, &|_| 10 * MS),
            (Stage::Insert, &|_| 20 * MS),
            (Stage::Commit, &|_| 3 * MS),
        ]);
        says(&timer, "batch is spread evenly up to 4.49 s: that is the batch timer (--batch-timeout) at a low rate");
        let some_are_old = run(&[
            (Stage::Batch, &|nth| nth * 9 / 2 * MS),
            (Stage::EndToEnd, &|nth| if nth % 50 == 0 { 1_800_000 * MS } else { (nth * 9 / 2 + 30) * MS }),
            (Stage::Transit, &|nth| if nth % 50 == 0 { 1_800_000 * MS } else { 10 * MS }),
            (Stage::Insert, &|_| 20 * MS),
            (Stage::Commit, &|_| 3 * MS),
        ]);
        says(&some_are_old, "that is the batch timer");
        // The mean is the same, but the waits are not even: this must not be taken for the timer.
        let stalls = run(&[
            (Stage::Batch, &|nth| if nth % 2 == 0 { 4_500 * MS } else { MS }),
            (Stage::EndToEnd, &|nth| if nth % 2 == 0 { 4_530 * MS } else { 31 * MS }),
            (Stage::Transit, &|_| 10 * MS),
            (Stage::Insert, &|_| 20 * MS),
            (Stage::Commit, &|_| 3 * MS),
        ]);
        says(&stalls, "batch takes most of the time");
    }

    #[test]
    fn without_a_backlog_it_is_the_longest_stage() {
        says(&ingest(10, 5, 80, 5), "insert takes most of the time: 80 % of it, 80.0 ms on average");
        says(&ingest(300, 50, 100, 50), "transit takes most of the time: 60 % of it");
    }

    #[test]
    fn with_a_backlog_it_is_the_stage_that_the_others_wait_for() {
        says(
            &ingest(20_000, 90, 120, 5),
            "a backlog, ingested at 10 events/s (1,000 events in 100.0 s): the bottleneck is insert",
        );
        says(
            &ingest(20_000, 90, 120, 5),
            "means: batch 90.0 ms, insert 120 ms, commit 5.00 ms; events were read 20.0 s after",
        );
        says(
            &ingest(20_000, 90, 120, 5),
            "the bottleneck is insert: it takes 120 ms, and batches wait 90.0 ms for their turn",
        );
        says(&ingest(20_000, 1, 120, 5), "the bottleneck is transit: messages are inserted soon after they are read");
        says(&ingest(20_000, 90, 120, 900), "the bottleneck is commit: 900 ms on average");
    }

    #[test]
    fn a_producer_that_is_late_is_told_from_a_broker_that_is_slow() {
        says(&run(&[(Stage::Slip, &|_| 50 * MS), (Stage::Ack, &|_| 5 * MS)]), "the schedule is not kept");
        says(
            &run(&[(Stage::Slip, &|_| MS), (Stage::Ack, &|_| 5 * MS)]),
            "ack takes most of the time: 5.00 ms on average",
        );
    }

    #[test]
    fn a_few_events_have_no_shape() {
        let mut few = ingest(10, 5, 80, 5);
        few.stages.iter_mut().for_each(|stage| stage.histogram = Histogram::new(3).unwrap());
        assert_eq!(remarks(&few), Vec::<String>::new());
    }
}
