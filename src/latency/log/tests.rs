use super::read;
use super::write::{Taken, Writer};
use crate::latency::Recorder;
use flows::{Metrics, OutOfRange, Stage};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

fn log_of(values: &[i64]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("latency.log");
    let metrics = Arc::new(Metrics::default());
    let mut recorder = Recorder::with_interval(metrics.clone(), Some(&path), Duration::ZERO, &Vec::new()).unwrap();
    for &value in values {
        metrics.latencies().record(Stage::EndToEnd, value);
        recorder.tick();
    }
    recorder.close();
    (dir, path)
}

/// Events, and those out of range, in what could be read; and the warning.
fn events(path: &Path) -> anyhow::Result<(u64, OutOfRange, Option<String>)> {
    let (mut count, mut outside) = (0, OutOfRange::default());
    let reading = read(path, |interval| {
        count += interval.histogram.len();
        outside += interval.outside;
        Ok(())
    })?;
    Ok((count, outside, reading.warning))
}

#[test]
fn logged_latencies_are_read_back() {
    let (_dir, path) = log_of(&[1_000_000, 2_000_000, 3_000_000_000]);
    let mut values = Vec::new();
    let reading = read(&path, |interval| {
        assert_eq!(interval.stage, "e2e");
        // A log's times are rounded to milliseconds, up too.
        assert!((-0.001..60.0).contains(&(flows::now() as f64 / 1e9 - interval.start)), "{}", interval.start);
        values.push(interval.histogram.max() / 1_000_000);
        Ok(())
    });
    assert_eq!(values, [1, 2, 3_001]);
    assert_eq!(reading.unwrap().warning, None);
}

#[test]
fn the_conditions_of_the_run_and_the_number_of_batches_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("latency.log");
    let metrics = Arc::new(Metrics::default());
    let given = vec![("batch-timeout".to_owned(), "200ms".to_owned()), ("host".to_owned(), "a: b]\nc".to_owned())];
    let mut recorder = Recorder::with_interval(metrics.clone(), Some(&path), Duration::ZERO, &given).unwrap();
    for batch in 1..=3 {
        metrics.latencies().record_all(Stage::Insert, batch * 1_000_000, 500);
        metrics.latencies().record_all(Stage::Insert, batch * 1_000_000, 1);
        metrics.latencies().record(Stage::Batch, 1_000_000);
        metrics.learn("ClickHouse", format!("26.{batch}"));
        recorder.tick();
    }
    recorder.close();
    let mut found = Vec::new();
    let reading = read(&path, |interval| {
        found.push((interval.stage.to_owned(), interval.histogram.len(), interval.samples));
        Ok(())
    });
    let [batch, insert] =
        [("batch", 1, 1), ("insert", 501, 2)].map(|(name, events, all)| (name.to_owned(), events, all));
    assert_eq!(found, [&batch, &insert].repeat(3).into_iter().cloned().collect::<Vec<_>>());
    let conditions = reading.unwrap().conditions;
    let conditions: Vec<_> = conditions.iter().map(|(name, value)| (&**name, &**value)).collect();
    let learned = ["26.1", "26.2", "26.3"].map(|version| ("ClickHouse", version));
    assert_eq!(conditions, [&[("batch-timeout", "200ms"), ("host", "a: b] c")][..], &learned].concat());
}

#[test]
fn values_out_of_range_are_read_back_too() {
    let (_dir, path) = log_of(&[-1, 1_000_000, -7, i64::MAX, 0]);
    let (count, outside, _) = events(&path).unwrap();
    assert_eq!((count, outside), (5, OutOfRange { negative: 2, below: 1, above: 1 }));
}

#[test]
fn a_second_log_never_overwrites_the_first() {
    let (dir, path) = log_of(&[1_000_000]);
    let before = std::fs::read(&path).unwrap();
    Recorder::new(Arc::new(Metrics::default()), Some(&path)).unwrap().close();
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(dir.path().join("latency.log.1").exists());
}

/// A full disk is a file that takes only a limited number of bytes; here it is a device that takes none.
#[test]
fn a_log_that_cannot_be_written_fails_nobody_and_keeps_everything_for_the_end() {
    let metrics = Arc::new(Metrics::default());
    let mut recorder =
        Recorder::with_interval(metrics.clone(), Some(Path::new("/dev/full")), Duration::ZERO, &Vec::new()).unwrap();
    for _ in 0..3 {
        metrics.latencies().record(Stage::EndToEnd, 1_000_000);
        recorder.tick();
    }
    assert_eq!(recorder.close().of(Stage::EndToEnd).len(), 3);
    assert!(!Path::new("/dev/full.1").exists(), "a device is written to as it is");
}

#[test]
fn an_interval_that_could_not_be_written_is_in_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("latency.log");
    let taken = |second: i64| {
        let mut latencies = flows::Latencies::default();
        latencies.record(Stage::EndToEnd, 1_000_000);
        let learned = vec![("second".to_owned(), second.to_string())];
        Taken { since: second * 1_000_000_000, length: Duration::from_secs(1), latencies, learned }
    };
    // A file that is open for reading refuses writes.
    std::fs::write(&path, "").unwrap();
    let mut writer = Writer::new(std::fs::File::open(&path).unwrap(), path.clone(), 0, &Vec::new());
    for second in 0..3 {
        assert!(writer.append_next(taken(second)).is_err());
    }
    writer.file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    writer.append_next(taken(3)).unwrap();
    writer.append_next(taken(4)).unwrap();
    let mut found = Vec::new();
    let reading = read(&path, |interval| {
        found.push((interval.start, interval.length, interval.histogram.len()));
        Ok(())
    });
    let learned: Vec<_> = reading.unwrap().conditions.into_iter().map(|(_, second)| second).collect();
    assert_eq!(learned, ["0", "1", "2", "3", "4"]);
    assert_eq!(found, [(0.0, 4.0, 4), (4.0, 1.0, 1)]);
}

