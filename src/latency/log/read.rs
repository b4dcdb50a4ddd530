//! Reads a log, line by line, as far as it is whole.

use super::Conditions;
use super::line::{self, Fields};
use anyhow::{Context, Result, bail};
use flows::OutOfRange;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// The comment that tells a log from another text. HdrHistogram's own reader does without it.
const VERSION: &str = "#[Histogram log format version";
/// The longest line that is looked at, in bytes: a histogram with every count taken is shorter.
const LONGEST_LINE: u64 = 16 << 20;
/// A year in seconds. Without a base time, stamps that are more than this before the start time are offsets from it: so
/// HdrHistogram's own reader has it.
const YEAR: f64 = 365.0 * 24.0 * 3_600.0;

/// Conditions that are read from a log at most: ours has a dozen.
const MOST_CONDITIONS: usize = 64;
/// The name that stands for standard input.
pub const STDIN: &str = "-";

/// A stage in an interval.
pub struct Interval<'l> {
    /// Its tag; where a log has none, `untagged`.
    pub stage: &'l str,
    /// When it began: seconds since the Unix epoch.
    pub start: f64,
    /// How long it was, in seconds.
    pub length: f64,
    pub histogram: Histogram<u64>,
    /// The out-of-range counts of the interval.
    pub outside: OutOfRange,
    /// The number of samples that the histogram has: of batches, where those of the log have a number, and else of events.
    pub samples: u64,
}

/// The findings beside the intervals.
#[derive(Debug)]
pub struct Reading {
    /// When the run began: seconds since the Unix epoch.
    pub start: f64,
    /// The end of the last interval: seconds since the Unix epoch.
    pub end: f64,
    /// The conditions of the run.
    pub conditions: Conditions,
    /// Damaged lines, with file and number.
    pub warning: Option<String>,
}

/// A log that can be read more than once.
pub struct Source {
    pub path: PathBuf,
    /// The contents of a pipe, which can be read only once.
    held: Option<Vec<u8>>,
}

impl Source {
    /// The log at this path; standard input, if that is `-`.
    ///
    /// # Errors
    /// When a pipe cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let cannot = || format!("cannot read {}", path.display());
        let mut held = Vec::new();
        if path.as_os_str() == STDIN {
            std::io::stdin().read_to_end(&mut held).context("cannot read standard input")?;
            return Ok(Self { path: "standard input".into(), held: Some(held) });
        }
        let path = path.to_owned();
        if path.metadata().is_ok_and(|about| about.is_file() || about.is_dir()) {
            return Ok(Self { path, held: None });
        }
        File::open(&path).and_then(|mut file| file.read_to_end(&mut held)).with_context(cannot)?;
        Ok(Self { path, held: Some(held) })
    }

    /// Reads the log and hands each interval of it to `each`. Lines that are damaged are left out; then a warning says so.
    ///
    /// Any log that HdrHistogram's own reader takes is one: comments (`#`) may stand anywhere, and the version, the legend, the times
    /// and the tags may be missing.
    ///
    /// # Errors
    /// When the file cannot be read, is no latency log, or holds nothing.
    pub fn read(&self, each: impl FnMut(&Interval) -> Result<(), String>) -> Result<Reading> {
        match &self.held {
            Some(bytes) => read_from(&mut &bytes[..], &self.path, each),
            None => {
                let file = File::open(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
                read_from(&mut BufReader::new(file), &self.path, each)
            }
        }
    }
}

/// Reads the log at a path.
#[cfg(test)]
pub fn read(path: &Path, each: impl FnMut(&Interval) -> Result<(), String>) -> Result<Reading> {
    Source::open(path)?.read(each)
}

