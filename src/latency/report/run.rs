//! Logs, added up.

use super::backlog::{self, Drained};
use super::timeline::band;
use crate::latency::log::{BATCH_TIMEOUT, Conditions, Interval, Reading, Source};
use crate::latency::promise::Judged;
use crate::latency::table::Row;
use crate::numbers::grouped;
use anyhow::{Context, Result, bail};
use flows::{OutOfRange, Stage};
use hdrhistogram::Histogram;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Stages that are told apart. Ours are eight; a foreign log may have more, but no log may fill the memory with them.
const MOST_STAGES: usize = 64;

/// A part of the runs: intervals that begin at `from` or later and before `to`, counted from the start of the first log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    pub from: Option<Duration>,
    pub to: Option<Duration>,
}

/// The sum of several logs.
#[derive(Default)]
pub struct Run {
    /// The files it was read from.
    pub files: Vec<PathBuf>,
    /// When the first of the logs began: seconds since the Unix epoch.
    pub start: f64,
    /// The first interval's begin and the last one's end: seconds since the Unix epoch.
    pub range: (f64, f64),
    /// In the order of an event's way, then by name.
    pub stages: Vec<Measured>,
    /// The backlog of a start, also where the report leaves its stages out.
    pub backlog: u64,
    pub drained: Option<Drained>,
    /// The whole way of the events that are no backlog: the promise is judged by them. None without `e2e`.
    pub current: Option<Histogram<u64>>,
    /// The conditions of each log that has some.
    pub conditions: Vec<(PathBuf, Conditions)>,
    /// Damaged lines.
    pub warnings: Vec<String>,
}

/// A stage.
pub struct Measured {
    pub name: String,
    /// Nanoseconds.
    pub histogram: Histogram<u64>,
    pub outside: OutOfRange,
    /// How many times were measured: fewer than events, where a batch has one time.
    pub samples: u64,
    /// Its intervals, in the order of the logs.
    pub slices: Vec<Slice>,
}

