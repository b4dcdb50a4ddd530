//! Writes a log: a new file, the header lines that tools require, and one interval at a time.

use super::{Conditions, line};
use crate::private;
use anyhow::{Context, Result};
use flows::{Latencies, Stage};
use hdrhistogram::serialization::V2DeflateSerializer;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// The legend that HdrHistogram's tools write and skip.
const LEGEND: &str = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// The latencies of an interval.
pub struct Taken {
    /// When it began: nanoseconds since the Unix epoch.
    pub since: i64,
    pub length: Duration,
    pub latencies: Latencies,
    /// Conditions of the run that became known in it.
    pub learned: Conditions,
}

impl Taken {
    /// Makes one interval of this one and the next.
    fn extend(&mut self, next: &Self) {
        self.length = Duration::from_nanos(u64::try_from(next.since - self.since).unwrap_or(0)) + next.length;
        self.latencies.add(&next.latencies);
        self.learned.extend_from_slice(&next.learned);
    }
}

/// Never overwrites: an earlier run's log is kept. A device or a pipe is written to as it is.
pub fn create_new(path: &Path) -> Result<(File, PathBuf)> {
    let cannot = || format!("cannot create --latency-log {}", path.display());
    if path.metadata().is_ok_and(|about| !about.is_file()) {
        let file = private::check(path).and_then(|()| OpenOptions::new().write(true).open(path));
        return Ok((file.with_context(cannot)?, path.to_owned()));
    }
    let mut taken = path.to_owned();
    for nth in 1.. {
        match OpenOptions::new().write(true).create_new(true).open(&taken) {
            Ok(file) => {
                if taken != path {
                    tracing::info!("{} exists: logging latencies to {}", path.display(), taken.display());
                }
                return Ok((file, taken));
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let mut name = path.as_os_str().to_owned();
                name.push(format!(".{nth}"));
                taken = name.into();
            }
            Err(error) => return Err(error).with_context(cannot),
        }
    }
    unreachable!("there are more numbers than files")
}

/// A log that is being written, each interval in one write.
///
/// If an interval cannot be written, because a disk is full, for example, it becomes a part of the next one. So once
/// there is room again nothing is missing, and only the times are coarser.
pub struct Writer {
    pub(super) file: File,
    path: PathBuf,
    /// When the log began: nanoseconds since the Unix epoch.
    began: i64,
    /// So many bytes of the file are whole lines.
    whole: u64,
    /// The head, as long as it could not be written.
    head: String,
    /// The intervals that could not be written.
    behind: Option<Taken>,
    serializer: V2DeflateSerializer,
}

impl Writer {
    pub fn new(file: File, path: PathBuf, began: i64, conditions: &Conditions) -> Self {
        let serializer = V2DeflateSerializer::new();
        Self { file, path, began, whole: 0, head: head(began, conditions), behind: None, serializer }
    }

    /// Writes the header at once, and each interval when it arrives, until all senders are dropped.
    pub fn write(mut self, intervals: &Receiver<Taken>) {
        let head = self.append();
        let mut failing = self.say(&head, false);
        for taken in intervals {
            let written = self.append_next(taken);
            failing = self.say(&written, failing);
        }
        if failing {
            let seconds = self.behind.map_or(0.0, |behind| behind.length.as_secs_f64());
            let path = self.path.display();
            tracing::warn!(
                "the latency log {path} is not complete: the last {seconds:.0} s of it could not be written"
            );
        }
    }

    /// Says when writing begins to fail, and when that is over; whether it fails.
    fn say(&self, written: &Result<()>, failing: bool) -> bool {
        let path = self.path.display();
        match written {
            Ok(()) if failing => tracing::info!("the latency log {path} can be written again: it is complete"),
            Err(error) if !failing => tracing::warn!(
                "cannot write the latency log {path}: {error:#}. The pipeline continues, and its table at the end is complete. \
                 Make room: the log goes on by itself"
            ),
            _ => {}
        }
        written.is_err()
    }

    pub(super) fn append_next(&mut self, taken: Taken) -> Result<()> {
        match &mut self.behind {
            Some(behind) => behind.extend(&taken),
            None => self.behind = Some(taken),
        }
        self.append()
    }

    fn append(&mut self) -> Result<()> {
        let mut text = self.head.clone();
        if let Some(taken) = &self.behind {
            lines(&mut text, self.began, taken, &mut self.serializer)?;
        }
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            // Half a line must not stay where another is to follow. A device has nothing to cut off.
            let _ = self.file.set_len(self.whole);
            let _ = self.file.seek(SeekFrom::Start(self.whole));
            return Err(error.into());
        }
        self.whole += text.len() as u64;
        self.head.clear();
        self.behind = None;
        Ok(())
    }
}

fn head(began: i64, conditions: &Conditions) -> String {
    let mut said = String::new();
    conditions.iter().for_each(|(name, value)| line::condition(&mut said, name, value));
    let seconds = began as f64 / line::NANOS_PER_SECOND;
    // With both, a reader that sums up files and one that cuts out a window agree on what the offsets count from.
    format!(
        "#[Histogram log format version 1.3]\n#[Stages of clickstream, in nanoseconds]\n{said}\
         #[StartTime: {seconds:.3} (seconds since epoch)]\n#[BaseTime: {seconds:.3} (seconds since epoch)]\n{LEGEND}"
    )
}

/// The lines of an interval.
fn lines(text: &mut String, began: i64, taken: &Taken, serializer: &mut V2DeflateSerializer) -> Result<()> {
    let offset = Duration::from_nanos(u64::try_from(taken.since - began).unwrap_or(0));
    taken.learned.iter().for_each(|(name, value)| line::condition(text, name, value));
    for stage in Stage::ALL {
        let histogram = taken.latencies.of(stage);
        if !histogram.is_empty() {
            line::outside(text, stage.as_str(), taken.latencies.outside(stage));
            line::samples(text, stage.as_str(), taken.latencies.samples(stage), histogram.len());
            line::interval(text, stage.as_str(), offset, taken.length, histogram, serializer)?;
        }
    }
    Ok(())
}
