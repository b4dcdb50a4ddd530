//! Laws without faults.

use crate::support::manifest::Line;
use crate::support::oracle;
use crate::support::process::Program;
use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, eventually, is};
use chrono::Utc;
use std::time::Duration;

/// Milliseconds from an event's own time to its insert: the largest in the table.
const WORST_MS: &str =
    "SELECT max(toUnixTimestamp64Milli(ingested_at) - toUnixTimestamp64Milli(timestamp)) FROM db.events";

#[test]
fn every_event_can_be_queried_in_less_than_five_seconds() {
    let env = TestEnv::open_alone();
    let log = env.file("latency.log");
    let log = log.to_str().unwrap();
    let mut ingester = env.ingester_at_work(&["--latency-log", log]);
    let manifest = env.produce(&["--rate", "100", "--for", "12s"]).finish();
    assert_eq!(manifest.len(), 1_200, "100 a second for 12 s");
    env.drained();
    ingester.drains();

    oracle::exactly_once(&env, &manifest);
    let worst = env.number(WORST_MS);
    assert!((0..5_000).contains(&worst), "by the table, the slowest took {worst} ms");
    let mut report = env.run("report", &[log]);
    report.succeeds();
    assert!(report.stdout().contains("e2e below 5 s: 100 % of 1,200\n"), "{}", report.stdout());
    assert_eq!(ingester.closing().events, 1_200);
}

#[test]
fn after_a_silence_one_event_can_be_queried_in_less_than_five_seconds() {
    let env = TestEnv::open_alone();
    let mut ingester = env.ingester_at_work(&[]);
    let sender = env.kafka.sender(&env.topic);
    sender.send(&[("k", &json("first", 1.0, "2024-01-15T14:30:00Z"))]);
    env.drained();
    // The silence is the fault: longer than ClickHouse keeps an idle connection open.
    std::thread::sleep(Duration::from_secs(6));

    let happened = Utc::now();
    sender.send(&[("k", &json("second", 1.0, &happened.to_rfc3339()))]);
    eventually(WAIT_TIMEOUT, "both are there", || {
        let count = env.number("SELECT count() FROM db.events");
        is(count == 2, count)
    });
    let took = Utc::now() - happened;
    assert!(took.num_milliseconds() < 5_000, "it took {took}");
    ingester.drains();
}

#[test]
fn messages_of_a_new_partition_can_be_queried_in_less_than_five_seconds() {
    let mut env = TestEnv::open_alone();
    // One that finds them, and one that has to be told by its group, whichever it is.
    let mut ingesters = [env.ingester_at_work(&[]), env.ingester_at_work(&["--instance-id", "none"])];
    let load = env.produce(&["--rate", "50"]);
    for partition in [3, 4] {
        env.kafka.create_partitions(&env.topic, partition as usize + 1);
        // A client of its own that knows them already.
        let sender = env.kafka.sender(&env.topic);
        let happened = Utc::now();
        let sent = sender.send_to(Some(partition), &[("k", &json("new", 1.0, &happened.to_rfc3339()))]);
        eventually(WAIT_TIMEOUT, "its row is there", || {
            let here = format!("_partition = {} AND _offset = {}", sent[0].0, sent[0].1);
            let count = env.number(&format!("SELECT count() FROM db.events WHERE {here}"));
            is(count == 1, count)
        });
        let took = Utc::now() - happened;
        assert!(took.num_milliseconds() < 5_000, "it took {took} in partition {partition}");
    }
    env.kafka.partitions = 5;
    // The shoppers' producer has found them, too.
    eventually(WAIT_TIMEOUT, "each partition has events of the shoppers", || {
        let partitions = env.number("SELECT uniqExact(_partition) FROM db.events WHERE product_id != 'new'");
        is(partitions == 5, partitions)
    });
    let worst = env.number(WORST_MS);
    assert!(worst < 5_000, "no event of any partition took longer than 5 s: {worst} ms");
    load.stop();
    env.drained();
    ingesters.iter_mut().for_each(Program::drains);
}

#[test]
fn times_and_prices_are_read_back_exactly_in_every_time_zone() {
    let env = TestEnv::open();
    let cases: [(&str, f64, i64, i64); 11] = [
        ("2024-01-15T14:30:00.123Z", 29.99, 1_705_329_000_123, 2_999),
        ("2024-01-15T14:30:00Z", 0.0, 1_705_329_000_000, 0),
        ("2024-01-15T14:30:00.5+09:00", 0.01, 1_705_296_600_500, 1),
        ("2024-01-15T14:30:00.1239999-03:30", 99_999_999.99, 1_705_341_600_123, 9_999_999_999),
        // Both hours of the repeated one when summer time ends in Berlin, and the times around the skipped one.
        ("2024-10-27T02:30:00.001+02:00", 19.95, 1_729_989_000_001, 1_995),
        ("2024-10-27T02:30:00.001+01:00", 19.95, 1_729_992_600_001, 1_995),
        ("2024-03-31T01:59:59.999+01:00", 4.35, 1_711_846_799_999, 435),
        ("2024-03-31T03:00:00.000+02:00", 1.005, 1_711_846_800_000, 100),
        ("1900-01-01T00:00:00Z", 1.0, -2_208_988_800_000, 100),
        ("1969-12-31T23:59:59.999Z", 1.0, -1, 100),
        ("2299-12-31T23:59:59.999Z", 1.0, 10_413_791_999_999, 100),
    ];
    let payloads: Vec<_> = cases.iter().map(|(time, price, ..)| json("page", *price, time)).collect();
    let messages: Vec<_> = payloads.iter().map(|payload| ("user_0042", payload.as_str())).collect();
    env.kafka.send(&env.topic, &messages);
    env.run_with("ingest", &["--until-end"], &[("TZ", "Asia/Tokyo")]).succeeds();

    let stored = env.rows(
        "SELECT toUnixTimestamp64Milli(timestamp), toInt64(price * 100) FROM db.events ORDER BY _partition, _offset",
    );
    let expected: Vec<_> = cases.iter().map(|(.., ms, cents)| vec![ms.to_string(), cents.to_string()]).collect();
    assert_eq!(stored, expected, "one key, so one partition, so in the order of sending");
}

