//! Reads a log, line by line, as far as it is whole.

use super::line::{self, Fields};
use anyhow::{Context, Result, bail};
use flows::OutOfRange;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// The comment that tells a log from another text. HdrHistogram's own reader does without it.
const VERSION: &str = "#[Histogram log format version";
/// The longest line that is looked at, in bytes: a histogram with every count taken is shorter.
const LONGEST_LINE: u64 = 16 << 20;
/// A year in seconds. Without a base time, stamps that are more than this before the start time are offsets from it: so
/// HdrHistogram's own reader has it.
const YEAR: f64 = 365.0 * 24.0 * 3_600.0;

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
}

/// The findings beside the intervals.
#[derive(Debug)]
pub struct Reading {
    /// When the run began: seconds since the Unix epoch.
    pub start: f64,
    /// Damaged lines, with file and number.
    pub warning: Option<String>,
}

/// Reads a log and hands each interval of it to `each`. Lines that are damaged are left out; then a warning says so.
///
/// Any log that HdrHistogram's own reader takes is one: comments (`#`) may stand anywhere, and the version, the legend, the times
/// and the tags may be missing.
///
/// # Errors
/// When the file cannot be read, is no latency log, or holds nothing.
pub fn read(path: &Path, mut each: impl FnMut(&Interval) -> Result<(), String>) -> Result<Reading> {
    let name = path.display();
    let mut file = BufReader::new(File::open(path).with_context(|| format!("cannot read {name}"))?);
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
            Ok(Reading { start: log.times.start.unwrap_or(0.0), warning })
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
        each(&Interval { stage, start: self.times.absolute(offset), length, histogram, outside })?;
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
    }
}
