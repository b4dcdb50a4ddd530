//! Logs, added up.

use super::timeline::band;
use crate::latency::log::{self, Interval};
use crate::latency::table::Row;
use anyhow::{Result, bail};
use flows::{OutOfRange, Stage};
use hdrhistogram::Histogram;
use std::path::PathBuf;
use std::time::Duration;

/// Stages that are told apart. Ours are seven; a foreign log may have more, but no log may fill the memory with them.
const MOST_STAGES: usize = 64;

/// A part of the runs: intervals that begin at `from` or later and before `to`, counted from the start of the first log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    pub from: Option<Duration>,
    pub to: Option<Duration>,
}

/// The sum of several logs.
pub struct Run {
    /// The files it was read from.
    pub files: Vec<PathBuf>,
    /// When the first of the logs began: seconds since the Unix epoch.
    pub start: f64,
    /// The first interval's begin and the last one's end: seconds since the Unix epoch.
    pub range: (f64, f64),
    /// In the order of an event's way, then by name.
    pub stages: Vec<Measured>,
    /// Damaged lines.
    pub warnings: Vec<String>,
}

/// A stage.
pub struct Measured {
    pub name: String,
    /// Nanoseconds.
    pub histogram: Histogram<u64>,
    pub outside: OutOfRange,
    /// Its intervals, in the order of the logs.
    pub slices: Vec<Slice>,
}

/// An interval, in short.
pub struct Slice {
    /// Seconds since the Unix epoch.
    pub start: f64,
    /// Seconds.
    pub length: f64,
    pub events: u64,
    /// The sum of their latencies, in nanoseconds.
    pub sum: f64,
    /// How many of them are in which [band] of latency.
    pub bands: Vec<(u8, u64)>,
}

impl Run {
    /// Reads logs and adds them up.
    ///
    /// # Errors
    /// When a file is no latency log or holds nothing, or nothing of all of them is in the window.
    pub fn read(files: &[PathBuf], window: Window) -> Result<Self> {
        let mut run = Self {
            files: files.to_vec(),
            start: f64::MAX,
            range: (f64::MAX, 0.0),
            stages: Vec::new(),
            warnings: Vec::new(),
        };
        if window.from.is_some() || window.to.is_some() {
            // When the first one began is known when all have been looked at.
            for path in files {
                run.start = run.start.min(log::read(path, |_| Ok(()))?.start);
            }
        }
        let (from, to) = window.absolute(run.start);
        for path in files {
            let reading = log::read(path, |interval| {
                // Stamps in a log are rounded to milliseconds.
                let start = (interval.start * 1e3).round() / 1e3;
                if (from..to).contains(&start) { run.add(interval) } else { Ok(()) }
            })?;
            run.start = run.start.min(reading.start);
            run.warnings.extend(reading.warning);
        }
        if run.stages.is_empty() {
            bail!("no latencies between --from and --to: the log begins at 0s");
        }
        let place = |name: &str| Stage::ALL.iter().position(|stage| stage.as_str() == name).unwrap_or(Stage::ALL.len());
        run.stages.sort_by(|a, b| (place(&a.name), &a.name).cmp(&(place(&b.name), &b.name)));
        Ok(run)
    }

    /// Keeps only these stages; all, if none is named.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn keep(&mut self, names: &[String]) -> Result<()> {
        for name in names {
            if self.stage(name).is_none() {
                let there: Vec<_> = self.stages.iter().map(|stage| stage.name.as_str()).collect();
                bail!("--stage {name}: not in these logs, which have {}", there.join(", "));
            }
        }
        self.stages.retain(|stage| names.is_empty() || names.contains(&stage.name));
        Ok(())
    }

    pub fn stage(&self, name: &str) -> Option<&Measured> {
        self.stages.iter().find(|stage| stage.name == name)
    }

    /// The stage that a picture of only one shows: the whole way, where it is known.
    pub fn headline(&self) -> &Measured {
        self.stage(Stage::EndToEnd.as_str()).unwrap_or_else(|| self.stages.last().expect("a run has a stage"))
    }

    /// Its stages as a table has them.
    pub fn rows(&self) -> Vec<(&str, Row<'_>)> {
        let rows = self.stages.iter().map(|stage| {
            let Measured { name, histogram, outside, .. } = stage;
            (name.as_str(), Row { histogram, outside: *outside })
        });
        rows.collect()
    }

    /// How long it was, in seconds.
    pub fn seconds(&self) -> f64 {
        self.range.1 - self.range.0
    }

    fn add(&mut self, interval: &Interval<'_>) -> Result<(), String> {
        let index = match self.stages.iter().position(|stage| stage.name == interval.stage) {
            Some(index) => index,
            None if self.stages.len() == MOST_STAGES => return Err(format!("more than {MOST_STAGES} tags")),
            None => {
                let mut histogram = Histogram::new_from(&interval.histogram);
                histogram.auto(true);
                let name = interval.stage.to_owned();
                self.stages.push(Measured { name, histogram, outside: OutOfRange::default(), slices: Vec::new() });
                self.stages.len() - 1
            }
        };
        let stage = &mut self.stages[index];
        stage.histogram.add(&interval.histogram).map_err(|error| error.to_string())?;
        stage.outside += interval.outside;
        stage.slices.push(Slice::of(interval));
        self.range = (self.range.0.min(interval.start), self.range.1.max(interval.start + interval.length));
        Ok(())
    }
}

impl Window {
    /// Its ends, in seconds since the Unix epoch.
    fn absolute(self, start: f64) -> (f64, f64) {
        (
            self.from.map_or(f64::MIN, |from| start + from.as_secs_f64()),
            self.to.map_or(f64::MAX, |to| start + to.as_secs_f64()),
        )
    }
}

impl Slice {
    fn of(interval: &Interval<'_>) -> Self {
        let (mut sum, mut bands) = (0.0, Vec::<(u8, u64)>::new());
        for step in interval.histogram.iter_recorded() {
            let (value, events) = (step.value_iterated_to(), step.count_at_value());
            sum += interval.histogram.median_equivalent(value) as f64 * events as f64;
            match bands.last_mut() {
                Some((last, sum)) if *last == band(value) => *sum += events,
                _ => bands.push((band(value), events)),
            }
        }
        Self { start: interval.start, length: interval.length, events: interval.histogram.len(), sum, bands }
    }
}
