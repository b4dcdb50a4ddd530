//! Logs that others wrote: read by the rules of HdrHistogram's own reader. `it foreign_logs` asks that reader itself.

use super::{old, read};
use crate::latency::Recorder;
use flows::{Metrics, Stage};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The contents of a log.
#[derive(Debug, PartialEq)]
struct Held {
    intervals: u64,
    events: u64,
    start: f64,
    /// When its first interval began.
    first: f64,
    stage: String,
    warning: Option<String>,
}

fn held(path: &Path) -> anyhow::Result<Held> {
    let (mut intervals, mut events, mut first, mut stage) = (0, 0, None, String::new());
    let reading = read(path, |interval| {
        intervals += 1;
        events += interval.histogram.len();
        first.get_or_insert(interval.start);
        stage = interval.stage.to_owned();
        Ok(())
    })?;
    Ok(Held { intervals, events, start: reading.start, first: first.unwrap(), stage, warning: reading.warning })
}

fn of(text: &str) -> anyhow::Result<Held> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("foreign.hlog");
    std::fs::write(&path, text).unwrap();
    held(&path)
}

/// The lines of intervals of one event each, without a tag.
fn intervals(count: usize) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ours.hlog");
    let metrics = Arc::new(Metrics::default());
    let mut recorder = Recorder::with_interval(metrics.clone(), Some(&path), Duration::ZERO, &Vec::new()).unwrap();
    for nth in 0..count {
        metrics.latencies().record(Stage::Ack, 1_000_000 * (nth as i64 + 1));
        recorder.tick();
    }
    recorder.close();
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("Tag=ack,")).map(str::to_owned).collect()
}

#[test]
fn comments_and_blank_lines_may_stand_anywhere_and_everything_but_the_intervals_may_be_missing() {
    let lines = intervals(3);
    let whole = of(&(lines.join("\n") + "\n")).unwrap();
    assert_eq!((whole.intervals, whole.events, &*whole.stage, &whole.warning), (3, 3, "untagged", &None));
    let version = |version| format!("#[Histogram log format version {version}]\n{}", lines.join("\n"));
    for text in [
        lines.join("\n"),
        lines.join("\r\n") + "\r\n",
        format!("#[Logged by another tool 1.0]\n\n#\n{}", lines.join("\n# between\n\n")),
        version("1.01"),
        version("1.1"),
        version("1.2"),
        version("1.3"),
        format!("\"StartTimestamp\",\"Interval_Length\"\n{}", lines.join("\n\"StartTimestamp\"\n")),
        // Blanks end a field as commas do, and a fifth field is of no interest.
        lines.join(" \n").replace(',', " "),
        lines.join(",more\n"),
    ] {
        assert_eq!(of(&text).unwrap_or_else(|error| panic!("{text}\n{error}")), whole, "{text}");
    }
    assert_eq!(of(&format!("Tag=A,{}", lines[0])).unwrap().stage, "A");
}

#[test]
fn times_count_from_where_hdrhistograms_own_reader_counts_them() {
    const NOON: f64 = 1_441_800_000.0;
    let line = intervals(1).concat();
    let (_, rest) = line.split_once(',').unwrap();
    let relative = format!("0.125,{rest}");
    let absolute = format!("{},{rest}", NOON + 7.0);
    let started = format!("#[StartTime: {NOON} (seconds since epoch), Wed Sep 09 2015]\n");
    let based = format!("#[BaseTime: {} (seconds since epoch)]\n", NOON + 100.0);
    for (text, start, first) in [
        (relative.clone(), 0.125, 0.125),
        (started.clone() + &relative, NOON, NOON + 0.125),
        (started.clone() + &absolute, NOON, NOON + 7.0),
        (based.clone() + &relative, 0.125, NOON + 100.125),
        (started + &based + &relative, NOON, NOON + 100.125),
        (absolute, NOON + 7.0, NOON + 7.0),
    ] {
        let held = of(&text).unwrap();
        assert_eq!((held.start, held.first), (start, first), "{text}");
    }
}

#[test]
fn a_text_that_is_not_a_log_is_known_by_its_first_line() {
    for (text, line) in [("hello\n", 1), ("# a script\n\necho 1,2,3\n", 3), ("1,2,3\n", 1), ("{\"a\": 1}\n", 1)] {
        let said = of(text).unwrap_err().to_string();
        assert!(said.contains(&format!("foreign.hlog: line {line}: not a latency log")), "{said}");
    }
    assert!(of("# only comments\n").unwrap_err().to_string().contains("the log has no latencies"));
}

proptest! {
    #[test]
    fn no_bytes_of_an_old_encoding_make_the_reader_panic(
        kind in prop::sample::select(vec![0x1c84_9308_u32, 0x1c84_9301, 0x1c84_9303]),
        size in 0_u32..16,
        rest in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let _ = old::as_v2(&[&(kind | size << 4).to_be_bytes()[..], &rest].concat());
    }
}
