//! The measurements: medians as a table for people, and every run as JSON for programs.

use super::backlog::Backlog;
use super::servers::{Reading, Servers};
use super::step::{Batching, Done};
use crate::latency::log::Conditions;
use crate::numbers::grouped;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

const MIB: f64 = 1024.0 * 1024.0;

/// A kind of step. Ceilings come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Kind {
    Consume,
    Insert(Batching),
    Drain(Batching),
}

/// One step, measured. CPU seconds are for a million rows.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Run {
    pub rows: u64,
    pub seconds: f64,
    pub rows_per_second: f64,
    pub clickstream_cpu: f64,
    /// Until the merges have come to rest.
    pub clickhouse_cpu: Option<f64>,
    /// Until the last row was stored.
    pub clickhouse_cpu_at_end: Option<f64>,
    pub kafka_cpu: Option<f64>,
    pub peak_mib: f64,
    /// Bytes that ClickHouse received, from all its clients.
    pub received_bytes_per_row: f64,
    pub inserts: u64,
    pub retries: u64,
    pub parts: u64,
    pub merges: u64,
    pub disk_bytes_per_row: f64,
}

/// All runs of one kind.
#[derive(Debug, Serialize)]
struct Measured<'r> {
    #[serde(flatten)]
    kind: Kind,
    /// The median of the drain's rows per second in that of the smaller ceiling.
    of_ceiling: Option<f64>,
    median: Run,
    runs: &'r [Run],
}

/// A benchmark that has ended.
pub struct Report {
    conditions: Conditions,
    topic: String,
    partitions: usize,
    messages: u64,
    message_bytes: u64,
    clickhouse: String,
    kafka: String,
    runs: BTreeMap<Kind, Vec<Run>>,
}

impl Kind {
    /// The steps of one round: the ceilings that a sweep needs, and its drains.
    pub fn of_sweep(sweep: &[Batching]) -> Vec<Self> {
        let ceilings: BTreeSet<_> = sweep.iter().map(|&batching| Self::ceiling(batching)).collect();
        let drains: BTreeSet<_> = sweep.iter().copied().map(Self::Drain).collect();
        [Self::Consume].into_iter().chain(ceilings).chain(drains).collect()
    }

    /// Inserts as large as the largest of a drain with this batching, as many at a time.
    fn ceiling(batching: Batching) -> Self {
        let rows = u32::try_from(batching.insert_rows()).unwrap_or(u32::MAX);
        Self::Insert(Batching { batch_rows: rows, coalesce_rows: rows, ..batching })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = |rows: u32| grouped(rows.into());
        match self {
            Self::Consume => f.write_str("consume only"),
            Self::Insert(Batching { batch_rows, in_flight, .. }) => {
                write!(f, "insert only, {} rows, {in_flight} in flight", rows(*batch_rows))
            }
            Self::Drain(Batching { batch_rows, in_flight, coalesce_rows }) => {
                let (batch, coalesced) = (rows(*batch_rows), rows(*coalesce_rows));
                write!(f, "batches of {batch} rows, coalesced to {coalesced}, {in_flight} in flight")
            }
        }
    }
}

impl Run {
    pub fn new(done: &Done, ended: &Reading, rested: &Reading, disk_bytes: u64) -> Self {
        let (rows, counters) = (done.rows.max(1) as f64, &rested.counters);
        let per_million = |time: Duration| time.as_secs_f64() / rows * 1e6;
        // A step that inserts nothing costs ClickHouse nothing but the questions of this program.
        let is_inserting = done.inserts > 0;
        Self {
            rows: done.rows,
            seconds: done.seconds,
            rows_per_second: rows / done.seconds.max(f64::EPSILON),
            clickstream_cpu: done.cpu_seconds / rows * 1e6,
            clickhouse_cpu: rested.clickhouse.filter(|_| is_inserting).map(per_million),
            clickhouse_cpu_at_end: ended.clickhouse.filter(|_| is_inserting).map(per_million),
            kafka_cpu: ended.kafka.map(per_million),
            peak_mib: done.peak_bytes as f64 / MIB,
            received_bytes_per_row: if is_inserting { counters.received_bytes as f64 / rows } else { 0.0 },
            inserts: done.inserts,
            retries: done.retries,
            parts: if is_inserting { counters.parts } else { 0 },
            merges: if is_inserting { counters.merges } else { 0 },
            disk_bytes_per_row: disk_bytes as f64 / rows,
        }
    }

    /// The CPU time of all three; none where that of one is not known.
    fn sum(&self) -> Option<f64> {
        Some(self.clickstream_cpu + self.clickhouse_cpu? + self.kafka_cpu?)
    }

