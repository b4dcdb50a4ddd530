//! The status of a running pipeline: one live line on a terminal, a log line every ten seconds elsewhere.

use super::line::{LiveLine, Part, fit};
use super::live::Live;
use super::rate::RateMeter;
use super::ready::Ready;
use super::rejections::{Rejections, share};
use super::service_manager::ServiceManager;
use crate::latency::{Recorder, table};
use crate::numbers::grouped;
use crate::shutdown::Shutdown;
use flows::{Metrics, Stage, Waiting};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The interval of drawing the line, and the longest one of taking latencies.
pub const TICK: Duration = Duration::from_secs(1);
/// The interval of log lines without a terminal, in ticks.
pub const LOG_EVERY: u32 = 10;
/// The columns of the sign in front of the line that shows that it moves.
const SPINNER: usize = 2;

/// The kind of a pipeline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pipeline {
    Produce,
    /// With its latency target, `--batch-timeout`.
    Ingest {
        promise: Duration,
    },
}

impl Pipeline {
    /// The time within which a batch lands.
    pub(super) const fn promise(self) -> Duration {
        match self {
            Self::Produce => TICK,
            Self::Ingest { promise } => promise,
        }
    }
}

/// The display of one pipeline.
pub struct Status {
    of: Pipeline,
    live: Live,
    line: LiveLine,
    ticks: u32,
    rate: RateMeter,
    /// Rows and rejects up to the newest batch, and of that batch.
    seen: (u64, u64),
    newest: (u64, u64),
    rejections: Rejections,
    ready: Arc<Ready>,
    service_manager: ServiceManager,
    shutdown: Shutdown,
    /// Those of each topic, where there are several.
    rejections_by_topic: BTreeMap<String, Rejections>,
}

impl Status {
    pub fn new(
        of: Pipeline,
        metrics: &Arc<Metrics>,
        recorder: &Recorder,
        ready: &Arc<Ready>,
        shutdown: &Shutdown,
    ) -> Self {
        Self {
            of,
            live: Live { metrics: metrics.clone(), window: recorder.window(), promise: of.promise() },
            line: LiveLine::new("{spinner} {msg}"),
            ticks: 0,
            rate: RateMeter::new(of.promise(), Instant::now()),
            seen: (0, 0),
            newest: (0, 0),
            rejections: Rejections::new(metrics.clone(), None),
            rejections_by_topic: BTreeMap::new(),
            ready: ready.clone(),
            service_manager: ServiceManager::of_environment(),
            shutdown: shutdown.clone(),
        }
    }

    /// Shows the present status.
    pub fn tick(&mut self) {
        let parts = self.parts();
        self.ticks += 1;
        for (topic, metrics) in self.live.metrics.topics() {
            let rejections = || Rejections::new(metrics, Some(topic.clone()));
            self.rejections_by_topic.entry(topic.clone()).or_insert_with(rejections);
        }
        self.rejections().for_each(Rejections::tick);
        self.ready.stuck.warn();
        let missing = self.ready.missing(self.of, &self.live.metrics);
        self.service_manager.tell(missing.as_deref(), self.shutdown.is_requested());
        if LiveLine::is_shown() {
            self.line.draw(fit(parts, LiveLine::width().saturating_sub(SPINNER)));
        } else if self.ticks.is_multiple_of(LOG_EVERY) {
            tracing::info!("{}", fit(parts, usize::MAX));
        }
    }

    /// Removes the live line, and logs the last messages: the pipeline has ended.
    pub fn clear(&mut self) {
        self.service_manager.tell(None, true);
        self.line.clear();
        self.rejections().for_each(Rejections::say);
    }

    fn rejections(&mut self) -> impl Iterator<Item = &mut Rejections> {
        std::iter::once(&mut self.rejections).chain(self.rejections_by_topic.values_mut())
    }

    fn parts(&mut self) -> Vec<Part> {
        let metrics = self.live.metrics.clone();
        metrics.refresh();
        let rejects = metrics.rejects.total();
        let events = Metrics::read(&metrics.events) + rejects;
        if events != self.seen.0 {
            self.newest = (events - self.seen.0, rejects - self.seen.1);
            self.seen = (events, rejects);
        }
        let rate = grouped(self.rate.read(events, Instant::now()).round() as u64);
        let mut parts: Vec<Part> = match self.of {
            Pipeline::Produce => self.of_producer(&rate, events),
            Pipeline::Ingest { .. } => self.of_ingester(&rate, events, rejects),
        };
        if let Some((what, meanwhile)) = self.ready.stuck.now() {
            parts.splice(0..0, [(0, what), (2, meanwhile.into())]);
        }
        parts
    }

    fn of_producer(&self, rate: &str, events: u64) -> Vec<Part> {
        let [ack, slip] = [Stage::Ack, Stage::Slip].map(|stage| match stage {
            Stage::Slip => self.live.recent(stage),
            _ => self.live.window.recent(stage, &self.live.metrics.latencies(), &Waiting::default(), Instant::now()),
        });
        let mut parts = vec![(1, format!("{rate} events/s")), (3, format!("{} acknowledged", grouped(events)))];
        let oldest = self.live.oldest();
        if oldest > TICK {
            let waiting = self.live.waiting().0.iter().map(|run| run.count).sum();
            parts.push((1, format!("{} wait, for {:.0} s", grouped(waiting), oldest.as_secs_f64())));
        }
        if !ack.is_empty() {
            let (p50, p99) = (table::time(ack.at(50.0)), table::time(ack.at(99.0)));
            parts.push((4, format!("ack p50 {p50} p99 {p99}")));
        }
        if !slip.is_empty() {
            parts.push((4, format!("slip p99 {}", table::time(slip.at(99.0)))));
        }
        parts
    }

    /// The topic of several with the most messages that wait.
    fn worst_topic(&self) -> String {
        let lags = self.live.metrics.topics().into_iter().map(|(topic, metrics)| (Metrics::read(&metrics.lag), topic));
        let worst = lags.max_by_key(|(lag, _)| *lag).filter(|(lag, _)| *lag > 0);
        worst.map(|(lag, topic)| format!(" ({} in {topic})", grouped(lag))).unwrap_or_default()
    }

    fn of_ingester(&self, rate: &str, events: u64, rejects: u64) -> Vec<Part> {
        let metrics = &self.live.metrics;
        let (latency, rest) = self.live.latency();
        let lag = grouped(Metrics::read(&metrics.lag));
        let (newest, rejected) = self.newest;
        let share = if rejected > 0 { format!(" ({} now)", share(rejected, newest)) } else { String::new() };
        let mut parts = vec![
            (2, format!("{rate} rows/s")),
            (5, format!("{} rows", grouped(events))),
            (1, format!("lag {lag}{}", self.worst_topic())),
            (3, format!("e2e {latency}")),
        ];
        if let Some((longest, verdict)) = rest {
            parts.extend([(4, longest), (if verdict.is_kept() { 6 } else { 4 }, verdict.to_string())]);
        }
        parts.push((if rejected > 0 { 4 } else { 7 }, format!("{} rejected{share}", grouped(rejects))));
        parts.push((8, format!("{} retries", grouped(Metrics::read(&metrics.retries)))));
        parts.push((9, format!("{} batches", grouped(Metrics::read(&metrics.batches)))));
        parts
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
            _ = ticks.tick() => status.tick(),
        }
    }
}