/// An interval, in short.
#[derive(Clone)]
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
    /// Reads logs and adds them up. A directory stands for the logs in it.
    ///
    /// # Errors
    /// When a file is no latency log or holds nothing, or nothing of all of them is in the window.
    pub fn read(paths: &[PathBuf], window: Window) -> Result<Self> {
        let (mut sources, mut warnings) = (Vec::new(), Vec::new());
        for path in paths {
            open(path, &mut sources, &mut warnings)?;
        }
        let files = sources.iter().map(|source| source.path.clone()).collect();
        let mut run = Self { files, start: f64::MAX, range: (f64::MAX, 0.0), warnings, ..Self::default() };
        let mut end = 0.0_f64;
        if window.from.is_some() || window.to.is_some() {
            // When the first one began is known when all have been looked at.
            for source in &sources {
                let Reading { start, end: last, .. } = source.read(|_| Ok(()))?;
                (run.start, end) = (run.start.min(start), end.max(last));
            }
        }
        let (from, to) = window.absolute(run.start);
        for source in &sources {
            let reading = source.read(|interval| {
                // Stamps in a log are rounded to milliseconds.
                let start = (interval.start * 1e3).round() / 1e3;
                if (from..to).contains(&start) { run.add(interval) } else { Ok(()) }
            })?;
            run.start = run.start.min(reading.start);
            run.warnings.extend(reading.warning);
            if !reading.conditions.is_empty() {
                run.conditions.push((source.path.clone(), reading.conditions));
            }
        }
        if run.stages.is_empty() {
            bail!("{}", window.is_empty(end - run.start));
        }
        run.set_backlog_apart();
        let place = |name: &str| Stage::ALL.iter().position(|stage| stage.as_str() == name).unwrap_or(Stage::ALL.len());
        run.stages.sort_by(|a, b| (place(&a.name), &a.name).cmp(&(place(&b.name), &b.name)));
        Ok(run)
    }

    /// Tells the events that came while the ingester was caught up from the backlog of its start.
    pub(super) fn set_backlog_apart(&mut self) {
        let Some(e2e) = self.stage(Stage::EndToEnd.as_str()) else { return };
        let Some(backlog) = self.stage(Stage::Backlog.as_str()) else {
            self.current = Some(e2e.histogram.clone());
            return;
        };
        let current = backlog::without(e2e, backlog);
        (self.backlog, self.drained) = (backlog.histogram.len(), Some(Drained::of(e2e, backlog)));
        self.current = Some(current.histogram.clone());
        if !current.histogram.is_empty() {
            self.stages.push(current);
        }
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
        // In a drain, the few events that came afterwards are not what it is about.
        let current = self.stage(backlog::CURRENT).filter(|_| !self.is_backlog());
        current.unwrap_or_else(|| self.whole())
    }

    /// Whether most of its events waited before the ingester had started.
    pub fn is_backlog(&self) -> bool {
        self.backlog > self.current.as_ref().map_or(0, Histogram::len)
    }

    /// The stage in which each event counts.
    pub fn whole(&self) -> &Measured {
        let e2e = self.stage(Stage::EndToEnd.as_str());
        e2e.unwrap_or_else(|| self.stages.last().expect("a run has a stage"))
    }

    /// The events, and the time that they took.
    pub fn throughput(&self) -> Throughput {
        Throughput { events: self.whole().histogram.len(), seconds: self.seconds() }
    }

    /// How fast a backlog was ingested: over the intervals in which there was one, where the log tells them.
    pub fn drain(&self) -> Throughput {
        self.drained.as_ref().map_or_else(|| self.throughput(), |drained| drained.throughput)
    }

    /// The mean of a stage in nanoseconds; in a backlog, over its intervals.
    pub fn mean(&self, stage: Stage) -> Option<f64> {
        let stage = self.stage(stage.as_str())?;
        let drained = self.drained.as_ref().filter(|_| self.is_backlog());
        drained.and_then(|drained| drained.mean(stage)).or_else(|| Some(stage.histogram.mean()))
    }

    /// How it kept this promise; none without `e2e`.
    pub fn judged(&self, promised_ns: u64) -> Option<Judged> {
        Judged::new(self.current.as_ref()?, self.backlog, promised_ns)
    }

    /// How it kept this promise, where the report shows the whole way.
    pub fn verdict(&self, promised_ns: u64) -> Option<Judged> {
        let shows_it = [Stage::EndToEnd.as_str(), backlog::CURRENT].iter().any(|stage| self.stage(stage).is_some());
        self.judged(promised_ns).filter(|_| shows_it)
    }

    /// The promises that its ingesters were configured with, shortest first.
    pub fn promises(&self) -> Vec<Duration> {
        let named = self.conditions.iter().flat_map(|(_, conditions)| conditions);
        let promised = named
            .filter(|(name, _)| name == BATCH_TIMEOUT)
            .filter_map(|(_, value)| humantime::parse_duration(value).ok());
        let distinct: std::collections::BTreeSet<_> = promised.collect();
        distinct.into_iter().collect()
    }

    /// Its stages as a table has them.
    pub fn rows(&self) -> Vec<(&str, Row<'_>)> {
        let rows = self.stages.iter().map(|stage| (stage.name.as_str(), stage.row()));
        rows.collect()
    }

    /// How long it was, in seconds.
    pub fn seconds(&self) -> f64 {
        self.range.1 - self.range.0
    }

    pub(super) fn add(&mut self, interval: &Interval<'_>) -> Result<(), String> {
        let index = match self.stages.iter().position(|stage| stage.name == interval.stage) {
            Some(index) => index,
            None if self.stages.len() == MOST_STAGES => return Err(format!("more than {MOST_STAGES} tags")),
            None => {
                let mut histogram = Histogram::new_from(&interval.histogram);
                histogram.auto(true);
                let name = interval.stage.to_owned();
                self.stages.push(Measured {
                    name,
                    histogram,
                    outside: OutOfRange::default(),
                    samples: 0,
                    slices: Vec::new(),
                });
                self.stages.len() - 1
            }
        };
        let stage = &mut self.stages[index];
        stage.histogram.add(&interval.histogram).map_err(|error| error.to_string())?;
        stage.outside += interval.outside;
        stage.samples += interval.samples;
        stage.slices.push(Slice::of(interval.start, interval.length, &interval.histogram));
        self.range = (self.range.0.min(interval.start), self.range.1.max(interval.start + interval.length));
        Ok(())
    }
}