fn read_from(
    file: &mut impl BufRead,
    path: &Path,
    mut each: impl FnMut(&Interval) -> Result<(), String>,
) -> Result<Reading> {
    let name = path.display();
    let mut log = Log::default();
    let (mut bytes, mut bad, mut first) = (Vec::new(), 0_u64, None);
    for nth in 1_u64.. {
        bytes.clear();
        let line = file.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes);
        match line.with_context(|| format!("cannot read {name}"))? {
            0 if nth == 1 => bail!("{name}: line 1: the file is empty"),
            0 => break,
            _ => {}
        }
        let line = std::str::from_utf8(&bytes).map_err(|_| "it is not text".to_owned());
        let Err(why) = line.and_then(|line| log.take(line, &mut each)) else { continue };
        if !log.is_one() {
            bail!(
                "{name}: line {nth}: not a latency log, whose lines are comments (#) and histograms of intervals: {why}"
            );
        }
        bad += 1;
        first.get_or_insert_with(|| format!("{name}: line {nth}: not the histogram of an interval: {why}"));
    }
    match (log.intervals, first) {
        (0, None) => bail!("{name}: the log has no latencies"),
        (0, Some(first)) => bail!(first),
        (_, first) => {
            let more = if bad > 1 { format!(", nor are {} more lines", bad - 1) } else { String::new() };
            let warning = first.map(|first| format!("{first}{more}; the rest of the log is reported"));
            Ok(Reading { start: log.times.start.unwrap_or(0.0), end: log.end, conditions: log.conditions, warning })
        }
    }
}

/// The time from which a log counts its offsets.
#[derive(Default)]
struct Times {
    start: Option<f64>,
    base: Option<f64>,
}

impl Times {
    fn absolute(&mut self, offset: f64) -> f64 {
        let start = *self.start.get_or_insert(offset);
        let base = *self.base.get_or_insert(if offset < start - YEAR { start } else { 0.0 });
        base + offset
    }
}

/// The state of reading a log.
#[derive(Default)]
struct Log {
    times: Times,
    /// The out-of-range counts of the next histogram of a stage.
    outside: BTreeMap<String, OutOfRange>,
    /// The number of samples of the next histogram of a stage.
    samples: BTreeMap<String, u64>,
    conditions: Conditions,
    end: f64,
    has_version: bool,
    intervals: u64,
}

impl Log {
    /// Whether something in it says that it is a log.
    fn is_one(&self) -> bool {
        self.has_version || self.intervals > 0
    }

    fn take(&mut self, line: &str, each: &mut impl FnMut(&Interval) -> Result<(), String>) -> Result<(), String> {
        if line.starts_with('#') {
            self.take_comment(line);
            return Ok(());
        }
        // The legend, or nothing.
        if line.starts_with('"') || line.trim().is_empty() {
            return Ok(());
        }
        // A run that was killed leaves half a line at the most, and only at the end.
        let cut = |why| if line.ends_with('\n') { why } else { "it is cut off".into() };
        let Fields { tag, offset, length, histogram } = line::parse(line).map_err(cut)?;
        let stage = tag.unwrap_or("untagged");
        let outside = self.outside.remove(stage).unwrap_or_default();
        let samples = self.samples.remove(stage).unwrap_or(u64::MAX).min(histogram.len());
        let start = self.times.absolute(offset);
        each(&Interval { stage, start, length, histogram, outside, samples })?;
        self.end = self.end.max(start + length);
        self.intervals += 1;
        Ok(())
    }

    fn take_comment(&mut self, line: &str) {
        self.has_version |= line.starts_with(VERSION);
        self.times.start = line::parse_time(line, "StartTime").or(self.times.start);
        self.times.base = line::parse_time(line, "BaseTime").or(self.times.base);
        if let Some((stage, counts)) = line::parse_outside(line) {
            // Two in a row belong to a stage whose histogram was damaged: then only the last is of what comes.
            self.outside.insert(stage.to_owned(), counts);
        }
        if let Some((stage, samples)) = line::parse_samples(line) {
            self.samples.insert(stage.to_owned(), samples);
        }
        if let Some((name, value)) = line::parse_condition(line)
            && self.conditions.len() < MOST_CONDITIONS
        {
            self.conditions.push((name.to_owned(), value.to_owned()));
        }
    }
}
