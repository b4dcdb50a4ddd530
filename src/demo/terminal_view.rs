//! The demo's view on a terminal; without a terminal, a log line every ten seconds.

use crate::numbers::grouped;
use crate::stuck::Stuck;
use crate::telemetry::line::{LiveLine, cut};
use crate::telemetry::status::{LOG_EVERY, TICK};
use crate::telemetry::{Live, RateMeter};
use flows::Metrics;
use std::sync::Arc;
use std::time::Instant;

/// The lines that do not change.
pub struct Places {
    pub dashboard: String,
    pub broker: String,
    pub clickhouse: String,
    /// Whether its data outlives the demo.
    pub kept: bool,
}

/// The view of both pipelines.
pub struct TerminalView {
    places: Places,
    produced: Arc<Metrics>,
    live: Live,
    stuck: Arc<Stuck>,
    line: LiveLine,
    ticks: u32,
    rate: RateMeter,
}

impl TerminalView {
    pub fn new(places: Places, produced: Arc<Metrics>, live: Live, stuck: Arc<Stuck>) -> Self {
        let (line, rate) = (LiveLine::new("{msg}"), RateMeter::new(TICK, Instant::now()));
        Self { places, produced, live, stuck, line, ticks: 0, rate }
    }

    /// Shows the present state; `note` is the present problem of ClickHouse.
    pub fn tick(&mut self, note: Option<&str>) {
        self.ticks += 1;
        self.stuck.warn();
        if LiveLine::is_shown() {
            let columns = LiveLine::width();
            let lines: Vec<_> = self.lines(note).iter().map(|line| cut(line, columns)).collect();
            self.line.draw(lines.join("\n"));
        } else if self.ticks.is_multiple_of(LOG_EVERY) {
            let (events, latency) = (self.events(), self.latency());
            tracing::info!("{}{events} · e2e {latency}", self.problem().map(|what| what + " · ").unwrap_or_default());
        }
    }

    fn lines(&mut self, note: Option<&str>) -> Vec<String> {
        let (events, latency) = (self.events(), self.latency());
        let Places { dashboard, broker, clickhouse, kept } = &self.places;
        let then = if *kept { "keeps the data" } else { "removes everything" };
        let mut lines = vec![
            String::new(),
            format!("  dashboard   {dashboard}"),
            format!("  events      {events}"),
            format!("  latency     {latency}"),
            format!("  broker      {broker}"),
            format!("  ClickHouse  {}", note.unwrap_or(clickhouse)),
        ];
        lines.extend(self.problem().map(|problem| format!("  problem     {problem}")));
        lines.extend([String::new(), format!("  Ctrl-C drains, reports and {then}")]);
        lines
    }

    fn events(&mut self) -> String {
        let (sent, stored) = (Metrics::read(&self.produced.events), &self.live.metrics);
        format!(
            "{}/s · {} sent · {} stored · lag {}",
            grouped(self.rate.read(sent, Instant::now()).round() as u64),
            grouped(sent),
            grouped(Metrics::read(&stored.events) + stored.rejects.total()),
            grouped(Metrics::read(&stored.lag)),
        )
    }

    fn latency(&self) -> String {
        let (latency, rest) = self.live.latency();
        rest.map_or(latency.clone(), |(longest, verdict)| format!("{latency} {longest} · {verdict}"))
    }

    fn problem(&self) -> Option<String> {
        self.stuck.now().map(|(what, meanwhile)| format!("{what} · {meanwhile}"))
    }

    /// Removes it.
    pub fn clear(&self) {
        self.line.clear();
    }
}
