//! Rows that a table's TTL has deleted are not gaps and not healed; and an audit can begin at a given time.

use crate::raw::{self, Raw};
use crate::support::WAIT_TIMEOUT;
use crate::support::process::Program;
use crate::support::test_env::TestEnv;
use std::time::{SystemTime, UNIX_EPOCH};

const HOUR_MS: i64 = 3_600_000;

/// Milliseconds since the Unix epoch, some hours ago.
fn ago(hours: i64) -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64 - hours * HOUR_MS
}

/// An event with a timestamp some hours ago.
fn event(hours: i64) -> Raw {
    let timestamp = chrono::DateTime::from_timestamp_millis(ago(hours)).expect("a time").to_rfc3339();
    let json = format!(
        r#"{{"event_id":"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10","event_type":"page_view","user_id":"u","product_id":"p","price":1,"timestamp":"{timestamp}"}}"#
    );
    (None, Some(json.into()))
}

fn bad() -> Raw {
    (None, Some("no json".into()))
}

#[track_caller]
fn fails(mut program: Program) -> (String, String) {
    assert_eq!(program.exit_code(WAIT_TIMEOUT), Some(1), "exit code");
    (program.stdout(), program.stderr())
}

/// Empties both tables, as a TTL, a dropped partition or a lost disk does.
fn lose_all(env: &TestEnv) {
    env.sql("TRUNCATE TABLE db.events");
    env.sql("TRUNCATE TABLE db.rejected");
}

#[test]
fn rows_that_a_ttl_has_deleted_are_not_a_gap_and_not_healed() {
    let env = TestEnv::open();
    // Offsets 0 to 2 came three hours ago, 3 to 5 just now; 1 and 4 are rejects.
    raw::send_at(&env, 0, &[event(3), bad(), event(3)], ago(3));
    raw::send(&env, 0, &[event(3), bad(), event(0)]);
    env.ingest(&["--until-end"]).succeeds();
    lose_all(&env);
    let (out, _) = fails(env.run("audit", &[]));
    assert!(out.contains("6 gaps") && out.contains("0 expired by TTL"), "rejects are kept for longer than that: {out}");

    env.sql("ALTER TABLE db.rejected MODIFY TTL toDateTime(ingested_at) + INTERVAL 2 HOUR");
    let (out, _) = fails(env.run("audit", &[]));
    assert!(out.contains("5 gaps") && out.contains("1 expired by TTL"), "{out}");
    env.sql("ALTER TABLE db.events MODIFY TTL toDateTime(ingested_at) + INTERVAL 100 MINUTE");
    let (out, _) = fails(env.run("audit", &[]));
    assert!(out.contains("3 gaps") && out.contains("3 expired by TTL") && out.contains("missing: 3..=5"), "{out}");
    // By the event's own time, the fourth has expired, too.
    env.sql("ALTER TABLE db.events MODIFY TTL toDateTime(timestamp) + toIntervalHour(2)");
    let (out, _) = fails(env.run("audit", &[]));
    assert!(out.contains("2 gaps") && out.contains("4 expired by TTL") && out.contains("missing: 4..=5"), "{out}");

    env.run("audit", &["--heal"]).succeeds();
    assert_eq!(
        env.rows("SELECT _offset FROM (SELECT _offset FROM db.events UNION ALL SELECT _offset FROM db.rejected) ORDER BY _offset"),
        [["4"], ["5"]]
    );
    env.run("audit", &[]).succeeds();
}

#[test]
fn each_form_of_a_ttl_is_read_and_what_cannot_be_read_is_said() {
    let env = TestEnv::open();
    raw::send_at(&env, 0, &[event(50)], ago(50));
    raw::send_at(&env, 0, &[event(1)], ago(1));
    env.ingest(&["--until-end"]).succeeds();
    lose_all(&env);
    for ttl in [
        "ingested_at + INTERVAL 1 DAY",
        "toDateTime(ingested_at) + INTERVAL 25 HOUR DELETE WHERE event_type != 'a, TTL b'",
        "toDate(ingested_at) + 1",
        "addHours(toDateTime(ingested_at), 4)",
        "toDateTime(ingested_at) + INTERVAL 1 HOUR + INTERVAL 5 HOUR",
        "toDateTime(timestamp) + 7200",
        "toDateTime(ingested_at) + INTERVAL 1 WEEK TO DISK 'default', toDateTime(timestamp) + INTERVAL 2 HOUR",
    ] {
        env.sql(&format!("ALTER TABLE db.events MODIFY TTL {ttl}"));
        let (out, err) = fails(env.run("audit", &[]));
        assert!(out.contains("1 gaps") && out.contains("1 expired by TTL"), "{ttl}: {out}");
        assert!(!err.contains("cannot tell"), "{ttl}: {err}");
    }
    env.sql("ALTER TABLE db.events MODIFY TTL toDateTime(ingested_at) + toIntervalHour(length(user_id))");
    let (out, err) = fails(env.run("audit", &[]));
    assert!(out.contains("2 gaps") && err.contains("cannot evaluate") && err.contains("--since"), "{out}{err}");
}

#[test]
fn since_leaves_out_older_messages() {
    let env = TestEnv::open();
    raw::send_at(&env, 0, &[event(9), event(9), bad()], ago(9));
    raw::send_at(&env, 0, &[event(1), bad()], ago(1));
    raw::send_at(&env, 1, &[event(9)], ago(9));
    env.ingest(&["--until-end"]).succeeds();
    lose_all(&env);
    let (out, _) = fails(env.run("audit", &["--since", "2h"]));
    for line in ["partition 0: offsets 3 to 5: 0 stored, 2 gaps", "partition 1: offsets 1 to 1: 0 stored, 0 gaps"] {
        assert!(out.contains(line), "{line}: {out}");
    }
    let mut heal = env.run("audit", &["--since", "2h", "--heal"]);
    heal.succeeds();
    assert_eq!((env.stored(), env.number("SELECT min(_offset) FROM db.events")), (2, 3), "only those");
    env.run("audit", &["--since", "2h"]).succeeds();
    env.run("audit", &["--since", "1s"]).succeeds();
    let time = chrono::DateTime::from_timestamp_millis(ago(10)).expect("a time").to_rfc3339();
    let (out, _) = fails(env.run("audit", &["--since", &time]));
    assert!(out.contains("missing: 0..=2") && out.contains("partition 1: offsets 0 to 1: 0 stored, 1 gaps"), "{out}");
    let mut wrong = env.run("audit", &["--since", "yesterday"]);
    assert_eq!((wrong.exit_code(WAIT_TIMEOUT), wrong.stderr().contains("--since")), (Some(2), true));
}

#[test]
fn since_does_not_ask_after_what_retention_has_deleted_before() {
    let env = TestEnv::open();
    raw::send_at(&env, 2, &vec![event(9); 10], ago(9));
    raw::send_at(&env, 2, &vec![event(1); 10], ago(1));
    env.ingest(&["--until-end"]).succeeds();
    env.lose("_offset BETWEEN 2 AND 4");
    raw::delete_before(&env, 2, 5);
    let (out, _) = fails(env.run("audit", &["--heal"]));
    assert!(out.contains("cannot be healed: 2..=4"), "{out}");
    let mut heal = env.run("audit", &["--heal", "--since", "2h"]);
    heal.succeeds();
    assert!(!heal.stdout().contains("cannot be healed"), "{}", heal.stdout());
}
