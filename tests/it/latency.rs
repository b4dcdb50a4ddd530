//! Latencies: logs are true, other readers read the same values, and reports show them unchanged.

use crate::support::browser::Browser;
use crate::support::process::Program;
use crate::support::stack::OwnKafka;
use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, eventually, is, java};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const STAGES: [&str; 5] = ["transit", "batch", "insert", "commit", "e2e"];
/// A batch timeout that many tests can wait for.
const SHORT_BATCH_TIMEOUT: [&str; 2] = ["--batch-timeout", "500ms"];

/// The report on a log.
#[track_caller]
fn report(env: &TestEnv, log: &Path, args: &[&str]) -> String {
    let mut report = env.run("report", &[&[log.to_str().expect("plain names")], args].concat());
    report.succeeds();
    report.stdout()
}

#[track_caller]
fn json(env: &TestEnv, log: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&report(env, log, &[&["--format", "json"], args].concat())).expect("JSON")
}

fn stage<'r>(report: &'r Value, name: &str) -> &'r Value {
    let stages = report["stages"].as_array().expect("a list");
    stages.iter().find(|stage| stage["stage"] == name).unwrap_or_else(|| panic!("no {name} in {report}"))
}

/// The log of an ingester that has stored this many events at this rate.
#[track_caller]
fn log_of_a_run(env: &TestEnv, rate: &str, time: &str) -> PathBuf {
    let log = env.file("ingest.log");
    let mut ingester =
        env.ingester_at_work(&[&SHORT_BATCH_TIMEOUT, &["--latency-log", log.to_str().unwrap()][..]].concat());
    env.produce(&["--rate", rate, "--for", time]).finish();
    env.drained();
    ingester.drains();
    log
}

#[test]
fn hdrhistograms_own_tool_reads_the_log_of_a_real_run_and_finds_the_same() {
    let env = TestEnv::open();
    let log = log_of_a_run(&env, "2500", "10s");
    let ours = json(&env, &log, &[]);
    for name in STAGES {
        let stage = stage(&ours, name);
        assert_eq!(stage["count"], 25_000);
        let values = stage["percentiles"].as_array().unwrap().iter().map(|percentile| &percentile["ns"]);
        let values: Vec<_> = values.chain([&stage["max_ns"]]).map(Value::as_f64).collect();
        // The events of a batch share their insert and their commit: there are too few batches for the last percentiles.
        let is_of_batches = matches!(name, "insert" | "commit");
        assert_eq!(values.contains(&None), is_of_batches, "{name}: {values:?}");
        assert_eq!(stage["samples"].as_u64() < stage["count"].as_u64(), is_of_batches, "{stage}");
        for (ns, java) in values.into_iter().zip(java::percentiles(&log, name)) {
            let Some(ns) = ns else { continue };
            assert_eq!(format!("{:.3}", ns / 1e6), java, "{name}: p50, p90, p99, p99.9, p99.99, max");
        }

        let hgrm = report(&env, &log, &["--format", "hgrm", "--stage", name]);
        assert_eq!(hgrm, java::distribution(&log, name), "{name}, byte for byte");
    }
}

