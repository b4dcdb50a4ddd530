//! The table of percentiles that `report`, `produce`, `ingest` and `demo` print.

use super::percentile;
use crate::numbers::grouped;
use flows::{Latencies, OutOfRange, Stage};
use hdrhistogram::Histogram;
use std::fmt::Write;

/// The promise: an event can be queried less than this long after its timestamp, in nanoseconds.
pub const PROMISE_NS: u64 = 5_000_000_000;

/// A column: its name and its percentile.
pub const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99)];

/// Below a table in which a percentile is missing.
pub const TOO_FEW: &str = "–: too few events for that percentile";

/// The statistics of a stage.
#[derive(Clone, Copy)]
pub struct Row<'h> {
    pub histogram: &'h Histogram<u64>,
    pub outside: OutOfRange,
}

/// A table of the stages that have something in them, in the order of an event's way, and the promise below it.
pub fn render<'h>(of: impl Fn(&str) -> Option<Row<'h>>) -> String {
    let rows: Vec<_> = Stage::ALL.iter().filter_map(|stage| Some((stage.as_str(), of(stage.as_str())?))).collect();
    let promise = of(Stage::EndToEnd.as_str()).and_then(|row| promise(row.histogram, PROMISE_NS));
    let below = outside(&rows).into_iter().chain(promise).map(|line| line + "\n").collect::<String>();
    table(&rows) + &below
}

/// The stage of a name, for [`render`].
pub fn stage<'h>(latencies: &'h Latencies, name: &str) -> Option<Row<'h>> {
    let stage = Stage::ALL.into_iter().find(|stage| stage.as_str() == name)?;
    Some(Row { histogram: latencies.of(stage), outside: latencies.outside(stage) })
}

/// A line for each stage that has something in it.
pub fn table(rows: &[(&str, Row<'_>)]) -> String {
    let mut out = format!("{:<8} {:>11} {:>9}", "stage", "count", "min");
    for (name, _) in PERCENTILES {
        let _ = write!(out, " {name:>9}");
    }
    let _ = writeln!(out, " {:>9} {:>9}", "max", "mean");
    let mut unsupported = false;
    for (name, Row { histogram, .. }) in rows.iter().filter(|(_, row)| !row.histogram.is_empty()) {
        let _ = write!(out, "{name:<8} {:>11} {:>9}", grouped(histogram.len()), time(histogram.min()));
        for (_, percent) in PERCENTILES {
            let value = percentile::supported(histogram, percent);
            unsupported |= value.is_none();
            let _ = write!(out, " {:>9}", value.map_or("–".into(), time));
        }
        let _ = writeln!(out, " {:>9} {:>9}", time(histogram.max()), time(histogram.mean() as u64));
    }
    if unsupported {
        let _ = writeln!(out, "{TOO_FEW}");
    }
    out
}

/// Whether a promise was kept, in a line; none if there was nothing to keep it for.
pub fn promise(e2e: &Histogram<u64>, promised_ns: u64) -> Option<String> {
    if e2e.is_empty() {
        return None;
    }
    let within = e2e.count_between(0, promised_ns.saturating_sub(1));
    let share = within as f64 / e2e.len() as f64 * 100.0;
    // Never rounded up to a promise that was not kept.
    let share = if within < e2e.len() { share.min(99.99) } else { share };
    let digits = if within < e2e.len() { 2 } else { 0 };
    Some(format!("e2e below {}: {share:.digits$} % of {}", short(promised_ns), grouped(e2e.len())))
}

/// The out-of-range counts, a line for each stage and kind.
pub fn outside(rows: &[(&str, Row<'_>)]) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, row) in rows {
        let OutOfRange { negative, below, above } = row.outside;
        let kinds = [
            (negative, "below zero, so two clocks are apart (clock skew); they count as 1 µs"),
            (below, "below 1 µs; they count as that"),
            (above, "above 1 h; they count as that"),
        ];
        for (events, what) in kinds.into_iter().filter(|(events, _)| *events > 0) {
            lines.push(format!("{name}: {} of {} {what}", grouped(events), grouped(row.histogram.len())));
        }
    }
    lines
}

/// Three digits and a unit.
pub fn time(nanos: u64) -> String {
    let (value, unit) = scaled(nanos);
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// No more digits than it needs: `5 s`, `300 ms`, `1.5 s`.
pub fn short(nanos: u64) -> String {
    let (value, unit) = scaled(nanos);
    format!("{} {unit}", (value * 100.0).round() / 100.0)
}

fn scaled(nanos: u64) -> (f64, &'static str) {
    match nanos {
        0..1_000_000 => (nanos as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (nanos as f64 / 1e6, "ms"),
        _ => (nanos as f64 / 1e9, "s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(histogram: &Histogram<u64>) -> Row<'_> {
        Row { histogram, outside: OutOfRange::default() }
    }

    #[test]
    fn times_have_three_digits() {
        assert_eq!(
            (time(1_500), time(23_400_000), time(4_790_000_000)),
            ("1.50 µs".into(), "23.4 ms".into(), "4.79 s".into())
        );
    }

    #[test]
    fn one_event_above_the_promise_is_never_rounded_away() {
        let mut histogram = Histogram::new(3).unwrap();
        histogram.record_n(1_000_000, 1_000_000).unwrap();
        let table = |histogram: &Histogram<u64>| render(|stage| (stage == "e2e").then_some(row(histogram)));
        assert!(table(&histogram).contains("e2e below 5 s: 100 % of 1,000,000"), "{}", table(&histogram));
        histogram.record(5_100_000_000).unwrap();
        assert!(table(&histogram).contains("e2e below 5 s: 99.99 % of 1,000,001"), "{}", table(&histogram));
        assert_eq!(promise(&histogram, 300_000_000).unwrap(), "e2e below 300 ms: 99.99 % of 1,000,001");
    }

    #[test]
    fn a_percentile_that_the_count_cannot_support_is_not_made_up() {
        let mut histogram = Histogram::new(3).unwrap();
        histogram.record_n(1_000_000, 150).unwrap();
        let table = render(|stage| (stage == "ack").then_some(row(&histogram)));
        assert_eq!(table.matches('–').count(), 3, "p99.9, p99.99 and the note:\n{table}");
    }

    #[test]
    fn clock_skew_is_said() {
        let mut latencies = Latencies::default();
        latencies.record(Stage::Transit, -5);
        latencies.record(Stage::Transit, i64::MAX);
        let table = render(|name| stage(&latencies, name));
        assert!(table.contains("transit: 1 of 2 below zero, so two clocks are apart (clock skew)"), "{table}");
        assert!(table.contains("transit: 1 of 2 above 1 h"), "{table}");
    }
}
