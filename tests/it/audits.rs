//! An audit finds every fault and nothing else, and heals rows that ClickHouse has lost.

use crate::raw;
use crate::support::oracle;
use crate::support::process::Program;
use crate::support::proxy::{Proxy, ProxyFault};
use crate::support::test_env::{Services, TestEnv};
use crate::support::{WAIT_TIMEOUT, eventually, is};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::time::Duration;

const GOOD: &str = r#"{"event_id":"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10","event_type":"page_view","user_id":"u","product_id":"p","price":1,"timestamp":"2024-01-15T14:30:00Z"}"#;

#[track_caller]
fn fails(mut program: Program) -> (String, String) {
    assert_eq!(program.exit_code(WAIT_TIMEOUT), Some(1), "exit code");
    (program.stdout(), program.stderr())
}

fn good(count: usize) -> Vec<raw::Raw> {
    vec![(Some(b"u".to_vec()), Some(GOOD.into())); count]
}

#[test]
fn rows_lost_after_their_commit_are_healed_beside_a_running_ingester() {
    let env = TestEnv::open();
    let faults = ["--rate", "max", "--faults", "bad=0.05,dup=0.02"];
    let mut manifest = env.produce(&[&faults[..], &["--count", "20000"]].concat()).finish();
    env.ingest(&["--until-end"]).succeeds();
    // A part, a stretch in the middle, and single rows everywhere, of both tables.
    let part = env.rows(&format!(
        "SELECT name FROM system.parts WHERE active AND database = '{}' AND table = 'events' ORDER BY rows LIMIT 1",
        env.database
    ));
    env.sql(&format!("ALTER TABLE db.events DROP PART '{}'", part[0][0]));
    env.lose("_offset BETWEEN 1000 AND 2500 OR cityHash64(_partition, _offset) % 50 = 0");
    let lost = 20_000 - env.stored();
    let (out, err) = fails(env.run("audit", &[]));
    assert!(err.contains("committed messages are missing") && err.contains("--heal"), "{err}");
    assert!(out.contains("\n  missing: "), "{out}");

    let mut ingester = env.ingester_at_work(&["--batch-timeout", "300ms"]);
    let more = env.produce(&["--rate", "2000", "--for", "6s", "--faults", "bad=0.05"]);
    let mut heal = env.run("audit", &["--heal"]);
    heal.succeeds();
    let put_back = |line: &str| -> i64 {
        let numbers = line.split(' ').filter_map(|word| word.replace(',', "").parse::<i64>().ok());
        numbers.sum()
    };
    let healed: i64 =
        heal.stdout().lines().filter_map(|line| line.split_once("healed: ")).map(|(_, n)| put_back(n)).sum();
    assert_eq!(healed, lost, "{}", heal.stdout());
    assert!(heal.stdout().ends_with("every committed message is stored exactly once\n"), "{}", heal.stdout());
    manifest.extend(more.finish());
    env.drained();
    ingester.drains();
    oracle::exactly_once(&env, &manifest);

    let mut json = env.run("audit", &["--format", "json"]);
    json.succeeds();
    let found: Value = serde_json::from_str(&json.stdout()).expect("one JSON document");
    assert_eq!(found["whole"], true);
    let stored = found["partitions"].as_array().unwrap().iter().map(|partition| partition["stored"].as_i64().unwrap());
    assert_eq!(stored.sum::<i64>(), manifest.len() as i64);
}

#[test]
fn healers_that_die_and_healers_that_meet_restore_nothing_twice() {
    let env = TestEnv::open();
    let manifest = env.produce(&["--rate", "max", "--count", "60000", "--faults", "bad=0.02"]).finish();
    env.ingest(&["--until-end"]).succeeds();
    env.lose("cityHash64(_partition, _offset) % 3 > 0");
    for _ in 0..3 {
        let mut heal = env.run("audit", &["--heal"]);
        eventually(WAIT_TIMEOUT, "it has begun to heal", || is(heal.stdout().contains("waiting"), ()));
        // The random moment is the fault.
        std::thread::sleep(Duration::from_millis(rand::random_range(0..700)));
        heal.kill();
    }
    let mut both = [env.run("audit", &["--heal"]), env.run("audit", &["--heal"])];
    let codes = both.each_mut().map(|heal| heal.exit_code(WAIT_TIMEOUT));
    assert!(codes.iter().all(Option::is_some), "they ended by themselves");
    env.run("audit", &["--heal"]).succeeds();
    oracle::exactly_once(&env, &manifest);
}

#[test]
fn a_healer_that_was_frozen_does_not_go_on_where_another_has_healed() {
    // One partition that takes several inserts to heal: the healer asks once which rows are missing, before the first
    // of them.
    let env = TestEnv::open_in(&Services { partitions: 1, ..Services::default() });
    let manifest = env.produce(&["--rate", "max", "--count", "300000"]).finish();
    env.ingest(&["--until-end"]).succeeds();
    let all = env.stored();
    let mut frozen = loop {
        env.lose("cityHash64(_partition, _offset) % 3 > 0");
        let left = env.stored();
        let mut heal = env.run("audit", &["--heal"]);
        eventually(WAIT_TIMEOUT, "it has begun to heal", || is(env.stored() > left, left));
        heal.freeze();
        // Whatever is on its way to ClickHouse now is not the last of it. A fast one is given another try.
        if env.stored() < (left + all) / 2 {
            break heal;
        }
        heal.wake();
        heal.succeeds();
    };
    // Another one opens a lease; then it wakes up in the middle of its work.
    env.run("audit", &["--heal"]).succeeds();
    frozen.wake();
    assert_eq!(frozen.exit_code(WAIT_TIMEOUT), Some(1), "it says that another one has begun");
    env.run("audit", &[]).succeeds();
    oracle::exactly_once(&env, &manifest);
}

