//! The table of leases: what would have it forget a token is refused, and so is another group, by its name.

use crate::errors::fails_and_names;
use crate::support::oracle;
use crate::support::test_env::TestEnv;

/// A lease of each partition that somebody has written by hand.
fn forge(env: &TestEnv, group: &str) {
    let source = &env.rows("SELECT DISTINCT source FROM db.leases")[0][0];
    env.sql(&format!(
        "INSERT INTO db.leases SELECT '{source}', 'ingest', number, (1000, generateUUIDv4(), {group}, 'somebody', now64(3)) FROM numbers(3)"
    ));
}

#[test]
fn a_table_that_would_forget_a_token_is_refused_by_what_makes_it() {
    let env = TestEnv::open();
    env.produce(&["--count", "100", "--rate", "max"]).finish();
    let time = "toDateTime(tupleElement(newest, 5)) + INTERVAL 1 DAY";
    for (alter, undo, why) in [
        (format!("MODIFY TTL {time}"), "REMOVE TTL", "a TTL"),
        ("ADD COLUMN more UInt8 TTL toDateTime(partition)".into(), "DROP COLUMN more", "a TTL"),
        ("MODIFY SETTING fsync_after_insert = 0".into(), "MODIFY SETTING fsync_after_insert = 1", "fsync_after_insert"),
        (
            "RESET SETTING fsync_part_directory".into(),
            "MODIFY SETTING fsync_part_directory = 1",
            "fsync_part_directory",
        ),
        (
            "MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild'".into(),
            "ADD PROJECTION p (SELECT source, max(newest) GROUP BY source)",
            "",
        ),
        ("MODIFY COMMENT 'kept'".into(), "DROP PROJECTION p", "a projection"),
    ] {
        env.sql(&format!("ALTER TABLE db.leases {alter}"));
        if !why.is_empty() {
            let names = [&env.here("table db.leases"), why];
            fails_and_names(env.ingest(&[]), &names);
            fails_and_names(env.run("setup", &[]), &names);
            fails_and_names(env.run("audit", &["--heal"]), &names);
        }
        env.sql(&format!("ALTER TABLE db.leases {undo}"));
    }
    assert!(env.committed().is_empty(), "nothing is committed");
    env.run("setup", &[]).succeeds();
    env.ingest(&["--until-end"]).succeeds();
    assert_eq!(env.stored(), 100);
}

#[test]
fn a_running_ingester_stops_where_leases_are_going_to_be_deleted() {
    let env = TestEnv::open();
    let mut ingester = env.ingester_at_work(&[]);
    let load = env.produce(&["--rate", "100"]);
    env.sql("ALTER TABLE db.leases MODIFY TTL toDateTime(tupleElement(newest, 5)) + INTERVAL 1 DAY");
    ingester.gives_up("a TTL");
    load.stop();
}

#[test]
fn a_table_that_is_gone_is_said_with_what_makes_it_again() {
    for table in ["leases", "erased"] {
        let env = TestEnv::open();
        let mut ingester = env.ingester_at_work(&["--batch-timeout", "600ms"]);
        let load = env.produce(&["--rate", "500"]);
        env.sql(&format!("DROP TABLE db.{table} SYNC"));
        ingester.gives_up("clickstream setup");
        let manifest = load.stop();
        env.run("setup", &[]).succeeds();
        env.ingest(&["--until-end"]).succeeds();
        oracle::exactly_once(&env, &manifest);
    }
}

#[test]
fn another_group_is_named_in_a_line_that_its_name_cannot_break_or_fill() {
    let env = TestEnv::open();
    env.ingest(&["--until-end"]).succeeds();
    for (group, shown) in [
        ("''", "those of group ''; "),
        ("concat('a', char(10), 'clickstream: b')", r"those of group 'a\nclickstream: b'; "),
        ("repeat(char(27), 1000000)", "bytes more"),
    ] {
        env.sql("TRUNCATE TABLE db.leases");
        env.run("setup", &[]).succeeds();
        // The source is read out of the table.
        env.ingest(&["--until-end"]).succeeds();
        forge(&env, group);
        let mut refused = env.ingest(&[]);
        refused.gives_up(shown);
        assert!(refused.stderr().len() < 20_000, "{} bytes", refused.stderr().len());
    }
}

#[test]
fn of_two_groups_that_take_each_other_over_the_one_that_began_last_stays() {
    let mut env = TestEnv::open();
    let other = format!("{}-other", env.group);
    let load = env.produce(&["--rate", "500"]);
    let mut older = env.ingester_at_work(&["--batch-timeout", "600ms", "--take-over", &other]);
    let one = env.change_group(&other);
    let mut newer = env.ingester_at_work(&["--batch-timeout", "600ms", "--take-over", &one]);
    older.gives_up(&format!("are those of group {other} now"));
    let manifest = load.stop();
    env.drained();
    newer.drains();
    oracle::exactly_once(&env, &manifest);
}
