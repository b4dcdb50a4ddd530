//! A run as data. `docs/latency.md` describes it; a field may come, none goes or changes its meaning.

use super::Run;
use crate::latency::percentile::supported;
use crate::latency::table::PERCENTILES;
use serde::Serialize;

#[derive(Serialize)]
struct Document<'r> {
    version: u32,
    files: Vec<String>,
    /// Seconds since the Unix epoch.
    start: f64,
    seconds: f64,
    stages: Vec<Stage<'r>>,
    promise: Option<Promise>,
    remarks: &'r [String],
}

/// All times in nanoseconds.
#[derive(Serialize)]
struct Stage<'r> {
    stage: &'r str,
    count: u64,
    min_ns: u64,
    mean_ns: f64,
    max_ns: u64,
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
}

/// The run, on one line for each thing.
pub fn render(run: &Run, promised_ns: u64, remarks: &[String]) -> String {
    let document = Document {
        version: 1,
        files: run.files.iter().map(|path| path.display().to_string()).collect(),
        start: run.start,
        seconds: (run.seconds() * 1e3).round() / 1e3,
        stages: run.stages.iter().map(stage).collect(),
        promise: run.stage(flows::Stage::EndToEnd.as_str()).map(|e2e| Promise {
            below_ns: promised_ns,
            kept_for: e2e.histogram.count_between(0, promised_ns.saturating_sub(1)),
            of: e2e.histogram.len(),
        }),
        remarks,
    };
    serde_json::to_string_pretty(&document).expect("numbers and text") + "\n"
}

fn stage(stage: &super::Measured) -> Stage<'_> {
    let histogram = &stage.histogram;
    let percentile = |(_, percentile)| Percentile { percentile, ns: supported(histogram, percentile) };
    Stage {
        stage: &stage.name,
        count: histogram.len(),
        min_ns: histogram.min(),
        mean_ns: histogram.mean(),
        max_ns: histogram.max(),
        percentiles: PERCENTILES.into_iter().map(percentile).collect(),
        negative: stage.outside.negative,
        below_range: stage.outside.below,
        above_range: stage.outside.above,
    }
}
