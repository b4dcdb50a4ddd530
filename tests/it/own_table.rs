//! A table of the user's own: the table is the schema.

use crate::alarms::Observed;
use crate::raw;
use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, eventually, is};

/// The columns by which rows are found again, and the engine that keeps them.
pub const POSITIONS: &str = "_source LowCardinality(String), _partition Int32, _offset Int64, ingested_at DateTime64(3, 'UTC') DEFAULT nowInBlock64(3, 'UTC')) \
    ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(ingested_at) + (_offset < 0) ORDER BY (_source, _partition, _offset) \
    SETTINGS fsync_after_insert = 1, fsync_part_directory = 1";

/// A column of each type, with values that ClickHouse reads the same way as we do.
const TYPES: [(&str, &str, &[&str]); 47] = [
    ("u8", "UInt8", &["0", "255", "\"7\"", "true"]),
    ("i8", "Int8", &["-128", "127", "false"]),
    ("u16", "UInt16", &["0", "65535"]),
    ("i16", "Int16", &["-32768", "32767"]),
    ("u32", "UInt32", &["0", "4294967295"]),
    ("i32", "Int32", &["-2147483648", "\"2147483647\""]),
    ("u64", "UInt64", &["0", "18446744073709551615"]),
    ("i64", "Int64", &["-9223372036854775808", "9223372036854775807"]),
    ("u128", "UInt128", &["0", "340282366920938463463374607431768211455"]),
    ("i128", "Int128", &["-170141183460469231731687303715884105728", "1"]),
    ("u256", "UInt256", &["115792089237316195423570985008687907853269984665640564039457584007913129639935"]),
    ("i256", "Int256", &["-57896044618658097711785492504343953926634992332820282019728792003956564819968", "-1"]),
    ("f32", "Float32", &["0.5", "-1e10", "\"nan\"", "\"inf\"", "16777217"]),
    ("f64", "Float64", &["0.1", "-1.7976931348623157e308", "5e-324", "\"-inf\"", "123456789012345678"]),
    ("b", "Bool", &["true", "false"]),
    ("s", "String", &["\"\"", "\"\\u00e9\\n\\\"\\ud83d\\ude00\"", "12.50", "true", "[1, 2]", "{\"a\": null}"]),
    ("lc", "LowCardinality(String)", &["\"x\"", "\"\""]),
    ("lcn", "LowCardinality(Nullable(String))", &["null", "\"x\""]),
    ("fs", "FixedString(4)", &["\"\"", "\"abcd\"", "\"\\u00e9\""]),
    ("d9", "Decimal(9, 4)", &["99999.9999", "-0.0001", "\"12.5\"", "1e2"]),
    ("d18", "Decimal(18, 2)", &["-9999999999999999.99", "0"]),
    ("d38", "Decimal(38, 10)", &["1234567890123456789012345678.0123456789"]),
    ("d76", "Decimal(76, 20)", &["-12345678901234567890123456789012345678901234567890.12345678901234567890"]),
    ("date", "Date", &["\"1970-01-01\"", "\"2149-06-06\""]),
    ("date32", "Date32", &["\"1900-01-01\"", "\"2299-12-31\""]),
    ("dt", "DateTime('UTC')", &["\"2024-01-15 14:30:00\"", "\"1970-01-01 00:00:00\"", "1705329000"]),
    ("dtb", "DateTime('Europe/Berlin')", &["\"2024-07-15 14:30:00\"", "\"2024-01-15 14:30:00\""]),
    ("dt64", "DateTime64(3, 'UTC')", &["\"2024-01-15 14:30:00.123\"", "\"1900-01-01 00:00:00.000\""]),
    ("dt64n", "DateTime64(9, 'UTC')", &["\"2024-01-15 14:30:00.123456789\""]),
    ("uuid", "UUID", &["\"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10\"", "\"FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\""]),
    ("ip4", "IPv4", &["\"127.0.0.1\"", "\"255.255.255.255\""]),
    ("ip6", "IPv6", &["\"::1\"", "\"2001:db8::ff\"", "\"127.0.0.1\""]),
    ("e8", "Enum8('a' = -1, 'b, c' = 2)", &["\"a\"", "\"b, c\"", "2"]),
    ("e16", "Enum16('x' = 1000)", &["\"x\""]),
    ("n", "Nullable(Int32)", &["null", "-5"]),
    ("arr", "Array(Nullable(UInt16))", &["[]", "[1,null,3]"]),
    ("arr2", "Array(Array(String))", &["[]", "[[],[\"a\",\"b\"]]"]),
    ("m", "Map(String, Int64)", &["{}", "{\"a\":1,\"b\":-2}"]),
    ("mi", "Map(UInt8, Array(String))", &["{\"7\":[\"x\"]}"]),
    ("t", "Tuple(a UInt8, b Nullable(String))", &["{\"a\":1,\"b\":\"x\"}", "{\"b\":null,\"a\":2,\"c\":3}"]),
    ("tu", "Tuple(UInt8, String)", &["[1,\"x\"]"]),
    ("p", "Point", &["[1.5,-2]"]),
    ("sm", "SimpleAggregateFunction(max, UInt32)", &["7"]),
    ("v", "Variant(UInt64, String, Array(UInt64))", &["7", "\"x\"", "[1,2]", "null", "1.5"]),
    ("d", "Dynamic", &["7", "\"x\"", "[1,2]", "null", "1.5", "true"]),
    ("lcu", "LowCardinality(UInt64)", &["7"]),
    ("j", "JSON", &["{}", "{\"a\":{\"b\":[1,2.5,\"x\",null]},\"c\":true}"]),
];