/// Opens a log, or all those of a directory. One of them without a latency, of a run that was too short, is no reason to fail.
fn open(path: &Path, sources: &mut Vec<Source>, warnings: &mut Vec<String>) -> Result<()> {
    let cannot = || format!("cannot read {}", path.display());
    if !path.is_dir() {
        sources.push(Source::open(path)?);
        return Ok(());
    }
    let entries = path.read_dir().and_then(Iterator::collect::<Result<Vec<_>, _>>).with_context(cannot)?;
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    let before = sources.len();
    for path in paths {
        let source = Source::open(&path)?;
        match source.read(|_| Ok(())) {
            Ok(_) => sources.push(source),
            Err(why) => warnings.push(format!("{why:#}; the other logs of the directory are reported")),
        }
    }
    if sources.len() == before {
        bail!("{}: no file in this directory is a latency log with latencies", path.display());
    }
    Ok(())
}

impl Measured {
    /// Its statistics, as a table has them.
    pub fn row(&self) -> Row<'_> {
        Row { histogram: &self.histogram, outside: self.outside, samples: self.samples }
    }
}

/// How much went through in how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throughput {
    pub events: u64,
    pub seconds: f64,
}

impl Throughput {
    /// Events a second.
    pub fn rate(self) -> f64 {
        self.events as f64 / self.seconds.max(0.001)
    }

    /// The rate in digits.
    pub fn rate_shown(self) -> String {
        let rate = self.rate();
        if rate < 9.95 { format!("{rate:.1}") } else { grouped(rate.round() as u64) }
    }
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.rate_shown();
        write!(f, "{} events in {:.1} s, {rate} events/s", grouped(self.events), self.seconds)
    }
}

impl Window {
    /// Why no interval of a log of this length is in it.
    fn is_empty(self, seconds: f64) -> String {
        let ends = (seconds * 1e3).round() / 1e3;
        let time = humantime::format_duration;
        match (self.from, self.to) {
            (Some(from), _) if from.as_secs_f64() >= ends => {
                format!("no latencies from --from {} on: the log ends at {ends} s", time(from))
            }
            (Some(from), Some(to)) if from >= to => {
                format!("no latencies: --from {} is not before --to {}", time(from), time(to))
            }
            _ => format!("no interval begins between --from and --to: the log has 0 s to {ends} s"),
        }
    }

    /// Its ends, in seconds since the Unix epoch.
    fn absolute(self, start: f64) -> (f64, f64) {
        (
            self.from.map_or(f64::MIN, |from| start + from.as_secs_f64()),
            self.to.map_or(f64::MAX, |to| start + to.as_secs_f64()),
        )
    }
}

impl Slice {
    /// An interval from this second on, of this length in seconds.
    pub fn of(start: f64, length: f64, histogram: &Histogram<u64>) -> Self {
        let (mut sum, mut bands) = (0.0, Vec::<(u8, u64)>::new());
        for step in histogram.iter_recorded() {
            let (value, events) = (step.value_iterated_to(), step.count_at_value());
            sum += histogram.median_equivalent(value) as f64 * events as f64;
            match bands.last_mut() {
                Some((last, sum)) if *last == band(value) => *sum += events,
                _ => bands.push((band(value), events)),
            }
        }
        Self { start, length, events: histogram.len(), sum, bands }
    }

    /// When it began, in milliseconds since the Unix epoch, as the log has it.
    pub fn stamp(&self) -> i64 {
        (self.start * 1e3).round() as i64
    }

    /// The events of this interval that are not in that one.
    pub fn without(&self, other: &Self) -> Self {
        let of_other = |band| other.bands.iter().find(|(known, _)| *known == band).map_or(0, |&(_, events)| events);
        let bands = self.bands.iter().map(|&(band, events)| (band, events.saturating_sub(of_other(band))));
        let bands: Vec<_> = bands.filter(|&(_, events)| events > 0).collect();
        let events = bands.iter().map(|&(_, events)| events).sum();
        Self { events, sum: (self.sum - other.sum).max(0.0), bands, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_beside_the_log_says_what_the_log_covers() {
        let said = |from, to| {
            let time = |seconds: Option<u64>| seconds.map(Duration::from_secs);
            Window { from: time(from), to: time(to) }.is_empty(40.25)
        };
        assert_eq!(said(Some(600), None), "no latencies from --from 10m on: the log ends at 40.25 s");
        assert_eq!(said(Some(30), Some(20)), "no latencies: --from 30s is not before --to 20s");
        assert_eq!(said(None, Some(0)), "no interval begins between --from and --to: the log has 0 s to 40.25 s");
    }
}
