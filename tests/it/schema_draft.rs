//! `schema` drafts a table from a topic, `setup` applies it, and `ingest` fills it with all that it was drafted from.

use crate::support::WAIT_TIMEOUT;
use crate::support::kafka::Kafka;
use crate::support::test_env::TestEnv;
use std::fs;

/// Messages with an object.
const GOOD: u32 = 300;

/// Messages that no table takes.
const BAD: [&str; 4] = ["not json", "[1]", "", r#"{"id":1"#];

/// An event as other people's programs write it: what is optional, varies, grows, or has an odd name.
fn event(nth: u32) -> String {
    let mut fields = vec![
        format!(r#""id":"5b0e4d5e-8f63-4b3f-9b39-{nth:012x}""#),
        format!(r#""created_at":{}"#, 1_705_329_000_123_u64 + u64::from(nth)),
        format!(r#""received":"2024-01-15T14:30:{:02}.{:06}+01:00""#, nth % 60, nth),
        format!(r#""kind":"{}""#, ["page_view", "add_to_cart", "покупка"][nth as usize % 3]),
        format!(r#""unit_price":{}.{:02}"#, nth * 7, nth % 100),
        format!(r#""big":{}"#, 18_446_744_073_709_551_000_u64 + u64::from(nth)),
        format!(r#""huge":-1701411834604692317316873037158841{nth:05}"#),
        format!(r#""geo":{{"country":"{}","pos":{{"lat":{}.5,"at":null}}}}"#, ["de", "fr"][nth as usize % 2], nth % 90),
        format!(r#""props":{{"k{nth}":{nth},"nested":{{"list":[1,"x",{{"y":null}}]}}}}"#),
        format!(r#""items":[{{"sku":"s{nth}","n":1}},{{"gift":true}}]"#),
        format!(r#""ids":[{nth},null]"#),
        format!(r#""user agent":"Mozilla/5.0 \"{nth}\" \u00e9\ud83d\ude00""#),
        format!(r#""a`b\\c":{nth}"#),
        format!(r#""page.url":"/p/{nth}?q=1""#),
        format!(r#""ключ":{}"#, nth.is_multiple_of(2)),
        format!(r#""_offset":{nth}"#),
        format!(r#""client_ip":"10.0.{}.{}""#, nth / 256, nth % 256),
        format!(r#""born":"19{:02}-02-28""#, nth % 100),
    ];
    let varies = [r#""text""#, "7", r#"{"a": [1]}"#, "null", "true", "[]"];
    fields.push(format!(r#""varies":{}"#, varies[nth as usize % varies.len()]));
    if nth.is_multiple_of(3) {
        fields.push(format!(r#""tags":["a","b{}"],"referrer":"r{nth}","score":{nth}.25e-1"#, nth % 2));
    }
    if nth == 7 {
        fields.push(r#""half":"\ud800","twice":1,"twice":2,"doubled":{"a":1,"a":2}"#.to_owned());
    }
    format!("{{{}}}", fields.join(", "))
}

/// Columns as text, with their values for an event.
type Expected = (&'static str, fn(u32) -> String);

const EXPECTED: [Expected; 26] = [
    ("toString(id)", |nth| format!("5b0e4d5e-8f63-4b3f-9b39-{nth:012x}")),
    ("toUnixTimestamp64Milli(created_at)", |nth| (1_705_329_000_123 + u64::from(nth)).to_string()),
    ("toString(received)", |nth| format!("2024-01-15 13:30:{:02}.{nth:06}", nth % 60)),
    ("kind", |nth| ["page_view", "add_to_cart", "покупка"][nth as usize % 3].to_owned()),
    ("toString(unit_price)", |nth| {
        let price = format!("{}.{:02}", nth * 7, nth % 100);
        price.trim_end_matches('0').trim_end_matches('.').to_owned()
    }),
    ("toString(big)", |nth| (18_446_744_073_709_551_000 + u64::from(nth)).to_string()),
    ("toString(huge)", |nth| format!("-1701411834604692317316873037158841{nth:05}")),
    ("geo.country", |nth| ["de", "fr"][nth as usize % 2].to_owned()),
    ("toString(geo.pos.lat)", |nth| format!("{}.5", nth % 90)),
    ("toString(geo.pos.at IS NULL)", |_| "1".to_owned()),
    ("replaceAll(toString(geo), '\"', '')", |nth| {
        format!("{{country:{},pos:{{lat:{}.5}}}}", ["de", "fr"][nth as usize % 2], nth % 90)
    }),
    ("replaceAll(toString(props), '\"', '')", |nth| format!("{{k{nth}:{nth},nested:{{list:[1,x,{{}}]}}}}")),
    ("replaceAll(toString(items[1]), '\"', '')", |nth| format!("{{n:1,sku:s{nth}}}")),
    ("replaceAll(toString(items[2]), '\"', '')", |_| "{gift:true}".to_owned()),
    ("toString(ids)", |nth| format!("[{nth},NULL]")),
    ("`user agent`", |nth| format!("Mozilla/5.0 \"{nth}\" \u{e9}\u{1f600}")),
    ("toString(`a\\`b\\\\c`)", |nth| nth.to_string()),
    ("page.url", |nth| format!("/p/{nth}?q=1")),
    ("toString(`ключ`)", |nth| (nth.is_multiple_of(2)).to_string()),
    ("toString(client_ip)", |nth| format!("10.0.{}.{}", nth / 256, nth % 256)),
    ("toString(born)", |nth| format!("19{:02}-02-28", nth % 100)),
    ("ifNull(varies, 'NULL')", |nth| ["text", "7", r#"{"a": [1]}"#, "NULL", "true", "[]"][nth as usize % 6].to_owned()),
    ("concat(arrayStringConcat(tags, '+'), ' ', ifNull(referrer, '-'))", |nth| {
        if nth.is_multiple_of(3) { format!("a+b{} r{nth}", nth % 2) } else { " -".to_owned() }
    }),
    ("ifNull(toString(score), '-')", |nth| {
        let score = format!("{nth}.25e-1").parse::<f64>().expect("a number");
        if nth.is_multiple_of(3) { score.to_string() } else { "-".to_owned() }
    }),
    ("replaceAll(_unknown, '\\\\', '')", |nth| {
        let more = if nth == 7 { r#","half":"ud800","twice":1,"twice":2"# } else { "" };
        format!("{{\"_offset\":{nth}{more}}}")
    }),
    ("ifNull(doubled, '-')", |nth| if nth == 7 { r#"{"a":1,"a":2}"# } else { "-" }.to_owned()),
];

#[test]
fn a_table_drafted_from_a_topic_takes_all_that_it_was_drafted_from() {
    let env = TestEnv::open();
    let events: Vec<_> = (0..GOOD).map(event).collect();
    let keys: Vec<_> = (0..GOOD).map(|nth| format!("k{nth}")).collect();
    let messages: Vec<_> = keys.iter().map(String::as_str).zip(events.iter().map(String::as_str)).collect();
    env.kafka.send(&env.topic, &messages);
    env.kafka.send(&env.topic, &BAD.map(|payload| ("key", payload)));

    let draft = |more: &[&str]| {
        let topic = ["--from-topic", &env.topic, "--table", "web"];
        let mut schema = env.run_with("schema", &[&topic, more].concat(), &[("CLICKSTREAM_TOPIC", "another")]);
        (schema.exit_code(WAIT_TIMEOUT), schema.stdout(), schema.stderr())
    };
    let (code, sql, said) = draft(&[]);
    assert_eq!(code, Some(0), "{said}");
    for line in [
        "304 of 3 partitions were read. 4 are not a JSON object",
        &format!("--   clickstream ingest --topic {} --table web --time 'created_at'", env.topic),
        "-- 33.3 % of 300 messages",
        "twice in 1 message, which a column (Nullable(Int64)) rejects",
    ] {
        assert!(sql.contains(line), "{line}: {sql}");
    }
    assert!(draft(&["--sample", "60"]).1.contains(": 60 of 3 partitions were read"));
    let file = env.file("web.sql");
    let path = file.to_str().expect("plain names");
    assert_eq!(draft(&["-o", path]).0, Some(0));
    assert_eq!(
        fs::read_to_string(&file).expect("the draft").lines().skip(5).collect::<Vec<_>>(),
        sql.lines().skip(5).collect::<Vec<_>>()
    );
    let (code, _, said) = draft(&["-o", path]);
    assert!(code == Some(1) && said.contains("exists already"), "it is not overwritten: {said}");
    let group = Kafka::new(&env.kafka.brokers, "clickstream-schema", env.kafka.partitions);
    assert_eq!(group.committed(&env.topic).expect("the coordinator answers").len(), 0, "nothing is committed");

    // The draft is to be changed: here, by a column that keeps the whole object beside its fields.
    fs::write(&file, sql.replace("    _unknown", "    geo JSON,\n    _unknown")).expect("a file of ours");
    for _ in 0..2 {
        env.run("setup", &["--table", "web", "--schema", path]).succeeds();
    }
    let mut ingester = env.ingest(&["--table", "web", "--time", "created_at", "--until-end"]);
    ingester.succeeds();
    let rejected = env.rows("SELECT payload, detail FROM db.rejected");
    assert!(rejected.len() == BAD.len() && rejected.iter().all(|row| BAD.contains(&row[0].as_str())), "{rejected:?}");
    assert_eq!(ingester.closing().events, u64::from(GOOD));
    env.run("audit", &["--table", "web"]).succeeds();
    for (column, expected) in EXPECTED {
        let found = env.rows(&format!("SELECT {column} FROM db.web ORDER BY id")).concat();
        assert_eq!(found, (0..GOOD).map(expected).collect::<Vec<_>>(), "{column}\n{sql}");
    }
}

#[test]
fn a_file_whose_statement_fails_is_named_with_the_line_and_the_reason() {
    let env = TestEnv::open();
    let file = env.file("web.sql");
    let path = file.to_str().expect("plain names");
    let setup = |sql: &str| {
        fs::write(&file, sql).expect("a file of ours");
        let mut setup = env.run("setup", &["--table", "web", "--schema", path]);
        (setup.exit_code(WAIT_TIMEOUT), setup.stderr())
    };
    for (sql, says) in [
        ("-- nothing;", "has no statement"),
        ("SELECT 1;\nCREATE TABLE web (x Strin) ENGINE = Null", "statement 2 of 2 in "),
        (
            "SELECT 1;\nCREATE TABLE web (x Strin) ENGINE = Null",
            "at line 2 (CREATE TABLE web (x Strin) ENGINE = Null): ",
        ),
        ("SELECT 1", "web is missing"),
        ("CREATE TABLE IF NOT EXISTS web (x String) ENGINE = MergeTree ORDER BY x", "ADD COLUMN _source"),
    ] {
        let (code, said) = setup(sql);
        assert!(code == Some(1) && said.contains(says), "{sql}: {said}");
    }
    let mut empty = env.run("schema", &["--from-topic", &env.topic]);
    assert_eq!(empty.exit_code(WAIT_TIMEOUT), Some(1));
    assert!(empty.stderr().contains("none of the 0 messages"), "{}", empty.stderr());
}
