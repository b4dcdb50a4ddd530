//! Takes the latencies out of a metrics, adds them up, and hands them to the log.

use super::log::{Conditions, Taken, Writer, create_new};
use super::window::Window;
use anyhow::Result;
use flows::{Latencies, Metrics, now};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// An interval of the log, unless told otherwise.
const INTERVAL: Duration = Duration::from_secs(1);

/// Takes the latencies out of a metrics from time to time, adds them up, and logs them.
pub struct Recorder {
    metrics: Arc<Metrics>,
    window: Arc<Window>,
    log: Option<Log>,
}

struct Log {
    intervals: mpsc::Sender<Taken>,
    writer: JoinHandle<()>,
    /// The latencies since the last interval ended, at `since`.
    pending: Latencies,
    learned: Conditions,
    since: i64,
    every: Duration,
}

impl Recorder {
    /// A recorder, with a log in a new file at `path` or, where that is taken, at `path` with the next free number behind.
    pub fn new(metrics: Arc<Metrics>, path: Option<&Path>) -> Result<Self> {
        Self::with_interval(metrics, path, INTERVAL, &Vec::new())
    }

    /// A recorder with a log whose intervals have this length, and that begins with these conditions of the run.
    pub fn with_interval(
        metrics: Arc<Metrics>,
        path: Option<&Path>,
        every: Duration,
        conditions: &Conditions,
    ) -> Result<Self> {
        let log = path.map(|path| Log::create(path, every, conditions)).transpose()?;
        Ok(Self { metrics, window: Arc::default(), log })
    }

    /// Takes the latencies since the last call, and logs an interval that is over.
    pub fn tick(&mut self) {
        self.metrics.refresh();
        let taken = std::mem::take(&mut *self.metrics.latencies());
        self.window.add(&taken, Instant::now());
        if let Some(log) = &mut self.log {
            log.pending.add(&taken);
            log.learned.extend(self.metrics.learned());
            log.end_interval(now(), false);
        }
    }

    /// How often [`tick`](Self::tick) wants to be called at least, for its intervals to have their length.
    pub fn every(&self) -> Duration {
        self.log.as_ref().map_or(INTERVAL, |log| log.every)
    }

    /// The latencies of the last minute, and of all time.
    pub fn window(&self) -> Arc<Window> {
        self.window.clone()
    }

    /// Takes the rest, closes the log and returns everything. A log that could not be written says so itself: it is no reason
    /// for a pipeline to fail.
    pub fn close(mut self) -> Latencies {
        self.tick();
        if let Some(mut log) = self.log.take() {
            log.end_interval(now(), true);
            drop(log.intervals);
            if log.writer.join().is_err() {
                tracing::error!("the latency log is incomplete: its writer crashed");
            }
        }
        self.window.total()
    }
}

/// A tick that comes too early by this share of an interval still ends it, because timers are not more exact.
const EARLY: u32 = 10;

impl Log {
    fn create(path: &Path, every: Duration, conditions: &Conditions) -> Result<Self> {
        let (file, path) = create_new(path)?;
        let since = now();
        let (intervals, incoming) = mpsc::channel();
        // On a thread of its own, so that a slow disk holds up the log and not the pipeline.
        let writer = std::thread::Builder::new().name("latency-log".into());
        let log = Writer::new(file, path, since, conditions);
        let writer = writer.spawn(move || log.write(&incoming))?;
        Ok(Self { intervals, writer, pending: Latencies::default(), learned: Vec::new(), since, every })
    }

    fn end_interval(&mut self, until: i64, closing: bool) {
        let length = Duration::from_nanos(u64::try_from(until - self.since).unwrap_or(0));
        if closing || length + self.every / EARLY >= self.every {
            let (latencies, learned) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.learned));
            // It ends before this does only if it crashed, and then `close` says so.
            let _ = self.intervals.send(Taken { since: self.since, length, latencies, learned });
            self.since = until;
        }
    }
}
