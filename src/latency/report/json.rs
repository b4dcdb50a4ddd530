//! A run as data. `docs/latency.md` describes it; a field may come, none goes or changes its meaning.

use super::Run;
use super::stack::Stack;
use super::timeline::Columns;
use crate::latency::promise::Judged;
use crate::latency::table::PERCENTILES;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Document<'r> {
    version: u32,
    files: Vec<String>,
    /// Seconds since the Unix epoch.
    start: f64,
    seconds: f64,
    events: u64,
    events_per_second: f64,
    backlog: Option<Backlog>,
    /// Those of each log that has some.
    conditions: Vec<Conditions<'r>>,
    stages: Vec<Stage<'r>>,
    parts: Vec<Part<'r>>,
    promise: Option<Promise>,
    remarks: &'r [String],
}

/// The backlog of a start: its events, and all events that were ingested in its intervals.
#[derive(Serialize)]
struct Backlog {
    events: u64,
    drained: u64,
    seconds: f64,
    events_per_second: f64,
}

/// All times in nanoseconds.
#[derive(Serialize)]
struct Stage<'r> {
    stage: &'r str,
    count: u64,
    min_ns: u64,
    mean_ns: f64,
    max_ns: u64,
    stddev_ns: f64,
    /// How many times were measured: fewer than `count`, where a batch has one.
    samples: u64,
    percentiles: Vec<Percentile>,
    negative: u64,
    below_range: u64,
    above_range: u64,
}

#[derive(Serialize)]
struct Percentile {
    percentile: f64,
    /// None where there are too few events to tell.
    ns: Option<u64>,
}

#[derive(Serialize)]
struct Promise {
    below_ns: u64,
    kept_for: u64,
    of: u64,
    backlog: u64,
}

#[derive(Serialize)]
struct Conditions<'r> {
    file: String,
    conditions: BTreeMap<&'r str, &'r str>,
}

/// The mean of each part of the way, in nanoseconds: their sum is that of the whole.
#[derive(Serialize)]
struct Part<'r> {
    part: &'r str,
    mean_ns: f64,
}

/// The run, on one line for each thing.
pub fn render(run: &Run, promised_ns: u64, remarks: &[String]) -> String {
    let throughput = run.throughput();
    let columns = Columns::of(run);
    let stack = Stack::of(run, &columns);
    let thousandths = |value: f64| (value * 1e3).round() / 1e3;
    let conditions = run.conditions.iter().map(|(path, conditions)| Conditions {
        file: path.display().to_string(),
        conditions: conditions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
    });
    let document = Document {
        version: 1,
        files: run.files.iter().map(|path| path.display().to_string()).collect(),
        start: run.start,
        seconds: thousandths(run.seconds()),
        events: throughput.events,
        events_per_second: thousandths(throughput.rate()),
        backlog: run.drained.as_ref().map(|drained| Backlog {
            events: run.backlog,
            drained: drained.throughput.events,
            seconds: thousandths(drained.throughput.seconds),
            events_per_second: thousandths(drained.throughput.rate()),
        }),
        conditions: conditions.collect(),
        stages: run.stages.iter().map(stage).collect(),
        parts: stack.parts.iter().zip(&stack.means).map(|((part, _), &mean_ns)| Part { part, mean_ns }).collect(),
        promise: run.verdict(promised_ns).map(|Judged { below_ns, kept, of, backlog }| Promise {
            below_ns,
            kept_for: kept,
            of,
            backlog,
        }),
        remarks,
    };
    serde_json::to_string_pretty(&document).expect("numbers and text") + "\n"
}

fn stage(stage: &super::Measured) -> Stage<'_> {
    let histogram = &stage.histogram;
    let percentile = |(_, percentile)| Percentile { percentile, ns: stage.row().supported(percentile) };
    Stage {
        stage: &stage.name,
        count: histogram.len(),
        min_ns: histogram.min(),
        mean_ns: histogram.mean(),
        max_ns: histogram.max(),
        stddev_ns: histogram.stdev(),
        samples: stage.samples,
        percentiles: PERCENTILES.into_iter().map(percentile).collect(),
        negative: stage.outside.negative,
        below_range: stage.outside.below,
        above_range: stage.outside.above,
    }
}
