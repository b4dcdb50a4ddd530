//! The closing line of an ingester.

use crate::numbers::grouped;
use flows::Metrics;

/// The totals of a pipeline, in one line.
pub fn summary(metrics: &Metrics) -> String {
    let lost = Metrics::read(&metrics.expired) + Metrics::read(&metrics.reset);
    let lost =
        if lost > 0 { format!("; {} messages were lost before they were read", grouped(lost)) } else { String::new() };
    let stored = match Metrics::read(&metrics.skipped) {
        0 => String::new(),
        skipped => format!("; {} rows were stored before", grouped(skipped)),
    };
    format!(
        "{} events and {} rejects stored in {} batches, {} inserts, {} retries{stored}{lost}",
        grouped(Metrics::read(&metrics.events)),
        grouped(metrics.rejects.total()),
        grouped(Metrics::read(&metrics.batches)),
        grouped(Metrics::read(&metrics.inserts)),
        grouped(Metrics::read(&metrics.retries)),
    )
}