#[test]
fn the_example_of_the_contract_is_stored_field_by_field() {
    let env = TestEnv::open();
    let id = "5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10";
    let payload = format!(
        r#"{{"event_id":"{id}","event_type":"page_view","user_id":"user_0042","product_id":"prod_123","price":29.99,"timestamp":"2024-01-15T14:30:00.123Z"}}"#
    );
    env.kafka.send(&env.topic, &[("user_0042", &payload)]);
    env.run("ingest", &["--until-end"]).succeeds();
    let row = env.rows("SELECT event_id, event_type, user_id, product_id, price, timestamp FROM db.events");
    assert_eq!(row, [[id, "page_view", "user_0042", "prod_123", "29.99", "2024-01-15 14:30:00.123"]]);
}

#[test]
fn setup_may_be_run_again() {
    let env = TestEnv::open();
    let manifest = env.produce(&["--count", "500", "--rate", "max"]).finish();
    env.run("ingest", &["--until-end"]).succeeds();
    let tables =
        || env.sql(&format!("SELECT name, create_table_query FROM system.tables WHERE database = '{}'", env.database));
    let before = tables();

    let mut again = env.run("setup", &[]);
    again.succeeds();
    let said = again.stdout();
    assert!(said.contains("there, 3 partitions") && said.contains("tables there"), "{said}");
    assert_eq!(tables(), before);
    oracle::exactly_once(&env, &manifest);
}

#[test]
fn a_restart_ingests_nothing_twice_and_until_end_ends() {
    let env = TestEnv::open();
    let mut manifest = env.produce(&["--count", "5000", "--rate", "max", "--faults", "bad=0.02,dup=0.02"]).finish();
    let mut first = env.ingest(&["--until-end"]);
    first.succeeds();
    assert_eq!(first.closing().events + first.closing().rejects, 5_000);

    let mut idle = env.ingest(&["--until-end"]);
    idle.succeeds();
    assert_eq!((idle.closing().events, idle.closing().inserts), (0, 0), "nothing is left to do");
    oracle::exactly_once(&env, &manifest);

    manifest.extend(env.produce(&["--count", "3000", "--rate", "max"]).finish());
    let mut second = env.ingest(&["--until-end"]);
    second.succeeds();
    assert_eq!(second.closing().events, 3_000);
    oracle::exactly_once(&env, &manifest);
}

#[test]
fn an_empty_topic_has_an_end_too() {
    let env = TestEnv::open();
    env.run("ingest", &["--until-end"]).succeeds();
    oracle::exactly_once(&env, &[]);
}

#[test]
fn the_same_seed_gives_the_same_manifest_but_for_times() {
    let produced = || -> Vec<Line> {
        let env = TestEnv::open();
        let faults = "bad=0.05,dup=0.05,late=0.05";
        let mut lines = env.produce(&["--seed", "42", "--count", "2000", "--rate", "max", "--faults", faults]).finish();
        lines.iter_mut().for_each(|line| line.timestamp_ms = 0);
        lines
    };
    let (once, again) = (produced(), produced());
    assert_eq!(once.len(), 2_000);
    assert_eq!(format!("{once:?}"), format!("{again:?}"));
}

#[test]
fn a_backlog_is_drained_in_few_inserts_and_little_memory() {
    let env = TestEnv::open();
    let manifest = env.produce(&["--count", "300000", "--rate", "max"]).finish();
    let mut ingester = env.ingest(&[]);
    env.drained();
    let peak = ingester.peak_memory_mb();
    ingester.drains();
    assert!(peak < 256, "{peak} MB");
    let closing = ingester.closing();
    assert_eq!(closing.events, 300_000);
    assert!(closing.inserts <= 60, "due chunks leave as one insert, so 300 of 1,000 rows are far fewer: {closing:?}");
    oracle::exactly_once(&env, &manifest);
}

/// An event in the form of the contract, with an id of its own.
fn json(product: &str, price: f64, timestamp: &str) -> String {
    let id = uuid::Uuid::new_v4();
    format!(
        r#"{{"event_id":"{id}","event_type":"page_view","user_id":"user_0042","product_id":"{product}","price":{price},"timestamp":"{timestamp}"}}"#
    )
}