#[test]
fn the_page_opened_from_disk_shows_the_numbers_of_the_table() {
    let env = TestEnv::open();
    let log = log_of_a_run(&env, "500", "6s");
    let ours = json(&env, &log, &[]);
    let table = report(&env, &log, &[]);
    let page = env.file("report.html");
    report(&env, &log, &["--format", "html", "--output", page.to_str().unwrap()]);

    let url = format!("file://{}", page.display());
    let mut browser = Browser::open(&url, (1280, 900), &env.dir);
    browser.until(WAIT_TIMEOUT, "Number(document.body.dataset.drawn) >= 4");
    for name in STAGES {
        let row = format!("document.querySelector('tr[data-stage=\"{name}\"]')");
        assert_eq!(browser.eval(&format!("Number({row}.querySelector('[data-count]').dataset.count)")), 3_000);
        let cell = |what: &str| format!("Number({row}.querySelector('[data-name=\"{what}\"]').dataset.ns)");
        for percentile in stage(&ours, name)["percentiles"].as_array().unwrap() {
            let what = format!("p{}", percentile["percentile"]).replace(".0", "");
            let seen = browser.eval(&cell(&what));
            // Not a number, where there are too few samples.
            assert_eq!(seen.as_u64(), percentile["ns"].as_u64(), "{name} {what}");
        }
        let shown = browser.eval(&format!("{row}.querySelector('[data-name=\"mean\"]').dataset.ns"));
        let mean = stage(&ours, name)["mean_ns"].as_f64().unwrap();
        assert_eq!(shown.as_str().unwrap(), format!("{mean:.0}", mean = mean.floor()), "{name} mean");
        for (what, field) in [("min", "min_ns"), ("max", "max_ns")] {
            assert_eq!(browser.eval(&cell(what)).as_u64(), stage(&ours, name)[field].as_u64(), "{name} {what}");
        }
        // The page shows the same cells as the terminal.
        let words = format!("{row}.innerText.split(/\\s+/).filter((word) => word).join(' ')");
        let read = browser.eval(&words);
        let line = table.lines().find(|line| line.starts_with(&format!("{name} "))).expect("a line for each stage");
        assert_eq!(read.as_str().unwrap(), line.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    assert_eq!(browser.errors(), Vec::<String>::new());
    let elsewhere: Vec<_> =
        browser.requests().into_iter().filter(|at| !at.starts_with(&url) && !at.starts_with("data:")).collect();
    assert_eq!(elsewhere, Vec::<String>::new(), "it needs nothing else");

    for (size, screen) in [((1280, 900), "desktop"), ((390, 844), "phone")] {
        for scheme in ["light", "dark"] {
            browser.resize(size);
            browser.scheme(scheme);
            browser.settles();
            let overflow = "document.documentElement.scrollWidth <= window.innerWidth";
            assert_eq!(browser.eval(overflow), true, "{screen}: nothing sticks out to the side");
            let picture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
            browser.picture(&picture.join(format!("report-{screen}-{scheme}.png")));
        }
    }
    let [rate, head] = ["#rate .u-series:last-child .u-value", ".facts"]
        .map(|at| browser.eval(&format!("document.querySelector('{at}').textContent")).as_str().unwrap().to_owned());
    assert!(head.contains(&format!(" {rate} events/s")), "one rate in two places: {rate:?}, {head:?}");
    // Without a mouse: the curves take the focus, and an arrow key reads out the values.
    browser.eval("document.getElementById('curves').focus()");
    browser.press("ArrowRight", 39, "");
    let said = browser.eval("document.getElementById('curves').getAttribute('aria-label')");
    assert!(said.as_str().unwrap().contains("e2e "), "{said}");
}

#[test]
fn the_table_in_clickhouse_tells_the_same_times() {
    let env = TestEnv::open_alone();
    let log = log_of_a_run(&env, "500", "10s");
    let ours = json(&env, &log, &[]);
    let took = "toUnixTimestamp64Milli(ingested_at) - toUnixTimestamp64Milli(timestamp)";
    let rows = env.rows(&format!("SELECT toInt64(avg({took}) * 1000), count() FROM db.events"));
    let (table_ms, rows) = (rows[0][0].parse::<f64>().unwrap() / 1e3, &rows[0][1]);
    assert_eq!(rows, "5000");
    let mean_ms = |name| stage(&ours, name)["mean_ns"].as_f64().unwrap() / 1e6;
    // ClickHouse stamps a row when it takes the insert on, e2e ends when the row can be queried: the stamp lies between the
    // insert's begin and its end. A millisecond is what the table's times are rounded to.
    let (e2e, until_insert) = (mean_ms("e2e"), mean_ms("e2e") - mean_ms("insert"));
    let within = until_insert - 1.0..=e2e + 1.0;
    assert!(within.contains(&table_ms), "the table: {table_ms} ms, the report: {within:?} ms");
}

#[test]
fn a_log_is_whole_up_to_the_last_interval_before_a_sigkill() {
    let env = TestEnv::open();
    let log = env.file("produce.log");
    let mut producer =
        env.run("produce", &["--rate", "1000", "--latency-log", log.to_str().unwrap(), "--latency-interval", "200ms"]);
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually(WAIT_TIMEOUT, "ten intervals are logged", || {
        let lines = read().matches("Tag=ack,").count();
        is(lines >= 10, lines)
    });
    let before = read();
    producer.kill();
    assert!(read().starts_with(&before), "what was there stays");
    let logged = stage(&json(&env, &log, &[]), "ack")["count"].as_u64().unwrap();
    let acknowledged: i64 = env.ends().values().sum();
    // The missing events were acknowledged after the last interval: at 1,000 events/s on a busy machine, those of a
    // second.
    assert!((0..=1_000).contains(&(acknowledged - logged as i64)), "{logged} logged, {acknowledged} acknowledged");
    assert!(logged >= 1_000, "ten intervals of 200 ms");
}

#[test]
fn a_log_on_a_full_disk_is_said_at_once_and_takes_nothing_from_the_run() {
    let env = TestEnv::open();
    let log = env.file("ingest.log");
    let args = ["--latency-log", log.to_str().unwrap(), "--latency-interval", "50ms", "--batch-timeout", "600ms"];
    let program = env.command("ingest", &args);
    // No file may grow beyond 8 kB.
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -f 8 && exec \"$0\" \"$@\""]).arg(program.get_program()).args(program.get_args());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(&env.dir);
    let mut ingester = Program::start(&mut command, &env.file("limited"));
    ingester.says("lease opened", 1);
    env.produce(&["--rate", "500", "--for", "5s"]).finish();
    ingester.says("cannot write the latency log", 1);
    assert_eq!(ingester.said("is not complete"), 0, "that is said in the end");
    env.drained();
    ingester.drains();
    let line = ingester.stdout().lines().find(|line| line.starts_with("e2e ")).map(str::to_owned);
    assert!(line.is_some_and(|line| line.contains(" 2,500 ")), "its table has all events: {}", ingester.stdout());
    assert_eq!((ingester.said("cannot write the latency log"), ingester.said("is not complete")), (1, 1));
    let logged = stage(&json(&env, &log, &[]), "e2e")["count"].as_u64().unwrap();
    assert!((1..2_500).contains(&logged), "what was written before can be read: {logged}");
}