#[test]
fn a_topic_that_is_made_again_ends_an_audit_that_says_so() {
    let env = TestEnv::open();
    env.produce(&["--rate", "max", "--count", "3000"]).finish();
    env.ingest(&["--until-end"]).succeeds();
    env.lose("_offset % 2 = 0");
    let proxy = Proxy::start(&env.clickhouse.url);
    // The first healing insert has no answer, and the topic is another one before it is sent again.
    let again = Arc::new(AtomicBool::new(false));
    let (mine, stands) = (again.clone(), Arc::new(Barrier::new(2)));
    let holds = stands.clone();
    proxy.draw(move || {
        if !mine.swap(true, SeqCst) {
            holds.wait();
            holds.wait();
        }
        Some(ProxyFault::Instead(503, None, "busy".into()))
    });
    let mut heal = env.run("audit", &["--heal", "--clickhouse-url", &proxy.url()]);
    stands.wait();
    env.kafka.delete(&env.topic);
    eventually(WAIT_TIMEOUT, "the topic can be made again", || {
        let mut setup = env.run("setup", &[]);
        setup.succeeds();
        is(setup.stdout().contains("created, 3 partitions"), setup.stdout())
    });
    stands.wait();
    heal.gives_up("was deleted and made again while this was at work");
    assert!(heal.said("asking again which messages are missing") == 0, "{}", heal.stderr());
}

#[test]
fn offsets_without_a_record_are_not_gaps() {
    let env = TestEnv::open();
    raw::send(&env, 0, &good(5));
    raw::transact(&env, 0, &good(10), true);
    raw::transact(&env, 0, &good(10), false);
    raw::transact(&env, 0, &good(1), true);
    raw::transact(&env, 1, &good(3), false);
    let mut ingester = env.ingester_at_work(&["--batch-timeout", "300ms"]);
    eventually(WAIT_TIMEOUT, "all are stored", || is(env.stored() == 16, env.stored()));
    ingester.drains();
    let mut audit = env.run("audit", &[]);
    audit.succeeds();
    // The marker of the first transaction, the aborted ten, and their marker; nothing committed lies behind the last message.
    assert!(
        audit.stdout().contains("16 stored, 0 gaps, 0 duplicates, 12 empty, 0 erased, 0 expired by TTL"),
        "{}",
        audit.stdout()
    );

    // The record between two markers, and the last one before the end.
    env.lose("_offset IN (14, 27)");
    let (out, _) = fails(env.run("audit", &[]));
    assert!(out.contains("missing: 14..=14") && out.contains("missing: 27..=27"), "{out}");
    env.run("audit", &["--heal"]).succeeds();
    assert_eq!((env.stored(), env.number("SELECT uniqExact(_offset) FROM db.events")), (16, 16));
}

#[test]
fn messages_that_retention_has_deleted_are_lost_and_cannot_be_healed() {
    let env = TestEnv::open();
    raw::send(&env, 2, &good(100));
    env.ingest(&["--until-end"]).succeeds();
    env.lose("_offset BETWEEN 10 AND 19 OR _offset IN (30, 70)");
    raw::delete_before(&env, 2, 50);
    let (out, _) = fails(env.run("audit", &[]));
    assert!(out.contains("1 gaps") && out.contains("missing: 70..=70"), "only what the topic still has: {out}");

    let (out, err) = fails(env.run("audit", &["--heal"]));
    for line in ["cannot be healed: 10..=19", "cannot be told: 1 offsets", "partition 2: healed: 1 events"] {
        assert!(out.contains(line), "{line} in {out}");
    }
    assert!(err.contains("0 committed messages are missing") && err.contains("10 are lost"), "{err}");
    assert_eq!(env.stored(), 89);
}

#[test]
fn doubled_rows_are_found_also_where_the_topic_has_nothing_left() {
    let env = TestEnv::open();
    raw::send(&env, 0, &good(200));
    env.ingest(&["--until-end"]).succeeds();
    env.sql("INSERT INTO db.events SELECT * FROM db.events WHERE _offset IN (3, 17, 18)");
    raw::delete_before(&env, 0, 150);
    let (said, why) = fails(env.run("audit", &[]));
    assert!(why.contains("3 are stored more than once"), "{said}{why}");
}

#[test]
fn a_partition_without_messages_since_that_time_is_not_looked_at() {
    let env = TestEnv::open();
    raw::send(&env, 0, &good(20));
    env.ingest(&["--until-end"]).succeeds();
    env.lose("_offset BETWEEN 5 AND 9");
    raw::delete_before(&env, 0, 20);
    let (said, why) = fails(env.run("audit", &[]));
    assert!(why.contains("5 are lost"), "{said}{why}");
    env.run("audit", &["--since", "1ms"]).succeeds();
}

#[test]
fn rows_beyond_the_end_of_the_topic_are_found() {
    let env = TestEnv::open();
    raw::send(&env, 0, &good(10));
    env.ingest(&["--until-end"]).succeeds();
    let first = "(SELECT * FROM db.events WHERE _offset < 3)";
    env.sql(&format!("INSERT INTO db.events SELECT * REPLACE (_offset + 1000 AS _offset) FROM {first}"));
    let (out, err) = fails(env.run("audit", &[]));
    assert!(out.contains("beyond the topic's end: 1000..=1002"), "{out}");
    assert!(err.contains("3 rows are beyond the topic's end"), "{err}");
}
