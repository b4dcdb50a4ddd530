//! For known latencies, `report` and HdrHistogram's own Java library compute the right percentiles.

use crate::support::browser::Browser;
use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, java};
use base64::{Engine, prelude::BASE64_STANDARD};
use flows::{Latencies, Stage};
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const MICRO: i64 = 1_000;
const MILLI: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;

/// Writes a log whose intervals, a second each, hold these latencies under these tags, as HdrHistogram's format says.
pub fn log_of(env: &TestEnv, intervals: &[(u32, &str, &[i64])]) -> PathBuf {
    let mut text = String::from(
        "#[Histogram log format version 1.3]\n#[StartTime: 1700000000.000 (seconds since epoch)]\n\
         #[BaseTime: 1700000000.000 (seconds since epoch)]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
    );
    for (second, tag, nanos) in intervals {
        let mut latencies = Latencies::default();
        nanos.iter().for_each(|&nanos| latencies.record(Stage::EndToEnd, nanos));
        let histogram = latencies.of(Stage::EndToEnd);
        let mut encoded = Vec::new();
        V2DeflateSerializer::new().serialize(histogram, &mut encoded).expect("memory");
        let (max, encoded) = (histogram.max() as f64 / 1e6, BASE64_STANDARD.encode(encoded));
        writeln!(text, "Tag={tag},{second}.000,1.000,{max:.3},{encoded}").expect("memory");
    }
    let path = env.file("known.log");
    std::fs::write(&path, text).expect("a directory of the test's own");
    path
}

fn report(env: &TestEnv, log: &Path, args: &[&str]) -> String {
    let mut report = env.run("report", &[&[log.to_str().expect("plain names")], args].concat());
    report.succeeds();
    report.stdout()
}

/// The latency that this many of ten thousand events do not exceed, by sorting all of them.
fn exact(sorted: &[i64], of_ten_thousand: usize) -> i64 {
    let rank = (sorted.len() * of_ten_thousand).div_ceil(10_000);
    sorted[rank.max(1) - 1]
}

#[test]
fn known_latencies_have_the_percentiles_that_sorting_them_gives_and_java_finds_the_same() {
    let env = TestEnv::bare();
    let repeat = |value: i64, times: usize| vec![value; times];
    let cases: [(&str, Vec<i64>); 6] = [
        ("even", (1..=100_000).map(|nth| nth * MICRO).collect()),
        ("two_humps", [repeat(MILLI, 99_900), repeat(2 * SECOND, 100)].concat()),
        // Where 99.9 % are a whole number of events, and floating point has a hair more.
        ("whole", [repeat(MILLI, 40_959), repeat(2 * MILLI, 41)].concat()),
        ("ends", [repeat(MICRO, 60_000), repeat(3_600 * SECOND, 60)].concat()),
        ("odd", (0..12_347).map(|nth| (nth * 7_919 % 12_347 + 1) * 37 * MICRO).collect()),
        ("one", vec![1_500 * MICRO]),
    ];
    let intervals: Vec<_> = cases
        .iter()
        .flat_map(|(name, values)| {
            let thirds = values.chunks(values.len().div_ceil(3));
            thirds.enumerate().map(move |(nth, part)| (nth as u32, *name, part))
        })
        .collect();
    let log = log_of(&env, &intervals);
    let ours: Value = serde_json::from_str(&report(&env, &log, &["--format", "json"])).expect("JSON");
    for (name, mut values) in cases {
        values.sort_unstable();
        let stage = ours["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == name).unwrap();
        assert_eq!(stage["count"], values.len());
        let theirs = java::percentiles(&log, name);
        let percentiles = stage["percentiles"].as_array().unwrap().iter().map(|found| &found["ns"]);
        let wanted = [5_000, 9_000, 9_900, 9_990, 9_999, 10_000];
        for ((found, wanted), java) in percentiles.chain([&stage["max_ns"]]).zip(wanted).zip(&theirs) {
            let enough = wanted == 10_000 || values.len() * (10_000 - wanted) >= 10_000;
            assert_eq!(found.is_u64(), enough, "{name}, {wanted} of ten thousand: {found}");
            let Some(found) = found.as_u64() else { continue };
            // Three digits, and half a microsecond: the upper end of what cannot be told apart from it.
            let exact = exact(&values, wanted) as u64;
            assert!(
                (exact..=exact + (exact / 1_000).max(512)).contains(&found),
                "{name}, {wanted}: {found}, exactly {exact}"
            );
            assert_eq!(format!("{:.3}", found as f64 / 1e6), *java, "{name}, {wanted} of ten thousand");
        }
        let hgrm = report(&env, &log, &["--format", "hgrm", "--stage", name]);
        assert_eq!(hgrm, java::distribution(&log, name), "{name}, byte for byte");
    }
}

/// How many groups of neighbouring pixels just above the lower axis of a chart have a stage's colour.
const COLUMNS_SEEN: &str = "(() => {
    const canvas = document.querySelector('#stack canvas'), over = document.querySelector('#stack .u-over');
    const scale = devicePixelRatio, { offsetLeft, offsetTop, clientWidth, clientHeight } = over;
    const row = Math.round((offsetTop + clientHeight - 6) * scale), from = Math.round(offsetLeft * scale);
    const pixels = canvas.getContext('2d').getImageData(from, row, Math.round(clientWidth * scale), 1).data;
    const wanted = JSON.parse(document.getElementById('data').textContent).stages[0].light.match(/[0-9a-f]{2}/gi);
    const is = (x) => wanted.every((part, nth) => Math.abs(parseInt(part, 16) - pixels[4 * x + nth]) < 8);
    let groups = 0;
    for (let x = 0; x < pixels.length / 4; x++) if (is(x) && !(x && is(x - 1))) groups++;
    return groups;
})()";