#[test]
fn a_stall_of_the_broker_shows_in_the_tail_as_an_open_loop_predicts() {
    const RATE: f64 = 1_000.0;
    const STALL: Duration = Duration::from_secs(10);
    let kafka = OwnKafka::start(1);
    let env = TestEnv::open_alone();
    let address = kafka.brokers();
    let here = [("CLICKSTREAM_BROKERS", address.as_str())];
    env.run_with("setup", &[], &here).succeeds();
    let log = env.file("ingest.log");
    let flags =
        ["--batch-timeout", "200ms", "--kafka", "session.timeout.ms=30000", "--latency-log", log.to_str().unwrap()];
    let mut ingester = env.run_with("ingest", &flags, &here);
    ingester.says("lease opened", 1);
    // All that is due during the stall is handed over, so it is the acknowledgement that is late, and not the sending.
    let flags = ["--rate", "1000", "--for", "25s", "--in-flight", "100000"];
    let mut producer = env.run_with("produce", &flags, &here);
    eventually(WAIT_TIMEOUT, "the producer is under way", || {
        let rows = env.number("SELECT count() FROM db.events");
        is(rows > 3_000, rows)
    });
    let frozen = Instant::now();
    kafka.freeze(1);
    std::thread::sleep(STALL);
    kafka.wake(1);
    let stall = frozen.elapsed().as_secs_f64();
    producer.succeeds();
    eventually(WAIT_TIMEOUT, "all is stored", || {
        let rows = env.number("SELECT count() FROM db.events");
        is(rows == 25_000, rows)
    });
    ingester.drains();

    let report = json(&env, &log, &[]);
    let longest_s = |name| stage(&report, name)["max_ns"].as_f64().unwrap() / 1e9;
    let (longest, insert) = (longest_s("e2e"), longest_s("insert"));
    assert!(
        (stall - 0.1..stall + 5.0).contains(&longest),
        "the first one waited for all of it: {longest} of {stall} s"
    );
    for above in [3.0, 5.0, 7.0] {
        let promise = &json(&env, &log, &["--promise", &format!("{above}s")])["promise"];
        let events = promise["of"].as_f64().unwrap() - promise["kept_for"].as_f64().unwrap();
        // No sample is left out: those due in the first (stall − above) seconds were late by more. How many more there were
        // depends on how fast the backlog was caught up with; the table knows, up to the time that an insert took.
        let least = RATE * (stall - above) - 0.02 * RATE * stall;
        assert!(events >= least, "{events} events above {above} s, at least {least:.0} predicted");
        let later_than = |ms: f64| {
            let took = "toUnixTimestamp64Milli(ingested_at) - toUnixTimestamp64Milli(timestamp)";
            env.number(&format!("SELECT countIf({took} > {ms}) FROM db.events")) as f64
        };
        let stamped = later_than(above * 1e3 + 1.0)..=later_than((above - insert) * 1e3 - 1.0);
        assert!(stamped.contains(&events), "{events} events above {above} s, the table: {stamped:?}");
    }
}
