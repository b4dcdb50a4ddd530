//! Two runs, side by side: each stage with both and how many times as long the second took.

use super::{Measured, Run};
use crate::latency::percentile::supported;
use crate::latency::table::{PERCENTILES, TOO_FEW, time};
use crate::numbers::grouped;
use std::fmt::Write;

/// A line for each number of each stage that both runs have.
pub fn render(a: &Run, b: &Run) -> String {
    let names = [a, b].map(|run| run.files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" "));
    let mut out = format!(
        "A: {}\nB: {}\n\n{:<8} {:<7} {:>11} {:>11} {:>8}\n",
        names[0], names[1], "stage", "", "A", "B", "B / A"
    );
    for stage in &a.stages {
        if let Some(other) = b.stage(&stage.name) {
            compare(&mut out, stage, other);
        }
    }
    for (run, other, name) in [(a, b, 'A'), (b, a, 'B')] {
        let lonely = run.stages.iter().filter(|stage| other.stage(&stage.name).is_none());
        for stage in lonely {
            let _ = writeln!(out, "{}: only in {name}", stage.name);
        }
    }
    if out.contains('–') {
        let _ = writeln!(out, "{TOO_FEW}");
    }
    out
}

fn compare(out: &mut String, a: &Measured, b: &Measured) {
    let (a_events, b_events) = (a.histogram.len(), b.histogram.len());
    let ratio = b_events as f64 / a_events as f64;
    let _ =
        writeln!(out, "{:<8} {:<7} {:>11} {:>11} {ratio:>8.2}", a.name, "count", grouped(a_events), grouped(b_events));
    let both = [&a.histogram, &b.histogram];
    let percentiles =
        PERCENTILES.map(|(name, percentile)| (name, both.map(|histogram| supported(histogram, percentile))));
    let ends = [
        ("max", both.map(|histogram| Some(histogram.max()))),
        ("mean", both.map(|histogram| Some(histogram.mean() as u64))),
    ];
    for (name, [a, b]) in percentiles.into_iter().chain(ends) {
        let ratio = a.zip(b).map_or("–".into(), |(a, b)| format!("{:.2}", b as f64 / a.max(1) as f64));
        let shown = |value: Option<u64>| value.map_or("–".into(), time);
        let _ = writeln!(out, "{:<8} {name:<7} {:>11} {:>11} {ratio:>8}", "", shown(a), shown(b));
    }
}
