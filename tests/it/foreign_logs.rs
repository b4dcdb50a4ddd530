//! Latency logs of other writers: `report` finds in them what HdrHistogram's own reader finds.

use crate::support::java;
use crate::support::test_env::TestEnv;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::io::Write;
use std::path::Path;

/// How a histogram is written: V2 is today's.
#[derive(Clone, Copy, Debug)]
enum Encoding {
    V0,
    V1,
    V2,
}

/// The smallest time that a histogram tells apart, and the largest that it has a place for: a millisecond, an hour.
const RANGE: [u64; 2] = [1_000_000, 3_600_000_000_000];

/// A compressed histogram of three significant digits. Up to a second, its counts are steps of half a millisecond (2^19
/// ns). `times` has their numbers, each with its count of events. In V0 and V1 a count has `size` bytes.
fn histogram(encoding: Encoding, size: usize, times: &[(usize, u8)]) -> String {
    let mut counts = vec![0_u64; times.iter().map(|(time, _)| time + 1).max().expect("a time")];
    times.iter().for_each(|&(time, events)| counts[time] = events.into());
    assert!(counts.len() <= 2_048 && times.iter().all(|(_, events)| *events < 64));
    let payload: Vec<u8> = match encoding {
        // One byte for so few: an even number is a count.
        Encoding::V2 => counts.iter().map(|&count| count as u8 * 2).collect(),
        _ => counts.iter().flat_map(|count| count.to_be_bytes()[8 - size..].to_vec()).collect(),
    };
    let nibble = (size as u32) << 4;
    let (cookie, compressed) = match encoding {
        Encoding::V0 => (0x1c84_9308 | nibble, 0x1c84_9309 | nibble),
        Encoding::V1 => (0x1c84_9301 | nibble, 0x1c84_9302 | nibble),
        Encoding::V2 => (0x1c84_9313, 0x1c84_9314),
    };
    let (digits, [lowest, highest]) = (3_u32.to_be_bytes(), RANGE.map(u64::to_be_bytes));
    let events: u64 = counts.iter().sum();
    let header = match encoding {
        Encoding::V0 => [&digits[..], &lowest, &highest, &events.to_be_bytes()].concat(),
        _ => {
            let length = (payload.len() as u32).to_be_bytes();
            [&length[..], &[0; 4], &digits, &lowest, &highest, &1_f64.to_be_bytes()].concat()
        }
    };
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(&[&u32::to_be_bytes(cookie)[..], &header, &payload].concat()).expect("a vector takes all");
    let zlib = zlib.finish().expect("a vector takes all");
    let length = (zlib.len() as u32).to_be_bytes();
    BASE64_STANDARD.encode([&u32::to_be_bytes(compressed)[..], &length, &zlib].concat())
}

fn line(tag: &str, second: u32, histogram: &str) -> String {
    format!("Tag={tag},{second}.000,1.000,2.000,{histogram}")
}

#[track_caller]
fn is_read_as_by_java(env: &TestEnv, text: &str, tags: &[&str]) {
    let log = env.file("foreign.hlog");
    std::fs::write(&log, text).expect("a directory of the test");
    for tag in tags {
        assert_eq!(report(env, &log, tag), java::distribution(&log, tag), "{tag} of\n{text}");
    }
}

#[track_caller]
fn report(env: &TestEnv, log: &Path, tag: &str) -> String {
    let mut report = env.run("report", &[log.to_str().expect("plain names"), "--format", "hgrm", "--stage", tag]);
    report.succeeds();
    assert_eq!(report.stderr(), "", "without a warning");
    report.stdout()
}

const EVENTS: &[(usize, u8)] = &[(5, 3), (6, 1), (700, 2), (2_047, 1)];
const TIMES: &str = "#[StartTime: 1441812279.474 (seconds since epoch), Wed Sep 09 08:24:39 PDT 2015]";

#[test]
fn every_encoding_of_hdrhistogram_is_read_as_its_own_reader_reads_it() {
    let env = TestEnv::bare();
    let (version, mut lines) = ("#[Histogram log format version 1.1]", Vec::new());
    for (nth, (encoding, size)) in
        (0..).zip([(Encoding::V0, 8), (Encoding::V1, 2), (Encoding::V1, 4), (Encoding::V1, 8), (Encoding::V2, 0)])
    {
        let tag = format!("{encoding:?}-{size}");
        lines.push(line(&tag, nth, &histogram(encoding, size, EVENTS)));
    }
    let text = [version, TIMES, &lines.join("\n")].join("\n") + "\n";
    is_read_as_by_java(&env, &text, &["V0-8", "V1-2", "V1-4", "V1-8", "V2-0"]);
}

#[test]
fn lines_around_the_intervals_are_those_that_its_own_reader_accepts() {
    let env = TestEnv::bare();
    let lines = [(0, 5), (1, 700)].map(|(second, time)| line("A", second, &histogram(Encoding::V2, 0, &[(time, 9)])));
    let [one, two] = &lines;
    let legend = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"";
    for text in [
        format!(
            "#[Logged by another tool 1.0]\n#[Histogram log format version 1.3]\n{TIMES}\n{legend}\n{one}\n{two}\n"
        ),
        format!("{TIMES}\n# no version, no legend\n{one}\n# between\n#\n{two}\n"),
        format!("#[Histogram log format version 1.2]\n{TIMES}\n{legend}\n{one}\n{legend}\n{two}\n"),
        format!("{TIMES}\n{one},a fifth field\n{two}\n"),
        format!("{TIMES}\r\n{}\r\n{two}\r\n", one.replace(',', " ")),
    ] {
        is_read_as_by_java(&env, &text, &["A"]);
    }
}
