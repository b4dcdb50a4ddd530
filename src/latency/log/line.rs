//! The lines of a log that describe an interval, written and read.

use super::decode::decode;
use anyhow::{Result, anyhow};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flows::OutOfRange;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use std::fmt::Write;
use std::time::Duration;

pub const NANOS_PER_SECOND: f64 = 1e9;
/// Histograms hold nanoseconds; the readable maximum beside them is in milliseconds, as HdrHistogram's tools have it.
const NANOS_PER_MILLI: f64 = 1e6;
/// The beginning of a line with a tag.
const TAG: &str = "Tag=";
/// A time of day or a length that is no time: 30,000 years in seconds.
const FAR: f64 = 1e12;

/// The histogram of a stage in an interval.
pub fn interval(
    text: &mut String,
    stage: &str,
    offset: Duration,
    length: Duration,
    histogram: &Histogram<u64>,
    serializer: &mut V2DeflateSerializer,
) -> Result<()> {
    let mut bytes = Vec::new();
    serializer.serialize(histogram, &mut bytes).map_err(|error| anyhow!("{error:?}"))?;
    let (offset, length) = (offset.as_secs_f64(), length.as_secs_f64());
    let max = histogram.max() as f64 / NANOS_PER_MILLI;
    writeln!(text, "Tag={stage},{offset:.3},{length:.3},{max:.3},{}", BASE64_STANDARD.encode(bytes))?;
    Ok(())
}

/// The out-of-range counts of the stage's next histogram, as a comment.
pub fn outside(text: &mut String, stage: &str, outside: OutOfRange) {
    if !outside.is_empty() {
        let OutOfRange { negative, below, above } = outside;
        let _ = writeln!(text, "#[Outside {stage}: {negative} negative, {below} below 1 us, {above} above 1 h]");
    }
}

/// Reads what [`outside`] wrote; nothing in any other comment.
pub fn parse_outside(line: &str) -> Option<(&str, OutOfRange)> {
    let (stage, counts) = line.strip_prefix("#[Outside ")?.split_once(": ")?;
    let mut counts = counts.split(", ").map(|count| count.split(' ').next()?.parse::<u32>().ok().map(u64::from));
    let mut next = || counts.next().flatten();
    Some((stage, OutOfRange { negative: next()?, below: next()?, above: next()? }))
}

/// The number of samples behind the stage's next histogram, as a comment: it is less than the number of events where the events of a
/// batch went through the stage together.
pub fn samples(text: &mut String, stage: &str, samples: u64, events: u64) {
    if samples < events {
        let _ = writeln!(text, "#[Batches {stage}: {samples}]");
    }
}

/// Reads what [`samples`] wrote; nothing in any other comment.
pub fn parse_samples(line: &str) -> Option<(&str, u64)> {
    let (stage, samples) = value(line, "Batches")?;
    Some((stage, samples.parse::<u32>().ok()?.into()))
}

/// A condition of the run, as a comment.
pub fn condition(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "#[Run {name}: {}]", value.replace(char::is_control, " "));
}

/// Reads what [`condition`] wrote; nothing in any other comment.
pub fn parse_condition(line: &str) -> Option<(&str, &str)> {
    value(line, "Run")
}

/// The name and the value in a comment `#[KIND NAME: VALUE]`.
fn value<'l>(line: &'l str, kind: &str) -> Option<(&'l str, &'l str)> {
    let comment = line.trim_end().strip_prefix("#[")?.strip_suffix(']')?;
    comment.strip_prefix(kind)?.strip_prefix(' ')?.split_once(": ")
}

/// Reads the time, in seconds, of a comment like `#[StartTime: 1715000000.123 (seconds since epoch)]`.
pub fn parse_time(line: &str, name: &str) -> Option<f64> {
    let rest = line.strip_prefix("#[")?.strip_prefix(name)?.strip_prefix(": ")?;
    seconds(rest.split([' ', ',', ']']).next()?)
}

/// A line with a histogram, as it stands in the log.
pub struct Fields<'l> {
    pub tag: Option<&'l str>,
    /// Seconds, from the log's base time on.
    pub offset: f64,
    /// Seconds.
    pub length: f64,
    pub histogram: Histogram<u64>,
}

/// Reads a line with a histogram, as HdrHistogram's own reader does: fields end with a comma or a blank, and those
/// after the fourth are ignored.
///
/// # Errors
/// The reason why the line is not one.
pub fn parse(line: &str) -> Result<Fields<'_>, String> {
    let mut fields = line.trim_end().split([',', ' ']).peekable();
    let tag = fields.next_if(|field| field.starts_with(TAG)).map(|field| &field[TAG.len()..]);
    let mut number = |what| fields.next().and_then(seconds).ok_or_else(|| format!("it has no {what}"));
    let (offset, length, _) = (number("start")?, number("length")?, number("maximum")?);
    let encoded = fields.next().ok_or("it has no histogram")?;
    let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| "its histogram is not in base64")?;
    Ok(Fields { tag, offset, length, histogram: decode(&bytes)? })
}

fn seconds(text: &str) -> Option<f64> {
    text.parse().ok().filter(|seconds: &f64| (0.0..FAR).contains(seconds))
}
