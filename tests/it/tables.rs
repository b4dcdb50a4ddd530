//! Tables that were altered: what keeps every value is as good as the schema, what does not is refused by name.

use crate::errors::fails_and_names;
use crate::support::oracle;
use crate::support::test_env::TestEnv;

/// A table like ours, with other types for the columns that are named first, and the rest of its definition.
fn make(env: &TestEnv, table: &str, others: &[(&str, &str)], rest: &str) {
    let columns = env.rows(&format!(
        "SELECT name, type, default_expression FROM system.columns WHERE database = '{}' AND table = '{table}'",
        env.database
    ));
    let column = |row: Vec<String>| {
        let kind = others
            .iter()
            .find(|(name, _)| *name == row[0])
            .map_or(row[1].replace("\\'", "'"), |(_, kind)| (*kind).into());
        let default = if row[2].is_empty() { String::new() } else { format!("DEFAULT {}", row[2].replace("\\'", "'")) };
        format!("{} {kind} {default}", row[0])
    };
    let columns: Vec<_> = columns.into_iter().map(column).collect();
    env.sql(&format!("DROP TABLE db.{table} SYNC"));
    env.sql(&format!("CREATE TABLE db.{table} ({}) {rest}", columns.join(", ")));
    env.sql(&format!("SYSTEM STOP MERGES db.{table}"));
}

/// Changes a column's type for rows to come, and for the stored ones as they are read: merges are stopped.
fn alter(env: &TestEnv, what: &str) {
    env.sql(&format!("ALTER TABLE {what} SETTINGS alter_sync = 0, mutations_sync = 0"));
}

const BY_POSITION: &str = "ENGINE = MergeTree ORDER BY (_source, _partition, _offset)";
const UNSORTED: &str = "ENGINE = MergeTree ORDER BY tuple()";
/// ClickHouse sorts by a Nullable column only where it is told to.
const BY_NULLABLE: &str = "ENGINE = MergeTree ORDER BY (_source, _partition, _offset) SETTINGS allow_nullable_key = 1";

#[test]
fn a_column_may_have_any_type_that_keeps_all_of_it() {
    let env = TestEnv::open();
    let kinds = "Enum8('purchase' = 3, 'page_view' = 1, 'add_to_cart' = 2, 'refund' = 9)";
    let others = [
        ("event_id", "String"),
        ("event_type", kinds),
        ("user_id", "Nullable(String)"),
        ("product_id", "String"),
        ("price", "Decimal(18, 4)"),
        ("timestamp", "DateTime64(6, 'Asia/Tokyo')"),
        ("_source", "String"),
        ("_partition", "Nullable(Int64)"),
        ("_offset", "UInt64"),
    ];
    make(&env, "events", &others, BY_NULLABLE);
    let reasons = "LowCardinality(Nullable(String))";
    let others =
        [("key", "Nullable(String)"), ("reason", reasons), ("detail", "Nullable(String)"), ("_offset", "Int128")];
    make(&env, "rejected", &others, BY_POSITION);
    let mut manifest = env.produce(&["--count", "1000", "--rate", "max", "--faults", "bad=0.05"]).finish();
    let mut victim = env.ingest(&["--batch-rows", "100", "--batch-timeout", "600ms"]);
    victim.says("lease opened", 1);
    env.drained();
    victim.kill();
    env.kafka.set_back(&env.topic);
    manifest.extend(env.produce(&["--count", "500", "--rate", "max", "--faults", "bad=0.05"]).finish());
    env.run("setup", &[]).succeeds();
    let mut again = env.ingest(&["--until-end"]);
    again.succeeds();
    assert_eq!(again.closing().before, 1_000, "what was stored is found");
    oracle::exactly_once(&env, &manifest);
    let mut rejects = env.run("rejects", &["--format", "json", "--limit", "1000"]);
    rejects.succeeds();
    assert_eq!(rejects.stdout().lines().count(), manifest.iter().filter(|line| line.bad().is_some()).count());
}

#[test]
fn a_table_may_be_altered_under_a_running_ingester() {
    let env = TestEnv::open();
    let mut ingester = env.ingester_at_work(&["--batch-timeout", "600ms"]);
    let mut manifest = Vec::new();
    for altered in [
        "db.events MODIFY COLUMN product_id String",
        "db.events MODIFY COLUMN price Decimal(18, 2)",
        "db.events MODIFY COLUMN user_id LowCardinality(Nullable(String))",
        "db.events ADD COLUMN day Date MATERIALIZED toDate(timestamp), ADD COLUMN cents Int64 ALIAS toInt64(price * 100)",
        "db.events ADD COLUMN shop String DEFAULT 'main' FIRST, ADD COLUMN raw String EPHEMERAL 'none'",
        "db.rejected MODIFY COLUMN payload Nullable(String)",
    ] {
        manifest.extend(env.produce(&["--count", "200", "--rate", "max", "--faults", "bad=0.05"]).finish());
        alter(&env, altered);
    }
    manifest.extend(env.produce(&["--count", "200", "--rate", "max", "--faults", "bad=0.05"]).finish());
    env.drained();
    ingester.drains();
    env.ingest(&["--until-end"]).succeeds();
    env.run("setup", &[]).succeeds();
    oracle::exactly_once(&env, &manifest);
    assert_eq!(
        env.number("SELECT count() FROM db.events WHERE shop = 'main' AND day = toDate(timestamp)"),
        env.number("SELECT count() FROM db.events")
    );
}

