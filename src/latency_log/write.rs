//! Writes a log: a file that nobody has, the lines that tools want at its head, and an interval at a time.

use super::line;
use anyhow::{Context, Result};
use flows::{Latencies, Stage};
use hdrhistogram::serialization::V2DeflateSerializer;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// The legend that HdrHistogram's tools write and skip.
const LEGEND: &str = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// What was recorded in an interval.
pub struct Taken {
    /// When it began: nanoseconds since the Unix epoch.
    pub since: i64,
    pub length: Duration,
    pub latencies: Latencies,
}

/// Never overwrites: an earlier run's log is kept.
pub fn create_new(path: &Path) -> Result<(File, PathBuf)> {
    let mut taken = path.to_owned();
    for nth in 1.. {
        match OpenOptions::new().write(true).create_new(true).open(&taken) {
            Ok(file) => {
                if taken != path {
                    tracing::info!("{} is there already: logging latencies to {}", path.display(), taken.display());
                }
                return Ok((file, taken));
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let mut name = path.as_os_str().to_owned();
                name.push(format!(".{nth}"));
                taken = name.into();
            }
            Err(error) => return Err(error).with_context(|| format!("cannot create --latency-log {}", path.display())),
        }
    }
    unreachable!("there are more numbers than files")
}

/// Writes the head at once and then each interval as it comes, in one write, until nobody sends any more.
pub fn write(mut file: File, began: i64, intervals: &Receiver<Taken>) -> Result<()> {
    let seconds = began as f64 / line::NANOS_PER_SECOND;
    // With both, a reader that sums up files and one that cuts out a window agree on what the offsets count from.
    let head = format!(
        "#[Histogram log format version 1.3]\n#[Stages of clickstream, in nanoseconds]\n\
         #[StartTime: {seconds:.3} (seconds since epoch)]\n#[BaseTime: {seconds:.3} (seconds since epoch)]\n{LEGEND}"
    );
    file.write_all(head.as_bytes())?;
    let mut serializer = V2DeflateSerializer::new();
    for Taken { since, length, latencies } in intervals {
        let offset = Duration::from_nanos(u64::try_from(since - began).unwrap_or(0));
        let mut text = String::new();
        for stage in Stage::ALL {
            let histogram = latencies.of(stage);
            if !histogram.is_empty() {
                line::outside(&mut text, stage.as_str(), latencies.outside(stage));
                line::interval(&mut text, stage.as_str(), offset, length, histogram, &mut serializer)?;
            }
        }
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}
