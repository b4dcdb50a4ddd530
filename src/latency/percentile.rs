//! Percentiles, counted in whole events.

use hdrhistogram::Histogram;

/// The value that this percentage of the events does not exceed, counted like HdrHistogram's Java library
/// (`AbstractHistogram.getValueAtPercentile`): 99.9 % of 60,000 are 59,940 events. In plain floating point, as in the
/// Rust crate, the product is slightly larger, and is rounded up to one event more. 0 if there are none.
pub fn at(histogram: &Histogram<u64>, percentile: f64) -> u64 {
    let wanted = (percentile.next_down().max(0.0) * histogram.len() as f64 / 100.0).ceil().max(1.0) as u64;
    let mut events = 0;
    let reached = histogram.iter_recorded().find(|step| {
        events += step.count_at_value();
        events >= wanted
    });
    reached.map_or(0, |step| step.value_iterated_to())
}

/// The percentile, if there are enough samples for it. They are as many as events, or as batches, if the events of a batch have the
/// time of their batch.
pub fn supported(histogram: &Histogram<u64>, samples: u64, percentile: f64) -> Option<u64> {
    // One sample in N is the least that a percentile can tell: below that it would only repeat the maximum. (A thousand times
    // 100 less 99.9 are a hair less than a hundred.)
    let supported = samples as f64 * (100.0 - percentile) > 99.999;
    supported.then(|| at(histogram, percentile))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_that_of_whole_events() {
        let mut histogram = Histogram::new(3).unwrap();
        histogram.record_n(1_000, 59_940).unwrap();
        histogram.record_n(2_000, 60).unwrap();
        assert_eq!(at(&histogram, 99.9), 1_000, "the 59,940th of 60,000");
        assert_eq!(at(&histogram, 99.99), 2_000);
        assert_eq!(at(&Histogram::new(3).unwrap(), 50.0), 0);
    }

    #[test]
    fn one_sample_in_n_is_the_least_that_it_can_tell() {
        let mut histogram = Histogram::new(3).unwrap();
        histogram.record_n(1_000, 999).unwrap();
        assert_eq!(supported(&histogram, 999, 99.9), None);
        histogram.record(1_000).unwrap();
        assert_eq!(supported(&histogram, 1_000, 99.9), Some(1_000));
        assert_eq!(supported(&histogram, 99, 99.0), None, "a thousand events of 99 batches");
    }
}
