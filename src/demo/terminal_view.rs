//! The demo's view on a terminal; without a terminal, a log line every ten seconds.

use crate::latency::Recorder;
use crate::latency::percentile;
use crate::latency::table;
use crate::numbers::grouped;
use flows::{Metrics, Stage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Instant;

/// How often a line is logged where there is no terminal, in ticks.
const LOG_EVERY: u32 = 10;

/// The lines that do not change.
pub struct Places {
    pub broker: String,
    pub clickhouse: String,
    /// Whether its data outlives the demo.
    pub kept: bool,
}

/// The live terminal_view.
pub struct TerminalView {
    places: Places,
    url: String,
    bar: ProgressBar,
    ticks: u32,
    last: (Instant, u64),
}

impl TerminalView {
    pub fn new(places: Places, url: String) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template("{msg}").expect("a constant template that is valid"));
        Self { places, url, bar, ticks: 0, last: (Instant::now(), 0) }
    }

    /// Shows the present state; `note` is the present problem of ClickHouse.
    pub fn tick(&mut self, produced: &Metrics, ingested: &Metrics, recorder: &Recorder, note: Option<&str>) {
        let sent = Metrics::read(&produced.events);
        let (since, before) = std::mem::replace(&mut self.last, (Instant::now(), sent));
        let rate = (sent - before) as f64 / since.elapsed().as_secs_f64().max(0.001);
        let rows = Metrics::read(&ingested.events) + ingested.rejects.total();
        let latency = latency(recorder);
        self.ticks += 1;
        if std::io::stderr().is_terminal() {
            let Self { places: Places { broker, clickhouse, kept }, url, .. } = self;
            let then = if *kept { "keeps the data" } else { "removes everything" };
            self.bar.set_message(format!(
                "\n  dashboard   {url}\n  events      {rate:.0}/s · {} sent · {} stored · lag {}\n  latency     {latency}\n  \
                 broker      {broker}\n  ClickHouse  {}\n\n  Ctrl-C drains, reports and {then}",
                grouped(sent),
                grouped(rows),
                grouped(Metrics::read(&ingested.lag)),
                note.unwrap_or(clickhouse),
            ));
            self.bar.tick();
        } else if self.ticks.is_multiple_of(LOG_EVERY) {
            tracing::info!("{rate:.0} events/s · {} sent · {} stored · e2e {latency}", grouped(sent), grouped(rows));
        }
    }

    /// Removes it.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn latency(recorder: &Recorder) -> String {
    let e2e = recorder.total().of(Stage::EndToEnd);
    if e2e.is_empty() {
        return "no rows yet".into();
    }
    let at = |percent| table::time(percentile::at(e2e, percent));
    let kept = if e2e.max() < table::PROMISE_NS { "kept" } else { "broken" };
    format!("p50 {} · p99 {} · max {} · promise of 5 s: {kept}", at(50.0), at(99.0), table::time(e2e.max()))
}
