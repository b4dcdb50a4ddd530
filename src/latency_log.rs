//! Latency logs: HdrHistogram interval logs, format V2, one compressed histogram for each stage and second.
//!
//! Format: HdrHistogram's `HistogramLogWriter` and `HistogramLogReader` (<https://hdrhistogram.github.io/HdrHistogram/>),
//! whose own tools read these files. A line is whole or missing: after a SIGKILL all but the last second is there.

use crate::metrics::Window;
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flows::{Latencies, Meter, Stage, now};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{LineWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};

/// The legend that HdrHistogram's tools write and skip.
const LEGEND: &str = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";
/// Histograms hold nanoseconds; the readable maximum beside them is in milliseconds, as those tools have it.
const NANOS_PER_MILLI: f64 = 1e6;

/// Takes the latencies out of a meter from time to time, adds them up, and logs them.
pub struct Recorder {
    meter: Arc<Meter>,
    total: Latencies,
    window: Arc<Window>,
    log: Option<Log>,
    since: i64,
}

struct Log {
    intervals: mpsc::Sender<(Duration, Duration, Latencies)>,
    writer: JoinHandle<Result<()>>,
    began: i64,
}

impl Recorder {
    /// A recorder, with a log in a new file at `path` or, where that is taken, at `path` with the next free number behind.
    pub fn new(meter: Arc<Meter>, path: Option<&Path>) -> Result<Self> {
        let since = now();
        let log = path.map(|path| Log::create(path, since)).transpose()?;
        Ok(Self { meter, total: Latencies::default(), window: Arc::default(), log, since })
    }

    /// Takes what was recorded since the last time.
    pub fn tick(&mut self) {
        let taken = std::mem::take(&mut *self.meter.latencies());
        let until = now();
        self.total.add(&taken);
        self.window.add(&taken);
        if let Some(log) = &self.log {
            // A writer that failed says why when it is closed.
            let _ = log.intervals.send((nanos(self.since - log.began), nanos(until - self.since), taken));
        }
        self.since = until;
    }

    /// The latencies of the last minutes, for whoever scrapes them.
    pub fn window(&self) -> Arc<Window> {
        self.window.clone()
    }

    /// Everything recorded so far.
    pub const fn total(&self) -> &Latencies {
        &self.total
    }

    /// Takes the rest, closes the log and returns everything.
    pub fn close(mut self) -> Result<Latencies> {
        self.tick();
        if let Some(Log { intervals, writer, .. }) = self.log.take() {
            drop(intervals);
            writer.join().unwrap_or_else(|_| bail!("the latency log's writer crashed"))?;
        }
        Ok(self.total)
    }
}

impl Log {
    fn create(path: &Path, began: i64) -> Result<Self> {
        let (file, path) = create_new(path)?;
        let (intervals, incoming) = mpsc::channel();
        let writer = std::thread::Builder::new().name("latency-log".into()).spawn(move || {
            write_log(file, began, &incoming)
                .with_context(|| format!("cannot write the latency log {}", path.display()))
        })?;
        Ok(Self { intervals, writer, began })
    }
}

