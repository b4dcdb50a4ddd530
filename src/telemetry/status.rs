//! The status of a running pipeline: one live line on a terminal, a log line every ten seconds elsewhere.

use super::rejections::{Rejections, share};
use crate::latency::Recorder;
use crate::latency::percentile;
use crate::numbers::grouped;
use crate::stuck::Stuck;
use flows::{Metrics, Stage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The interval of drawing the line, and the longest one of taking latencies.
pub const TICK: Duration = Duration::from_secs(1);
/// The interval of log lines without a terminal.
const LOG_EVERY: u32 = 10;

/// The kind of a pipeline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pipeline {
    Produce,
    Ingest,
}

/// The display of one pipeline.
pub struct Status {
    of: Pipeline,
    metrics: Arc<Metrics>,
    bar: ProgressBar,
    ticks: u32,
    /// The time of the last status, and the rows and rejects up to then.
    last: (Instant, u64, u64),
    rejections: Rejections,
    stuck: Arc<Stuck>,
}

impl Status {
    pub fn new(of: Pipeline, metrics: Arc<Metrics>, stuck: Arc<Stuck>) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("a constant template that is valid"));
        let rejections = Rejections::new(metrics.clone());
        Self { of, metrics, bar, ticks: 0, last: (Instant::now(), 0, 0), rejections, stuck }
    }

    /// Shows the present status.
    pub fn tick(&mut self, recorder: &Recorder) {
        let line = self.line(recorder);
        self.ticks += 1;
        self.rejections.tick();
        self.stuck.warn();
        if std::io::stderr().is_terminal() {
            self.bar.set_message(line);
            self.bar.tick();
        } else if self.ticks.is_multiple_of(LOG_EVERY) {
            tracing::info!("{line}");
        }
    }

    /// Removes the live line, and logs the last messages.
    pub fn clear(&mut self) {
        self.bar.finish_and_clear();
        self.rejections.say();
    }

    fn line(&mut self, recorder: &Recorder) -> String {
        let rejects = self.metrics.rejects.total();
        let events = Metrics::read(&self.metrics.events) + rejects;
        let (since, before, rejects_before) = std::mem::replace(&mut self.last, (Instant::now(), events, rejects));
        let rate = (events - before) as f64 / since.elapsed().as_secs_f64().max(0.001);
        let percentile = |stage, percent| percentile::at(recorder.total().of(stage), percent) as f64 / 1e9;
        match self.of {
            Pipeline::Produce => format!(
                "{:.0} events/s · {} acknowledged · ack p50 {:.3} s p99 {:.3} s · slip p99 {:.3} s",
                rate,
                grouped(events),
                percentile(Stage::Ack, 50.0),
                percentile(Stage::Ack, 99.0),
                percentile(Stage::Slip, 99.0),
            ),
            Pipeline::Ingest => format!(
                "{:.0} rows/s · {} rows · lag {} · {} batches · e2e p50 {:.2} s p99 {:.2} s · {} rejected{} · {} retries",
                rate,
                grouped(events),
                grouped(Metrics::read(&self.metrics.lag)),
                grouped(Metrics::read(&self.metrics.batches)),
                percentile(Stage::EndToEnd, 50.0),
                percentile(Stage::EndToEnd, 99.0),
                grouped(rejects),
                match rejects - rejects_before {
                    0 => String::new(),
                    new => format!(" ({} now)", share(new, events - before)),
                },
                grouped(Metrics::read(&self.metrics.retries)),
            ),
        }
    }
}

/// Ticks once a second, and takes latencies as often as the recorder wants, until the future is done.
pub async fn watch<T>(status: &mut Status, recorder: &mut Recorder, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut ticks = tokio::time::interval(TICK);
    let mut takes = tokio::time::interval(recorder.every().min(TICK));
    for timer in [&mut ticks, &mut takes] {
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    }
    loop {
        tokio::select! {
            done = &mut work => {
                status.clear();
                return done;
            }
            _ = takes.tick() => recorder.tick(),
            _ = ticks.tick() => status.tick(recorder),
        }
    }
}