    /// The median of each figure.
    fn median(runs: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(runs.iter().map(figure).collect()).unwrap_or_default();
        let known = |figure: fn(&Self) -> Option<f64>| median(runs.iter().filter_map(figure).collect());
        Self {
            rows: of(|run| run.rows as f64) as u64,
            seconds: of(|run| run.seconds),
            rows_per_second: of(|run| run.rows_per_second),
            clickstream_cpu: of(|run| run.clickstream_cpu),
            clickhouse_cpu: known(|run| run.clickhouse_cpu),
            clickhouse_cpu_at_end: known(|run| run.clickhouse_cpu_at_end),
            kafka_cpu: known(|run| run.kafka_cpu),
            peak_mib: of(|run| run.peak_mib),
            received_bytes_per_row: of(|run| run.received_bytes_per_row),
            inserts: of(|run| run.inserts as f64) as u64,
            retries: of(|run| run.retries as f64) as u64,
            parts: of(|run| run.parts as f64) as u64,
            merges: of(|run| run.merges as f64) as u64,
            disk_bytes_per_row: of(|run| run.disk_bytes_per_row),
        }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().saturating_sub(1) / 2)?, values.get(values.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

impl Report {
    pub fn new(conditions: Conditions, backlog: &Backlog, servers: &Servers) -> Self {
        Self {
            conditions,
            topic: backlog.kafka.topic.clone(),
            partitions: backlog.ends.len(),
            messages: backlog.checksum.rows(),
            message_bytes: backlog.bytes,
            clickhouse: servers.clickhouse(),
            kafka: servers.kafka(),
            runs: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, kind: Kind, run: Run) {
        self.runs.entry(kind).or_default().push(run);
    }

    fn measured(&self) -> Vec<Measured<'_>> {
        let medians: BTreeMap<_, _> = self.runs.iter().map(|(kind, runs)| (*kind, Run::median(runs))).collect();
        let rate = |kind: &Kind| medians.get(kind).map(|run| run.rows_per_second);
        let of_ceiling = |kind: &Kind| match kind {
            Kind::Drain(batching) => Some(rate(kind)? / rate(&Kind::Consume)?.min(rate(&Kind::ceiling(*batching))?)),
            _ => None,
        };
        let runs = self.runs.iter();
        runs.map(|(kind, runs)| Measured { kind: *kind, of_ceiling: of_ceiling(kind), median: medians[kind], runs })
            .collect()
    }

    /// All of it, for programs.
    pub fn json(&self) -> serde_json::Value {
        let conditions: BTreeMap<_, _> = self.conditions.iter().cloned().collect();
        serde_json::json!({
            "conditions": conditions,
            "topic": self.topic,
            "partitions": self.partitions,
            "messages": self.messages,
            "message_bytes": self.message_bytes,
            "clickhouse_cpu": self.clickhouse,
            "kafka_cpu": self.kafka,
            "verified_drains": self.drains(),
            "measured": self.measured(),
        })
    }

    /// Each of them was compared with the topic before it was added.
    fn drains(&self) -> usize {
        self.runs.iter().filter(|(kind, _)| matches!(kind, Kind::Drain(_))).map(|(_, runs)| runs.len()).sum()
    }
}

/// The columns of the table, after the step's name.
const HEADS: [&str; 13] = [
    "rows/s",
    "least",
    "most",
    "of ceiling",
    "clickstream",
    "ClickHouse",
    "Kafka",
    "sum",
    "peak MiB",
    "sent B/row",
    "inserts",
    "parts/merges",
    "disk B/row",
];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions: Vec<_> =
            self.conditions.iter().skip(1).map(|(name, value)| format!("{name} {value}")).collect();
        writeln!(f, "{}", conditions.join(", "))?;
        let (messages, size) = (grouped(self.messages), self.message_bytes / self.messages.max(1));
        writeln!(f, "topic {}: {messages} messages of {size} bytes in {} partitions", self.topic, self.partitions)?;
        let runs = self.runs.values().map(Vec::len).max().unwrap_or(0);
        writeln!(f, "medians of {runs} runs; CPU-seconds for a million rows, ClickHouse's with its merges\n")?;
        let mut lines = vec![[&[""], &HEADS[..]].concat().into_iter().map(String::from).collect::<Vec<_>>()];
        lines.extend(self.measured().iter().map(line));
        let widths: Vec<_> =
            (0..=HEADS.len()).map(|at| lines.iter().map(|line| line[at].len()).max().unwrap_or(0)).collect();
        for line in &lines {
            let figures = line.iter().zip(&widths).skip(1).map(|(figure, &width)| format!("  {figure:>width$}"));
            writeln!(f, "{:<width$}{}", line[0], figures.collect::<String>(), width = widths[0])?;
        }
        writeln!(f, "\nCPU time of ClickHouse: {}; of Kafka: {}", self.clickhouse, self.kafka)?;
        write!(f, "{} drains: every row of the topic is stored once, by count and checksum", self.drains())
    }
}