#[test]
fn a_type_that_loses_something_is_named_with_what_it_loses() {
    let env = TestEnv::open();
    env.produce(&["--count", "100", "--rate", "max"]).finish();
    let cases = [
        ("event_id", "UInt64", ""),
        ("event_type", "Enum8('page_view' = 1, 'purchase' = 2)", ""),
        ("event_type", "FixedString(11)", "zero bytes"),
        ("user_id", "FixedString(100)", "zero bytes"),
        ("user_id", "UInt32", ""),
        ("product_id", "Enum8('prod_1' = 1)", ""),
        ("price", "Decimal(10, 1)", "0.01"),
        ("price", "Decimal(9, 2)", ""),
        ("price", "Float64", "0.29"),
        ("price", "UInt64", "0.01"),
        ("timestamp", "DateTime", ".001"),
        ("timestamp", "DateTime64(2)", ".001"),
        ("timestamp", "DateTime64(9)", ""),
        ("timestamp", "Date32", ""),
        ("_source", "UUID", ""),
        ("_source", "FixedString(36)", "zero bytes"),
        ("_partition", "UInt8", ""),
        ("_offset", "Int32", "9223372036854775807"),
        ("_offset", "Float64", "9223372036854775807"),
        ("_offset", "String", ""),
    ];
    let kind_of = |column: &str| {
        let sql = format!(
            "SELECT type FROM system.columns WHERE database = '{}' AND table = 'events' AND name = '{column}'",
            env.database
        );
        env.rows(&sql)[0][0].replace("\\'", "'")
    };
    for (column, kind, loses) in cases {
        let expected = kind_of(column);
        make(&env, "events", &[(column, kind)], UNSORTED);
        let names = [&env.here("db.events"), column, kind, &expected, loses];
        fails_and_names(env.ingest(&[]), &names);
        fails_and_names(env.run("setup", &[]), &names);
        make(&env, "events", &[(column, &expected)], UNSORTED);
    }
    assert!(env.committed().is_empty(), "nothing is committed");
    env.ingest(&["--until-end"]).succeeds();
    assert_eq!(env.stored(), 100, "and the table is whole again");
}

#[test]
fn an_ingester_stops_when_a_column_no_longer_keeps_all_of_it() {
    let env = TestEnv::open();
    let ingester = env.ingester_at_work(&["--batch-timeout", "600ms"]);
    env.produce(&["--count", "100", "--rate", "max"]).finish();
    env.drained();
    alter(&env, "db.events MODIFY COLUMN price Decimal(10, 1)");
    // The table is looked at every ten seconds, and nothing more is sent after that.
    let production = env.produce(&["--rate", "20"]);
    fails_and_names(ingester, &[&env.here("db.events"), "price", "Decimal(10, 1)", "Decimal(10, 2)", "0.01"]);
    let _ = production.stop();
}

#[test]
fn a_column_that_keeps_nothing_of_what_is_inserted_is_named() {
    let env = TestEnv::open();
    for (kind, expression) in [("MATERIALIZED", "'u'"), ("ALIAS", "'u'"), ("EPHEMERAL", "'u'")] {
        alter(&env, &format!("db.events DROP COLUMN user_id, ADD COLUMN user_id String {kind} {expression}"));
        fails_and_names(env.ingest(&[]), &[&env.here("db.events"), "user_id", kind]);
        fails_and_names(env.run("setup", &[]), &[&env.here("db.events"), "user_id", kind]);
    }
}

#[test]
fn an_engine_that_breaks_a_promise_is_named_with_the_reason() {
    let env = TestEnv::open();
    let buffer = format!("ENGINE = Buffer({}, rejected, 1, 10, 100, 1, 1, 1, 1)", env.database);
    for (engine, names) in [
        ("ENGINE = Null", ["Null", "keeps no rows"]),
        ("ENGINE = Memory", ["Memory", "in memory"]),
        (&buffer, ["Buffer", "in memory"]),
        ("ENGINE = StripeLog", ["StripeLog", "MergeTree"]),
        ("ENGINE = ReplacingMergeTree ORDER BY event_id", ["ReplacingMergeTree", "lacks _source, _partition, _offset"]),
        (
            "ENGINE = AggregatingMergeTree ORDER BY (event_id, _partition, cityHash64(1, _source, _offset, 1))",
            ["AggregatingMergeTree", "lacks _source, _offset"],
        ),
        (
            "ENGINE = SummingMergeTree ORDER BY (event_id, _source, _partition, _offset)",
            ["SummingMergeTree", "leave out rows"],
        ),
    ] {
        env.sql("CREATE TABLE db.like AS db.events");
        env.sql("DROP TABLE db.events SYNC");
        env.sql(&format!("CREATE TABLE db.events AS db.like {engine}"));
        for command in ["setup", "ingest"] {
            fails_and_names(env.run(command, &[]), &[&env.here("db.events"), names[0], names[1]]);
        }
        env.sql("DROP TABLE db.like SYNC");
    }
}
