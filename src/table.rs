//! The table of percentiles that `report`, `produce` and `ingest` print.

use flows::{Latencies, Stage};
use hdrhistogram::Histogram;
use std::fmt::Write;

/// The promise: an event can be queried less than this long after its timestamp, in nanoseconds.
pub const PROMISE_NS: u64 = 5_000_000_000;

/// A column: its name and its percentile.
const PERCENTILES: [(&str, f64); 5] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99)];

/// A table of the stages that have something in them, in the order of an event's way, and the promise below it.
pub fn render<'h>(of: impl Fn(&str) -> Option<&'h Histogram<u64>>) -> String {
    let mut out = format!("{:<8} {:>11} {:>9}", "stage", "count", "min");
    for (name, _) in PERCENTILES {
        let _ = write!(out, " {name:>9}");
    }
    let _ = writeln!(out, " {:>9} {:>9}", "max", "mean");
    let mut unsupported = false;
    for stage in Stage::ALL {
        let Some(histogram) = of(stage.as_str()).filter(|histogram| !histogram.is_empty()) else { continue };
        let _ = write!(out, "{:<8} {:>11} {:>9}", stage.as_str(), grouped(histogram.len()), time(histogram.min()));
        for (_, percentile) in PERCENTILES {
            // One event in N is the least that a percentile can tell: below that it would only repeat the maximum.
            let supported = histogram.len() as f64 * (100.0 - percentile) / 100.0 >= 1.0;
            unsupported |= !supported;
            let shown = if supported { time(histogram.value_at_percentile(percentile)) } else { "–".into() };
            let _ = write!(out, " {shown:>9}");
        }
        let _ = writeln!(out, " {:>9} {:>9}", time(histogram.max()), time(histogram.mean() as u64));
    }
    if unsupported {
        out.push_str("–: too few events for that percentile\n");
    }
    if let Some(e2e) = of(Stage::EndToEnd.as_str()).filter(|histogram| !histogram.is_empty()) {
        let within = e2e.count_between(0, PROMISE_NS - 1);
        let share = within as f64 / e2e.len() as f64 * 100.0;
        // Never rounded up to a promise that was not kept.
        let share = if within < e2e.len() { share.min(99.99) } else { share };
        let digits = if within < e2e.len() { 2 } else { 0 };
        let _ = writeln!(out, "e2e below 5 s: {share:.digits$} % of {}", grouped(e2e.len()));
    }
    out
}

/// The histogram of a stage by its name, for [`render`].
pub fn stage<'h>(latencies: &'h Latencies, name: &str) -> Option<&'h Histogram<u64>> {
    Stage::ALL.into_iter().find(|stage| stage.as_str() == name).map(|stage| latencies.of(stage))
}

/// Three digits and a unit.
pub fn time(nanos: u64) -> String {
    let (value, unit) = match nanos {
        0..1_000_000 => (nanos as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (nanos as f64 / 1e6, "ms"),
        _ => (nanos as f64 / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// `1234567` → `1,234,567`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_times_have_three_digits() {
        assert_eq!((grouped(7), grouped(1_000), grouped(1_234_567)), ("7".into(), "1,000".into(), "1,234,567".into()));
        assert_eq!(
            (time(1_500), time(23_400_000), time(4_790_000_000)),
            ("1.50 µs".into(), "23.4 ms".into(), "4.79 s".into())
        );
    }

    #[test]
    fn one_event_above_the_promise_is_never_rounded_away() {
        let mut histogram = Histogram::new(3).unwrap();
        histogram.record_n(1_000_000, 1_000_000).unwrap();
        let table = |histogram: &Histogram<u64>| render(|stage| (stage == "e2e").then_some(histogram));
        assert!(table(&histogram).contains("e2e below 5 s: 100 % of 1,000,000"), "{}", table(&histogram));
        histogram.record(5_100_000_000).unwrap();
        assert!(table(&histogram).contains("e2e below 5 s: 99.99 % of 1,000,001"), "{}", table(&histogram));
    }

    #[test]
    fn a_percentile_that_the_count_cannot_support_is_not_made_up() {
        let mut histogram = Histogram::new(3).unwrap();
        histogram.record_n(1_000_000, 150).unwrap();
        let table = render(|stage| (stage == "ack").then_some(&histogram));
        assert_eq!(table.matches('–').count(), 3, "p99.9, p99.99 and the note:\n{table}");
    }
}