/// A line of the table. A figure that is not known, or does not apply, is a dash.
fn line(measured: &Measured<'_>) -> Vec<String> {
    let Measured { kind, of_ceiling, median, runs } = measured;
    let dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let rate = |rate: f64| grouped(rate as u64);
    let seconds = |seconds: Option<f64>| dash(seconds.map(|seconds| format!("{seconds:.2}")));
    let rates = || runs.iter().map(|run| run.rows_per_second);
    let of_inserts = |text: String| dash((median.inserts > 0).then_some(text));
    vec![
        kind.to_string(),
        rate(median.rows_per_second),
        rate(rates().fold(f64::INFINITY, f64::min)),
        rate(rates().fold(0.0, f64::max)),
        dash(of_ceiling.map(|share| format!("{:.0} %", share * 100.0))),
        seconds(Some(median.clickstream_cpu)),
        seconds(median.clickhouse_cpu),
        seconds(median.kafka_cpu),
        seconds(median.sum()),
        format!("{:.0}", median.peak_mib),
        of_inserts(format!("{:.0}", median.received_bytes_per_row)),
        of_inserts(grouped(median.inserts)),
        of_inserts(format!("{}/{}", median.parts, median.merges)),
        of_inserts(format!("{:.0}", median.disk_bytes_per_row)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batching(batch_rows: u32, in_flight: u8) -> Batching {
        Batching { batch_rows, in_flight, coalesce_rows: 50_000 }
    }

    fn run(rows_per_second: f64) -> Run {
        let done = Done {
            seconds: 1e6 / rows_per_second,
            cpu_seconds: 0.5,
            peak_bytes: 0,
            rows: 1_000_000,
            inserts: 20,
            retries: 0,
        };
        let reading = Reading { clickhouse: Some(Duration::from_secs(1)), ..Reading::default() };
        Run::new(&done, &reading, &reading, 0)
    }

    #[test]
    fn a_drain_is_judged_by_the_smaller_of_its_two_ceilings() {
        let sweep = [batching(1_000, 4), batching(50_000, 4), batching(1_000, 1)];
        let kinds = Kind::of_sweep(&sweep);
        let inserts = kinds.iter().filter(|kind| matches!(kind, Kind::Insert(_))).count();
        assert_eq!((kinds[0], inserts, kinds.len()), (Kind::Consume, 2, 1 + 2 + 3), "equal ceilings are measured once");
        let mut report = Report {
            conditions: Vec::new(),
            topic: "clicks".into(),
            partitions: 3,
            messages: 1,
            message_bytes: 1,
            clickhouse: String::new(),
            kafka: String::new(),
            runs: BTreeMap::new(),
        };
        for (kind, rates) in [
            (kinds[0], [900.0, 1_000.0, 2_000.0]),
            (Kind::ceiling(sweep[0]), [800.0, 700.0, 100.0]),
            (Kind::Drain(sweep[0]), [350.0, 100.0, 600.0]),
        ] {
            rates.into_iter().for_each(|rate| report.add(kind, run(rate)));
        }
        let measured = report.measured();
        let drain = measured.last().expect("it was added last");
        assert!((drain.of_ceiling.unwrap() - 0.5).abs() < 1e-9, "350 of 700: {:?}", drain.of_ceiling);
        assert_eq!(
            (drain.median.clickstream_cpu, drain.median.clickhouse_cpu, drain.median.kafka_cpu),
            (0.5, Some(1.0), None)
        );
        let text = report.to_string();
        assert!(text.contains("batches of 1,000 rows, coalesced to 50,000, 4 in flight"), "{text}");
        assert!(
            text.contains(" 50 % ")
                && text.ends_with("3 drains: every row of the topic is stored once, by count and checksum")
        );
        assert_eq!(report.json()["measured"][2]["step"], "drain");
    }

    #[test]
    fn the_median_of_an_even_number_of_runs_is_between_two() {
        assert_eq!(
            [median(vec![3.0, 1.0]), median(vec![5.0, 1.0, 2.0]), median(Vec::new())],
            [Some(2.0), Some(2.0), None]
        );
    }
}