#[test]
fn a_table_of_each_type_holds_what_clickhouse_itself_reads_from_the_same_messages() {
    let env = TestEnv::open();
    let columns: Vec<_> = TYPES.iter().map(|(name, kind, _)| format!("{name} {kind}")).collect();
    let suspicious = "allow_suspicious_low_cardinality_types = 1";
    env.sql(&format!("CREATE TABLE db.web ({}, {POSITIONS}, {suspicious}", columns.join(", ")));
    env.sql(&format!(
        "CREATE TABLE db.twin ({}) ENGINE = MergeTree ORDER BY u8 SETTINGS {suspicious}",
        columns.join(", ")
    ));
    let most = TYPES.iter().map(|(_, _, values)| values.len()).max().unwrap_or(0);
    let message = |nth: usize| {
        let field = |(name, _, values): &(&str, &str, &[&str])| format!("\"{name}\":{}", values[nth % values.len()]);
        format!("{{{}}}", TYPES.iter().map(field).collect::<Vec<_>>().join(","))
    };
    let payloads: Vec<_> = (0..most).map(message).collect();
    env.kafka.send(&env.topic, &payloads.iter().map(|payload| ("key", payload.as_str())).collect::<Vec<_>>());
    env.sql(&format!("INSERT INTO db.twin FORMAT JSONEachRow {}", payloads.join("\n")));

    let table = format!("{}.web", env.database);
    let mut ingester = env.ingest(&["--table", &table, "--until-end"]);
    ingester.succeeds();
    let rejected = env.rows("SELECT detail FROM db.rejected");
    assert_eq!((ingester.closing().events, rejected), (most as u64, vec![]));
    let names = TYPES.map(|(name, ..)| name);
    for name in names {
        // Each row has a value of its own in `s` and `f64`, or they repeat with a period of both.
        let shown = |of: &str| env.rows(&format!("SELECT toString({name}) FROM db.{of} ORDER BY ALL"));
        assert_eq!(shown("web"), shown("twin"), "column {name}");
    }
    let all = names.join(", ");
    let differing = format!(
        "SELECT count() FROM (SELECT toString(tuple({all})) FROM db.web EXCEPT SELECT toString(tuple({all})) FROM db.twin)"
    );
    assert_eq!(env.number(&differing), 0, "whole rows");
    env.run("audit", &["--table", &table]).succeeds();
}

