//! Reads a log, line by line, as far as it is whole.

use super::line::{self, Fields};
use anyhow::{Context, Result, bail};
use flows::Outside;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// How every log begins.
const MAGIC: &[u8] = b"#[Histogram log format version";
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
    /// What of it is not as it was.
    pub outside: Outside,
}

/// What was found beside the intervals.
#[derive(Debug)]
pub struct Reading {
    /// When the run began: seconds since the Unix epoch.
    pub start: f64,
    /// What could not be read, with file and line.
    pub warning: Option<String>,
}

/// Reads a log and hands each interval of it to `each`. Lines that are damaged are left out; then a warning says so.
///
/// # Errors
/// When the file cannot be read, is no latency log, or holds nothing.
pub fn read(path: &Path, mut each: impl FnMut(&Interval) -> Result<(), String>) -> Result<Reading> {
    let name = path.display();
    let mut file = BufReader::new(File::open(path).with_context(|| format!("cannot read {name}"))?);
    let (mut times, mut outside) = (Times::default(), BTreeMap::new());
    let (mut bytes, mut good, mut bad, mut first) = (Vec::new(), 0_u64, 0_u64, None);
    for nth in 1_u64.. {
        bytes.clear();
        file.by_ref()
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut bytes)
            .with_context(|| format!("cannot read {name}"))?;
        if nth == 1 && bytes.is_empty() {
            bail!("{name}: line 1: the file is empty");
        }
        if nth == 1 && !bytes.starts_with(MAGIC) {
            bail!("{name}: line 1: not a latency log: it does not begin with `#[Histogram log format version`");
        }
        if bytes.is_empty() {
            break;
        }
        let read = match std::str::from_utf8(&bytes) {
            Ok(line) => take(line, &mut times, &mut outside, &mut each),
            Err(_) => Err("it is not text".into()),
        };
        match read {
            Ok(intervals) => good += intervals,
            Err(why) => {
                bad += 1;
                first.get_or_insert_with(|| format!("{name}: line {nth}: not the histogram of an interval: {why}"));
            }
        }
    }
    match (good, first) {
        (0, None) => bail!("{name}: no latencies in it"),
        (0, Some(first)) => bail!(first),
        (_, first) => {
            let more = if bad > 1 { format!(", nor are {} more lines", bad - 1) } else { String::new() };
            let warning = first.map(|first| format!("{first}{more}; the rest of the log is reported"));
            Ok(Reading { start: times.start.unwrap_or(0.0), warning })
        }
    }
}

/// What the offsets in a log count from.
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

/// Takes what a line says; how many intervals that was.
fn take(
    line: &str,
    times: &mut Times,
    outside: &mut BTreeMap<String, Outside>,
    each: &mut impl FnMut(&Interval) -> Result<(), String>,
) -> Result<u64, String> {
    if line.starts_with('#') {
        times.start = line::parse_time(line, "StartTime").or(times.start);
        times.base = line::parse_time(line, "BaseTime").or(times.base);
        if let Some((stage, counts)) = line::parse_outside(line) {
            // Two in a row belong to a stage whose histogram was damaged: then only the last is of what comes.
            outside.insert(stage.to_owned(), counts);
        }
        return Ok(0);
    }
    if line.starts_with('"') || line.trim().is_empty() {
        return Ok(0);
    }
    // A run that was killed leaves half a line at the most, and only at the end.
    if !line.ends_with('\n') {
        return Err("it is cut off".into());
    }
    let Fields { tag, offset, length, histogram } = line::parse(line)?;
    let stage = tag.unwrap_or("untagged");
    let outside = outside.remove(stage).unwrap_or_default();
    each(&Interval { stage, start: times.absolute(offset), length, histogram, outside })?;
    Ok(1)
}
