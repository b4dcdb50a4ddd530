//! The percentile distribution as HdrHistogram's Java tool prints it (`HistogramLogProcessor`), byte for byte, so that
//! whatever plots its files plots these: milliseconds, five steps to each half of the way to 100 %.
//!
//! After `AbstractHistogram.outputPercentileDistribution` and `PercentileIterator` of HdrHistogram 2.2.2.

use super::Run;
use chrono::{DateTime, Utc};
use hdrhistogram::Histogram;
use std::fmt::Write;

const NANOS_PER_MILLI: f64 = 1e6;
/// Steps to each half of the way that is left to 100 %, as that tool has them.
const TICKS: u64 = 5;

/// The distribution of the run's headline.
pub fn render(run: &Run) -> String {
    let histogram = &run.headline().histogram;
    let digits = usize::from(histogram.sigfig());
    let millis = |nanos: f64| format!("{:>12}", decimal(nanos / NANOS_PER_MILLI, digits));
    let began = DateTime::<Utc>::from_timestamp_millis((run.start * 1e3) as i64).unwrap_or_default();
    let mut out = format!(
        "#[StartTime: {} (seconds since epoch), {}]\n",
        decimal(run.start, 3),
        began.format("%a %b %d %H:%M:%S UTC %Y")
    );
    let _ = writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    steps(histogram, |value, percent, total| {
        let share = percent / 100.0;
        let _ = write!(out, "{} {} {total:>10}", millis(value as f64), decimal(share, 12));
        if percent < 100.0 {
            let _ = write!(out, " {:>14}", decimal(1.0 / (1.0 - share), 2));
        }
        out.push('\n');
    });
    let (mean, deviation) = moments(histogram);
    let _ = writeln!(out, "#[Mean    = {}, StdDeviation   = {}]", millis(mean), millis(deviation));
    let _ = writeln!(out, "#[Max     = {}, Total count    = {:>12}]", millis(histogram.max() as f64), histogram.len());
    let sub_buckets = (2 * 10_u64.pow(u32::from(histogram.sigfig()))).next_power_of_two();
    let _ = writeln!(out, "#[Buckets = {:>12}, SubBuckets     = {sub_buckets:>12}]", histogram.buckets());
    out
}

/// Calls `each` with value, percentile and events so far. Floating point as in Java's `PercentileIterator`, operation by
/// operation: the twelfth digit shows it.
fn steps(histogram: &Histogram<u64>, mut each: impl FnMut(u64, f64, u64)) {
    let (mut level, mut total, all) = (0.0_f64, 0, histogram.len());
    let mut last = 0;
    for step in histogram.iter_recorded() {
        total += step.count_at_value();
        last = step.value_iterated_to();
        while 100.0 * total as f64 / all as f64 >= level {
            each(last, level, total);
            let halvings = (100.0 / (100.0 - level)).ln() / std::f64::consts::LN_2;
            level += 100.0 / (TICKS << (halvings as u32 + 1).min(58)) as f64;
            if total == all {
                break;
            }
        }
    }
    each(last, 100.0, total);
}

/// Mean and standard deviation, added up in the order in which Java adds them.
fn moments(histogram: &Histogram<u64>) -> (f64, f64) {
    let values = || {
        histogram
            .iter_recorded()
            .map(|step| (histogram.median_equivalent(step.value_iterated_to()) as f64, step.count_at_value() as f64))
    };
    let all = histogram.len() as f64;
    let mean = values().map(|(value, events)| value * events).sum::<f64>() / all;
    let squares: f64 = values().map(|(value, events)| (value - mean) * (value - mean) * events).sum();
    (mean, (squares / all).sqrt())
}

/// A non-negative number with this many decimals, as Java prints it: the shortest digits that distinguish it from its
/// neighbours, rounded half up. (Rust rounds the exact value, which differs if those digits end in a 5.)
fn decimal(value: f64, digits: usize) -> String {
    let shortest = format!("{value}");
    let (whole, fraction) = shortest.split_once('.').unwrap_or((&shortest, ""));
    let mut kept: Vec<u8> = whole.bytes().chain(fraction.bytes().chain(std::iter::repeat(b'0')).take(digits)).collect();
    if fraction.as_bytes().get(digits).is_some_and(|&next| next >= b'5') {
        let nines = kept.iter().rev().take_while(|&&digit| digit == b'9').count();
        let carried = kept.len() - nines;
        kept[carried..].fill(b'0');
        match carried.checked_sub(1) {
            Some(last) => kept[last] += 1,
            None => kept.insert(0, b'1'),
        }
    }
    let mut text = String::from_utf8_lossy(&kept).into_owned();
    if digits > 0 {
        text.insert(text.len() - digits, '.');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_half_up_in_their_shortest_digits() {
        for (value, digits, said) in [
            (1.0005, 3, "1.001"),
            (0.9995, 3, "1.000"),
            (99.999, 2, "100.00"),
            (2.0, 2, "2.00"),
            (0.05, 0, "0"),
            (9.5, 0, "10"),
        ] {
            assert_eq!(decimal(value, digits), said);
        }
    }
}
