//! The counters in Prometheus' text format, version 0.0.4. `docs/metrics.md` explains each one.

use super::status::Pipeline;
use crate::latency::percentile;
use crate::stuck::{At, Stuck};
use flows::{ErrorKind, Latencies, Metrics, Reason, Stage};
use std::fmt::{Display, Write};
use std::time::Instant;

const QUANTILES: [(&str, f64); 4] = [("0.5", 50.0), ("0.9", 90.0), ("0.99", 99.0), ("0.999", 99.9)];

/// An ingester's state beside its metrics.
pub struct Ingester<'a> {
    pub stuck: &'a Stuck,
    /// The start of the process.
    pub since: Instant,
}

/// All metrics of a pipeline; the quantiles are those of `recent`.
pub fn render(
    of: Pipeline,
    metrics: &Metrics,
    ingester: &Ingester<'_>,
    recent: &Latencies,
    total: &Latencies,
) -> String {
    let mut page = Page::default();
    page.head("build_info", "gauge", "Always 1; the version is a label.");
    page.value("build_info", &format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1);
    match of {
        Pipeline::Produce => {
            page.counter("produced_total", "Messages that Kafka has acknowledged.", &metrics.events);
            stuck(&mut page, &At::PRODUCE, ingester.stuck);
        }
        Pipeline::Ingest => ingest(&mut page, metrics, ingester),
    }
    page.counter("bytes_total", "Payload bytes handed to Kafka, or received from it.", &metrics.bytes);
    page.gauge("queue_bytes", "Bytes that the Kafka client holds in memory.", Metrics::read(&metrics.queue_bytes));
    page.head("latency_seconds", "summary", "Latency of events by stage; quantiles of the last one to two minutes.");
    for stage in Stage::ALL {
        let (all, now) = (total.of(stage), recent.of(stage));
        if all.is_empty() {
            continue;
        }
        let name = stage.as_str();
        for (quantile, percent) in QUANTILES.into_iter().filter(|_| !now.is_empty()) {
            let labels = format!("{{stage=\"{name}\",quantile=\"{quantile}\"}}");
            page.value("latency_seconds", &labels, seconds(percentile::at(now, percent) as f64));
        }
        let labels = format!("{{stage=\"{name}\"}}");
        page.value("latency_seconds_sum", &labels, seconds(all.mean() * all.len() as f64));
        page.value("latency_seconds_count", &labels, all.len());
    }
    page.0
}

fn ingest(page: &mut Page, metrics: &Metrics, ingester: &Ingester<'_>) {
    page.counter("events_total", "Rows stored in events.", &metrics.events);
    page.head("rejects_total", "counter", "Rows stored in rejected, by reason.");
    for reason in Reason::ALL {
        page.value("rejects_total", &format!("{{reason=\"{}\"}}", reason.as_str()), metrics.rejects.of(reason));
    }
    page.head(
        "rejected_bytes_total",
        "counter",
        "Key and payload bytes of rows in rejected, before ClickHouse compresses them.",
    );
    page.value("rejected_bytes_total", "", metrics.rejects.bytes());
    page.head("messages_lost_total", "counter", "Messages that the topic lost before they were read, as far as known.");
    for (cause, count) in [("expired", &metrics.expired), ("reset", &metrics.reset)] {
        page.value("messages_lost_total", &format!("{{cause=\"{cause}\"}}"), Metrics::read(count));
    }
    page.counter("topic_resets_total", "Partitions of a topic that was created again or truncated.", &metrics.resets);
    page.counter("skipped_total", "Offsets skipped because an earlier owner had stored their rows.", &metrics.skipped);
    page.counter("batches_total", "Batches settled.", &metrics.batches);
    page.counter("inserts_total", "Inserts sent, including failed ones.", &metrics.inserts);
    page.counter("retries_total", "Inserts and queries that failed and were retried.", &metrics.retries);
    page.counter("commits_total", "Commits that Kafka confirmed.", &metrics.commits);
    page.counter(
        "commits_owed_total",
        "Commits that failed or were late; a later one covers them.",
        &metrics.commits_owed,
    );
    page.counter("rebalances_total", "Assignments of partitions by the group.", &metrics.rebalances);
    page.counter("lease_failures_total", "Failed attempts to open a lease.", &metrics.lease_failures);
    page.gauge("partitions", "Assigned partitions.", Metrics::read(&metrics.partitions));
    page.gauge(
        "partitions_without_lease",
        "Assigned partitions that are not read, because no lease is open.",
        Metrics::read(&metrics.unleased),
    );
    stuck(page, &At::INGEST, ingester.stuck);
    page.gauge(
        "insert_rows_limit",
        "Rows that fit into one insert, 0 without a limit.",
        metrics.room.rows().unwrap_or(0),
    );
    page.gauge("in_flight_batches", "Batches that are being settled.", Metrics::read(&metrics.in_flight));
    let lag = Metrics::read(&metrics.lag);
    page.gauge("lag_messages", "Messages of assigned partitions that are not stored yet.", lag);
    page.gauge(
        "lag_seconds",
        "Age of the newest stored event while messages wait, else 0.",
        lag_seconds(metrics, lag, ingester.since),
    );
    page.head("failures_total", "counter", "Failed attempts by kind.");
    for (kind, count) in ErrorKind::ALL.iter().zip(&metrics.failures) {
        page.value("failures_total", &format!("{{class=\"{}\"}}", kind.as_str()), Metrics::read(count));
    }
    page.head("last_failure_timestamp_seconds", "gauge", "Unix time of the last failed attempt of that kind.");
    for (kind, at) in ErrorKind::ALL.iter().zip(&metrics.failed_ms).filter(|(_, at)| Metrics::read(at) > 0) {
        let at = Metrics::read(at) as f64 / 1e3;
        page.value("last_failure_timestamp_seconds", &format!("{{class=\"{}\"}}", kind.as_str()), at);
    }
}

fn stuck(page: &mut Page, places: &[At], stuck: &Stuck) {
    page.head("stuck_seconds", "gauge", "Time that the flow has been stuck there, 0 while it flows.");
    for &at in places {
        page.value("stuck_seconds", &format!("{{at=\"{}\"}}", at.as_str()), stuck.lasts(at).as_secs_f64());
    }
}

fn lag_seconds(metrics: &Metrics, lag: u64, since: Instant) -> f64 {
    match Metrics::read(&metrics.newest_ms) {
        _ if lag == 0 => 0.0,
        // The age of the last event of an earlier process is not known.
        0 => since.elapsed().as_secs_f64(),
        newest => (flows::now() as f64 / 1e6 - newest as f64).max(0.0) / 1e3,
    }
}

fn seconds(nanos: f64) -> f64 {
    nanos / 1e9
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP clickstream_{name} {help}\n# TYPE clickstream_{name} {kind}\n");
    }

    fn value(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "clickstream_{name}{labels} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, counter: &std::sync::atomic::AtomicU64) {
        self.head(name, "counter", help);
        self.value(name, "", Metrics::read(counter));
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.value(name, "", value);
    }
}
