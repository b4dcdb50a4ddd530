//! A command that cannot work says so: one clear line, an exit code, and nothing committed.

use crate::support::WAIT_TIMEOUT;
use crate::support::oracle;
use crate::support::process::Program;
use crate::support::test_env::TestEnv;
use std::collections::BTreeMap;

/// Closed ports.
const NO_BROKER: [&str; 4] = ["--brokers", "127.0.0.1:1", "--connect-timeout", "1s"];
const NO_CLICKHOUSE: [&str; 4] = ["--clickhouse-url", "http://127.0.0.1:1", "--connect-timeout", "1s"];

/// Asserts that it ends with exit code 1 and one line that names all of these.
#[track_caller]
pub fn fails_and_names(mut program: Program, names: &[&str]) {
    assert_eq!(program.exit_code(WAIT_TIMEOUT), Some(1), "exit code");
    let stderr = program.stderr();
    let lines: Vec<_> = stderr.lines().filter(|line| line.starts_with("clickstream: ")).collect();
    assert_eq!(lines.len(), 1, "one line: {stderr}");
    assert!(names.iter().all(|name| lines[0].contains(name)), "it names {names:?}: {}", lines[0]);
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// A shop with a hundred events that wait.
fn with_a_hundred_events() -> TestEnv {
    let env = TestEnv::open();
    env.produce(&["--count", "100", "--rate", "max"]).finish();
    env
}

#[track_caller]
fn nothing_is_committed(env: &TestEnv) {
    assert_eq!(env.committed(), BTreeMap::new());
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let env = TestEnv::bare();
    for args in [
        &["ingest", "--batch-rows", "0"][..],
        &["ingest", "--batch-rows", "many"],
        &["ingest", "--batch-timeout", "5"],
        &["ingest", "--in-flight", "0"],
        &["ingest", "--clickhouse-url", "localhost:8123"],
        &["ingest", "--database", "a-b"],
        &["ingest", "--topic", "a b"],
        &["ingest", "--group", ""],
        &["ingest", "--kafka", "fetch.wait.max.ms"],
        &["produce", "--rate", "fast"],
        &["produce", "--rate", "0"],
        &["produce", "--count", "0"],
        &["produce", "--users", "0"],
        &["produce", "--for", "soon"],
        &["produce", "--faults", "bad=2"],
        &["produce", "--faults", "odd=0.1"],
        &["setup", "--partitions", "0"],
        &["report"],
        &["secrets"],
        &["secrets", "--mode", "755", "x"],
        &["health"],
        &["audit", "--no-such-flag", "x"],
    ] {
        let mut program = env.run(args[0], &args[1..]);
        assert_eq!(program.exit_code(WAIT_TIMEOUT), Some(2), "{args:?}: {}", program.stderr());
        if let Some(flag) = args.get(1) {
            assert!(program.stderr().contains(flag), "{args:?}: {}", program.stderr());
        }
    }
}

#[test]
fn a_password_in_the_url_is_refused_and_not_repeated() {
    let env = TestEnv::bare();
    let mut program = env.run("ingest", &["--clickhouse-url", "http://me:secret@localhost:8123"]);
    assert_eq!(program.exit_code(WAIT_TIMEOUT), Some(2));
    assert!(program.stderr().contains("--clickhouse-password-file"), "{}", program.stderr());
    assert!(!program.stderr().contains("secret"), "{}", program.stderr());
}

#[test]
fn a_broker_that_does_not_answer_is_named() {
    let env = TestEnv::bare();
    for command in ["setup", "produce", "ingest", "audit"] {
        fails_and_names(env.run(command, &NO_BROKER), &["Kafka", "127.0.0.1:1", "--brokers"]);
    }
}

#[test]
fn a_clickhouse_that_does_not_answer_is_named() {
    let env = with_a_hundred_events();
    for command in ["setup", "ingest", "audit"] {
        fails_and_names(env.run(command, &NO_CLICKHOUSE), &["ClickHouse", "http://127.0.0.1:1", "--clickhouse-url"]);
    }
    nothing_is_committed(&env);
}

#[test]
fn a_missing_topic_is_named() {
    let env = TestEnv::bare();
    for command in ["produce", "ingest", "audit"] {
        fails_and_names(env.run(command, &[]), &[&env.topic, "missing"]);
    }
}

#[test]
fn a_missing_table_is_named() {
    let env = with_a_hundred_events();
    env.sql("DROP TABLE db.rejected");
    fails_and_names(env.ingest(&[]), &[&env.here("db.rejected"), "missing", "clickstream setup"]);
    fails_and_names(env.ingest(&["--database", "nowhere"]), &["nowhere.events", "missing", "clickstream setup"]);
    nothing_is_committed(&env);
}

#[test]
fn a_wrong_column_is_named_with_what_was_expected_and_found() {
    let env = with_a_hundred_events();
    env.sql("ALTER TABLE db.events MODIFY COLUMN price Float64");
    let names = [&env.here("db.events"), "price", "Float64", "Decimal(10, 2)"];
    fails_and_names(env.ingest(&[]), &names);
    fails_and_names(env.run("setup", &[]), &names);
    env.sql("ALTER TABLE db.events DROP COLUMN price");
    fails_and_names(env.ingest(&[]), &[&env.here("db.events"), "price", "Decimal(10, 2)", "missing"]);
    nothing_is_committed(&env);
}

#[test]
fn a_wrong_user_or_password_is_refused_at_once() {
    let env = with_a_hundred_events();
    for command in ["setup", "ingest", "audit"] {
        fails_and_names(
            env.run(command, &["--clickhouse-user", "nobody"]),
            &["ClickHouse", "refuses", "Authentication failed"],
        );
    }
    let file = env.file("password");
    std::fs::write(&file, "wrong\n").unwrap();
    let with_password = ["--clickhouse-password-file", file.to_str().unwrap()];
    fails_and_names(env.ingest(&with_password), &["ClickHouse", "refuses", "Authentication failed"]);
    fails_and_names(env.ingest(&["--clickhouse-password-file", "no-such-file"]), &["no-such-file"]);
    nothing_is_committed(&env);
}

#[test]
fn a_setting_of_librdkafka_that_is_wrong_is_named() {
    let env = with_a_hundred_events();
    fails_and_names(env.ingest(&["--kafka", "no.such.setting=1"]), &["no.such.setting"]);
    fails_and_names(env.ingest(&["--kafka", "session.timeout.ms=soon"]), &["session.timeout.ms"]);
    fails_and_names(env.ingest(&["--kafka", "enable.auto.commit=true"]), &["enable.auto.commit"]);
    fails_and_names(env.ingest(&["--kafka", "max.poll.interval.ms=59999"]), &["max.poll.interval.ms", "60000"]);
    fails_and_names(env.ingest(&["--drain-timeout", "1day"]), &["--drain-timeout", "less than a day"]);
    fails_and_names(env.ingest(&["--kafka", "group.protocol=consumer"]), &["group.protocol", "classic"]);
    fails_and_names(env.run("produce", &["--kafka", "no.such.setting=1"]), &["no.such.setting"]);
    nothing_is_committed(&env);
}

#[test]
fn a_setting_with_which_a_command_would_not_work_is_refused_by_name() {
    let env = with_a_hundred_events();
    let refused = |command: &str, setting: &str, why: &str| {
        let key = setting.split('=').next().unwrap();
        fails_and_names(env.run(command, &["--kafka", setting]), &[&format!("--kafka {key}=…"), why]);
    };
    for command in ["setup", "produce", "ingest", "audit"] {
        refused(command, "topic.blacklist=.*", "does not see a topic");
        refused(command, "bootstrap.servers=127.0.0.1:1", "--brokers");
        refused(command, "api.version.request=false", "topic's id");
        refused(command, "statistics.interval.ms=0", "must be 1 or more");
        refused(command, "ssl.ca.location=/nope", "cannot read /nope: No such file");
        refused(command, "ssl.key.location=/", "cannot read /: is a directory");
    }
    refused("ingest", "auto.offset.reset=error", "`error` is not supported");
    refused("ingest", "offset.store.method=file", "kept by the group");
    refused("ingest", "group.id=other", "--group");
    refused("ingest", "topic.metadata.refresh.interval.ms=-1", "new partitions");
    refused("produce", "transactional.id=x", "transactions");
    refused("produce", "delivery.report.only.error=true", "acknowledged");
    let latest = ["--until-end", "--kafka", "auto.offset.reset=latest"];
    fails_and_names(env.ingest(&latest), &["--kafka auto.offset.reset=…", "--until-end"]);
    nothing_is_committed(&env);
    // Without the flag, the log names the skipped messages.
    let mut ingester = env.ingest(&["--kafka", "auto.offset.reset=latest"]);
    ingester.says("are not read: auto.offset.reset", env.ends().values().filter(|end| **end > 0).count());
    ingester.drains();
    assert_eq!(env.stored(), 0);
}

#[test]
fn a_build_for_users_has_no_failpoints() {
    let env = with_a_hundred_events();
    // One that had them would not even understand this one.
    let failpoints = [("CLICKSTREAM_FAILPOINTS", "before_insert=die,nonsense")];
    env.run_with("ingest", &["--until-end"], &failpoints).succeeds();
    assert_eq!(env.stored(), 100);
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let env = with_a_hundred_events();
    let before = env.ends();
    fails_and_names(
        env.run("produce", &["--count", "5", "--manifest", "no/such/directory/manifest"]),
        &["--manifest", "no/such/directory/manifest"],
    );
    for command in ["produce", "ingest"] {
        fails_and_names(
            env.run(command, &["--latency-log", "no/such/directory/log"]),
            &["--latency-log", "no/such/directory/log"],
        );
    }
    assert_eq!(env.ends(), before, "nothing was produced either");
    nothing_is_committed(&env);
}

#[test]
fn a_report_on_a_file_that_is_not_a_latency_log_says_so() {
    let env = TestEnv::bare();
    let (empty, foreign) = (env.file("empty"), env.file("foreign"));
    std::fs::write(&empty, "").unwrap();
    std::fs::write(&foreign, "some other text\n").unwrap();
    for file in [empty.to_str().unwrap(), foreign.to_str().unwrap(), "no-such-file"] {
        fails_and_names(env.run("report", &[file]), &[file]);
    }
}

#[test]
fn an_audit_of_a_group_that_has_committed_nothing_fails() {
    let env = with_a_hundred_events();
    fails_and_names(env.run("audit", &[]), &[&env.group, "committed nothing"]);
}

#[test]
fn an_audit_finds_missing_and_doubled_rows() {
    let env = with_a_hundred_events();
    env.ingest(&["--until-end"]).succeeds();
    env.run("audit", &[]).succeeds();
    let row = env.rows("SELECT _partition, _offset FROM db.events ORDER BY rand() LIMIT 1").remove(0);
    let this = format!("_partition = {} AND _offset = {}", row[0], row[1]);
    env.sql(&format!("CREATE TABLE db.without ENGINE = Memory AS SELECT * FROM db.events WHERE NOT ({this})"));

    env.sql(&format!("INSERT INTO db.events SELECT * FROM db.events WHERE {this}"));
    fails_and_names(env.run("audit", &[]), &["0 committed messages are missing", "1 are stored more than once"]);
    env.sql("TRUNCATE TABLE db.events");
    env.sql("INSERT INTO db.events SELECT * FROM db.without");
    fails_and_names(env.run("audit", &[]), &["1 committed messages are missing", "0 are stored more than once"]);
}

#[test]
fn a_table_dropped_under_the_ingester_stops_it_and_loses_nothing() {
    let env = TestEnv::open();
    let ingester = env.ingester_at_work(&["--batch-timeout", "500ms"]);
    let mut manifest = env.produce(&["--count", "1000", "--rate", "max"]).finish();
    env.drained();
    env.sql("RENAME TABLE db.events TO db.elsewhere");
    let before = env.committed();
    manifest.extend(env.produce(&["--count", "1000", "--rate", "max"]).finish());
    fails_and_names(ingester, &["events"]);
    assert_eq!(env.committed(), before, "nothing more was committed");
    env.sql("RENAME TABLE db.elsewhere TO db.events");
    env.ingest(&["--until-end"]).succeeds();
    oracle::exactly_once(&env, &manifest);
}
