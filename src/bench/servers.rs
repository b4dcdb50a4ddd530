//! The costs of the servers: the CPU time of their processes where they run on this machine, and ClickHouse's own counts.

use super::usage::Process;
use crate::clickhouse::{ClickHouse, Counters};
use anyhow::Result;
use std::time::{Duration, Instant};
use url::Url;

/// The merges of a table have come to rest when none ran for this long; they are not waited for any longer than the second time.
const REST: Duration = Duration::from_secs(1);
const REST_TIMEOUT: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The processes of both servers, as far as they are on this machine.
pub struct Servers {
    clickhouse: Option<Process>,
    kafka: Option<Vec<Process>>,
}

/// The costs of both so far, or between two readings.
#[derive(Clone, Copy, Default)]
pub struct Reading {
    pub clickhouse: Option<Duration>,
    pub kafka: Option<Duration>,
    pub counters: Counters,
}

impl Servers {
    /// Looks for the processes that listen at these addresses.
    pub fn find(clickhouse: &Url, brokers: &[(String, u16)]) -> Self {
        let host = clickhouse.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = clickhouse.port_or_known_default().unwrap_or_default();
        // Of several brokers, all are on this machine, or their cost is unknown.
        let mut kafka: Option<Vec<_>> = brokers.iter().map(|(host, port)| Process::listening(host, *port)).collect();
        if let Some(processes) = &mut kafka {
            processes.sort_unstable();
            processes.dedup();
        }
        Self { clickhouse: Process::listening(host, port), kafka: kafka.filter(|found| !found.is_empty()) }
    }

    /// How ClickHouse's CPU time is known.
    pub fn clickhouse(&self) -> String {
        self.clickhouse.as_ref().map_or_else(
            || "by its own count (OSCPUVirtualTimeMicroseconds): its process is not one of this machine that this user may see".into(),
            |process| format!("of process {} ({})", process.id, process.name),
        )
    }

    /// How Kafka's CPU time is known.
    pub fn kafka(&self) -> String {
        let Some(processes) = &self.kafka else {
            return "unknown: not all brokers are processes of this machine that this user may see".into();
        };
        let each = processes.iter().map(|process| format!("process {} ({})", process.id, process.name));
        format!("of {}", each.collect::<Vec<_>>().join(", "))
    }

    /// The costs of both so far.
    ///
    /// # Errors
    /// When ClickHouse does not say it.
    pub async fn read(&self, clickhouse: &ClickHouse) -> Result<Reading> {
        let counters = clickhouse.counters().await?;
        let own = || Some(Duration::from_micros(counters.cpu_us));
        let kafka = |processes: &Vec<Process>| processes.iter().map(Process::cpu).sum();
        Ok(Reading {
            clickhouse: self.clickhouse.as_ref().map_or_else(own, Process::cpu),
            kafka: self.kafka.as_ref().and_then(kafka),
            counters,
        })
    }
}

impl Reading {
    /// The difference to an earlier one.
    pub fn since(&self, before: &Self) -> Self {
        let time = |now: Option<Duration>, before: Option<Duration>| Some(now?.saturating_sub(before?));
        let (now, then) = (&self.counters, &before.counters);
        Self {
            clickhouse: time(self.clickhouse, before.clickhouse),
            kafka: time(self.kafka, before.kafka),
            counters: Counters {
                cpu_us: now.cpu_us.saturating_sub(then.cpu_us),
                received_bytes: now.received_bytes.saturating_sub(then.received_bytes),
                parts: now.parts.saturating_sub(then.parts),
                merges: now.merges.saturating_sub(then.merges),
            },
        }
    }
}

/// Waits until the merges of a database have come to rest: they are a part of what its rows cost.
///
/// # Errors
/// When ClickHouse does not say which ones run.
pub async fn rest(clickhouse: &ClickHouse) -> Result<()> {
    let (began, mut busy) = (Instant::now(), Instant::now());
    while busy.elapsed() < REST && began.elapsed() < REST_TIMEOUT {
        if clickhouse.running_merges().await? > 0 {
            busy = Instant::now();
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}
