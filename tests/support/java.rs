//! HdrHistogram's own reader of latency logs, in Java.

use std::path::Path;
use std::process::Command;

/// The output of Java's `HistogramLogProcessor` for one stage of a log.
#[track_caller]
pub fn distribution(log: &Path, stage: &str) -> String {
    run(log, stage, &[])
}

/// The p50, p90, p99, p99.9, p99.99 and maximum that it finds in the whole of a stage, in milliseconds with three digits.
#[track_caller]
pub fn percentiles(log: &Path, stage: &str) -> Vec<String> {
    let out = log.with_extension("java");
    run(log, stage, &["-csv", "-o", out.to_str().expect("plain names")]);
    let text = std::fs::read_to_string(&out).expect("it was written");
    let last = text.lines().last().expect("an interval");
    last.split(',').skip(6).map(str::to_owned).collect()
}

#[track_caller]
fn run(log: &Path, stage: &str, more: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/ci/hdr");
    let output = Command::new(script).arg("-i").arg(log).args(["-tag", stage]).args(more).output();
    let output = output.expect("ci/hdr can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ci/hdr: {said}");
    String::from_utf8(output.stdout).expect("text")
}
