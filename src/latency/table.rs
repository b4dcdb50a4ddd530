//! The table of percentiles that `report`, `produce`, `ingest` and `demo` print.

use super::percentile;
use super::promise::Judged;
use crate::numbers::grouped;
use flows::{Latencies, OutOfRange, Stage};
use hdrhistogram::Histogram;
use std::fmt::Write;

/// A column: its name and its percentile.
pub const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99)];

/// Below a table in which a percentile is missing.
pub const TOO_FEW: &str = "–: too few events, or batches, for that percentile";

/// Lines of prose are broken at this width, where the terminal is not narrower.
const PROSE: usize = 110;

/// The columns of times, each with the width from which on a table has room for it.
const COLUMNS: [(&str, usize); 9] = [
    ("min", 100),
    ("p50", 0),
    ("p90", 80),
    ("p99", 0),
    ("p99.9", 0),
    ("p99.99", 100),
    ("max", 0),
    ("mean", 80),
    ("stddev", 110),
];

/// The statistics of a stage.
#[derive(Clone, Copy)]
pub struct Row<'h> {
    pub histogram: &'h Histogram<u64>,
    pub outside: OutOfRange,
    /// How many times were measured: fewer than events where a batch has one time.
    pub samples: u64,
}

impl Row<'_> {
    /// The percentile, if there are enough samples for it.
    pub fn supported(&self, percentile: f64) -> Option<u64> {
        percentile::supported(self.histogram, self.samples, percentile)
    }

    /// The time in a column of this name.
    pub fn value(&self, column: &str) -> Option<u64> {
        let histogram = self.histogram;
        match column {
            "min" => Some(histogram.min()),
            "max" => Some(histogram.max()),
            "mean" => Some(histogram.mean() as u64),
            "stddev" => Some(histogram.stdev() as u64),
            _ => PERCENTILES.iter().find(|(name, _)| *name == column).and_then(|&(_, percent)| self.supported(percent)),
        }
    }

    fn is_of_batches(&self) -> bool {
        self.samples < self.histogram.len()
    }
}

/// The names of the columns in a table of this width, in characters.
pub fn columns(width: usize) -> impl Iterator<Item = &'static str> {
    COLUMNS.into_iter().filter(move |&(_, from)| width >= from).map(|(name, _)| name)
}

/// The width for a table on standard output: that of the terminal; where it is none, there is room for all.
pub fn width() -> usize {
    console::Term::stdout().size_checked().map_or(usize::MAX, |(_, columns)| columns.into())
}

/// A table of the stages that have something in them, in the order of an event's way, and the promise below it.
pub fn render(latencies: &Latencies, promised_ns: u64) -> String {
    let row = |stage| Row {
        histogram: latencies.of(stage),
        outside: latencies.outside(stage),
        samples: latencies.samples(stage),
    };
    let rows: Vec<_> = Stage::ALL.into_iter().map(|stage| (stage.as_str(), row(stage))).collect();
    let backlog = latencies.of(Stage::Backlog);
    let mut current = latencies.of(Stage::EndToEnd).clone();
    current.subtract(backlog).expect("events of the backlog are recorded in both");
    let judged = Judged::new(&current, backlog.len(), promised_ns);
    let below = outside(&rows).into_iter().chain(judged.map(|judged| judged.line()));
    table(&rows, width()) + &below.map(|line| prose(&line, width())).collect::<String>()
}