/// The marks of the time axes, as they are painted.
const MARKS: &str = "new Promise((done) => {
    const paint = CanvasRenderingContext2D.prototype.fillText, seen = [];
    CanvasRenderingContext2D.prototype.fillText = function (text, ...place) {
        seen.push(String(text));
        return paint.call(this, text, ...place);
    };
    draw();
    const marks = () => seen.filter((text) => /^[0-9]{2}:[0-9]{2}$/.test(text));
    requestAnimationFrame(() => requestAnimationFrame(() => done(marks())));
})";

#[test]
fn where_the_time_goes_is_drawn_for_each_second_that_had_events() {
    let env = TestEnv::bare();
    // As at a low rate: a batch leaves every five seconds, and the seconds between have nothing.
    let values = [40 * MILLI; 100];
    let intervals: Vec<_> = (0..12).map(|batch| (5 * batch, "insert", &values[..])).collect();
    let log = log_of(&env, &intervals);
    let page = env.file("report.html");
    report(&env, &log, &["--format", "html", "--output", page.to_str().unwrap()]);
    let mut browser = Browser::open(&format!("file://{}", page.display()), (1280, 900), &env.dir);
    browser.scheme("light");
    browser.until(WAIT_TIMEOUT, "Number(document.body.dataset.drawn) >= 4");
    browser.settles();
    assert_eq!(browser.eval(COLUMNS_SEEN), 12, "columns that can be seen");

    // In a run of seconds, no mark of the time axis looks like its neighbour.
    let log = log_of(&env, &[(0, "insert", &values), (1, "insert", &values)]);
    report(&env, &log, &["--format", "html", "--output", page.to_str().unwrap()]);
    browser.go(&format!("file://{}", page.display()));
    browser.until(WAIT_TIMEOUT, "Number(document.body.dataset.drawn) >= 4");
    let marks = browser.eval(MARKS);
    let marks: Vec<_> = marks.as_array().unwrap().iter().map(|mark| mark.as_str().unwrap()).collect();
    assert!(marks.len() >= 6, "three axes: {marks:?}");
    assert!(marks.windows(2).all(|pair| pair[0] != pair[1]), "{marks:?}");
    assert_eq!(browser.errors(), Vec::<String>::new());
}