#[test]
fn defaults_are_the_servers_and_a_value_that_does_not_fit_is_rejected_by_its_column() {
    let env = TestEnv::open();
    env.sql(&format!(
        "CREATE TABLE db.web (id UInt32, twice UInt64 DEFAULT id * 2, hex String EPHEMERAL, raw FixedString(2) DEFAULT unhex(hex), \
         day Date MATERIALIZED toDate(at), at DateTime('UTC'), `geo.country` LowCardinality(String) DEFAULT '??', \
         _topic LowCardinality(String), _key String, _timestamp_ms DateTime64(3, 'UTC'), _raw_message String, _unknown JSON, {POSITIONS}"
    ));
    let good = [
        r#"{"id":1,"at":"2024-01-15T14:30:00Z","hex":"4142","extra":{"x":[1]}}"#,
        r#"{"id":2,"at":1705329000,"twice":7,"raw":"zz","geo":{"country":"de","city":"x"},"twice2":null}"#,
    ];
    let bad = [
        (r#"{"id":-1,"at":1705329000}"#, "out_of_range", "id: found a number out of range"),
        (r#"{"id":"x","at":1705329000}"#, "wrong_type", "id: found a string"),
        (r#"{"at":1705329000}"#, "missing_field", "id: is missing"),
        (r#"{"id":1,"at":null}"#, "wrong_type", "at: found null"),
        (r#"{"id":1,"at":5}"#, "wrong_type", "at: found a number whose size does not say"),
        (r#"{"id":1,"id":1,"at":1705329000}"#, "wrong_type", "id: stands twice"),
        (r#"{"id":1,"at":1705329000"#, "not_json", "the JSON object is broken"),
        ("[]", "not_json", "expected one JSON object, found a JSON array"),
    ];
    let messages = good.iter().copied().chain(bad.map(|(payload, ..)| payload)).map(|payload| ("key", payload));
    env.kafka.send(&env.topic, &messages.collect::<Vec<_>>());
    let mut ingester = env.ingest(&["--table", "web", "--time", "at", "--until-end"]);
    ingester.succeeds();

    let rows = env
        .rows("SELECT id, twice, raw, day, toUnixTimestamp(at), `geo.country`, _key, _unknown FROM db.web ORDER BY id");
    assert_eq!(
        rows,
        [
            ["1", "2", "AB", "2024-01-15", "1705329000", "??", "key", r#"{"extra":{"x":[1]}}"#],
            ["2", "7", "zz", "2024-01-15", "1705329000", "de", "key", r#"{"geo":{"city":"x"}}"#],
        ]
    );
    let raw = env.rows("SELECT _raw_message FROM db.web ORDER BY id");
    assert_eq!(raw.concat(), good);
    let is_recent = "abs(dateDiff('second', _timestamp_ms, now64(3))) < 300";
    assert_eq!(env.number(&format!("SELECT countIf({is_recent} AND _topic = '{}') FROM db.web", env.topic)), 2);
    for (payload, reason, detail) in bad {
        let sql = format!("SELECT reason, startsWith(detail, '{detail}') FROM db.rejected WHERE payload = '{payload}'");
        assert_eq!(env.rows(&sql), [[reason, "1"]], "{payload}: {:?}", env.rows("SELECT detail FROM db.rejected"));
    }
    env.run("audit", &["--table", "web"]).succeeds();
}

#[test]
fn a_table_that_cannot_be_filled_is_refused_by_the_columns_name() {
    let env = TestEnv::open();
    for (columns, says) in [
        (
            "id UInt8, agg AggregateFunction(uniq, String)",
            "column agg: values of the type AggregateFunction(uniq, String)",
        ),
        ("id UInt8, _headers String", "column _headers is String, and holds the headers"),
    ] {
        env.sql(&format!("CREATE OR REPLACE TABLE db.web ({columns}, {POSITIONS}"));
        let mut ingester = env.ingest(&["--table", "web"]);
        assert_eq!(ingester.exit_code(WAIT_TIMEOUT), Some(1));
        assert!(ingester.stderr().contains(says), "{says}: {}", ingester.stderr());
    }
    // The line has the statement that adds the missing columns, and it works as it stands.
    env.sql("CREATE OR REPLACE TABLE db.web (id UInt8, day Date DEFAULT today()) ENGINE = MergeTree PARTITION BY day ORDER BY id");
    let refused = || {
        let mut ingester = env.ingest(&["--table", "web"]);
        assert_eq!(ingester.exit_code(WAIT_TIMEOUT), Some(1));
        ingester.stderr()
    };
    let said = refused();
    assert!(said.contains("is partitioned by day (day): an insert would be several parts"), "{said}");
    env.sql("CREATE OR REPLACE TABLE db.web (id UInt8) ENGINE = MergeTree ORDER BY id");
    let said = refused();
    let (_, statement) = said.split_once("none may be stored: ").unwrap_or_else(|| panic!("{said}"));
    env.sql(statement);
    let mut ingester = env.ingest(&["--table", "web", "--until-end"]);
    ingester.succeeds();
    assert_eq!(env.committed().values().max(), None, "nothing is committed");
}

/// Waits for rows of the table that fit the condition.
fn some(env: &TestEnv, condition: &str) {
    eventually(WAIT_TIMEOUT, condition, || {
        let rows = env.number(&format!("SELECT count() FROM db.web WHERE {condition}"));
        is(rows > 0, rows)
    });
}

#[test]
fn columns_come_and_change_under_load_without_a_restart_and_one_that_goes_stops_the_ingester_with_one_line() {
    let env = TestEnv::open();
    env.sql(&format!("CREATE TABLE db.web (event_id UUID, price Decimal(10, 2), user_id String, {POSITIONS}"));
    let production = env.produce(&["--rate", "200"]);
    let mut ingester = env.ingest(&["--table", "web", "--batch-timeout", "500ms"]);
    some(&env, "1");
    env.sql("ALTER TABLE db.web ADD COLUMN product_id String DEFAULT '?'");
    some(&env, "product_id LIKE 'prod%'");
    env.sql("ALTER TABLE db.web MODIFY COLUMN price Decimal(38, 4)");
    env.sql("ALTER TABLE db.web MODIFY COLUMN product_id LowCardinality(String) DEFAULT 'none'");
    ingester.says("column product_id is LowCardinality(String) now", 1);
    // Narrower: what does not fit any more is rejected, and nothing is cut.
    env.sql("ALTER TABLE db.web ADD COLUMN event_type FixedString(8) FIRST");
    some(&env, "event_type = 'purchase'");
    eventually(WAIT_TIMEOUT, "rejects of the narrow column", || {
        let rejects = env.number("SELECT count() FROM db.rejected WHERE detail LIKE 'event_type: %'");
        is(rejects > 0, rejects)
    });
    env.sql("ALTER TABLE db.web DROP COLUMN price");
    assert_eq!(ingester.exit_code(WAIT_TIMEOUT), Some(1));
    assert!(
        ingester.stderr().lines().last().unwrap_or_default().contains("column price is gone"),
        "{}",
        ingester.stderr()
    );
    let mut again = env.ingest(&["--table", "web"]);
    let sent = production.stop().len() as i64;
    env.drained();
    again.drains();
    let stored = env.number("SELECT count() FROM db.web") + env.number("SELECT count() FROM db.rejected");
    assert_eq!(stored, sent);
    assert_eq!(env.number("SELECT count() - uniqExact(event_id) FROM db.web"), 0);
    env.run("audit", &["--table", "web"]).succeeds();
}

/// A value that the narrower column would wrap is rejected, although it was decoded for the column as it was before.
#[test]
fn a_column_that_is_narrowed_wraps_no_value_that_is_on_its_way() {
    let env = TestEnv::open();
    env.sql(&format!("CREATE TABLE db.web (n Int32, {POSITIONS}"));
    let mut ingester = Observed::start_with(&env, "3s", &["--table", "web"]);
    ingester.program.says("lease opened", 1);
    env.kafka.send(&env.topic, &[("key", r#"{"n":300}"#), ("key", r#"{"n":7}"#)]);
    ingester.shows("bytes_total", |bytes| bytes >= 16.0);
    env.sql("ALTER TABLE db.web MODIFY COLUMN n UInt8");
    env.drained();
    assert_eq!(env.rows("SELECT n FROM db.web"), [["7"]]);
    assert_eq!(env.rows("SELECT reason, startsWith(detail, 'n: ') FROM db.rejected"), [["out_of_range", "1"]]);
}

#[test]
fn events_of_a_template_fill_the_table_that_they_were_made_for() {
    let env = TestEnv::open();
    let template = env.dir.join("visit.json");
    let events = r#"{"id": "{{id}}", "who": {"user": "{{user}}", "session": "{{session}}"}, "at": "{{time}}", "page": "/{{choice a|b}}",
        "price": "{{number 0.99..9.99}}", "ms": "{{time_ms}}"}"#;
    std::fs::write(&template, events).expect("a directory of ours");
    env.sql(&format!(
        "CREATE TABLE db.web (id UUID, `who.user` String, `who.session` String, at DateTime64(3, 'UTC'), page String, \
         price Decimal(4, 2), ms DateTime64(3, 'UTC'), {POSITIONS}"
    ));
    let template = template.to_str().expect("plain names");
    env.run("produce", &["--template", template, "--count", "500", "--rate", "max"]).succeeds();
    env.ingest(&["--table", "web", "--time", "at", "--until-end"]).succeeds();
    let fits = "id != toUUID('00000000-0000-0000-0000-000000000000') AND `who.user` LIKE 'user_0%' AND length(`who.session`) = 16 \
        AND page IN ('/a', '/b') AND price BETWEEN 0.99 AND 9.99 AND ms = at";
    assert_eq!(env.number(&format!("SELECT countIf({fits}) FROM db.web")), 500);
}

#[test]
fn a_topics_rows_go_into_one_table_of_a_database() {
    let env = TestEnv::open();
    for table in ["web", "other"] {
        env.sql(&format!("CREATE TABLE db.{table} (id UInt8, {POSITIONS}"));
    }
    env.kafka.send(&env.topic, &[("key", r#"{"id":1}"#), ("key", r#"{"id":"x"}"#)]);
    let ingest = |args: &[&str]| env.ingest(&[args, &["--until-end"]].concat());
    ingest(&["--table", "web"]).succeeds();
    for args in [&["--table", "other"][..], &[], &["--table", "web", "--group", "second"]] {
        let mut refused = ingest(args);
        assert_eq!(refused.exit_code(WAIT_TIMEOUT), Some(1));
        let said = format!("go into table web, by group {}", env.group);
        assert!(refused.stderr().contains(&said), "{args:?}: {}", refused.stderr());
    }
    ingest(&["--table", "web", "--group", "second", "--take-over", &env.group]).succeeds();
    assert_eq!(env.number("SELECT count() FROM db.web"), 1);
    // Rejects can be listed, and rows erased, there as well.
    let mut rejects = env.run("rejects", &["--table", "web"]);
    rejects.succeeds();
    assert!(rejects.stdout().contains("id: found a string"), "{}", rejects.stdout());
    env.run("erase", &["--table", "web", "--where", "id = 1"]).succeeds();
    assert_eq!(env.number("SELECT count() FROM db.web"), 0);
    let mut missing = ingest(&["--table", "nowhere"]);
    assert_eq!(missing.exit_code(WAIT_TIMEOUT), Some(1));
    assert!(missing.stderr().contains("nowhere is missing at"), "{}", missing.stderr());
}

#[test]
fn what_another_tool_has_stored_before_a_cut_over_is_not_compared() {
    let env = TestEnv::open();
    env.sql("CREATE TABLE db.web (id UInt32) ENGINE = MergeTree ORDER BY id");
    let messages: Vec<_> = (0..60).map(|id| format!(r#"{{"id":{id}}}"#)).collect();
    let send = |range: std::ops::Range<usize>| {
        let message = |payload: &String| -> raw::Raw { (Some(b"k".to_vec()), Some(payload.clone().into_bytes())) };
        raw::send(&env, 0, &messages[range].iter().map(message).collect::<Vec<_>>());
    };
    send(0..40);
    env.sql("INSERT INTO db.web SELECT number FROM numbers(40)");
    raw::commit(&env, &[(0, 40, "")]);
    env.sql("ALTER TABLE db.web ADD COLUMN _source LowCardinality(String), ADD COLUMN _partition Int32, ADD COLUMN _offset Int64, \
             ADD COLUMN ingested_at DateTime64(3, 'UTC') DEFAULT nowInBlock64(3, 'UTC')");
    send(40..60);
    env.ingest(&["--table", "web", "--until-end"]).succeeds();
    assert_eq!(env.rows("SELECT count(), uniqExact(id) FROM db.web"), [["60", "60"]]);
    let mut audit = env.run("audit", &["--table", "web"]);
    audit.succeeds();
    assert!(audit.stdout().contains("not compared: offsets before 40"), "{}", audit.stdout());
}

/// The insert's conditions ask tables with columns of these names, and a DEFAULT may use a column that the server computes.
#[test]
fn no_columns_name_disturbs_an_insert_and_a_default_may_use_any_column() {
    let env = TestEnv::open();
    env.sql(&format!(
        "CREATE TABLE db.web (source UInt8, role UInt8, partition UInt8, newest UInt8, lease UInt8, name UInt8, database UInt8 DEFAULT 9, \
         m UInt8 MATERIALIZED source + 1, a UInt8 ALIAS role + 2, of_m UInt8 DEFAULT m * 2, of_a UInt8 DEFAULT a, \
         late UInt8 DEFAULT ingested_at > toDateTime(0), value_1 UInt8 MATERIALIZED 7, of_value UInt8 DEFAULT value_1, {POSITIONS}"
    ));
    let message = r#"{"source":1,"role":2,"partition":3,"newest":4,"lease":5,"name":6}"#;
    env.kafka.send(&env.topic, &[("key", message), ("key", message)]);
    env.ingest(&["--table", "web", "--until-end"]).succeeds();
    let row =
        "SELECT source, role, partition, newest, lease, name, database, m, a, of_m, of_a, late, of_value FROM db.web";
    let expected = ["1", "2", "3", "4", "5", "6", "9", "2", "4", "4", "4", "1", "7"];
    assert_eq!(env.rows(row), [expected, expected], "{:?}", env.rows("SELECT detail FROM db.rejected"));
}
