//! The counters in Prometheus' text format, version 0.0.4. `docs/metrics.md` explains each one.

use super::live::Live;
use super::ready::Ready;
use super::status::Pipeline;
use crate::latency::{Recent, percentile};
use crate::stuck::{At, Stuck};
use flows::{ErrorKind, Latencies, Metrics, Reason, Stage};
use std::fmt::{Display, Write};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

const QUANTILES: [(&str, f64); 4] = [("0.5", 50.0), ("0.9", 90.0), ("0.99", 99.0), ("0.999", 99.9)];

/// The buckets of the end-to-end latency, as multiples of the promise.
const BUCKETS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 20.0];

/// All metrics of a pipeline; the quantiles are those of the last minute.
pub fn render(of: Pipeline, live: &Live, ready: &Ready) -> String {
    let (mut page, metrics, stuck) = (Page::default(), &*live.metrics, &*ready.stuck);
    metrics.refresh();
    page.head("build_info", "gauge", "Always 1; the version is a label.");
    page.value("build_info", &format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1);
    let is_ready = ready.missing(of, metrics).is_none();
    page.gauge("ready", "1 if /readyz answers 200, else 0.", u8::from(is_ready));
    match of {
        Pipeline::Produce => {
            page.counter("produced_total", "Messages that Kafka has acknowledged.", &metrics.events);
            page.stuck(&At::PRODUCE, stuck);
        }
        Pipeline::Ingest { .. } => ingest(&mut page, live, stuck),
    }
    page.counter("bytes_total", "Payload bytes handed to Kafka, or received from it.", &metrics.bytes);
    page.gauge(
        "oldest_unfinished_seconds",
        "Age of the oldest message that is not stored, or not acknowledged; else 0.",
        live.oldest().as_secs_f64(),
    );
    page.gauge("queue_bytes", "Bytes that the Kafka client holds in memory.", Metrics::read(&metrics.queue_bytes));
    page.head(
        "latency_seconds",
        "summary",
        "Latency of events by stage; quantiles of the last minute; e2e and slip with messages that wait.",
    );
    // Events of the backlog count in e2e already.
    for stage in Stage::ALL.into_iter().filter(|&stage| stage != Stage::Backlog) {
        let read = |recent: &Latencies, total: &Latencies| (recent.of(stage).clone(), total.of(stage).clone());
        let (recent, all) = live.window.read(Instant::now(), read);
        if all.is_empty() {
            continue;
        }
        let name = stage.as_str();
        let with_waiting = [Stage::EndToEnd, Stage::Slip].contains(&stage).then(|| live.recent(stage));
        let is_empty = with_waiting.as_ref().map_or(recent.is_empty(), Recent::is_empty);
        for (quantile, percent) in QUANTILES.into_iter().filter(|_| !is_empty) {
            let nanos = with_waiting.as_ref().map_or_else(|| percentile::at(&recent, percent), |all| all.at(percent));
            let labels = format!("{{stage=\"{name}\",quantile=\"{quantile}\"}}");
            page.value("latency_seconds", &labels, seconds(nanos as f64));
        }
        let labels = format!("{{stage=\"{name}\"}}");
        page.value("latency_seconds_sum", &labels, seconds(all.mean() * all.len() as f64));
        page.value("latency_seconds_count", &labels, all.len());
    }
    page.0
}

