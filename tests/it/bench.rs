//! `bench` measures on real services, proves what it has stored, and leaves nothing behind.

use crate::support::process::Program;
use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, eventually, is};
use serde_json::Value;

/// The name of the topic in a line of its log.
fn topic_made(bench: &Program) -> String {
    let log = bench.stderr();
    let (_, rest) = log.split_once("into topic ").expect("it says where it produces");
    rest.split_whitespace().next().expect("a name").to_owned()
}

fn nothing_is_left(env: &TestEnv, topic: &str) {
    let databases = format!("SELECT count() FROM system.databases WHERE startsWith(name, '{}_')", env.database);
    assert_eq!(env.number(&databases), 0, "its databases are gone");
    eventually(WAIT_TIMEOUT, "its topic is gone", || is(!env.kafka.has(topic), topic.to_owned()));
}

fn report(bench: &Program) -> Value {
    serde_json::from_str(&bench.stdout()).unwrap_or_else(|error| panic!("{error}: {}", bench.stdout()))
}

#[test]
fn each_point_of_a_sweep_is_drained_beside_its_ceilings_and_nothing_is_left_behind() {
    let env = TestEnv::bare();
    let sweep = ["--batch-rows", "100,1000", "--coalesce-rows", "1000", "--in-flight", "1,4", "--runs", "2"];
    let args = [&["--database", &env.database, "--messages", "3000", "--format", "json"][..], &sweep].concat();
    let mut bench = env.run("bench", &args);
    bench.succeeds();
    let report = report(&bench);
    assert_eq!((&report["messages"], &report["verified_drains"]), (&3_000.into(), &8.into()), "{report}");
    let measured = report["measured"].as_array().expect("a list");
    let steps: Vec<_> = measured.iter().map(|step| step["step"].as_str().expect("a name")).collect();
    assert_eq!(steps, ["consume", "insert", "insert", "drain", "drain", "drain", "drain"]);
    for step in measured {
        let runs = step["runs"].as_array().expect("a list");
        assert_eq!(runs.len(), 2, "{step}");
        for run in runs {
            // Each partition gives as many rows to the ceiling as the others, as far as it has them.
            let rows = run["rows"].as_u64().expect("a number");
            assert!(if step["step"] == "insert" { (2_000..=3_000).contains(&rows) } else { rows == 3_000 }, "{step}");
            let inserts = run["inserts"].as_u64().expect("a number");
            assert!(if step["step"] == "consume" { inserts == 0 } else { inserts >= 3 }, "{step}");
            assert!(run["rows_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{step}");
            assert!(run["peak_mib"].as_f64().is_some_and(|peak| peak > 1.0), "{step}");
            assert!(step["step"] == "consume" || run["disk_bytes_per_row"].as_f64().is_some_and(|bytes| bytes > 1.0));
        }
        assert_eq!(step["of_ceiling"].is_null(), step["step"] != "drain", "{step}");
    }
    assert_eq!(report["topic"], topic_made(&bench));
    nothing_is_left(&env, &topic_made(&bench));
}

#[test]
fn a_topic_of_the_users_is_drained_with_its_rejects_and_stays() {
    let env = TestEnv::open();
    env.produce(&["--count", "500", "--rate", "max", "--faults", "bad=0.2"]).finish();
    let messages = env.ends().values().sum::<i64>();
    let mut bench = env.run("bench", &["--backlog", &env.topic, "--database", &env.database, "--runs", "1"]);
    bench.succeeds();
    let text = bench.stdout();
    assert!(text.contains(&format!("topic {}: {messages} messages", env.topic)), "{text}");
    assert!(text.contains("1 drains: every row of the topic is stored once"), "{text}");
    nothing_is_left(&env, "");
    assert_eq!(env.ends().values().sum::<i64>(), messages);
    assert_eq!(env.stored(), 0, "the tables of this database are not its own");
}

#[test]
fn a_bench_that_is_stopped_says_so_and_leaves_nothing_behind() {
    let env = TestEnv::bare();
    let mut bench = env.run("bench", &["--database", &env.database, "--messages", "50000", "--runs", "100"]);
    bench.says("consume only", 1);
    bench.term();
    assert_eq!(bench.exit_code(WAIT_TIMEOUT), Some(1), "{}", bench.stderr());
    assert_eq!(bench.said("clickstream: stopped before the end"), 1, "{}", bench.stderr());
    assert_eq!(bench.stdout(), "");
    nothing_is_left(&env, &topic_made(&bench));
}

#[test]
fn a_sweep_that_cannot_be_run_is_refused_with_one_line() {
    let env = TestEnv::bare();
    for args in [
        ["--batch-rows", "0"],
        ["--batch-rows", "1000,many"],
        ["--in-flight", "4,65"],
        ["--coalesce-rows", ","],
        ["--runs", "0"],
        ["--messages", "0"],
    ] {
        let mut bench = env.run("bench", &args);
        assert_eq!(bench.exit_code(WAIT_TIMEOUT), Some(2), "{args:?}");
        let said = bench.stderr();
        assert!(said.starts_with("error: ") && said.matches("error:").count() == 1 && said.contains(args[0]), "{said}");
    }
    let mut bench = env.run("bench", &["--brokers", "127.0.0.1:1", "--connect-timeout", "1ms"]);
    bench.gives_up("127.0.0.1:1");
    let mut bench = env.run("bench", &["--backlog", "no-such-topic"]);
    bench.gives_up("no-such-topic is missing");
}