/// Never overwrites: an earlier run's log is kept.
fn create_new(path: &Path) -> Result<(File, PathBuf)> {
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

fn write_log(file: File, began: i64, intervals: &mpsc::Receiver<(Duration, Duration, Latencies)>) -> Result<()> {
    let mut file = LineWriter::new(file);
    let mut serializer = V2DeflateSerializer::new();
    let start = UNIX_EPOCH + nanos(began);
    writeln!(file, "#[Histogram log format version 1.3]")?;
    let mut header = Vec::new();
    IntervalLogWriterBuilder::new()
        .with_start_time(start)
        .with_base_time(start)
        .begin_log_with(&mut header, &mut serializer)?;
    file.write_all(&header)?;
    file.write_all(LEGEND.as_bytes())?;
    for (since, length, latencies) in intervals {
        for stage in Stage::ALL {
            let histogram = latencies.of(stage);
            if !histogram.is_empty() {
                file.write_all(line(stage, since, length, histogram, &mut serializer)?.as_bytes())?;
            }
        }
    }
    Ok(())
}

fn line(
    stage: Stage,
    since: Duration,
    length: Duration,
    histogram: &Histogram<u64>,
    serializer: &mut V2DeflateSerializer,
) -> Result<String> {
    use hdrhistogram::serialization::Serializer;
    let mut bytes = Vec::new();
    serializer.serialize(histogram, &mut bytes).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok(format!(
        "Tag={},{:.3},{:.3},{:.3},{}\n",
        Tag::new(stage.as_str()).expect("stages have plain names").as_str(),
        since.as_secs_f64(),
        length.as_secs_f64(),
        histogram.max() as f64 / NANOS_PER_MILLI,
        BASE64_STANDARD.encode(bytes)
    ))
}

/// Histograms of nanoseconds by the name of their stage.
pub type Stages = BTreeMap<String, Histogram<u64>>;

/// Adds the histograms of a log to `stages`. A log whose end is cut off counts as far as it is whole; then a warning says so.
///
/// # Errors
/// When the file cannot be read, is no latency log, or holds nothing.
pub fn add(stages: &mut Stages, path: &Path) -> Result<Option<String>> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !text.starts_with(b"#[Histogram log format version") {
        bail!("{}: line 1: not a latency log: it does not begin with `#[Histogram log format version`", path.display());
    }
    let mut intervals = 0;
    for (nth, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if line.starts_with(b"#") || line.starts_with(b"\"") || line.trim_ascii().is_empty() {
            continue;
        }
        let added = if line.ends_with(b"\n") { add_line(stages, line) } else { Err("it is cut off".into()) };
        if let Err(why) = added {
            let place = format!("{}: line {}: not the histogram of an interval: {why}", path.display(), nth + 1);
            if intervals == 0 {
                bail!(place);
            }
            // A run that was killed leaves half a line at the most, and only at the end.
            return Ok(Some(format!("{place}; what stands before it is reported")));
        }
        intervals += 1;
    }
    if intervals == 0 {
        bail!("{}: no latencies in it", path.display());
    }
    Ok(None)
}

fn add_line(stages: &mut Stages, line: &[u8]) -> Result<(), String> {
    let entry = IntervalLogIterator::new(line).next().ok_or("no entry")?;
    let LogEntry::Interval(interval) = entry.map_err(|_| "it does not have the fields of one")? else {
        return Ok(());
    };
    let bytes = BASE64_STANDARD.decode(interval.encoded_histogram()).map_err(|error| error.to_string())?;
    let histogram: Histogram<u64> =
        Deserializer::new().deserialize(&mut &bytes[..]).map_err(|error| format!("{error:?}"))?;
    let name = interval.tag().map_or("untagged", |tag| tag.as_str()).to_owned();
    match stages.get_mut(&name) {
        Some(sum) => *sum += histogram,
        None => {
            stages.insert(name, histogram);
        }
    }
    Ok(())
}

fn nanos(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(values: &[i64]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("latency.log");
        let meter = Arc::new(Meter::default());
        let mut recorder = Recorder::new(meter.clone(), Some(&path)).unwrap();
        for &value in values {
            meter.latencies().record(Stage::EndToEnd, value);
            recorder.tick();
        }
        recorder.close().unwrap();
        (dir, path)
    }

    #[test]
    fn what_is_logged_is_read_back() {
        let (_dir, path) = log_of(&[1_000_000, 2_000_000, 3_000_000_000]);
        let mut stages = Stages::new();
        let warning = add(&mut stages, &path).unwrap();
        let e2e = &stages["e2e"];
        assert_eq!((e2e.len(), warning), (3, None));
        assert!(e2e.equivalent(e2e.max(), 3_000_000_000) && e2e.equivalent(e2e.min(), 1_000_000));
    }

    #[test]
    fn a_second_log_never_overwrites_the_first() {
        let (dir, path) = log_of(&[1_000_000]);
        let before = std::fs::read(&path).unwrap();
        Recorder::new(Arc::new(Meter::default()), Some(&path)).unwrap().close().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert!(dir.path().join("latency.log.1").exists());
    }

    #[test]
    fn a_log_cut_at_any_byte_gives_what_is_whole() {
        let (dir, path) = log_of(&[1_000_000, 2_000_000]);
        let whole = std::fs::read(&path).unwrap();
        let cut = dir.path().join("cut.log");
        for length in 0..whole.len() {
            std::fs::write(&cut, &whole[..length]).unwrap();
            let mut stages = Stages::new();
            match add(&mut stages, &cut) {
                Ok(_) => assert!(stages["e2e"].len() <= 2),
                Err(error) => assert!(error.to_string().contains("cut.log"), "{error}"),
            }
        }
    }

    #[test]
    fn a_foreign_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        std::fs::write(&path, "hello").unwrap();
        let error = add(&mut Stages::new(), &path).unwrap_err().to_string();
        assert!(error.contains("notes.txt: line 1: not a latency log"), "{error}");
    }
}
