//! Reports on logs of known contents: what is judged, what fails, and what two runs look like side by side.

use crate::percentiles::log_of;
use crate::support::WAIT_TIMEOUT;
use crate::support::browser::Browser;
use crate::support::process::Program;
use crate::support::test_env::TestEnv;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const MILLI: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;

/// A log under a name, with these conditions of the run.
fn known(env: &TestEnv, name: &str, conditions: &[(&str, &str)], intervals: &[(u32, &str, &[i64])]) -> PathBuf {
    let log = std::fs::read_to_string(log_of(env, intervals)).expect("the log");
    let comments: String = conditions.iter().map(|(name, value)| format!("#[Run {name}: {value}]\n")).collect();
    let path = env.dir.join(name);
    std::fs::write(&path, log.replacen("#[StartTime", &format!("{comments}#[StartTime"), 1)).expect("a directory");
    path
}

fn report(env: &TestEnv, args: &[&str]) -> Program {
    env.run("report", args)
}

/// The standard output of a report that succeeds.
#[track_caller]
fn printed(env: &TestEnv, args: &[&str]) -> String {
    let mut report = report(env, args);
    report.succeeds();
    report.stdout()
}

#[track_caller]
fn fails(env: &TestEnv, args: &[&str], why: &str) -> String {
    let mut report = report(env, args);
    assert_eq!(report.exit_code(WAIT_TIMEOUT), Some(1), "{args:?}");
    let said = report.stderr();
    assert!(said.contains(why) && said.trim_end().lines().count() == 1, "{why:?} is not the one line of {said}");
    report.stdout()
}

/// Of a thousand events, ten took longer than 200 ms.
fn late_ones() -> Vec<i64> {
    [vec![100 * MILLI; 990], vec![300 * MILLI; 10]].concat()
}

#[test]
fn a_run_is_judged_by_its_own_promise_and_a_required_share_decides_the_exit_code() {
    let env = TestEnv::bare();
    let dir = env.dir.join("logs");
    std::fs::create_dir(&dir).expect("a directory of the test's own");
    let conditions = [("command", "ingest"), ("batch-timeout", "200ms"), ("ClickHouse", "26.8.1.1")];
    let log = known(&env, "logs/ingest.hlog", &conditions, &[(0, "e2e", &late_ones())]);
    let log = log.to_str().expect("plain names");
    let kept = "e2e below 200 ms: 99.00 % of 1,000\n";
    let text = printed(&env, &[log, "--require", "99"]);
    assert!(text.contains(kept), "{text}");
    // Where the line of the conditions is broken depends on the length of the log's path.
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("command ingest, batch-timeout 200ms, ClickHouse 26.8.1.1"), "{text}");
    let text =
        fails(&env, &[log, "--require", "99.1"], "the promise was not kept, --require 99.1: e2e below 200 ms: 99.00 %");
    assert!(text.contains(kept), "the report is there all the same: {text}");
    printed(&env, &[log, "--require", "100", "--promise", "1s"]);
    fails(&env, &[log, "--from", "10m"], "no latencies from --from 10m on: the log ends at 1 s");

    // A directory of logs, and standard input, are the same run.
    std::fs::write(dir.join("README"), "not a log\n").expect("a directory of the test's own");
    let mut of_directory = report(&env, &[dir.to_str().unwrap(), "--require", "99"]);
    of_directory.succeeds();
    assert!(of_directory.stdout().contains(kept), "{}", of_directory.stdout());
    assert!(of_directory.stderr().contains("README: line 1: not a latency log"), "{}", of_directory.stderr());
    let program = env.command("report", &["-"]);
    let mut command = Command::new("bash");
    command.args(["-c", "exec \"$0\" \"$@\" < \"$LOG\""]).arg(program.get_program()).args(program.get_args());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("LOG", log);
    let mut piped = Program::start(&mut command, &env.file("piped"));
    piped.succeeds();
    assert!(piped.stdout().starts_with("standard input: command ingest") && piped.stdout().contains(kept));
}