/// A line for each stage that has something in it, not wider than this.
pub fn table(rows: &[(&str, Row<'_>)], width: usize) -> String {
    let mut out = format!("{:<8} {:>11}", "stage", "count");
    columns(width).for_each(|name| out += &format!(" {name:>9}"));
    out.push('\n');
    let mut unsupported = false;
    let rows = || rows.iter().filter(|(_, row)| !row.histogram.is_empty());
    for (name, row) in rows() {
        let _ = write!(out, "{name:<8} {:>11}", grouped(row.histogram.len()));
        for column in columns(width) {
            let value = row.value(column);
            unsupported |= value.is_none();
            let _ = write!(out, " {:>9}", value.map_or("–".into(), time));
        }
        out.push('\n');
    }
    if unsupported {
        out += &prose(TOO_FEW, width);
    }
    let all: Vec<_> = rows().map(|&(name, row)| (name, row)).collect();
    batches(&all).into_iter().for_each(|line| out += &prose(&line, width));
    out
}

/// A line that says how many batches there were, where percentiles are those of batches.
pub fn batches(rows: &[(&str, Row<'_>)]) -> Option<String> {
    let of_batches: Vec<_> = rows.iter().filter(|(_, row)| row.is_of_batches()).collect();
    let name = |(name, row): &&(&str, Row<'_>)| format!("{name}: {} batches", grouped(row.samples));
    let named: Vec<_> = of_batches.iter().map(name).collect();
    (!named.is_empty()).then(|| format!("{} (all events of a batch have its time)", named.join(", ")))
}

/// A text in lines of at most this width, and in readable ones where there is more room.
pub fn prose(text: &str, width: usize) -> String {
    wrapped(text, width.min(PROSE))
}

/// A text in lines of at most this width.
pub fn wrapped(text: &str, width: usize) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            out.push('\n');
            column = 0;
        }
        if column > 0 {
            out.push(' ');
            column += 1;
        }
        out += word;
        column += length;
    }
    out + "\n"
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
    // Rounded, 9.996 has as many digits as 10, and 999.6 µs are a millisecond.
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {unit}")
}

/// No more digits than it needs: `5 s`, `300 ms`, `1.5 s`.
pub fn short(nanos: u64) -> String {
    let (value, unit) = scaled(nanos);
    format!("{} {unit}", (value * 100.0).round() / 100.0)
}

fn scaled(nanos: u64) -> (f64, &'static str) {
    match nanos {
        0..999_500 => (nanos as f64 / 1e3, "µs"),
        999_500..999_500_000 => (nanos as f64 / 1e6, "ms"),
        _ => (nanos as f64 / 1e9, "s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of one stage.
    fn table_of(histogram: &Histogram<u64>, samples: u64, width: usize) -> String {
        table(&[("insert", Row { histogram, outside: OutOfRange::default(), samples })], width)
    }

    #[test]
    fn times_have_three_digits() {
        assert_eq!(
            (time(1_500), time(23_400_000), time(4_790_000_000)),
            ("1.50 µs".into(), "23.4 ms".into(), "4.79 s".into())
        );
        assert_eq!(
            (time(999_936), time(9_999_000), time(99_990_000)),
            ("1.00 ms".into(), "10.0 ms".into(), "100 ms".into())
        );
    }

    #[test]
    fn a_percentile_that_the_count_cannot_support_is_not_made_up() {
        let mut histogram = Histogram::new(3).unwrap();
        histogram.record_n(1_000_000, 150).unwrap();
        let table = table_of(&histogram, 150, usize::MAX);
        assert_eq!(table.matches('–').count(), 3, "p99.9, p99.99 and the note:\n{table}");
        assert!(!table.contains("batches ("), "{table}");
    }

    #[test]
    fn a_percentile_of_batches_needs_enough_batches() {
        let mut histogram = Histogram::new(3).unwrap();
        (1..=16).for_each(|batch| histogram.record_n(batch * 1_000_000, 375).unwrap());
        let table = table_of(&histogram, 16, usize::MAX);
        let line = table.lines().find(|line| line.starts_with("insert ")).unwrap();
        let cells: Vec<_> = line.split_whitespace().collect();
        assert_eq!(
            cells[1..],
            [
                "6,000", "1.00", "ms", "8.00", "ms", "15.0", "ms", "–", "–", "–", "16.0", "ms", "8.50", "ms", "4.61",
                "ms"
            ]
        );
        assert!(table.contains("insert: 16 batches (all events of a batch have its time)"), "{table}");
    }

    #[test]
    fn prose_is_broken_between_words() {
        assert_eq!(wrapped("a bc def", 4), "a bc\ndef\n");
        assert_eq!(wrapped("abcdef g", 4), "abcdef\ng\n");
    }

    #[test]
    fn a_table_is_never_wider_than_the_terminal() {
        let mut histogram = Histogram::new(3).unwrap();
        histogram.record_n(123_000_000, 100_000_000).unwrap();
        let wide = |width| {
            let table = table_of(&histogram, 12, width);
            table.lines().map(|line| line.chars().count()).max().unwrap()
        };
        for (width, taken) in [(60, 60), (79, 60), (80, 80), (100, 100), (110, 110), (usize::MAX, 110)] {
            assert_eq!(wide(width), taken, "in {width}");
        }
    }

    #[test]
    fn clock_skew_is_said() {
        let mut latencies = Latencies::default();
        latencies.record(Stage::Transit, -5);
        latencies.record(Stage::Transit, i64::MAX);
        let table = render(&latencies, 1);
        assert!(table.contains("transit: 1 of 2 below zero, so two clocks are apart (clock skew)"), "{table}");
        assert!(table.contains("transit: 1 of 2 above 1 h"), "{table}");
    }
}