fn ingest(page: &mut Page, live: &Live, stuck: &Stuck) {
    let metrics = &*live.metrics;
    page.gauge("promise_seconds", "The latency target, --batch-timeout.", live.promise.as_secs_f64());
    end_to_end(page, live);
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
    page.counter(
        "unknown_fields_total",
        "Fields of messages that no column of the table took.",
        &metrics.unknown_fields,
    );
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
    page.stuck(&At::INGEST, stuck);
    page.gauge(
        "insert_rows_limit",
        "Rows that fit into one insert, 0 without a limit.",
        metrics.room.rows().unwrap_or(0),
    );
    page.gauge("in_flight_batches", "Batches that are being settled.", Metrics::read(&metrics.in_flight));
    page.gauge("lag_messages", "Messages behind the committed offsets.", Metrics::read(&metrics.lag));
    of_topics(page, live);
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

/// A few figures of each topic, if the process has several.
fn of_topics(page: &mut Page, live: &Live) {
    let topics = live.metrics.topics();
    let lasts = |metrics: &Metrics| metrics.waiting().oldest(Instant::now()).as_secs_f64();
    let mut each = |name, kind, help, value: &dyn Fn(&Metrics) -> f64| {
        if !topics.is_empty() {
            page.head(name, kind, help);
        }
        for (topic, metrics) in &topics {
            page.value(name, &format!("{{topic=\"{topic}\"}}"), value(metrics));
        }
    };
    let count = |counter: &AtomicU64| Metrics::read(counter) as f64;
    each("topic_events_total", "counter", "Rows stored in the table, by topic.", &|of| count(&of.events));
    each("topic_rejects_total", "counter", "Rows stored in rejected, by topic.", &|of| of.rejects.total() as f64);
    each("topic_lag_messages", "gauge", "Messages behind the committed offsets, by topic.", &|of| count(&of.lag));
    each("topic_oldest_unfinished_seconds", "gauge", "Age of the oldest message that is not stored, by topic.", &lasts);
}

/// The end-to-end latency of all stored events.
fn end_to_end(page: &mut Page, live: &Live) {
    let all = live.window.read(Instant::now(), |_, total| total.of(Stage::EndToEnd).clone());
    page.head("e2e_seconds", "histogram", "Latency from an event's timestamp to its row, of stored events.");
    for bucket in BUCKETS {
        let le = Duration::from_nanos((live.promise.as_nanos() as f64 * bucket) as u64);
        let below = if all.is_empty() { 0 } else { all.count_between(0, le.as_nanos() as u64) };
        page.value("e2e_seconds_bucket", &format!("{{le=\"{}\"}}", le.as_secs_f64()), below);
    }
    page.value("e2e_seconds_bucket", "{le=\"+Inf\"}", all.len());
    page.value("e2e_seconds_sum", "", seconds(all.mean() * all.len() as f64));
    page.value("e2e_seconds_count", "", all.len());
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

    fn counter(&mut self, name: &str, help: &str, counter: &AtomicU64) {
        self.head(name, "counter", help);
        self.value(name, "", Metrics::read(counter));
    }

    fn stuck(&mut self, places: &[At], stuck: &Stuck) {
        self.head("stuck_seconds", "gauge", "Time that the flow has been stuck there, 0 while it flows.");
        for &at in places {
            self.value("stuck_seconds", &format!("{{at=\"{}\"}}", at.as_str()), stuck.lasts(at).as_secs_f64());
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.value(name, "", value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flows::Failure;
    use std::sync::Arc;

    const ALERTS: &str = include_str!("../../ops/prometheus/alerts.yml");
    const METRICS: &str = include_str!("../../docs/metrics.md");
    const OPERATIONS: &str = include_str!("../../docs/operations.md");

    /// The page of a pipeline to which everything has happened, so that no series is absent.
    fn page(of: Pipeline) -> String {
        let metrics = Arc::new(Metrics::default());
        for kind in ErrorKind::ALL {
            metrics.note_failure(&Failure { kind, ended: true, message: String::new() });
        }
        let window = Arc::new(crate::latency::Window::default());
        let mut latencies = Latencies::default();
        Stage::ALL.into_iter().for_each(|stage| latencies.record(stage, 1_000_000));
        window.add(&latencies, Instant::now());
        render(of, &Live { metrics, window, promise: Duration::from_secs(5) }, &Ready::default())
    }

    fn pages() -> String {
        page(Pipeline::Ingest { promise: Duration::from_secs(5) }) + &page(Pipeline::Produce)
    }

    /// Each series that a text selects: its name, and the labels that have to be equal.
    fn selectors(text: &str) -> Vec<(&str, Vec<&str>)> {
        let after = text.match_indices("clickstream_").map(|(at, prefix)| &text[at + prefix.len()..]);
        after
            .map(|rest| {
                let name = rest
                    .split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_')
                    .next()
                    .unwrap_or_default();
                let labels =
                    rest[name.len()..].strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
                (
                    name,
                    labels
                        .split(',')
                        .filter(|label| label.contains("=\"") && !label.contains("!="))
                        .map(str::trim)
                        .collect(),
                )
            })
            .collect()
    }

    #[test]
    fn each_alert_is_about_series_that_are_exported() {
        let pages = pages();
        let found = selectors(ALERTS);
        assert!(found.len() > 25, "{found:?}");
        for (name, labels) in found {
            let is_it = |line: &str| {
                let line = line.strip_prefix("clickstream_").and_then(|line| line.strip_prefix(name)).unwrap_or("no");
                line.starts_with(['{', ' ']) && labels.iter().all(|label| line.contains(label))
            };
            assert!(pages.lines().any(is_it), "clickstream_{name} with {labels:?} is not exported");
        }
    }

    #[test]
    fn each_alert_has_its_section_in_the_operations_page() {
        let names: Vec<_> = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
        assert!(names.len() > 20, "{names:?}");
        for name in &names {
            let (_, rest) =
                OPERATIONS.split_once(&format!("\n### {name}\n")).unwrap_or_else(|| panic!("{name} has no section"));
            let section = rest.split("\n#").next().unwrap_or_default();
            for part in ["**Means:**", "**Look at:**", "**Type:**"] {
                assert!(section.contains(part), "{name} lacks {part}");
            }
            let anchor = format!("runbook: docs/operations.md#{}\n", name.to_lowercase());
            assert_eq!(ALERTS.matches(&anchor).count(), 1, "{name}");
        }
        let sections = OPERATIONS.lines().filter(|line| line.starts_with("### Clickstream")).count();
        assert_eq!(sections, names.len(), "no section is about an alert that was removed");
    }

    #[test]
    fn each_metric_is_explained() {
        let pages = pages();
        for name in pages.lines().filter_map(|line| line.strip_prefix("# TYPE clickstream_")) {
            let name = name.split(' ').next().unwrap_or_default();
            let is_named = METRICS.contains(&format!("`{name}`"))
                || METRICS.contains(&format!("`{name}{{"))
                || METRICS.contains(&format!("`{name}_bucket"));
            assert!(is_named, "docs/metrics.md lacks {name}");
        }
    }
}