#[test]
fn a_backlogs_rate_is_that_of_its_own_intervals_and_the_promise_is_judged_by_the_others() {
    let env = TestEnv::bare();
    // Three seconds of a backlog, then a minute of ten events a second, one of them late.
    let (old, quick) = (vec![3_600 * SECOND; 1_000], vec![50 * MILLI; 10]);
    let late = [vec![50 * MILLI; 9], vec![6 * SECOND]].concat();
    let mut intervals: Vec<(u32, &str, &[i64])> = Vec::new();
    for second in 0..3 {
        intervals.extend([(second, "e2e", &old[..]), (second, "backlog", &old[..])]);
    }
    intervals.extend((3..63).map(|second| (second, "e2e", if second == 33 { &late[..] } else { &quick[..] })));
    let log = known(&env, "ingest.hlog", &[], &intervals);
    let log = log.to_str().expect("plain names");
    let json: Value = serde_json::from_str(&printed(&env, &[log, "--format", "json"])).expect("JSON");
    let backlog = serde_json::json!({"events": 3_000, "drained": 3_000, "seconds": 3.0, "events_per_second": 1_000.0});
    assert_eq!(json["backlog"], backlog);
    assert_eq!((&json["events"], &json["seconds"]), (&Value::from(3_600), &Value::from(63.0)));
    let promise = serde_json::json!({"below_ns": 5 * SECOND, "kept_for": 599, "of": 600, "backlog": 3_000});
    assert_eq!(json["promise"], promise);
    let current = json["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == "current").unwrap();
    // Nine of ten events took 50 ms, one 6 s: (599 · 50 ms + 6 s) ÷ 600 = 59.9 ms.
    let mean_ms = current["mean_ns"].as_f64().unwrap() / 1e6;
    assert!((59.8..60.1).contains(&mean_ms) && current["count"] == 600, "{current}");
    let text = printed(&env, &[log]);
    let judged = "e2e below 5 s: 99.83 % of 600 events that came while caught up; 3,000 were older (backlog)";
    assert!(text.contains(judged), "{text}");
    fails(&env, &[log, "--require", "99.9"], judged);
}

#[test]
fn the_ending_of_the_file_decides_the_format_and_an_unknown_one_is_refused() {
    let env = TestEnv::bare();
    let log = known(&env, "ingest.hlog", &[], &[(0, "e2e", &late_ones())]);
    let log = log.to_str().expect("plain names");
    for (ending, beginning) in [("html", "<!doctype html>"), ("svg", "<svg "), ("json", "{"), ("png", "\u{fffd}PNG")] {
        let file = env.file(&format!("report.{ending}"));
        assert_eq!(printed(&env, &[log, "-o", file.to_str().unwrap()]), "");
        let written = String::from_utf8_lossy(&std::fs::read(&file).expect("a report")).into_owned();
        assert!(written.starts_with(beginning), ".{ending}: {}", &written[..40.min(written.len())]);
    }
    let unknown = env.file("report.unknown");
    fails(&env, &[log, "-o", unknown.to_str().unwrap()], "no format has the ending .unknown, and nothing was written");
    assert!(!unknown.exists());
    fails(&env, &[log, "-o", "x.html", "--format", "svg"], "--format svg and --output x.html contradict each other");
}

/// The cells of a table's row, in nanoseconds.
fn cell(browser: &mut Browser, row: &str, column: &str) -> Option<u64> {
    let cell = format!("document.querySelector('tr[data-stage=\"{row}\"] [data-name=\"{column}\"]').dataset.ns");
    browser.eval(&cell).as_str().map(|nanos| nanos.parse().expect("nanoseconds"))
}

fn stages(env: &TestEnv, log: &Path) -> Vec<Value> {
    let json = printed(env, &[log.to_str().expect("plain names"), "--format", "json"]);
    serde_json::from_str::<Value>(&json).expect("JSON")["stages"].as_array().expect("stages").clone()
}

#[test]
fn a_comparison_opened_from_disk_has_the_numbers_of_both_and_fits_a_phone() {
    let env = TestEnv::bare();
    let even = |step: i64| (1..=20_000).map(|nth| nth * step).collect::<Vec<_>>();
    let conditions =
        |timeout| [("command", "ingest"), ("batch-timeout", timeout), ("host", "a-machine-with-a-long-name")];
    let runs = [(40_000, "a.hlog", "5s"), (90_000, "b.hlog", "200ms")].map(|(step, name, timeout)| {
        let (e2e, insert) = (even(step), even(step / 4));
        known(&env, name, &conditions(timeout), &[(0, "insert", &insert), (0, "e2e", &e2e)])
    });
    let page = env.file("both.html");
    let paths = runs.each_ref().map(|run| run.to_str().expect("plain names"));
    printed(&env, &["--compare", paths[0], paths[1], "-o", page.to_str().unwrap()]);
    let mut browser = Browser::open(&format!("file://{}", page.display()), (1280, 900), &env.dir);
    browser.until(WAIT_TIMEOUT, "Number(document.body.dataset.drawn) >= 1");
    for (run, name) in runs.iter().zip(["A", "B"]) {
        for stage in stages(&env, run) {
            let row = format!("{} {name}", stage["stage"].as_str().unwrap());
            for (column, nanos) in [("p50", &stage["percentiles"][0]["ns"]), ("max", &stage["max_ns"])] {
                assert_eq!(cell(&mut browser, &row, column), nanos.as_u64(), "{row} {column}");
            }
            let p9999 = &stage["percentiles"][4]["ns"];
            assert_eq!(cell(&mut browser, &row, "p99.99"), p9999.as_u64(), "{row} p99.99");
        }
    }
    let ratio = browser.eval("document.querySelector('[data-ratio=\"e2e\"] [data-name=\"p50\"]').textContent");
    assert_eq!(ratio, "2.25", "90 ÷ 40");
    for (size, screen) in [((1280, 900), "desktop"), ((390, 844), "phone")] {
        for scheme in ["light", "dark"] {
            browser.resize(size);
            browser.scheme(scheme);
            browser.settles();
            let overflow = "document.documentElement.scrollWidth <= window.innerWidth";
            assert_eq!(browser.eval(overflow), true, "{screen}: nothing sticks out to the side");
            let cut = "[...document.querySelectorAll('td, th')].filter((cell) => cell.clientWidth \
                       && cell.scrollWidth > cell.clientWidth + 1).length";
            assert_eq!(browser.eval(cut), 0, "{screen}: no cell is cut off");
            let pictures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
            browser.picture(&pictures.join(format!("comparison-{screen}-{scheme}.png")));
        }
    }
    assert_eq!(browser.errors(), Vec::<String>::new());
}