#[test]
fn an_interval_is_as_long_as_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("latency.log");
    let metrics = Arc::new(Metrics::default());
    let mut recorder =
        Recorder::with_interval(metrics.clone(), Some(&path), Duration::from_secs(3_600), &Vec::new()).unwrap();
    for _ in 0..5 {
        metrics.latencies().record(Stage::Ack, 1_000_000);
        recorder.tick();
    }
    recorder.close();
    let mut intervals = 0;
    read(&path, |_| {
        intervals += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(intervals, 1, "five ticks within an hour");
}

#[test]
fn a_log_cut_at_any_byte_gives_what_is_whole() {
    let (dir, path) = log_of(&[1_000_000, 2_000_000]);
    let whole = std::fs::read(&path).unwrap();
    let cut = dir.path().join("cut.log");
    for length in 0..whole.len() {
        std::fs::write(&cut, &whole[..length]).unwrap();
        // Without its end of line, too.
        let lines = whole[..length].split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"Tag="));
        let intact = lines.filter(|line| whole.split(|&byte| byte == b'\n').any(|whole| whole == *line)).count() as u64;
        match events(&cut) {
            Ok((count, ..)) => assert_eq!(count, intact, "cut at {length}"),
            Err(error) => {
                assert_eq!(intact, 0, "cut at {length}");
                assert!(error.to_string().contains("cut.log: "), "{error}");
            }
        }
    }
}

#[test]
fn a_damaged_line_is_named_and_the_rest_is_reported() {
    let (_dir, path) = log_of(&[1_000_000, 2_000_000, 3_000_000]);
    let text = std::fs::read_to_string(&path).unwrap();
    let damaged: Vec<_> =
        text.lines().enumerate().map(|(nth, line)| if nth == 6 { "Tag=e2e,1,x" } else { line }).collect();
    std::fs::write(&path, damaged.join("\n") + "\n").unwrap();
    let (count, _, warning) = events(&path).unwrap();
    assert_eq!(count, 2);
    assert!(warning.unwrap().contains("latency.log: line 7: not the histogram of an interval: it has no length"));
}

#[test]
fn foreign_and_empty_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.txt");
    for (text, said) in [("hello", "not a latency log"), ("", "the file is empty")] {
        std::fs::write(&path, text).unwrap();
        let error = events(&path).unwrap_err().to_string();
        assert!(error.contains("notes.txt: line 1: ") && error.contains(said), "{error}");
    }
}

#[test]
fn a_histogram_that_claims_gigabytes_is_refused() {
    use base64::Engine;
    use std::io::Write;
    let mut header = Vec::new();
    for word in [0x1c84_9313_u32, u32::MAX, 0, 5] {
        header.extend(word.to_be_bytes());
    }
    header.extend([1_u64.to_be_bytes(), u64::MAX.to_be_bytes(), 1_f64.to_be_bytes()].concat());
    for plain in [header.clone(), [header, vec![0; 1 << 26]].concat()] {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        zlib.write_all(&plain).unwrap();
        let zlib = zlib.finish().unwrap();
        let bytes = [&0x1c84_9314_u32.to_be_bytes()[..], &(zlib.len() as u32).to_be_bytes(), &zlib].concat();
        let line = format!("Tag=e2e,0,1,1,{}", base64::prelude::BASE64_STANDARD.encode(bytes));
        assert!(super::line::parse(&line).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Flipped bytes, also inside of the compressed histograms, where their checksum does not speak first.
    #[test]
    fn no_bytes_make_the_reader_panic(
        values in prop::collection::vec(any::<i64>(), 1..5),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        inside in any::<bool>(),
    ) {
        let mut histogram = flows::Latencies::default();
        values.iter().for_each(|&value| histogram.record(Stage::Ack, value));
        let mut plain = Vec::new();
        use hdrhistogram::serialization::Serializer;
        hdrhistogram::serialization::V2Serializer::new().serialize(histogram.of(Stage::Ack), &mut plain).unwrap();
        let flip = |bytes: &mut Vec<u8>| for (at, byte) in &flips {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        };
        if inside {
            flip(&mut plain);
        }
        use std::io::Write;
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&plain).unwrap();
        let zlib = zlib.finish().unwrap();
        let mut bytes = [&0x1c84_9314_u32.to_be_bytes()[..], &(zlib.len() as u32).to_be_bytes(), &zlib].concat();
        if !inside {
            flip(&mut bytes);
        }
        if let Ok(histogram) = super::decode::decode(&bytes) {
            let _ = (histogram.mean(), histogram.stdev(), histogram.value_at_percentile(99.9), histogram.len());
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(line in "(Tag=[a-z]{0,3},)?[-0-9.eE]{0,8},[-0-9.infa]{0,6},[0-9]{0,3},[A-Za-z0-9+/=]{0,40}|\\PC{0,60}") {
        let _ = super::line::parse(&line);
        let _ = (super::line::parse_outside(&line), super::line::parse_time(&line, "StartTime"));
        let _ = (super::line::parse_samples(&line), super::line::parse_condition(&line));
    }
}
