//! What the numbers mean, where it can be told from them: the batch timer that rules, or the stage that limits.

use super::{Measured, Run};
use crate::table::{grouped, time};
use flows::Stage;
use hdrhistogram::Histogram;

/// Below so many events, no shape is read into them.
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
    let out_of_range = crate::table::outside(&run.rows());
    timer(run).or_else(|| limit(run)).or_else(|| producer(run)).into_iter().chain(out_of_range).collect()
}

fn stage(run: &Run, stage: Stage) -> Option<&Measured> {
    run.stage(stage.as_str()).filter(|stage| stage.histogram.len() >= ENOUGH)
}

/// At a low rate, batches leave by time. Then the wait is as likely to be short as long, and that is no slowness.
fn timer(run: &Run) -> Option<String> {
    let (batch, e2e) = (&stage(run, Stage::Batch)?.histogram, &stage(run, Stage::EndToEnd)?.histogram);
    let rules = is_even(batch) && batch.mean() > MOST_OF_IT * e2e.mean();
    rules.then(|| {
        format!(
            "batch is spread evenly up to {}: that is the batch timer (--batch-timeout) at a low rate, not slowness",
            time(batch.value_at_percentile(99.9))
        )
    })
}

fn is_even(histogram: &Histogram<u64>) -> bool {
    let top = histogram.value_at_percentile(98.0) as f64 / 0.98;
    [0.1, 0.25, 0.5, 0.75, 0.9].iter().all(|&share| {
        let value = histogram.value_at_quantile(share) as f64;
        (value / top - share).abs() < EVEN
    })
}

/// With a backlog, all stages are as fast as they can be, and one of them holds up the others.
fn limit(run: &Run) -> Option<String> {
    let mean = |of| Some(stage(run, of)?.histogram.mean());
    let (transit, batch, insert, commit) =
        (mean(Stage::Transit)?, mean(Stage::Batch)?, mean(Stage::Insert)?, mean(Stage::Commit)?);
    let all = transit + batch + insert + commit;
    let shown = |nanos: f64| time(nanos as u64);
    if transit < BACKLOG_NS {
        let (name, most) = [("transit", transit), ("batch", batch), ("insert", insert), ("commit", commit)]
            .into_iter()
            .max_by(|a, b| a.1.total_cmp(&b.1))?;
        return Some(format!(
            "{name} takes most of the time: {:.0} % of it, {} on average",
            most / all * 100.0,
            shown(most)
        ));
    }
    let events = stage(run, Stage::EndToEnd)?.histogram.len();
    let rate = grouped((events as f64 / run.seconds().max(0.001)) as u64);
    let limit = if commit > batch + insert {
        format!("commit limits: {} on average", shown(commit))
    } else if batch > QUEUED * insert {
        format!("insert limits: it takes {}, and batches wait {} for their turn", shown(insert), shown(batch))
    } else {
        format!(
            "transit limits: what is read is inserted at once (after {}), so it is the reading that takes its time",
            shown(batch)
        )
    };
    Some(format!(
        "a backlog, taken in at {rate} events/s: events were read {} after their time, on average. {limit}",
        shown(transit)
    ))
}

fn producer(run: &Run) -> Option<String> {
    let (slip, ack) = (stage(run, Stage::Slip)?.histogram.mean(), stage(run, Stage::Ack)?.histogram.mean());
    let shown = |nanos: f64| time(nanos as u64);
    Some(if slip > ack {
        format!(
            "slip takes most of the time: events are handed over {} late on average, the schedule is not kept",
            shown(slip)
        )
    } else {
        format!("ack takes most of the time: {} on average; the schedule is kept to {}", shown(ack), shown(slip))
    })
}
